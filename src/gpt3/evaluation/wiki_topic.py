"""`wiki-topic`: which of eleven topics an article is about, from the embedded corpus. Ours, not the paper's.

The question is the beginning of an article's lead text; the options are the topics that Wikipedia's editors filed it under. A
model pretrained on the embedded corpus has read the texts, but not the topics: they are in no document.

Every topic is asked about as often, so that one answer to everything scores 1/11. Options are compared by P(topic | text) /
P(topic | "…\\nTopic:"), where the answer context is how all questions end: by likelihood alone, whole or per token, a small model
says the same topic, whose words it finds likeliest, to all articles (docs/LOG.md).
"""

from __future__ import annotations

import random

from gpt3.evaluation.items import Item, Source, Split, Task

EXAMPLES, SHOT_EXAMPLES = 90, 160
"""Articles of each topic that are asked about, and that demonstrations are drawn from."""
CHARACTERS = 80
"""Of an article that are shown, up to the end of a word."""


def split(source: Source) -> Split:
    """Articles to ask about, one of each topic in turn, in an order that the seed gives; and others for demonstrations."""
    from gpt3.corpus.wiki import articles

    filed = [article for article in articles() if article.topic != "Uncategorized"]
    topics = sorted({article.topic for article in filed})
    random.Random(f"{source.seed}/wiki-topic").shuffle(filed)
    options = tuple(f" {topic}" for topic in topics)
    items = [
        Item(f"{beginning(article.text)}\nTopic:", options, topics.index(article.topic), id=article.title)
        for article in filed
    ]
    by_topic: list[list[Item]] = [[] for _ in topics]
    for item in items:
        by_topic[item.gold].append(item)
    rounds = list(zip(*(some[: EXAMPLES + SHOT_EXAMPLES] for some in by_topic), strict=False))
    test, shots = ([item for one in part for item in one] for part in (rounds[:EXAMPLES], rounds[EXAMPLES:]))
    return Split(test, shots)


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
    normalization="unconditional",
    answer_context="…\nTopic:",
    chance=1 / 11,
)
