"""`wiki-topic`: which of eleven topics an article is about, from the embedded corpus. Ours, not the paper's.

The question is the beginning of an article's lead text; the options are the topics that Wikipedia's editors filed it under. A
model pretrained on the embedded corpus has read the texts, but not the topics: they are in no document.
"""

from __future__ import annotations

import random

from gpt3.evaluation.items import Item, Source, Split, Task

EXAMPLES = 1000
CHARACTERS = 80
"""Of an article that are shown, up to the end of a word."""


def split(source: Source) -> Split:
    """A thousand articles to ask about, in an order that the seed gives; the others are for demonstrations."""
    from gpt3.corpus.wiki import articles

    filed = [article for article in articles() if article.topic != "Uncategorized"]
    topics = sorted({article.topic for article in filed})
    random.Random(f"{source.seed}/wiki-topic").shuffle(filed)
    options = tuple(f" {topic}" for topic in topics)
    items = [
        Item(f"{beginning(article.text)}\nTopic:", options, topics.index(article.topic), id=article.title)
        for article in filed
    ]
    return Split(items[:EXAMPLES], items[EXAMPLES:])


def beginning(text: str) -> str:
    """The first words of a text, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= CHARACTERS else line[:CHARACTERS].rsplit(" ", 1)[0] + " …"


WIKI_TOPIC = Task(
    "wiki-topic",
    "the topic of an encyclopedia's article",
    "choice",
    split,
    shots=8,
    normalization="token",
    chance=1 / 11,
)
