"""Reading shards that still grow (`gpt3.corpus.growing`): a folder of blocks, and which tokens a training window holds.

The windows of the first block come first, then those of the second, in the blocks' order; within a block their order is a seeded
permutation. So window i is a pure function of (seed, i) and of the blocks up to its own: nothing waits for the end of the source.
After the last block the next epoch begins, with other permutations and other cuts.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt3 import durable
from gpt3.corpus.documents import Source
from gpt3.corpus.growing import END, FAILED, HEAD, VERSION, Block, Producer, Sizes, read_blocks
from gpt3.corpus.manifest import Manifest, Shard, Split, token_dtype
from gpt3.corpus.mixture import ROUNDS, Permutation
from gpt3.corpus.options import PrepareOptions
from gpt3.corpus.prepare import Preparation, cache_folder
from gpt3.corpus.shards import TOKENIZER_FOLDER, ShardFolder, TokenSplit
from gpt3.errors import InputError, RunError
from gpt3.progress import say
from gpt3.tokenizer.loading import load_tokenizer

SIZES = Sizes()
POLL_SECONDS = 0.05
SAY_SECONDS = 10.0
"""A reader that waits says so after this time, and again this often."""


class GrowingFolder(ShardFolder):
    """A growing folder as a run reads it: the blocks so far, and waiting for the next.

    Args:
        path: the folder; its tokenizer is there.
        identity: all that its bytes depend on.
        producer: the process that writes it; None where another process looks after that.
        name: of the sources.
        licence: of the sources, where it is known.

    Raises:
        InputError, RunError: the preparation failed before the first block.
    """

    known_tokens = None

    def __init__(
        self,
        path: Path,
        identity: dict[str, Any],
        producer: Producer | None = None,
        name: str = "",
        licence: str | None = None,
    ) -> None:
        self.path, self.identity, self.producer, self.name, self.licence = path, identity, producer, name, licence
        tokenizer = load_tokenizer(str(path / TOKENIZER_FOLDER))
        self.vocab_size, self.end_of_text = len(tokenizer), int(tokenizer.eos_token_id)
        self.blocks: list[Block] = []
        self.wanted = 1
        """Training tokens that were asked for."""
        self._wait(lambda: (path / HEAD).exists() and self._has(0), "the first block")

    @property
    def ended(self) -> bool:  # type: ignore[override]
        """Whether the source has been read to its end, so that no more blocks come."""
        return (self.path / END).exists()

    @property
    def manifest(self) -> Manifest:  # type: ignore[override]
        """The manifest of a shard folder of what is there so far."""
        head = json.loads((self.path / HEAD).read_text(encoding="utf-8"))
        return Manifest(
            dtype=token_dtype(self.vocab_size),
            vocab_size=self.vocab_size,
            end_of_text=self.end_of_text,
            tokenizer_sha256=self.identity["tokenizer_sha256"],
            validation_fraction=self.identity["validation_fraction"],
            validation_below="0" * 16,
            splits={
                "train": Split.of([block.shard for block in self.blocks]),
                "validation": Split.of([Shard(**head)] if head else []),
            },
            sources=[],
            preparation=self.identity,
            created_by="",
        )

    def order(self, context: int, seed: int) -> BlockOrder:
        """The order of the training windows; too short data is found out later."""
        return BlockOrder(self, context, seed)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """One row, of the folder: how much it will hold is not known."""
        sizes = {"tokens": None, "documents": None, "blocks": self.path.name}
        return [{"name": name or self.name, **sizes, "licence": self.licence}]

    def block(self, number: int) -> TokenSplit | None:
        """The tokens of a block, once it is there; None: the source ends before it.

        Raises:
            InputError, RunError: the preparation failed.
            KeyboardInterrupt: `stop` says so.
        """
        lacks = not self._has(number)
        self.want(self.tokens + lacks)
        self._wait(lambda: self._has(number) or self.ended, f"block {number + 1}")
        if not self._has(number):
            return None
        return TokenSplit(self.path, "train", [self.blocks[number].shard], self.manifest)

    @property
    def tokens(self) -> int:
        """Training tokens in all blocks that are there."""
        self._has(len(self.blocks))
        return sum(block.shard.tokens for block in self.blocks)

    def want(self, tokens: int) -> None:
        """Ask for at least this many training tokens; they are prepared in the background."""
        self.wanted = max(self.wanted, tokens)
        if self.producer is not None and self.tokens < self.wanted and not self.ended:
            self.producer.want(self.wanted)

    def close(self) -> None:
        """End the process that prepares; what it has finished stays."""
        if self.producer is not None:
            self.producer.close()
            self.producer = None

    def _has(self, number: int) -> bool:
        if number >= len(self.blocks):
            self.blocks += read_blocks(self.path, len(self.blocks))
        return number < len(self.blocks)

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        """Wait until `ready`, and say so when it takes long. A process that ended before it saw the last wish is started again.

        Raises:
            InputError, RunError: the preparation failed.
        """
        began = said = time.monotonic()
        while not ready():
            if self.stop():
                raise KeyboardInterrupt
            works = self.producer is None or self.producer.start()
            if (self.path / FAILED).exists():
                failure = json.loads((self.path / FAILED).read_text(encoding="utf-8"))
                raise (InputError if failure["kind"] == "input" else RunError)(failure["error"])
            if not works and not ready():
                raise RunError(
                    "the process that prepares data was killed (often: out of memory). Run the same command to resume."
                )
            now = time.monotonic()
            if now - said >= SAY_SECONDS:
                said = now
                say(f"waiting for data: {what} of {self.path.name}, {now - began:.0f} s so far")
            time.sleep(POLL_SECONDS)


def open_growing(
    data: Sequence[str],
    tokenizer: str,
    fraction: float,
    *,
    sources: Sequence[Source] | None = None,
    threads: int = 1,
    produce: bool = True,
) -> GrowingFolder:
    """The growing folder of `data` in the cache, once its first block is there.

    Args:
        tokenizer: gpt2, or a folder.
        fraction: ``--validation-fraction``.
        sources: of `data`, where they are open already.
        threads: of the process that prepares.
        produce: whether to start that process; False where another process has.

    Raises:
        InputError: see gpt3.corpus.
    """
    options = PrepareOptions(list(data), tokenizer=tokenizer, validation_fraction=fraction)
    preparation = Preparation(options, sources=sources)
    del preparation.identity["shard_tokens"]
    preparation.identity["growing"] = {"version": VERSION, **dataclasses.asdict(SIZES)}
    folder = cache_folder() / "growing" / preparation.cache_name()
    if not (folder / TOKENIZER_FOLDER).exists():
        with durable.replacing(folder / TOKENIZER_FOLDER) as temporary:
            preparation.tokenizer.save_pretrained(temporary)
    producer = Producer(folder, data, threads, fraction, SIZES) if produce and not (folder / END).exists() else None
    licences = dict.fromkeys(str(source.describe().get("licence") or "not recorded") for source in preparation.sources)
    return GrowingFolder(folder, preparation.identity, producer, ", ".join(data), ", ".join(licences))


class BlockOrder:
    """Windows of `context` + 1 tokens for training: inputs ``window[:-1]``, targets ``window[1:]``.

    Args:
        folder: the blocks; a window of one that is not there yet waits for it.
        context: inputs in a window.
        seed: of the cuts and the orders.

    Raises:
        InputError: the data ended with no block that holds a window.
    """

    def __init__(self, folder: GrowingFolder, context: int, seed: int) -> None:
        if context < 1:
            raise InputError(f"context must be at least 1, not {context}")
        self.folder, self.context, self.seed = folder, context, seed
        self.ends: list[int] = []
        """Windows in all blocks up to each one that has been seen: (blocks seen,), rising."""
        # epoch, block and its content, last used
        self._open: tuple[int, int, TokenSplit, int, Permutation] | None = None

    def window(self, index: int) -> np.ndarray:
        """Window number `index` of training, counted from 0 through all epochs: (context + 1,) int64."""
        epoch, block, own = self.place(index)
        split, phase, permutation = self._block(epoch, block)
        start = phase + permutation(own) * self.context
        return split.read(start, start + self.context + 1)

    def batch(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Several windows: (len(indices), context + 1) int64."""
        return np.stack([self.window(int(index)) for index in indices])

    def want(self, windows: int) -> None:
        """Have the blocks of the first `windows` windows prepared. Each block leaves out fewer tokens than two windows have."""
        blocks = windows * self.context // max(1, SIZES.block_tokens - self.context) + 1
        self.folder.want((windows + blocks) * self.context)

    def place(self, index: int) -> tuple[int, int, int]:
        """The epoch, the block, and the number in the block of window `index`; waits until that is known.

        Raises:
            InputError: no block holds a window.
        """
        if index < 0:
            raise IndexError(f"window {index}")
        epoch = 0
        while index >= (self.ends[-1] if self.ends else 0) and self._see():
            pass
        if index >= (self.ends[-1] if self.ends else 0):  # all blocks have been seen
            if not self.ends or not self.ends[-1]:
                raise InputError(
                    f"the data holds too few tokens for a window of context {self.context:,}; use a shorter one"
                )
            epoch, index = divmod(index, self.ends[-1])
        block = bisect.bisect_right(self.ends, index)
        return epoch, block, index - (self.ends[block - 1] if block else 0)

    @property
    def windows_per_epoch(self) -> int:
        """Windows in all blocks that are there; all of the source's once it has been read to its end."""
        while len(self.ends) < len(self.folder.blocks):
            self._see()
        return max(1, self.ends[-1] if self.ends else 0)

    def _see(self) -> bool:
        """Count the windows of the next block; False: the source ends before it."""
        split = self.folder.block(len(self.ends))
        if split is not None:
            self.ends.append((self.ends[-1] if self.ends else 0) + max(0, len(split) - 1) // self.context)
        return split is not None

    def _block(self, epoch: int, block: int) -> tuple[TokenSplit, int, Permutation]:
        """The tokens of a block, where its first window begins in an epoch, and the order of its windows."""
        if self._open is None or self._open[:2] != (epoch, block):
            split = self.folder.block(block)
            assert split is not None
            windows, rest = divmod(len(split) - 1, self.context)
            text = f"{self.seed} {epoch} {block}".encode()
            digest = hashlib.blake2b(text, digest_size=8 * ROUNDS, person=b"gpt3 blocks").digest()
            phase = int.from_bytes(hashlib.blake2b(digest, digest_size=8).digest(), "little") % (rest + 1)
            self._open = (epoch, block, split, phase, Permutation(windows, digest))
        return self._open[2:]
