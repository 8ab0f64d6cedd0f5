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
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt3 import durable
from gpt3.corpus.documents import Part
from gpt3.corpus.manifest import COUNTS, SPLITS, Shard, Split
from gpt3.corpus.options import KEYS
from gpt3.corpus.pool import Report
from gpt3.corpus.shards import ShardWriter, shard_name
from gpt3.tokenizer.encoder import Encoder
from gpt3.tokenizer.loading import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

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


def batches(texts: Iterable[str], batch_bytes: int) -> Iterator[tuple[list[str], np.ndarray, int, bool]]:
    """The documents of a part in batches of about `batch_bytes`, read on demand.

    Yields:
        The texts kept; their records (tokens still 0); how many were read, blank ones included; whether the part ends.
    """
    iterator = iter(texts)
    last = False
    while not last:
        kept: list[str] = []
        data: list[bytes] = []
        read = total = 0
        while total < batch_bytes and len(kept) < BATCH_DOCUMENTS and not last:
            text = next(iterator, None)
            last = text is None
            read += not last
            if text and not text.isspace():
                kept.append(text)
                data.append(text.encode("utf-8"))
                total += len(data[-1])
        records = np.zeros(len(kept), dtype=DOCUMENT)
        records["text_bytes"] = list(map(len, data))
        records["key"] = np.frombuffer(b"".join(map(document_key, data)), dtype="<u8")
        yield kept, records, read, last


class SegmentWriter:
    """Turns parts into segments; what one process does.

    Args:
        work: the working folder.
        tokenizer: makes the ids; or the folder where it is saved, for another process.
        threads: of the encoder.
        dtype: type of a token in the files, ``"<u2"`` or ``"<u4"``.
    """

    def __init__(
        self, work: Path, tokenizer: PreTrainedTokenizerFast | Path, threads: int, dtype: str, report: Report
    ) -> None:
        self.work, self.dtype, self.report = work, dtype, report
        loaded = load_tokenizer(tokenizer) if isinstance(tokenizer, Path) else tokenizer
        self.encoder = Encoder(loaded, threads=threads)

    def __call__(self, item: tuple[int, Part]) -> None:
        """Write the segments that are not there yet of a part and its number, counted through all sources.

        Raises:
            InputError: the part cannot be read.
        """
        number, part = item
        done = read_segments(self.work, number)
        rest = batches(part.read(sum(segment.read for segment in done)), BATCH_BYTES)
        while not (done and done[-1].last):
            done.append(self._write(rest, number, len(done)))

    def _write(self, rest: Iterator[tuple[list[str], np.ndarray, int, bool]], part: int, number: int) -> Segment:
        prefix = self.work / SEGMENTS / f"{part:08d}-{number:06d}"
        records: list[np.ndarray] = []
        text_bytes = read = 0
        last = False
        with durable.replacing(prefix.with_suffix(".tokens")) as temporary, open(temporary, "wb") as file:
            while text_bytes < SEGMENT_BYTES and not last:
                texts, batch, count, last = next(rest)
                if texts:
                    file.write(encode(texts, batch, self.encoder).astype(self.dtype).data)
                size = int(batch["text_bytes"].sum())
                self.report(size / 1e6)
                records.append(batch)
                text_bytes += size
                read += count
        documents = np.concatenate(records)
        durable.write_bytes(prefix.with_suffix(".documents"), documents.tobytes())
        tokens = int(documents["tokens"].sum())
        kept = len(documents)
        segment = Segment(part, number, read, kept, tokens, text_bytes, dropped_empty=read - kept, last=last)
        durable.write_text(prefix.with_suffix(".json"), json.dumps(dataclasses.asdict(segment)))
        return segment


def encode(texts: list[str], records: np.ndarray, encoder: Encoder) -> np.ndarray:
    """Ids of `texts` with end-of-text after each, (tokens,) uint32; fills in the records' ``tokens``."""
    ids, lengths = encoder.encode_batch(texts)
    records["tokens"] = lengths + 1
    ends = np.cumsum(lengths)  # (documents,), in `ids`
    return np.insert(ids, ends, int(encoder.tokenizer.eos_token_id))


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
    for keys in (segment.records(work)["key"] for segment in segments if segment.documents):
        smallest, largest = min(smallest, int(keys.min())), max(largest, int(keys.max()))
    return range(min(max(int(fraction * KEYS), smallest + 1), largest))  # one key alone, or none: nothing is below it


def fold_keys(fold: int, folds: int) -> range:
    """The keys of the documents that fold number `fold`, counted from 1, holds out; all folds together have every key once."""
    return range(KEYS * (fold - 1) // folds, KEYS * fold // folds)


def in_split(keys: np.ndarray, split: str, held_out: range) -> np.ndarray:
    """Which documents belong to `split`: (documents,) bool."""
    chosen = np.zeros(len(keys), dtype=bool)
    if held_out:  # a range may end at 2**64, which no uint64 holds
        chosen = (keys >= np.uint64(held_out.start)) & (keys <= np.uint64(held_out.stop - 1))
    return chosen if split == "validation" else ~chosen


def count_by_source(
    work: Path, segments: Sequence[Segment], owners: Sequence[int], sources: int, held_out: range
) -> list[dict[str, Any]]:
    """What each source gave: documents, tokens and text bytes by split; documents dropped as empty.

    Args:
        owners: (parts,) the source of each part.
        sources: how many there are.
    """
    counts: list[dict[str, Any]] = [
        {"dropped_empty": 0, "splits": {split: dict.fromkeys(COUNTS, 0) for split in SPLITS}} for _ in range(sources)
    ]
    for segment in segments:
        mine = counts[owners[segment.part]]
        mine["dropped_empty"] += segment.dropped_empty
        records = segment.records(work)
        for split, sums in mine["splits"].items():
            chosen = records[in_split(records["key"], split, held_out)]
            found = (chosen["tokens"].sum(), len(chosen), chosen["text_bytes"].sum())
            for name, count in zip(COUNTS, found, strict=True):
                sums[name] += int(count)
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
    """Told the tokens written, in millions."""

    def run(self) -> dict[str, Split]:
        """Write every shard that is not there yet and return the splits."""
        folder = self.work / RECORDS
        folder.mkdir(parents=True, exist_ok=True)
        splits = {}
        for split in ("validation", "train"):
            found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"{split}*.json"))]
            if found and isinstance(found[0], list):  # an earlier version's record of all validation shards
                found = found[0]
            shards = [Shard(**entry) for entry in found]
            self.report(sum(shard.tokens for shard in shards) / 1e6)
            for shard in self._write(split, len(shards), sum(shard.documents for shard in shards)):
                durable.write_text(folder / f"{shard.file}.json", json.dumps(dataclasses.asdict(shard)))
                shards.append(shard)
            splits[split] = Split.of(shards)
        return splits

    def _write(self, split: str, number: int, skip: int) -> Iterator[Shard]:
        """Write the shards of a split from `number` on, leaving out its first `skip` documents; yield each when finished."""
        writer: ShardWriter | None = None
        done: list[Path] = []  # token files whose documents of this split have all been written
        for segment in self.segments:
            records = segment.records(self.work)
            chosen = in_split(records["key"], split, self.held_out)
            path = self.work / SEGMENTS / f"{segment.prefix}.tokens"
            first, skip = skip, max(0, skip - int(chosen.sum()))
            tokens = ends = np.zeros(1, dtype=np.int64)
            if first < chosen.sum():
                tokens = np.fromfile(path, dtype=self.dtype)[np.repeat(chosen, records["tokens"].astype(np.int64))]
                records = records[chosen]
                ends = np.concatenate([ends, np.cumsum(records["tokens"].astype(np.int64))])  # (documents + 1,)
            while first < len(ends) - 1:
                writer = writer or ShardWriter(self.work / SHARDS, shard_name(split, number), self.dtype)
                stop = int(np.searchsorted(ends, ends[first] + self.shard_tokens - writer.tokens, side="right")) - 1
                if stop <= first and writer.tokens:
                    yield writer.close()
                    writer, number = None, number + 1
                    while split == "train" and done:
                        done.pop().unlink(missing_ok=True)
                    continue
                stop = max(stop, first + 1)  # one document longer than a shard: the shard is longer
                lengths, text_bytes = np.diff(ends[first : stop + 1]), int(records["text_bytes"][first:stop].sum())
                writer.append(tokens[ends[first] : ends[stop]], lengths, text_bytes)
                self.report(int(ends[stop] - ends[first]) / 1e6)
                first = stop
            done.append(path)
        if writer is not None:
            yield writer.close()
