"""A share of a source's documents, chosen by a hash of their text: to try a recipe on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gpt3.corpus.documents import Part, Source
from gpt3.corpus.segments import document_key
from gpt3.curation.stages import digest


@dataclass(frozen=True)
class SampledPart(Part):
    """The documents of a part whose hash is low."""

    name: str
    size: int | None
    part: Part
    share: float

    def documents(self) -> Iterator[str]:
        """Yield them in order."""
        below = int(self.share * 2**64)
        for text in self.part.documents():
            if int.from_bytes(document_key(text.encode("utf-8")), "big") < below:
                yield text


@dataclass(frozen=True)
class SampledSource(Source):
    """A share of a source. Equal texts are in it together or not at all."""

    name: str
    inner: Source
    share: float

    def parts(self) -> list[Part]:
        """The source's own, sampled."""
        sizes = [(part, None if part.size is None else int(part.size * self.share)) for part in self.inner.parts()]
        return [SampledPart(part.name, size, part, self.share) for part, size in sizes]

    def fingerprint(self) -> str:
        """Of the source and the share."""
        return digest({"inner": self.inner.fingerprint(), "share": self.share})

    def describe(self) -> dict[str, Any]:
        """The source's, with the share."""
        return {**self.inner.describe(), "sample": self.share}
