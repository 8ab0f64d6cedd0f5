"""A slice of a source: ``SOURCE@500`` documents, ``@20M`` tokens, ``@100MB`` of text; ``@500~`` drawn at random.

A slice is the beginning of its source, up to the document that reaches the amount. With ``~``, as much is drawn without
replacement from the whole source, by a hash of each document's number and text, and kept in the source's order; the source is
read once more for it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gpt3.corpus.documents import Part, Source
from gpt3.durable import replacing
from gpt3.errors import InputError
from gpt3.progress import say
from gpt3.tokenizer.encoder import Encoder
from gpt3.tokenizer.loading import load_tokenizer

Unit = Literal["documents", "tokens", "bytes"]
SCALES = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
PATTERN = re.compile(r"(?P<source>.+)@(?P<amount>\d+(?:\.\d+)?)(?P<unit>[A-Za-z]*)(?P<drawn>~?)")
HOW = "write @500 for documents, @20M for tokens, @100MB for text, and ~ after it for a random choice"


@dataclass(frozen=True)
class Slice:
    """How much of a source."""

    amount: int
    """Documents, tokens (end-of-text included) or UTF-8 bytes of text."""
    unit: Unit
    """What is counted."""
    drawn: bool
    """Whether the documents are drawn from the whole source, not taken from its beginning."""

    def __str__(self) -> str:
        return f"{self.amount:,} {self.unit}{' drawn at random' if self.drawn else ''}"


def sliced(name: str, open_whole: Callable[[str], Source], tokenizer: str | None) -> Source:
    """The source that `name` means, whole or a slice.

    Args:
        open_whole: opens a name without a slice.
        tokenizer: name or folder of what counts tokens, where it is known.

    Raises:
        InputError: see `split_slice`; a slice in tokens where no tokenizer is known.
    """
    whole, part = split_slice(name)
    if part is None:
        return open_whole(name)
    if part.unit == "tokens" and tokenizer is None:
        raise InputError(f"{name}: no tokenizer is known yet to count tokens; give documents (@500) or text (@100MB)")
    return SlicedSource(name, open_whole(whole), part, tokenizer if part.unit == "tokens" else None)


def split_slice(name: str) -> tuple[str, Slice | None]:
    """A name as given, without its slice, and the slice; None where it has none. A path that really ends so is a path.

    Raises:
        InputError: a slice of nothing, or of an unknown unit.
    """
    match = PATTERN.fullmatch(name)
    if match is None or os.path.lexists(Path(name).expanduser()):
        return name, None
    unit, scale = match["unit"], 1.0
    kind: Unit = "documents" if not unit else "tokens"
    if len(unit) == 2 and unit[1] == "B" and unit[0] in "kKMGT":
        kind, unit = "bytes", unit[0]
    if unit:
        if unit not in SCALES:
            raise InputError(f"{name}: {match['unit']!r} is no unit of a slice; {HOW}")
        scale = SCALES[unit]
    amount = math.floor(float(match["amount"]) * scale + 0.5)
    if amount < 1:
        raise InputError(f"{name}: a slice of nothing; {HOW}")
    return match["source"], Slice(amount, kind, match["drawn"] == "~")


def split_rows(name: str) -> tuple[str, int | None]:
    """A name of rows, for fine-tuning or evaluation, without its slice, and how many rows that has; None: all.

    Raises:
        InputError: see `split_slice`; a slice by tokens, by text or at random, which are for training text.
    """
    whole, part = split_slice(name)
    if part is not None and (part.unit != "documents" or part.drawn):
        raise InputError(f"{name}: a slice of rows is a number of rows, such as @500")
    return whole, None if part is None else part.amount


@dataclass(frozen=True)
class SlicedSource(Source):
    """A slice of another source.

    Attributes:
        inner: the whole source.
        slice: how much of it.
        tokenizer: name or folder of what counts tokens; None for another unit.
    """

    name: str
    inner: Source
    slice: Slice
    tokenizer: str | None

    def check(self) -> None:
        """The whole source's."""
        self.inner.check()

    def parts(self) -> list[Part]:
        """One part: where the slice ends is known only when it has been read so far."""
        size = self.inner.size_bytes()
        if self.slice.unit == "bytes":
            size = self.slice.amount if size is None else min(size, self.slice.amount)
        return [SlicedPart(self.name, size, tuple(self.inner.parts()), self.slice, self.tokenizer)]

    @property
    def label(self) -> str:
        """For the name of a folder: the source's name and the slice, such as ``novels-20M``."""
        name, _, amount = self.name.rpartition("@")
        return f"{Path(name).stem}-{amount.replace('~', '-random')}"

    def fingerprint(self) -> str:
        """Of the whole source and the slice."""
        text = repr((self.inner.fingerprint(), self.slice.amount, self.slice.unit, self.slice.drawn))
        return hashlib.sha256(text.encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """The whole source's, with the slice."""
        return {**self.inner.describe(), "spec": self.name, "slice": str(self.slice)}


@dataclass(frozen=True)
class SlicedPart(Part):
    """The documents of a slice."""

    name: str
    size: int | None
    whole: tuple[Part, ...]
    slice: Slice
    tokenizer: str | None

    def documents(self) -> Iterator[str]:
        """Yield the documents' texts; says so where the source holds fewer."""
        if self.slice.drawn:
            yield from self._drawn()
            return
        left = self.slice.amount
        for text in self._all():
            if left <= 0:
                return
            left -= self._measure(text)
            yield text
        if left > 0:
            say(f"{self.name}: the source ends before {self.slice}; all of it is used")

    def _drawn(self) -> Iterator[str]:
        """Documents of the smallest hashes that together reach the amount."""
        keys, sizes = [], []
        for number, text in enumerate(self._all()):
            digest = hashlib.blake2b(f"{number} {text}".encode(), digest_size=8, person=b"gpt3 slice").digest()
            keys.append(int.from_bytes(digest, "little"))
            sizes.append(self._measure(text))
        order = np.argsort(np.array(keys, dtype=np.uint64), kind="stable")
        reached = np.cumsum(np.array(sizes, dtype=np.int64)[order])
        if not len(reached) or reached[-1] < self.slice.amount:
            say(f"{self.name}: the source holds less than {self.slice}; all of it is used")
        chosen = np.zeros(len(keys), dtype=bool)
        chosen[order[: int(np.searchsorted(reached, self.slice.amount)) + 1]] = True
        yield from (text for text, kept in zip(self._all(), chosen.tolist(), strict=True) if kept)

    def _all(self) -> Iterator[str]:
        for part in self.whole:
            yield from part.documents()

    @cached_property
    def _measure(self) -> Callable[[str], int]:
        """What a text counts."""
        if self.slice.unit == "documents":
            return lambda text: 1
        if self.slice.unit == "bytes":
            return lambda text: len(text.encode("utf-8"))
        encoder = Encoder(load_tokenizer(str(self.tokenizer)), threads=1)
        return lambda text: int(encoder.encode_batch([text])[1][0]) + 1

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_measure"}


# ---- a larger slice uses a smaller one's work


def shared_segments(source: Source, tokenizer_sha256: str) -> str | None:
    """A name for the finished segments that all beginnings of one source have in common; None for any other source."""
    if not isinstance(source, SlicedSource) or source.slice.drawn:
        return None
    return hashlib.sha256(f"{source.inner.fingerprint()} {tokenizer_sha256}".encode()).hexdigest()[:16]


def link_segments(here: Path, there: Path) -> None:
    """Give `there` the segments of `here` that it lacks, but for the last of the slice, which ends where the slice does.

    Files are linked, so that the disk holds them once; copied where it cannot link. A segment's record comes last.
    """
    there.mkdir(parents=True, exist_ok=True)
    for record in sorted(here.glob("*.json")):
        if json.loads(record.read_text(encoding="utf-8"))["last"] or (there / record.name).exists():
            continue
        files = [record.with_suffix(suffix) for suffix in (".tokens", ".documents", ".json")]
        if not all(file.exists() for file in files):  # its tokens are in a shard already
            return
        for file in files:
            with replacing(there / file.name) as temporary:
                try:
                    os.link(file, temporary)
                except OSError:
                    shutil.copyfile(file, temporary)
