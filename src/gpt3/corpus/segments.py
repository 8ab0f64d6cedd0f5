"""Documents turned into tokens piece by piece, and the pieces put together: work that several processes share and a kill spares.

A part's documents become *segments* of about 32 MB of text. A segment is three files in one folder: ``PART-NUMBER.tokens``
(ids, end-of-text after each document), ``.documents`` (a record for each document) and ``.json`` (the counts), the last
written last: a segment without it does not exist. Nothing in a segment depends on which process wrote it, so a new run
continues after the last segment of each part, with any number of workers.

Assembling the segments is cheap next to tokenizing. Validation is written first, whole. Then train, shard by shard; when a
shard is finished, the segments before it are removed, so that the disk never holds the tokens twice. A killed run keeps
the shards it has finished.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt3 import durable
from gpt3.corpus.documents import Part
from gpt3.corpus.manifest import SPLITS, Shard, Split
from gpt3.corpus.options import KEYS
from gpt3.corpus.pool import Report
from gpt3.corpus.shards import ShardWriter, shard_name
from gpt3.tokenizer.encoder import Encoder

SEGMENT_BYTES = 32 << 20
"""A segment is closed after this much text: what a kill costs each worker at most."""
BATCH_BYTES = 4 << 20
"""Text given to the encoder in one call: enough for its threads to share, little enough not to matter in memory."""
BATCH_DOCUMENTS = 1 << 14
SEGMENTS, SHARDS, RECORDS = "segments", "shards", "records"
"""Folders in the working folder: of segments, of shards, and of what is known of finished shards."""

DOCUMENT = np.dtype([("tokens", "<u8"), ("text_bytes", "<u8"), ("key", "<u8")])
"""A document's record: its tokens, end-of-text included; UTF-8 bytes of its text; its key (see `document_key`)."""


@dataclass(frozen=True)
class Segment:
    """The counts of one segment."""

    part: int
    """Which part, counted through all sources."""
    number: int
    """Which segment of the part, from 0."""
    read: int
    """Documents read from the part, including those dropped."""
    documents: int
    """Documents kept."""
    tokens: int
    """Ids, end-of-text included."""
    text_bytes: int
    """UTF-8 bytes of the kept documents."""
    dropped_empty: int
    """Documents left out because they hold nothing but white space."""
    last: bool
    """Whether the part ends here."""

    @property
    def prefix(self) -> str:
        """What the names of its files begin with; sorted, they are in reading order."""
        return f"{self.part:08d}-{self.number:06d}"

    def records(self, work: Path) -> np.ndarray:
        """The records of its documents, from the working folder `work`: (documents,) `DOCUMENT`."""
        return np.fromfile(work / SEGMENTS / f"{self.prefix}.documents", dtype=DOCUMENT)


def document_key(data: bytes) -> bytes:
    """8 bytes that stand for a text, evenly spread: BLAKE2b of its UTF-8. As a little-endian number they choose its split."""
    return hashlib.blake2b(data, digest_size=8).digest()


def read_segments(work: Path, part: int | None = None) -> list[Segment]:
    """The finished segments in the working folder, of one part or of all, in reading order."""
    pattern = "*.json" if part is None else f"{part:08d}-*.json"
    paths = sorted((work / SEGMENTS).glob(pattern))
    return [Segment(**json.loads(path.read_text(encoding="utf-8"))) for path in paths]


# ---- parts to segments


class Batches:
    """Documents of a part, read on demand in batches; counts what a segment must know of them."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = iter(texts)
        self.read = self.dropped_empty = 0
        self.ended = False

    def next(self) -> tuple[list[str], np.ndarray]:
        """The next kept documents, about `BATCH_BYTES` of them, and their records (tokens still 0). Empty at the end."""
        texts: list[str] = []
        keys: list[bytes] = []
        sizes: list[int] = []
        total = 0
        for text in self._texts:
            self.read += 1
            if not text or text.isspace():
                self.dropped_empty += 1
                continue
            data = text.encode("utf-8")
            texts.append(text)
            keys.append(document_key(data))
            sizes.append(len(data))
            total += len(data)
            if total >= BATCH_BYTES or len(texts) >= BATCH_DOCUMENTS:
                break
        else:
            self.ended = True
        records = np.zeros(len(texts), dtype=DOCUMENT)
        records["text_bytes"] = sizes
        records["key"] = np.frombuffer(b"".join(keys), dtype="<u8")
        return texts, records


@dataclass(frozen=True)
class SegmentWriter:
    """Turns parts into segments."""

    work: Path
    """The working folder."""
    encoder: Encoder
    dtype: str
    """Type of a token in the files, ``"<u2"`` or ``"<u4"``."""
    end_of_text: int
    """The id written after every document."""
    report: Report

    def write_part(self, part: Part, number: int) -> None:
        """Write the segments of a part that are not there yet; `number` counts parts through all sources.

        Raises:
            InputError: the part cannot be read.
        """
        done = read_segments(self.work, number)
        if done and done[-1].last:
            return
        batches = Batches(part.read(sum(segment.read for segment in done)))
        while not batches.ended:
            done.append(self._write(batches, number, len(done)))

    def _write(self, batches: Batches, part: int, number: int) -> Segment:
        before = batches.read, batches.dropped_empty
        prefix = self.work / SEGMENTS / f"{part:08d}-{number:06d}"
        records = [np.zeros(0, dtype=DOCUMENT)]
        text_bytes = 0
        with durable.replacing(prefix.with_suffix(".tokens")) as temporary, open(temporary, "wb") as file:
            while text_bytes < SEGMENT_BYTES and not batches.ended:
                texts, batch = batches.next()
                if texts:
                    tokens = encode(texts, batch, self.encoder, self.end_of_text)
                    file.write(tokens.astype(self.dtype).data)
                    records.append(batch)
                    size = int(batch["text_bytes"].sum())
                    text_bytes += size
                    self.report(size)
        documents = np.concatenate(records)
        durable.write_bytes(prefix.with_suffix(".documents"), documents.tobytes())
        segment = Segment(
            part=part,
            number=number,
            read=batches.read - before[0],
            documents=len(documents),
            tokens=int(documents["tokens"].sum()),
            text_bytes=text_bytes,
            dropped_empty=batches.dropped_empty - before[1],
            last=batches.ended,
        )
        durable.write_text(prefix.with_suffix(".json"), json.dumps(dataclasses.asdict(segment)))
        return segment


def encode(texts: list[str], records: np.ndarray, encoder: Encoder, end_of_text: int) -> np.ndarray:
    """Ids of `texts` with end-of-text after each, (tokens,) uint32; fills in the records' ``tokens``."""
    ids, lengths = encoder.encode_batch(texts)
    records["tokens"] = lengths + 1
    ends = np.cumsum(lengths + 1) - 1  # (documents,)
    tokens = np.full(len(ids) + len(texts), end_of_text, dtype=np.uint32)
    keep = np.ones(len(tokens), dtype=bool)
    keep[ends] = False
    tokens[keep] = ids
    return tokens


# ---- which documents are held out


def held_out_keys(work: Path, segments: Sequence[Segment], fraction: float) -> range:
    """The keys of validation documents: the lowest `fraction` of all, moved just so far that neither split is empty.

    If no document's key is that low, the smallest key is validation; if all are, the largest is train. A corpus of one text
    alone (once or repeated) has no validation: both splits would hold the same.

    Args:
        fraction: in [0, 1); 0 asks for no validation.

    Returns:
        Within range(2**64), from 0 on.
    """
    if fraction == 0:
        return range(0)
    smallest, largest = KEYS - 1, 0
    for segment in segments:
        if segment.documents:
            keys = segment.records(work)["key"]
            smallest, largest = min(smallest, int(keys.min())), max(largest, int(keys.max()))
    limit = int(fraction * KEYS)
    return range(min(max(limit, smallest + 1), largest))  # one key alone, or none: nothing is below it


def fold_keys(fold: int, folds: int) -> range:
    """The keys of the documents that fold number `fold`, counted from 1, holds out; all folds together have every key once."""
    return range(KEYS * (fold - 1) // folds, KEYS * fold // folds)


def in_split(keys: np.ndarray, split: str, held_out: range) -> np.ndarray:
    """Which documents belong to `split`: (documents,) bool."""
    if held_out:  # a range may end at 2**64, which no uint64 holds
        chosen = (keys >= np.uint64(held_out.start)) & (keys <= np.uint64(held_out.stop - 1))
    else:
        chosen = np.zeros(len(keys), dtype=bool)
    return chosen if split == "validation" else ~chosen


def count_by_source(
    work: Path, segments: Sequence[Segment], owners: Sequence[int], sources: int, held_out: range
) -> list[dict[str, Any]]:
    """What each source gave: documents, tokens and text bytes by split; documents dropped as empty.

    Args:
        owners: (parts,) the source of each part.
        sources: how many there are.
    """
    names = ("tokens", "documents", "text_bytes")
    counts: list[dict[str, Any]] = [
        {"dropped_empty": 0, "splits": {split: dict.fromkeys(names, 0) for split in SPLITS}} for _ in range(sources)
    ]
    for segment in segments:
        mine = counts[owners[segment.part]]
        mine["dropped_empty"] += segment.dropped_empty
        records = segment.records(work)
        for split, sums in mine["splits"].items():
            chosen = records[in_split(records["key"], split, held_out)]
            sums["tokens"] += int(chosen["tokens"].sum())
            sums["documents"] += len(chosen)
            sums["text_bytes"] += int(chosen["text_bytes"].sum())
    return counts


# ---- segments to shards


@dataclass(frozen=True)
class Assembly:
    """Turns the segments of a preparation into the shards of its splits."""

    work: Path
    """The working folder."""
    segments: Sequence[Segment]
    """All of them, in reading order."""
    held_out: range
    """The keys of validation documents."""
    dtype: str
    """Type of a token."""
    shard_tokens: int
    """A shard is closed before the document that would make it longer."""
    report: Report
    """Told the tokens written."""

    def run(self) -> dict[str, Split]:
        """Write every shard that is not there yet and return the splits."""
        (self.work / RECORDS).mkdir(parents=True, exist_ok=True)
        return {"validation": self._validation(), "train": self._train()}

    def _validation(self) -> Split:
        record = self.work / RECORDS / "validation.json"
        if not record.exists():
            shards = list(self._write("validation", 0, 0))
            durable.write_text(record, json.dumps([dataclasses.asdict(shard) for shard in shards]))
        return Split.of([Shard(**entry) for entry in json.loads(record.read_text(encoding="utf-8"))])

    def _train(self) -> Split:
        records = self.work / RECORDS
        shards = [
            Shard(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(records.glob("train-*.json"))
        ]
        self.report(sum(shard.tokens for shard in shards))
        for shard in self._write("train", len(shards), sum(shard.documents for shard in shards)):
            durable.write_text(records / f"{shard.file}.json", json.dumps(dataclasses.asdict(shard)))
            shards.append(shard)
        return Split.of(shards)

    def _write(self, split: str, number: int, skip: int) -> Iterator[Shard]:
        """Write the shards of a split from `number` on, leaving out its first `skip` documents; yield each when finished."""
        writer: ShardWriter | None = None
        done: list[Path] = []  # token files whose documents of this split have all been written
        for segment in self.segments:
            records = segment.records(self.work)
            chosen = in_split(records["key"], split, self.held_out)
            mine = int(chosen.sum())
            path = self.work / SEGMENTS / f"{segment.prefix}.tokens"
            if mine <= skip:
                skip -= mine
                done.append(path)
                continue
            lengths = records["tokens"].astype(np.int64)
            tokens = np.fromfile(path, dtype=self.dtype)
            if mine < len(records):
                tokens, lengths, records = tokens[np.repeat(chosen, lengths)], lengths[chosen], records[chosen]
            ends = np.concatenate([[0], np.cumsum(lengths)])  # (documents + 1,)
            first, skip = skip, 0
            while first < len(lengths):
                left = self.shard_tokens - (writer.tokens if writer else 0)
                stop = int(np.searchsorted(ends, ends[first] + left, side="right")) - 1
                if stop <= first and writer is not None:
                    yield writer.close()
                    writer = None
                    while split == "train" and done:
                        done.pop().unlink(missing_ok=True)
                    continue
                stop = max(stop, first + 1)  # one document longer than a shard: the shard is longer
                if writer is None:
                    writer = ShardWriter(self.work / SHARDS, shard_name(split, number), self.dtype)
                    number += 1
                text_bytes = int(records["text_bytes"][first:stop].sum())
                writer.append(tokens[ends[first] : ends[stop]], lengths[first:stop], text_bytes)
                self.report(int(ends[stop] - ends[first]))
                first = stop
            done.append(path)
        if writer is not None:
            yield writer.close()
