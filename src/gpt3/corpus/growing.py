"""Shards that grow while they are read: training begins with the first block while the rest is prepared.

A growing folder in the cache holds ``tokenizer/``, the held-out documents as one validation shard, and *blocks*: shards of
several million tokens each, in the order of the source, every one with a record that is written last. What a block holds
depends on the source and the tokenizer alone, never on timing. A run that waits for its data, one that is killed and resumed,
and one that finds everything prepared read the same bytes.

Validation documents come from the beginning of the source, chosen by a hash of their text. Later documents with the text of one
of them are left out.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt3 import durable
from gpt3.corpus.documents import Part
from gpt3.corpus.manifest import Shard, token_dtype
from gpt3.corpus.pool import follow_parent
from gpt3.corpus.segments import batches, encode, in_split
from gpt3.corpus.shards import TOKENIZER_FOLDER, ShardWriter, shard_name
from gpt3.corpus.sources import open_sources
from gpt3.errors import InputError, RunError
from gpt3.tokenizer.encoder import Encoder
from gpt3.tokenizer.loading import load_tokenizer
from gpt3.work_folder import LOCK, locked

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

HEAD_FRACTION = 0.02
"""Share of the head that is held out, unless --validation-fraction is larger: 300 kB of text."""
VERSION = 1
"""Counts changes in what a block holds."""
NICENESS = 10
"""The preparing process yields to training."""
HEAD, HELD_OUT, END, FAILED = "head.json", "held-out.keys", "end.json", "failed.json"


@dataclass(frozen=True)
class Sizes:
    """What the blocks of a folder depend on besides the data and the tokenizer."""

    block_tokens: int = 1 << 22
    """A block ends with the batch that makes it this long: seconds to prepare, and windows enough to shuffle."""
    head_bytes: int = 16 << 20
    """Validation documents come from the first batches that hold this much text."""
    batch_bytes: int = 4 << 20
    """Text of a batch of documents, which is tokenized in one call and lies in one block."""


# ---- writing


class GrowingWriter:
    """Writes the head and the blocks of a growing folder after those that are there.

    Args:
        folder: the growing folder.
        parts: of all sources, in order.
        tokenizer: makes the ids.
        threads: of the encoder.
        fraction: ``--validation-fraction``; 0 holds nothing out.
        sizes: of blocks and head.
    """

    def __init__(
        self, folder: Path, parts: Sequence[Part], tokenizer: PreTrainedTokenizerFast, threads: int, fraction: float,
        sizes: Sizes,
    ) -> None:  # fmt: skip
        self.folder, self.parts, self.dtype = folder, parts, token_dtype(len(tokenizer))
        self.encoder = Encoder(tokenizer, threads=threads)
        self.sizes = sizes
        self.chosen = range(int(max(fraction, HEAD_FRACTION) * (1 << 64)) if fraction else 0)
        """Keys of the head's documents that are held out."""

    def run(self, wanted: Callable[[int], bool]) -> None:
        """Write blocks until enough are there or the source ends. A kill loses at most the block in work, or the head.

        Args:
            wanted: asked before every block with the training tokens there are. False ends the work.

        Raises:
            InputError: the source cannot be read, or holds no documents to train on.
        """
        if (self.folder / END).exists():
            return
        if not (self.folder / HEAD).exists():  # seconds of work: what there is of it is made again
            for path in [*self.folder.glob("train-*"), *self.folder.glob("validation-*")]:
                durable.discard(path)
        blocks = read_blocks(self.folder)
        begin, total = blocks[-1].end if blocks else (0, 0), sum(block.shard.tokens for block in blocks)
        head = None if (self.folder / HEAD).exists() else Head(self.folder, self.dtype)
        held_out = np.zeros(0, "<u8") if head else np.fromfile(self.folder / HELD_OUT, dtype="<u8")
        writer: ShardWriter | None = None
        for tokens, records, place in self._batches(*begin):
            held = in_split(records["key"], "validation", self.chosen) if head else np.isin(records["key"], held_out)
            if head:
                head.append(tokens, records, held)
                if head.read_bytes >= self.sizes.head_bytes:
                    held_out, head = head.close(), None
            if writer is None:
                if head is None and not wanted(total):  # the head is always wanted
                    return
                writer = ShardWriter(self.folder, shard_name("train", len(blocks)), self.dtype)
            append(writer, tokens, records, ~held)
            if writer.tokens >= self.sizes.block_tokens:
                blocks.append(self._close(writer, place))
                total, writer = total + writer.tokens, None
        if head:
            head.close()
        if writer is not None and writer.documents:
            blocks.append(self._close(writer, (len(self.parts), 0)))
        if not blocks:
            raise InputError("the data holds no documents to train on")
        durable.write_text(self.folder / END, json.dumps({"blocks": len(blocks)}))

    def _batches(self, first: int, read: int) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[int, int]]]:
        """Batches of documents from a place on: their ids, their records, and the place after them.

        What a batch holds depends on where it begins alone. So blocks, which are whole batches, are the same after a restart.
        """
        for part in range(first, len(self.parts)):
            for texts, records, count, last in batches(self.parts[part].read(read), self.sizes.batch_bytes):
                read += count
                if texts:
                    yield encode(texts, records, self.encoder), records, (part + 1, 0) if last else (part, read)
            read = 0

    def _close(self, writer: ShardWriter, end: tuple[int, int]) -> Block:
        """Finish a block. It is there once its record is."""
        block = Block(writer.close(), end)
        durable.write_text(record_of(self.folder / block.shard.file), json.dumps(dataclasses.asdict(block)))
        return block


@dataclass(frozen=True)
class Block:
    """A finished block."""

    shard: Shard
    """Its files and counts."""
    end: tuple[int, int]
    """Where it ends in the source: a part, and how many of the part's documents have been read."""


class Head:
    """The beginning of the source, of which some documents are held out."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self.folder = folder
        self.writer = ShardWriter(folder, shard_name("validation", 0), dtype)
        self.keys: list[np.ndarray] = []
        self.read_bytes = 0
        """UTF-8 bytes of all its documents so far."""

    def append(self, tokens: np.ndarray, records: np.ndarray, held: np.ndarray) -> None:
        """Add a batch of documents, of which those in `held` are held out."""
        append(self.writer, tokens, records, held)
        self.keys.append(records["key"][held])
        self.read_bytes += int(records["text_bytes"].sum())

    def close(self) -> np.ndarray:
        """Write it, its record last; returns the keys of the held-out documents: (documents,) uint64."""
        keys = np.concatenate([np.zeros(0, "<u8"), *self.keys]).astype("<u8")
        durable.write_bytes(self.folder / HELD_OUT, keys.tobytes())
        shard = self.writer.close() if self.writer.documents else None
        if shard is None:
            self.writer.abandon()
        durable.write_text(self.folder / HEAD, json.dumps(dataclasses.asdict(shard) if shard else None))
        return keys


def append(writer: ShardWriter, tokens: np.ndarray, records: np.ndarray, chosen: np.ndarray) -> None:
    """Add the chosen documents of a batch to a shard."""
    lengths = records["tokens"].astype(np.int64)
    own = records[chosen]
    if len(own):
        writer.append(tokens[np.repeat(chosen, lengths)], lengths[chosen], int(own["text_bytes"].sum()))


def record_of(shard: Path) -> Path:
    """The record of a block, next to its token file."""
    return shard.with_suffix(".json")


def read_blocks(folder: Path, first: int = 0) -> list[Block]:
    """The finished blocks in `folder` from number `first` on, in order."""
    blocks: list[Block] = []
    while (path := record_of(folder / shard_name("train", first + len(blocks)))).exists():
        content = json.loads(path.read_text(encoding="utf-8"))
        blocks.append(Block(Shard(**content["shard"]), tuple(content["end"])))
    return blocks


# ---- the process that writes


class Producer:
    """A process that writes a growing folder as far as it is wanted, and ends. It dies with this one, at once.

    While it works it holds the folder's lock. It never waits with it, so runs that share a folder do not wait for one another.

    Args:
        folder: the growing folder, with its tokenizer.
        data: the sources.
        threads: of the encoder.
        fraction: ``--validation-fraction``.
        sizes: of blocks and head.
    """

    def __init__(self, folder: Path, data: Sequence[str], threads: int, fraction: float, sizes: Sizes) -> None:
        self.folder, self.context = folder, multiprocessing.get_context("spawn")
        self.tokens = self.context.RawValue("q", 1)  # without a lock, which a killed process would keep
        self._watched, self._held = self.context.Pipe(duplex=False)
        self._arguments = (folder, list(data), threads, fraction, sizes, self.tokens, self._watched)
        self.process: SpawnProcess | None = None

    def want(self, tokens: int) -> None:
        """Ask for at least this many training tokens."""
        self.tokens.value = max(self.tokens.value, tokens)
        self.start()

    def start(self) -> bool:
        """Set the process to work unless it is at work; False: it failed, or was killed."""
        code = 0 if self.process is None else self.process.exitcode
        if code == 0:
            durable.discard(self.folder / FAILED)
            self.process = self.context.Process(target=_produce, args=self._arguments, daemon=True)
            self.process.start()
        return not code

    def close(self) -> None:
        """End it. Blocks that are finished stay."""
        self._held.close()
        if self.process is not None:
            self.process.join()
        self._watched.close()


def _produce(
    folder: Path, data: list[str], threads: int, fraction: float, sizes: Sizes, tokens: Any, watched: Connection
) -> None:
    """What the process does. It leaves its errors in the folder, for whoever waits there."""
    follow_parent(watched)
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    try:
        with locked(folder / LOCK, f"another process is preparing {folder}; waiting for it", wait=True):
            parts = [
                part for source in open_sources(data, tokenizer=folder / TOKENIZER_FOLDER) for part in source.parts()
            ]
            tokenizer = load_tokenizer(folder / TOKENIZER_FOLDER)
            writer = GrowingWriter(folder, parts, tokenizer, threads, fraction, sizes)
            writer.run(lambda there: there < tokens.value)
    except Exception as error:
        kind = "input" if isinstance(error, InputError) else "run"
        text = str(error) if isinstance(error, (InputError, RunError)) else f"{type(error).__name__}: {error}"
        durable.write_text(folder / FAILED, json.dumps({"kind": kind, "error": text}))
        sys.exit(1)
