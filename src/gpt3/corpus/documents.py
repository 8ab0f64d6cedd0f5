"""What every source of text looks like from outside: a `Source` of `Part`s of documents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gpt3.corpus.skipped import take
from gpt3.errors import InputError

PART_BYTES = 64 * 1024 * 1024
"""Large files are cut into parts of about this many bytes, so that worker processes share them."""


def not_blank(texts: Iterable[str | None]) -> Iterator[str]:
    """The texts without nulls, empty ones and those of white space alone, which are no documents."""
    return (text for text in texts if text and not text.isspace())


class Part(ABC):
    """A piece of a source that one worker reads from its beginning to its end. Picklable.

    Attributes:
        name: what progress and error messages call it.
        size: bytes of uncompressed text; an estimate for compressed files, None if nothing is known.
    """

    name: str
    size: int | None

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """Yield the documents' texts in a fixed order, none of them empty or blank (see `not_blank`)."""

    def read(self, start: int = 0) -> Iterator[str]:
        """Yield the documents but for the first `start`.

        Raises:
            InputError: the text cannot be read; one line names the file and the place.
        """
        documents = self.documents()
        for _ in range(start):
            if next(documents, None) is None:
                return
        if start:
            take()  # what was skipped before
        yield from documents


def total_size(parts: Sequence[Part]) -> int | None:
    """Bytes of text in all parts together; None if that is not known of every part."""
    sizes = [part.size for part in parts]
    return None if None in sizes else sum(size or 0 for size in sizes)


class Source(ABC):
    """One thing that `--data` names: the embedded corpus, some files, a dataset of the Hub. Picklable.

    Attributes:
        name: the name or path given.
    """

    name: str

    @abstractmethod
    def parts(self) -> list[Part]:
        """The parts in reading order; the same list every time while the source's content stays the same."""

    def check(self) -> None:
        """Read up to the first document, so that an unreadable source is reported before the work begins.

        Raises:
            InputError: there is no document, or the first one cannot be read.
        """
        if not any(next(part.documents(), None) is not None for part in self.parts()):
            raise InputError(f"{self.name}: no documents in it, only empty texts")

    @abstractmethod
    def fingerprint(self) -> str:
        """A sha256 in hex that changes when the content may have changed (paths, sizes, times; a dataset's revision)."""

    def size_bytes(self) -> int | None:
        """Bytes of uncompressed text, estimated for compressed files; None if nothing is known."""
        return total_size(self.parts())

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the manifest of the shards keeps, ready for JSON: kind, spec, licence and what else is known."""
