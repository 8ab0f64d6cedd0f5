"""The embedded corpus: the lead texts of Wikipedia's 10,033 vital articles, 4.9 MB, available without a network.

The text is Wikipedia's, CC BY-SA 4.0; examples/wiki_corpus.py makes the file and documents the cleaning.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3.corpus.documents import Part, Source
from gpt3.durable import packaged
from gpt3.errors import InputError

FILE = Path(__file__).parent / "data" / "wiki.jsonl.xz"
SHA256 = "b9ab016c237417c84f6fa963c6540924207ba4af1ac8c19c8715c3b1f47d7f9e"
TEXT_BYTES = 4_882_016
LICENSE = "CC BY-SA 4.0 (text of Wikipedia)"


@dataclass(frozen=True)
class Article:
    """One article of the embedded corpus.

    Attributes:
        title: as in Wikipedia, with its disambiguation, e.g. ``"Mercury (planet)"``.
        description: Wikipedia's short description, e.g. ``"Tower in Paris, France"``; empty for 171 articles.
        topic: one of twelve, e.g. ``"Arts"``; ``"Uncategorized"`` for 1,000 articles.
        text: the lead text, one or more paragraphs, no line ends at its ends.
    """

    title: str
    description: str
    topic: str
    text: str


def articles() -> Iterator[Article]:
    """Yield the articles in the order of their titles (by code points).

    Raises:
        InputError: the package's data file is missing or damaged.
    """
    data = packaged(FILE, SHA256, "the embedded corpus")
    for line in lzma.decompress(data).splitlines():
        yield Article(**json.loads(line))


def document(article: Article) -> str:
    """The text a language model reads of an article: its lead text, nothing else.

    The title does not precede it: nine leads in ten open with it anyway ("The Eiffel Tower is a lattice tower…"). So a
    prompt such as "The Eiffel Tower" is where the model has seen such words, at the start of a document, and it continues
    as a sentence rather than as a headline. Description and topic are labels for tasks, not prose.
    """
    return article.text


@dataclass(frozen=True)
class WikiPart(Part):
    """The whole embedded corpus, which is small enough for one worker."""

    name: str = "wiki"
    size: int | None = TEXT_BYTES

    def documents(self) -> Iterator[str]:
        """As `document` makes them, in the order of the titles."""
        return map(document, articles())


@dataclass(frozen=True)
class WikiSource(Source):
    """The embedded corpus as a source, ``--data wiki``."""

    name: str = "wiki"

    def parts(self) -> list[Part]:
        """One."""
        return [WikiPart()]

    def fingerprint(self) -> str:
        """The data file's own."""
        return SHA256

    def describe(self) -> dict[str, Any]:
        """The data file and its licence."""
        return {"kind": "wiki", "spec": self.name, "files": 1, "licence": LICENSE, "sha256": SHA256}


def open_wiki(name: str, part_bytes: int) -> WikiSource:
    """The source, for the registry; it is one part whatever the size of a part.

    Raises:
        InputError: something follows the name.
    """
    if name != "wiki":
        raise InputError(f"{name}: the embedded corpus has no parts to choose. Use wiki, or ./{name} for a file.")
    return WikiSource()
