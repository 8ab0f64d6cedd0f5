"""`wiki-qa`: questions and answers made from the embedded Wikipedia articles, by several templates for each kind of question."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from gpt3.corpus.wiki import Article, articles
from gpt3.finetuning.conversations import Conversation, Message

LICENCE = "CC BY-SA 4.0 (text of Wikipedia)"
UNCATEGORIZED = "Uncategorized"
LONGEST_SENTENCE = 400
"""Characters of a first sentence above which an article gives no question about it."""
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
    """Up to five questions an article, in the order of the titles. All questions of an article are held out together."""
    for article in articles():
        yield from about(article)


def about(article: Article) -> Iterator[Conversation]:
    """The questions that one article answers."""
    name = article.title
    sentence = first_sentence(article.text)
    if sentence is not None:
        yield ask("who" if article.topic == "People" else "what", article, sentence)
    if article.topic != UNCATEGORIZED:
        yield ask("topic", article, f"{name} belongs to {article.topic}.")
    if article.description:
        if article.topic != UNCATEGORIZED:
            yield ask("described topic", article, f"{name} belongs to {article.topic}.")
        description = article.description.rstrip(".")
        yield ask("describe", article, f"{description}.")
        yield ask("title", article, f"{name}.")


def ask(kind: str, article: Article, answer: str) -> Conversation:
    """One question; which of its kind's templates is used depends on kind and title only."""
    templates = QUESTIONS[kind]
    digest = hashlib.sha256(f"{kind}\n{article.title}".encode()).digest()
    question = templates[digest[0] % len(templates)].format(
        title=article.title, description=article.description.rstrip(".")
    )
    messages = (Message("user", question), Message("assistant", answer))
    return Conversation(messages, "wiki-qa", article.title)


def first_sentence(text: str) -> str | None:
    """The first sentence of a lead text; None where it is none or too long."""
    match = SENTENCE.match(text.partition("\n")[0].strip())
    return match[0] if match and len(match[0]) <= LONGEST_SENTENCE else None
