"""A source whose pages another parser than the usual one reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gpt3.corpus.documents import Part, Source
from gpt3.corpus.page_parser import parsed_by
from gpt3.curation.stages import digest


@dataclass(frozen=True)
class ParsedPart(Part):
    """A part, its pages by a parser."""

    name: str
    size: int | None
    part: Part
    parser: str

    def documents(self) -> Iterator[str]:
        """Yield them in order."""
        texts = self.part.documents()
        while True:
            with parsed_by(self.parser):  # while it reads, but not while others do
                text = next(texts, None)
            if text is None:
                return
            yield text


@dataclass(frozen=True)
class ParsedSource(Source):
    """A source, its pages by a parser of `gpt3.corpus.page_parser.PARSERS`."""

    name: str
    inner: Source
    parser: str

    def parts(self) -> list[Part]:
        """The source's own."""
        return [ParsedPart(part.name, part.size, part, self.parser) for part in self.inner.parts()]

    def fingerprint(self) -> str:
        """Of the source and the parser."""
        return digest({"inner": self.inner.fingerprint(), "html": self.parser})

    def describe(self) -> dict[str, Any]:
        """The source's, with the parser."""
        return {**self.inner.describe(), "html": self.parser}
