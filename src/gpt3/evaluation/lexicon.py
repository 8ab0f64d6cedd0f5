"""SentiWordNet 3.0 (Baccianella, Esuli, Sebastiani 2010), with which the paper measures the sentiment of words (section 6.2.2).

The file is derived from SentiWordNet, CC BY-SA 4.0; examples/sentiment_lexicon.py makes it and has the rules.
"""

from __future__ import annotations

import lzma
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from gpt3.durable import packaged

FILE = Path(__file__).parent / "data" / "sentiwordnet.tsv.xz"
SHA256 = "f27ca764e7088e094368fad967423f5c38781a05e7889b0d3f5c447fe30c4490"


class Word(NamedTuple):
    """What the lexicon has of a word."""

    part: str
    """Its part of speech: a, r, n or v for adjective, adverb, noun or verb."""
    sentiment: float
    """-100 to 100, as the paper scales it."""


@lru_cache(maxsize=1)
def words() -> dict[str, Word]:
    """All words, in lower case. A noun or verb that is not in it has no sentiment.

    Raises:
        InputError: the package's data file is missing or damaged.
    """
    data = packaged(FILE, SHA256, "the lexicon")
    rows = (line.split("\t") for line in lzma.decompress(data).decode().splitlines())
    return {word: Word(part, float(sentiment)) for word, part, sentiment in rows}


def find(word: str) -> Word | None:
    """A word in lower case, with its hyphens or without; None: the lexicon does not have it."""
    return words().get(word) or words().get(word.replace("-", ""))


def sentiment(word: str) -> float:
    """Of a word in lower case; 0 for one that the lexicon does not have."""
    found = find(word)
    return found.sentiment if found else 0.0


def describes(word: str) -> bool:
    """Whether the lexicon has a word in lower case as an adjective or adverb."""
    found = find(word)
    return found is not None and found.part in "ar"
