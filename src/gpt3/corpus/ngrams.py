"""Word N-grams of some texts, found in any amount of other text, exactly: an index of hashes, each hit compared word by word.

The other text is streamed past the index once, in this process or in several; hits are counted by document.

A word is a longest run of characters that are neither white space nor punctuation nor symbols, in lower case. Punctuation parts
words: only so does symbol insertion ("s.u!c/c!e.s") have the N = 7 of the paper's Table C.1. (Brown et al. 2020, App. C)
"""

from __future__ import annotations

import dataclasses
import functools
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
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
        """Index texts, each with the length of its grams in words; texts shorter than that have none."""
        listed = list(texts)
        seed = 0
        while (made := _build(listed, seed)) is None:  # two grams of one hash: some 1e-6 likely for a million grams
            seed += 1
        return cls(**made)

    def __len__(self) -> int:
        """Different grams."""
        return len(self.place)

    @property
    def nbytes(self) -> int:
        """Memory of all arrays."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))

    def gram(self, number: int) -> str:
        """The words of a gram, a space between."""
        start, left = int(self.place[number]), int(self.size[number])
        stop = start
        while stop < len(self.points):
            if self.points[stop] == 32:
                left -= 1
                if not left:
                    break
            stop += 1
        return self.points[start:stop].tobytes().decode("utf-32-le", "surrogatepass")

    def texts_with(self, number: int) -> list[int]:
        """The numbers of the texts that hold a gram, rising."""
        found: list[int] = self.owners[self.offsets[number] : self.offsets[number + 1]].tolist()
        return found

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
        for name, value in vars(self).items():
            np.save(folder / f"{name}.npy", np.asarray(value))

    @classmethod
    def load(cls, folder: Path) -> NgramIndex:
        """Map what `save` wrote; processes share the memory."""
        names = [field.name for field in dataclasses.fields(cls) if field.name != "seed"]
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
        plain = {name: np.asarray(array) for name, array in arrays.items()}  # the compiled loops know plain arrays
        return cls(seed=int(np.load(folder / "seed.npy")), **plain)


def _build(texts: Sequence[tuple[str, int]], seed: int) -> dict[str, Any] | None:
    """The fields of an index; None where two grams share a hash."""
    from gpt3.corpus.ngram_kernels import cut_words, fill, gram_hashes

    table = word_characters()
    keys, checks, places, sizes, owners, blobs = [], [], [], [], [], []
    length = 0
    for number, (text, size) in enumerate(texts):
        if size < 1:
            raise ValueError(f"N-grams of {size} words")
        normal = code_points(" ".join(words(text)) + " ")
        hashes, starts, _ = cut_words(normal, table, seed)
        if len(hashes) < size:
            continue
        second, _, _ = cut_words(normal, table, seed + 1_000_003)
        keys.append(gram_hashes(hashes, size))
        checks.append(gram_hashes(second, size))
        places.append(length + starts[: len(hashes) - size + 1])
        sizes.append(np.full(len(keys[-1]), size, dtype=np.int64))
        owners.append(np.full(len(keys[-1]), number, dtype=np.int64))
        blobs.append(normal)
        length += len(normal)
    key = np.concatenate([np.zeros(0, np.uint64), *keys])
    check = np.concatenate([np.zeros(0, np.uint64), *checks])
    unique, first, gram_of = np.unique(key, return_index=True, return_inverse=True)
    if (check != check[first[gram_of]]).any():
        return None
    owner = np.concatenate([np.zeros(0, np.int64), *owners])
    pairs = np.divmod(np.unique(gram_of.astype(np.int64) * len(texts) + owner), max(1, len(texts)))
    place, size_of = np.concatenate([np.zeros(0, np.int64), *places]), np.concatenate([np.zeros(0, np.int64), *sizes])
    slots = 1 << max(4, (2 * len(unique)).bit_length())
    made = {
        "lengths": np.unique(size_of),
        "seed": seed,
        "points": np.concatenate([np.zeros(0, np.uint32), *blobs]),
        "place": place[first],
        "size": size_of[first],
        "offsets": np.concatenate([[0], np.cumsum(np.bincount(pairs[0], minlength=len(unique)))]).astype(np.int64),
        "owners": pairs[1],
        "filter": np.zeros(max(64, slots * BITS_PER_GRAM // 32), dtype=np.uint8),
        "keys": np.zeros(slots, dtype=np.uint64),
        "values": np.full(slots, -1, dtype=np.int32),
    }
    fill(unique, made["filter"], made["keys"], made["values"])
    return made


# ---- text streamed past an index

POOL_BYTES = 24 << 20
"""Less text than this is read in this process: starting others takes longer."""
REPORT_BYTES = 1 << 20
SNIPPET = 300
"""Characters kept of a passage found."""


@dataclass(frozen=True)
class Sighting:
    """An N-gram that was found."""

    gram: int
    """Its number in the index."""
    documents: int
    """Documents that hold it."""
    document: str
    """The first of them: the part's name, "#", the document's number in the part from 0."""
    text: str
    """The passage in that document."""


@dataclass(frozen=True)
class Found:
    """What a text holds of an index."""

    sightings: tuple[Sighting, ...]
    """By gram, rising."""
    documents: int
    text_bytes: int
    seconds: float = 0.0
    """That reading took."""


def scan_part(index: NgramIndex, part: Part, report: Report) -> Found:
    """Read one part from beginning to end."""
    seen: dict[int, list[int | str]] = {}
    documents = total = pending = 0
    for text in part.read():
        numbers, starts, stops = index.find(text)
        if len(numbers):
            once: dict[int, tuple[int, int]] = {}
            for gram, start, stop in zip(numbers.tolist(), starts.tolist(), stops.tolist(), strict=True):
                once.setdefault(gram, (start, stop))
            for gram, (start, stop) in once.items():
                if gram in seen:
                    seen[gram][0] += 1  # type: ignore[operator]
                else:
                    seen[gram] = [1, f"{part.name}#{documents}", text[start:stop][:SNIPPET]]
        documents += 1
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        total += size
        pending += size
        if pending >= REPORT_BYTES:
            report(pending / 1e6)
            pending = 0
    report(pending / 1e6)
    return Found(tuple(Sighting(gram, *seen[gram]) for gram in sorted(seen)), documents, total)  # type: ignore[arg-type]


def scan_parts(index: NgramIndex, parts: Sequence[Part], folder: Path, workers: int, label: str = "reading") -> Found:
    """Read all parts once.

    Args:
        folder: an empty one, where the index is saved for the processes to share, unless it is there.
        workers: processes, at most.
        label: what the progress is called.

    Raises:
        InputError: a part cannot be read.
        RunError: a process was killed.
    """
    total = total_size(parts)
    workers = min(workers, len(parts)) if total is None or total > POOL_BYTES else 1
    if workers > 1 and not (folder / "points.npy").exists():
        index.save(folder)
    with Progress(label, total / 1e6 if total else None, "MB") as progress:
        began = time.monotonic()
        found = share(_scanner, (folder if workers > 1 else index,), parts, workers, progress, "give fewer --workers")
        return dataclasses.replace(merge(found), seconds=time.monotonic() - began)


def _scanner(place: Path | NgramIndex, report: Report) -> Callable[[Part], Found]:
    """What a process does with a part: finds the index's grams, or those of the index saved in a folder."""
    index = NgramIndex.load(place) if isinstance(place, Path) else place
    return lambda part: scan_part(index, part, report)


def merge(found: Sequence[Found]) -> Found:
    """What several parts hold together; of each gram the first sighting."""
    first: dict[int, Sighting] = {}
    counts: dict[int, int] = {}
    for part in found:
        for sighting in part.sightings:
            first.setdefault(sighting.gram, sighting)
            counts[sighting.gram] = counts.get(sighting.gram, 0) + sighting.documents
    sightings = tuple(Sighting(gram, counts[gram], first[gram].document, first[gram].text) for gram in sorted(first))
    return Found(sightings, sum(part.documents for part in found), sum(part.text_bytes for part in found))
