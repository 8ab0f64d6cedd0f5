"""Which tokens a training window holds: a pure function of (seed, index), exact without replacement in every epoch.

An epoch cuts the split, taken as a ring, into windows of `context` inputs, starting at a phase in [0, context) drawn for
the epoch, so that the cuts move from epoch to epoch; fewer than `context` tokens, others in each epoch, are left out.
The order of the windows is a permutation drawn for the epoch. It is computed, not stored: a Feistel network of 8 rounds
over a grid of a × b ≥ windows cells (a ≈ b), walked along its cycles until a cell below `windows` comes up (Black and
Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). So any worker of any world size knows window i at once, a run
resumes by its step number alone, and a trillion tokens cost no more memory than a thousand.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from gpt3.corpus.shards import TokenSplit
from gpt3.errors import InputError

ROUNDS = 8
MASK = (1 << 64) - 1


class Permutation:
    """A seeded one-to-one map of range(size) onto itself, computed a value at a time.

    Args:
        size: how many values, at least 1.
        key: 64 bytes: one word for each round.
    """

    def __init__(self, size: int, key: bytes) -> None:
        self.size = size
        self.rows = math.isqrt(size - 1) + 1  # ≥ √size
        self.columns = -(-size // self.rows)  # rows × columns ≥ size, by less than rows
        self.keys = [int.from_bytes(key[8 * r : 8 * r + 8], "little") for r in range(ROUNDS)]

    def __call__(self, position: int) -> int:
        """The value at `position`."""
        if not 0 <= position < self.size:
            raise IndexError(f"position {position} of {self.size}")
        while True:
            position = self._encrypt(position)
            if position < self.size:  # cells at or above size lie on cycles that come back below it
                return position

    def _encrypt(self, cell: int) -> int:
        left, right = divmod(cell, self.columns)  # left < rows, right < columns
        for turn in range(0, ROUNDS, 2):
            left = (left + mix(right ^ self.keys[turn])) % self.rows
            right = (right + mix(left ^ self.keys[turn + 1])) % self.columns
        return left * self.columns + right


def mix(word: int) -> int:
    """Scatter 64 bits (the finaliser of SplitMix64: Steele, Lea and Flood 2014, Stafford's variant 13)."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & MASK
    return word ^ (word >> 31)


class WindowOrder:
    """Windows of `context` + 1 tokens for training: inputs ``window[:-1]``, targets ``window[1:]``.

    Args:
        split: the tokens.
        context: inputs in a window; the last target of a window is the first input of the next one in the text.
        seed: of the phases and the orders.

    Raises:
        InputError: the split is shorter than one window.
    """

    def __init__(self, split: TokenSplit, context: int, seed: int) -> None:
        if context < 1:
            raise InputError(f"context must be at least 1, not {context}")
        if len(split) < context + 1:
            remedy = f"use a context of at most {len(split) - 1}, or more data" if len(split) > 1 else "add data"
            raise InputError(
                f"split {split.name!r} has {len(split):,} tokens, too few for a window of context {context:,} "
                f"(it needs {context + 1:,}); {remedy}"
            )
        self.split, self.context, self.seed = split, context, seed
        self.windows_per_epoch = len(split) // context
        self._epoch: tuple[int, int, Permutation] | None = None  # the one last used

    def window(self, index: int) -> np.ndarray:
        """Window number `index` of training, counted from 0 through all epochs: (context + 1,) int64."""
        start = self.start(index)
        stop = start + self.context + 1
        size = len(self.split)
        if stop <= size:
            return self.split.read(start, stop)
        # The ring closes: the corpus ends with end-of-text, after which its first document is as good as any.
        return np.concatenate([self.split.read(start, size), self.split.read(0, stop - size)])

    def batch(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Several windows: (len(indices), context + 1) int64."""
        return np.stack([self.window(int(index)) for index in indices])

    def start(self, index: int) -> int:
        """Position in the split of the first token of window `index`."""
        if index < 0:
            raise IndexError(f"window {index}")
        epoch, i = divmod(index, self.windows_per_epoch)
        phase, permutation = self.epoch(epoch)
        return phase + permutation(i) * self.context  # < len(split), as phase < context and all windows fit the ring

    def epoch(self, number: int) -> tuple[int, Permutation]:
        """The phase in [0, context) and the order of the windows of an epoch."""
        if self._epoch is None or self._epoch[0] != number:
            digest = hashlib.blake2b(
                f"{self.seed} {number}".encode(), digest_size=8 * ROUNDS, person=b"gpt3 windows"
            ).digest()
            phase = int.from_bytes(hashlib.blake2b(digest, digest_size=8).digest(), "little") % self.context
            self._epoch = (number, phase, Permutation(self.windows_per_epoch, digest))
        return self._epoch[1:]
