"""Data sets by name: ``wiki-qa``, made from the embedded Wikipedia articles, and a table of data sets of the hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gpt3.corpus.options import KEYS, PrepareOptions
from gpt3.corpus.segments import document_key
from gpt3.corpus.wiki import Article, articles, document
from gpt3.finetuning.conversations import Conversation
from gpt3.tokenizer.chat_template import Message

Row = Mapping[str, Any]

WIKI_QA = "wiki-qa"
WIKI_QA_LICENCE = "CC BY-SA 4.0 (text of Wikipedia)"
UNCATEGORIZED = "Uncategorized"
LONGEST_SENTENCE = 160
"""Characters of a first sentence above which an article gives no question about it: seven in ten are shorter. A model learns to
end an answer from answers that end well within its context."""
SENTENCE = re.compile(r".+?[a-z0-9)\]”\"'][.!?](?=\s+[A-Z]|\s*$)", re.DOTALL)
QUESTIONS: dict[str, tuple[str, ...]] = {
    "what": ("What is {title}?", "Tell me about {title}.", "Explain what {title} is.", "{title}: what is it?"),
    "who": ("Who is {title}?", "Who was {title}?", "Tell me about {title}.", "What do you know about {title}?"),
    "topic": ("Which topic does {title} belong to?", "{title} belongs to which topic?", "Name the topic of {title}."),
    "described topic": (
        "Which topic does {title} ({description}) belong to?",
        "{title} is described as: {description}. Which topic is that?",
    ),
    "quoted topic": ("Which topic does this belong to? {sentence}", "{sentence} Which topic is that?"),
    "describe": (
        "Describe {title} in one sentence.",
        "Give a short description of {title}.",
        "In a few words, what is {title}?",
    ),
    "title": ("What is described as: {description}?", "Which article has this description: {description}?"),
}


def wiki_questions() -> Iterator[Conversation]:
    """Up to seven questions per article, in the order of the titles. All questions of an article are held out together.

    Articles that `gpt3 train` validates on by default give none: their texts are still unseen after fine-tuning.
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
    """One question. Its wording depends on kind and title only; `turn` 1 takes the next wording."""
    wordings = QUESTIONS[kind]
    digest = hashlib.sha256(f"{kind}\n{article.title}".encode()).digest()
    question = wordings[(digest[0] + turn) % len(wordings)].format(
        title=article.title, description=article.description.rstrip("."), sentence=first_sentence(article.text)
    )
    return Conversation((Message("user", question), Message("assistant", answer)), group=article.title)


def first_sentence(text: str) -> str | None:
    """The first sentence of a lead text; None where it is none or too long."""
    match = SENTENCE.match(text.partition("\n")[0].strip())
    return match[0] if match and len(match[0]) <= LONGEST_SENTENCE else None


@dataclass(frozen=True)
class DataSet:
    """A data set of the hub."""

    repository: str
    licence: str
    """As its card states it."""
    split: str = "train"
    convert: Callable[[Iterable[Row]], Iterable[Row]] = iter
    """Selects rows, or makes rows of a known shape out of rows of another."""


def helpful(rows: Iterable[Row]) -> Iterable[Row]:
    """HelpSteer2 rates answers from 0 to 4; those of 3 and more are taken."""
    return (row for row in rows if (row.get("helpfulness") or 0) >= 3)


def best_threads(rows: Iterable[Row]) -> Iterator[Row]:
    """OpenAssistant's trees of messages as conversations: from each root down, always the best-ranked reply.

    Where a question in the middle has no rank, the one that came first. Deleted messages and replies to them are left out.
    """
    children: dict[Any, list[Row]] = {}
    for row in rows:
        if not row.get("deleted"):
            children.setdefault(row.get("parent_id"), []).append(row)
    for root in children.get(None, []):
        thread = [root]
        while replies := children.get(thread[-1]["message_id"]):
            thread.append(min(replies, key=lambda reply: 0 if reply.get("rank") is None else reply["rank"]))
        if any(message["role"] == "assistant" for message in thread):
            yield {"messages": [{"role": message["role"], "content": message["text"]} for message in thread]}


CATALOGUE: dict[str, DataSet] = {
    "helpsteer": DataSet("nvidia/HelpSteer2", "CC BY 4.0", convert=helpful),
    "no_robots": DataSet("HuggingFaceH4/no_robots", "CC BY-NC 4.0"),
    "dolly": DataSet("databricks/databricks-dolly-15k", "CC BY-SA 3.0"),
    "alpaca-cleaned": DataSet("yahma/alpaca-cleaned", "CC BY 4.0"),
    "lima": DataSet("GAIR/lima", "CC BY-NC-SA"),
    "oasst2": DataSet("OpenAssistant/oasst2", "Apache 2.0", convert=best_threads),
    "ultrachat": DataSet("HuggingFaceH4/ultrachat_200k", "MIT", split="train_sft"),
    "slimorca": DataSet("Open-Orca/SlimOrca", "MIT"),
    "openhermes": DataSet("teknium/OpenHermes-2.5", "not stated"),
    "hh-rlhf": DataSet("Anthropic/hh-rlhf", "MIT"),
}
"""Names that --data takes, besides wiki-qa, files and hf:OWNER/NAME. docs/finetune.md has a line on each."""
