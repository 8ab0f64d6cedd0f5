"""Segments put together: every document goes to its split, every split into shards. Cheap next to tokenising.

Validation is written first, whole. Then train, shard by shard; as a shard is finished, segments that lie behind it are
removed, so that the disk never holds the tokens twice. A killed run keeps the shards it has finished.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt3 import durable
from gpt3.corpus.manifest import SPLITS, Shard, Split
from gpt3.corpus.segments import Segment, read_documents
from gpt3.corpus.shards import ShardWriter, shard_name


def held_out_keys(folder: Path, segments: Sequence[Segment], fraction: float) -> range:
    """The keys of validation documents: the lowest `fraction` of all, moved just so far that neither split is empty.

    Where no document's key lies below, the smallest key is validation; where all do, the largest is train. A corpus of
    one text alone (once or repeated) has no validation: both splits would hold the same.

    Args:
        folder: of the segments.
        fraction: in [0, 1); 0 asks for no validation.

    Returns:
        Within range(2**64), from 0 on.
    """
    if fraction == 0:
        return range(0)
    smallest, largest = (1 << 64) - 1, 0
    for segment in segments:
        if segment.documents:
            keys = read_documents(folder, segment)["key"]
            smallest, largest = min(smallest, int(keys.min())), max(largest, int(keys.max()))
    limit = int(fraction * (1 << 64))
    return range(min(max(limit, smallest + 1), largest))  # one key alone, or none: nothing lies below it


class Assembly:
    """Turns the segments of a preparation into the shards of its splits.

    Args:
        segments_folder: where the segments lie.
        shards_folder: where the shards go.
        records_folder: where finished shards are written down, for a run that follows a kill.
        segments: all of them, in reading order.
        held_out: the keys of validation documents, see `held_out_keys`.
        dtype: type of a token.
        shard_tokens: a shard is closed before the document that would make it longer.
        report: told the tokens written, every now and then.
    """

    def __init__(
        self,
        segments_folder: Path,
        shards_folder: Path,
        records_folder: Path,
        segments: Sequence[Segment],
        held_out: range,
        dtype: str,
        shard_tokens: int,
        report: Callable[[int], None],
    ) -> None:
        self.segments_folder, self.shards_folder, self.records_folder = segments_folder, shards_folder, records_folder
        self.segments, self.held_out, self.dtype, self.shard_tokens, self.report = (
            segments,
            held_out,
            dtype,
            shard_tokens,
            report,
        )

    def run(self) -> dict[str, Split]:
        """Write every shard that is not there yet and return the splits."""
        self.records_folder.mkdir(parents=True, exist_ok=True)
        return {"validation": self._validation(), "train": self._train()}

    def _validation(self) -> Split:
        record = self.records_folder / "validation.json"
        if not record.exists():
            shards = list(self._write("validation", 0, 0))
            durable.write_text(record, json.dumps([dataclasses.asdict(shard) for shard in shards]))
        return Split.of([Shard(**entry) for entry in json.loads(record.read_text(encoding="utf-8"))])

    def _train(self) -> Split:
        records = sorted(self.records_folder.glob("train-*.json"))
        shards = [Shard(**json.loads(path.read_text(encoding="utf-8"))) for path in records]
        self.report(sum(shard.tokens for shard in shards))
        for shard in self._write("train", len(shards), sum(shard.documents for shard in shards)):
            durable.write_text(self.records_folder / f"{shard.file}.json", json.dumps(dataclasses.asdict(shard)))
            shards.append(shard)
        return Split.of(shards)

    def _write(self, split: str, number: int, skip: int) -> Iterator[Shard]:
        """Write the shards of a split from `number` on, leaving out its first `skip` documents; yield each as it is finished."""
        writer: ShardWriter | None = None
        behind: list[Path] = []  # token files whose documents of this split have all been written
        for segment in self.segments:
            records = read_documents(self.segments_folder, segment)
            chosen = in_split(records["key"], split, self.held_out)
            mine = int(chosen.sum())
            path = self.segments_folder / f"{segment.stem}.tokens"
            if mine <= skip:
                skip -= mine
                behind.append(path)
                continue
            lengths = records["tokens"].astype(np.int64)
            tokens = np.fromfile(path, dtype=self.dtype)
            if mine < len(records):
                tokens, lengths, records = tokens[np.repeat(chosen, lengths)], lengths[chosen], records[chosen]
            ends = np.concatenate([[0], np.cumsum(lengths)])  # (documents + 1,)
            first = skip
            skip = 0
            while first < len(lengths):
                room = self.shard_tokens - (writer.tokens if writer else 0)
                stop = int(np.searchsorted(ends, ends[first] + room, side="right")) - 1
                if stop <= first and writer is None:
                    stop = first + 1  # one document longer than a shard: the shard is longer
                if stop <= first and writer is not None:
                    yield writer.close()
                    writer = None
                    if split == "train":
                        self._remove(behind)
                    continue
                if writer is None:
                    writer = ShardWriter(self.shards_folder, shard_name(split, number), self.dtype)
                    number += 1
                writer.append(
                    tokens[ends[first] : ends[stop]], lengths[first:stop], int(records["text_bytes"][first:stop].sum())
                )
                self.report(int(ends[stop] - ends[first]))
                first = stop
            behind.append(path)
        if writer is not None:
            yield writer.close()

    @staticmethod
    def _remove(paths: list[Path]) -> None:
        while paths:
            paths.pop().unlink(missing_ok=True)


def in_split(keys: np.ndarray, split: str, held_out: range) -> np.ndarray:
    """Which documents belong to `split`: (documents,) bool."""
    if held_out:  # a range may end at 2**64, which no uint64 holds
        chosen = (keys >= np.uint64(held_out.start)) & (keys <= np.uint64(held_out.stop - 1))
    else:
        chosen = np.zeros(len(keys), dtype=bool)
    return chosen if split == "validation" else ~chosen


def count_by_source(
    folder: Path, segments: Sequence[Segment], owners: Sequence[int], sources: int, held_out: range
) -> list[dict[str, Any]]:
    """What each source gave: documents, tokens and text bytes by split; documents dropped as empty.

    Args:
        owners: (parts,) the source of each part.
        sources: how many there are.
    """
    dropped = [0] * sources
    by_split = [
        {split: Counter({"tokens": 0, "documents": 0, "text_bytes": 0}) for split in SPLITS} for _ in range(sources)
    ]
    for segment in segments:
        owner = owners[segment.part]
        dropped[owner] += segment.dropped_empty
        records = read_documents(folder, segment)
        for split in SPLITS:
            mine = records[in_split(records["key"], split, held_out)]
            by_split[owner][split].update(
                tokens=int(mine["tokens"].sum()), documents=len(mine), text_bytes=int(mine["text_bytes"].sum())
            )
    return [
        {
            "dropped_empty": dropped[source],
            "splits": {split: dict(by_split[source][split]) for split in SPLITS},
        }
        for source in range(sources)
    ]
