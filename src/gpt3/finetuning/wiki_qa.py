"""`wiki-qa`: questions and answers made from the embedded Wikipedia articles, by several templates for each kind of question."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from gpt3.corpus.hash_folds import KEYS
from gpt3.corpus.prepare import PrepareOptions
from gpt3.corpus.segments import document_key
from gpt3.corpus.wiki import Article, articles, document
from gpt3.finetuning.conversations import Conversation, Message

LICENCE = "CC BY-SA 4.0 (text of Wikipedia)"
UNCATEGORIZED = "Uncategorized"
LONGEST_SENTENCE = 160
"""Characters of a first sentence above which an article gives no question about it: seven in ten are shorter. A model learns to
end an answer from answers that end well within its context."""
SENTENCE = re.compile(r".+?[a-z0-9)\]”\"'][.!?](?=\s+[A-Z]|\s*$)", re.DOTALL)
QUESTIONS: dict[str, tuple[str, ...]] = {
    "what": ("What is {title}?", "Tell me about {title}.", "Explain what {title} is.", "{title}: what is it?"),
    "who": ("Who is {title}?", "Who was {title}?", "Tell me about {title}.", "What do you know about {title}?"),
    "topic": (
        "Which topic does {title} belong to?",
        "{title} belongs to which topic?",
        "Name the topic of {title}.",
    ),
    "described topic": (
        "Which topic does {title} ({description}) belong to?",
        "{title} is described as: {description}. Which topic is that?",
    ),
    "quoted topic": (
        "Which topic does this belong to? {sentence}",
        "{sentence} Which topic is that?",
    ),
    "describe": (
        "Describe {title} in one sentence.",
        "Give a short description of {title}.",
        "In a few words, what is {title}?",
    ),
    "title": (
        "What is described as: {description}?",
        "Which article has this description: {description}?",
    ),
}


def conversations() -> Iterator[Conversation]:
    """Up to seven questions an article, in the order of the titles. All questions of an article are held out together.

    None is about articles that `gpt3 train` validates on, unless told another fraction or fold: their texts are still unseen
    after fine-tuning.
    """
    for article in articles():
        if not is_validation(article):
            yield from about(article)


def is_validation(article: Article) -> bool:
    """Whether `gpt3 train` and `gpt3 prepare` hold the article's text out, by their default fraction."""
    key = int.from_bytes(document_key(document(article).encode()), "little")
    return key < int(PrepareOptions.validation_fraction * KEYS)


def about(article: Article) -> Iterator[Conversation]:
    """The questions that one article answers.

    A topic is asked for in up to four ways and answered by its name alone: the answer's first token then decides, and a small
    model need not copy a title first, which it cannot.
    """
    sentence = first_sentence(article.text)
    description = article.description.rstrip(".")
    if sentence is not None:
        yield ask("who" if article.topic == "People" else "what", article, sentence)
    if article.topic != UNCATEGORIZED:
        topic = f"{article.topic}."
        yield ask("topic", article, topic)
        yield ask("topic", article, topic, 1)
        if description:
            yield ask("described topic", article, topic)
        if sentence is not None:
            yield ask("quoted topic", article, topic)
    if description:
        yield ask("describe", article, f"{description}.")
        yield ask("title", article, f"{article.title}.")


def ask(kind: str, article: Article, answer: str, turn: int = 0) -> Conversation:
    """One question; which of its kind's templates is used depends on kind and title only, and on `turn`, which counts on."""
    templates = QUESTIONS[kind]
    digest = hashlib.sha256(f"{kind}\n{article.title}".encode()).digest()
    question = templates[(digest[0] + turn) % len(templates)].format(
        title=article.title, description=article.description.rstrip("."), sentence=first_sentence(article.text)
    )
    messages = (Message("user", question), Message("assistant", answer))
    return Conversation(messages, "wiki-qa", article.title)


def first_sentence(text: str) -> str | None:
    """The first sentence of a lead text; None where it is none or too long."""
    match = SENTENCE.match(text.partition("\n")[0].strip())
    return match[0] if match and len(match[0]) <= LONGEST_SENTENCE else None
