"""What every text source looks like from outside: a `Source` of `Part`s of documents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from gpt3.errors import InputError

PART_BYTES = 64 * 1024 * 1024
"""Large files are cut into parts of at most about this many bytes, so that worker processes share them."""


class RecordError(Exception):
    """A record that cannot be used: `line` is its number in the stream, from 1 (a table's row; 0: all of it); `what` says why.

    Readers of formats raise it; the source that knows the file turns it into an `InputError`.
    """

    def __init__(self, line: int, what: str) -> None:
        super().__init__(line, what)
        self.line = line
        self.what = what


class Part(ABC):
    """A stretch of a source that one worker reads from its beginning to its end. Picklable.

    Attributes:
        name: what progress and error messages call it.
        size: bytes of uncompressed text, an estimate where only that is known, None where not even that is.
    """

    name: str
    size: int | None

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """Yield the documents' texts in a fixed order. None is empty or white space alone."""

    def read(self, start: int = 0) -> Iterator[str]:
        """Yield the documents but for the first `start`.

        Raises:
            InputError: the text cannot be read; one line names the file and the place.
        """
        documents = self.documents()
        for _ in range(start):
            if next(documents, None) is None:
                return
        yield from documents


class Source(ABC):
    """One thing that `--data` names: the embedded corpus, some files, a dataset of the hub. Picklable.

    Attributes:
        name: the name or path it was asked for by.
    """

    name: str

    @abstractmethod
    def parts(self) -> list[Part]:
        """The parts in reading order; the same list every time while the source's content stays."""

    def check(self) -> None:
        """Read up to the first document, so that what cannot be read is said before the work begins.

        Raises:
            InputError: there is no document, or the first one cannot be read.
        """
        if not any(next(part.documents(), None) is not None for part in self.parts()):
            raise InputError(f"{self.name}: no documents in it, only empty texts")

    @abstractmethod
    def fingerprint(self) -> str:
        """A sha256 in hex that changes when the content may have changed (paths, sizes, times; a dataset's revision)."""

    @abstractmethod
    def size_bytes(self) -> int | None:
        """Bytes of uncompressed text, estimated where it must be, or None where nothing is known."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the manifest of the shards keeps, ready for JSON: kind, spec, licence and what else is known."""
