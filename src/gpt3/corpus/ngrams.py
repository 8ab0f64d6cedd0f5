"""Word N-grams of some texts, found in any amount of other text, exactly: an index of hashes, each hit compared word by word.

The other text is streamed past the index once, in this process or in several; hits are counted by document.

A word is a longest run of characters that are neither white space nor punctuation nor symbols, in lower case. Punctuation parts
words: only so does symbol insertion ("s.u!c/c!e.s") have the N = 7 of the paper's Table C.1. (Brown et al. 2020, App. C)
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt3.corpus.documents import Part, total_size
from gpt3.corpus.pool import Report, share
from gpt3.progress import Progress

Array = np.ndarray[Any, Any]

TABLE_SIZE = 0x20000
"""Unicode has no punctuation, symbol or white space from here on."""
BITS_PER_GRAM = 16
"""Of the filter that spares most words a look-up in the table: one in sixteen passes by chance."""


@functools.lru_cache(maxsize=1)
def word_characters() -> Array:
    """(TABLE_SIZE,) uint8: 1 for a character that belongs to words."""
    characters = map(chr, range(TABLE_SIZE))
    return np.array([not c.isspace() and unicodedata.category(c)[0] not in "PS" for c in characters], dtype=np.uint8)


def code_points(text: str) -> Array:
    """Lower case, one to one with the characters of `text`: (characters,) uint32. İ alone would become two, and is i."""
    lowered = text.replace("İ", "i").lower()
    return np.frombuffer(lowered.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def words(text: str) -> list[str]:
    """The words of a text as its N-grams have them."""
    from gpt3.corpus.ngram_kernels import cut_words

    points = code_points(text)
    _, starts, stops = cut_words(points, word_characters(), 0)
    lowered = points.tobytes().decode("utf-32-le", "surrogatepass")
    return [lowered[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]


@dataclass(frozen=True)
class NgramIndex:
    """The different N-grams of some texts, in arrays that processes can share; `NgramIndex.of` makes it."""

    lengths: Array
    """(lengths,) int64, rising: the lengths in words that occur."""
    seed: int
    """Of the hashes."""
    points: Array
    """uint32: the texts' words with one space between, texts one after the other."""
    place: Array
    """(grams,) int64: where in `points` each gram first begins."""
    size: Array
    """(grams,) int64: its words."""
    offsets: Array
    """(grams + 1,) int64: where the gram's owners begin in `owners`."""
    owners: Array
    """int64: numbers of the texts that hold the gram."""
    filter: Array
    """(power of two,) uint8: bits by hash."""
    keys: Array
    """(power of two,) uint64: open addressing by hash."""
    values: Array
    """(power of two,) int32: the gram's number, -1 where the slot is free."""

    @classmethod
    def of(cls, texts: Iterable[tuple[str, int]]) -> NgramIndex:
        """Index texts, each with the length of its grams in words; texts shorter than that have none, nor those of length 0."""
        listed = list(texts)
        tries = (_build(listed, seed) for seed in itertools.count())
        # None: two grams have one hash, some 1e-6 likely for a million grams
        return next(made for made in tries if made is not None)

    def __len__(self) -> int:
        """Different grams."""
        return len(self.place)

    @property
    def nbytes(self) -> int:
        """Memory of all arrays."""
        return sum(np.asarray(getattr(self, field.name)).nbytes for field in dataclasses.fields(self))

    @functools.cached_property
    def _spaces(self) -> Array:
        return np.flatnonzero(self.points == ord(" "))

    def gram(self, number: int) -> str:
        """The words of a gram, a space between."""
        start = self.place[number]
        stop = self._spaces[np.searchsorted(self._spaces, start) + self.size[number] - 1]
        return self.points[start:stop].tobytes().decode("utf-32-le", "surrogatepass")

    def texts_with(self, number: int) -> list[int]:
        """The numbers of the texts that hold a gram, rising."""
        return [int(owner) for owner in self.owners[self.offsets[number] : self.offsets[number + 1]]]

    def find(self, text: str) -> tuple[Array, Array, Array]:
        """All places in `text` where a gram of the index occurs.

        Returns:
            (hits,) each, int64: the gram's number; its first character in `text`; the character after its last.
        """
        from gpt3.corpus.ngram_kernels import cut_words, look_up

        points = code_points(text)
        hashes, starts, stops = cut_words(points, word_characters(), self.seed)
        room = 256
        while True:
            found = np.empty((3, room), dtype=np.int64)
            count = look_up(
                points, hashes, starts, stops, self.lengths, self.filter, self.keys, self.values,
                self.points, self.place, self.size, found,
            )  # fmt: skip
            if count <= room:
                return found[0, :count], found[1, :count], found[2, :count]
            room = count

    def save(self, folder: Path) -> None:
        """Write the arrays into `folder`, one file each, for other processes to map."""
        for field in dataclasses.fields(self):
            np.save(folder / f"{field.name}.npy", np.asarray(getattr(self, field.name)))

    @classmethod
    def load(cls, folder: Path) -> NgramIndex:
        """Map what `save` wrote; processes share the memory."""
        names = [field.name for field in dataclasses.fields(cls)]
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
        plain: dict[str, Any] = {name: np.asarray(each) for name, each in arrays.items()}  # for the compiled loops
        return cls(**plain | {"seed": int(plain["seed"])})


OCCURRENCE = np.dtype([("key", "u8"), ("check", "u8"), ("place", "i8"), ("size", "i8"), ("owner", "i8")])
"""A gram in a text: its hash, its hash by another seed, and as in `NgramIndex`."""


def _build(texts: Sequence[tuple[str, int]], seed: int) -> NgramIndex | None:
    """The index; None where two grams share a hash."""
    from gpt3.corpus.ngram_kernels import cut_words, fill, gram_hashes

    table = word_characters()
    grams, blobs = [np.zeros(0, OCCURRENCE)], [np.zeros(0, np.uint32)]
    length = 0
    for number, (text, size) in enumerate(texts):
        normal = code_points(" ".join(words(text)) + " ")
        hashes, starts, _ = cut_words(normal, table, seed)
        if not 0 < size <= len(hashes):
            continue
        second, _, _ = cut_words(normal, table, seed + 1_000_003)
        mine = np.zeros(len(hashes) - size + 1, OCCURRENCE)
        mine["key"], mine["check"] = gram_hashes(hashes, size), gram_hashes(second, size)
        mine["place"] = length + starts[: len(mine)]
        mine["size"], mine["owner"] = size, number
        grams.append(mine)
        blobs.append(normal)
        length += len(normal)
    every = np.concatenate(grams)
    unique, first, gram_of = np.unique(every["key"], return_index=True, return_inverse=True)
    if (every["check"] != every["check"][first[gram_of]]).any():
        return None
    pairs = np.unique(gram_of.astype(np.int64) * len(texts) + every["owner"])
    gram, owners = np.divmod(pairs, max(1, len(texts)))
    slots = 1 << max(4, (2 * len(unique)).bit_length())
    made = NgramIndex(
        lengths=np.unique(every["size"]),
        seed=seed,
        points=np.concatenate(blobs),
        place=every["place"][first],
        size=every["size"][first],
        offsets=np.concatenate([[0], np.cumsum(np.bincount(gram, minlength=len(unique)))]).astype(np.int64),
        owners=owners,
        filter=np.zeros(max(64, slots * BITS_PER_GRAM // 32), dtype=np.uint8),
        keys=np.zeros(slots, dtype=np.uint64),
        values=np.full(slots, -1, dtype=np.int32),
    )
    fill(unique, made.filter, made.keys, made.values)
    return made


# ---- text streamed past an index

POOL_BYTES = 24 << 20
"""Less text than this is read in this process: starting others takes longer."""
REPORT_BYTES = 1 << 20
SNIPPET = 300
"""Characters kept of a passage found."""


@dataclass
class Sighting:
    """An N-gram that was found."""

    documents: int
    """Documents that hold it."""
    document: str
    """The first of them: the part's name, "#", the document's number in the part from 0."""
    text: str
    """The passage in that document."""


@dataclass
class Found:
    """What a text holds of an index."""

    sightings: dict[int, Sighting] = dataclasses.field(default_factory=dict)
    """By the gram's number in the index."""
    documents: int = 0
    text_bytes: int = 0

    def add(self, other: Found) -> None:
        """Count what the next part of the text holds; of each gram the first sighting is kept."""
        for gram, sighting in other.sightings.items():
            if gram in self.sightings:
                self.sightings[gram].documents += sighting.documents
            else:
                self.sightings[gram] = sighting
        self.documents += other.documents
        self.text_bytes += other.text_bytes


def scan_part(index: NgramIndex, part: Part, report: Report) -> Found:
    """Read one part from beginning to end."""
    found = Found()
    pending = 0
    for text in part.read():
        numbers, starts, stops = index.find(text)
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        here = Found(documents=1, text_bytes=size)
        for gram, place in zip(*np.unique(numbers, return_index=True), strict=True) if len(numbers) else ():
            passage = text[starts[place] : stops[place]][:SNIPPET]
            here.sightings[int(gram)] = Sighting(1, f"{part.name}#{found.documents}", passage)
        found.add(here)
        pending += size
        if pending >= REPORT_BYTES:
            report(pending / 1e6)
            pending = 0
    report(pending / 1e6)
    return found


def scan_parts(
    index: NgramIndex, parts: Sequence[Part], folder: Path, workers: int | Executor, label: str = "reading"
) -> Found:
    """Read all parts once.

    Args:
        folder: an empty one, where the index is saved for the processes to share, unless it is there.
        workers: processes, at most; or an executor.
        label: what the progress is called.

    Raises:
        InputError: a part cannot be read.
        RunError: a process was killed.
    """
    total = total_size(parts)
    if not isinstance(workers, Executor):
        workers = min(workers, len(parts)) if total is None or total > POOL_BYTES else 1
    if workers != 1 and not (folder / "points.npy").exists():
        index.save(folder)
    found = Found()
    with Progress(label, total / 1e6 if total else None, "MB") as progress:
        place = index if workers == 1 else folder
        for part in share(_scanner, (place,), parts, workers, progress, "give fewer --workers"):
            found.add(part)
    return found


def _scanner(place: Path | NgramIndex, report: Report) -> Callable[[Part], Found]:
    """What a process does with a part: finds the index's grams, or those of the index saved in a folder."""
    index = NgramIndex.load(place) if isinstance(place, Path) else place
    return lambda part: scan_part(index, part, report)
