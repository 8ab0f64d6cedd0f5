"""Which tokens a training window holds: of one source or of several in given proportions, exact without replacement.

Every window is a pure function of (seed, index). So any worker of any world size knows window i at once, a run resumes by its
step number alone, and a trillion tokens cost no more memory than a thousand.

*One source.* An epoch cuts the split, taken as a ring, into windows of `context` inputs, starting at a phase in [0, context)
drawn for the epoch, so that the cuts move from epoch to epoch; fewer than `context` tokens, others in each epoch, are left out.
The order of the windows is a permutation drawn for the epoch. It is computed, not stored: a Feistel network of 8 rounds
over a grid of a × b ≥ windows cells (a ≈ b), walked along its cycles until a cell below `windows` comes up (Black and
Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).

*Several* (Brown et al. 2020, section 2.2 and Table 2.2). Training is cut into blocks of windows. Of the N windows before a
block, source s has floor(W_s N) - floor(W_(s-1) N), where W_s is the share of the sources up to s: never a whole window off its
own share, however long the run. Within a block the order is a seeded permutation. A source's j-th window in the mixture is the
j-th of its own order, which repeats nothing before its epoch is over.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from gpt3.errors import InputError, yaml_fault

if TYPE_CHECKING:
    from gpt3.corpus.blocks import BlockOrder
    from gpt3.corpus.shards import TokenSplit

ROUNDS = 8
BLOCK = 256
"""Windows of a block, where every share comes to a window at least; else as many as the smallest share needs for one."""
SMALLEST_SHARE = Fraction(1, 100_000)
"""Of a mixture's tokens; it bounds the length of a block."""
MASK = (1 << 64) - 1
FILE_KEYS = ("name", "data", "weight")
FORM = "docs/mixtures.md shows the form"
NAME = re.compile(r"[a-z0-9_-]+")
"""A source's name, which becomes part of a metric's."""


# ---- one source


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


def drawn(what: bytes, seed: int, number: int) -> bytes:
    """The key of a `Permutation`, of an epoch or a block."""
    return hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8 * ROUNDS, person=b"gpt3 " + what).digest()


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

    def want(self, windows: int) -> None:
        """Have the first `windows` windows prepared: they are."""

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
            digest = drawn(b"windows", self.seed, number)
            phase = int.from_bytes(hashlib.blake2b(digest, digest_size=8).digest(), "little") % self.context
            self._epoch = (number, phase, Permutation(self.windows_per_epoch, digest))
        return self._epoch[1:]


# ---- several


@dataclass(frozen=True)
class Share:
    """What a source gives to a number of windows."""

    windows: int
    tokens: int
    """Target tokens: windows times context."""
    share: float
    """Of all windows."""
    epochs: float
    """Times that all of the source's windows are seen."""


class Mixture:
    """Windows of `context` + 1 tokens from one or more sources: what the training loop reads.

    Args:
        orders: one per source, all of one context.
        weights: of each source, in tokens; they need not sum to 1.
        seed: of the order.

    Raises:
        InputError: a weight that is not a number above 0.
    """

    def __init__(self, orders: Sequence[WindowOrder | BlockOrder], weights: Sequence[float], seed: int) -> None:
        if len(orders) != len(weights) or not orders:
            raise ValueError(f"{len(orders)} orders and {len(weights)} weights; a mixture needs one of each per source")
        for weight in weights:
            if not (math.isfinite(weight) and weight > 0):
                raise InputError(f"weight {weight} of a mixture must be a number above 0")
        self.orders, self.seed = list(orders), seed
        self.context = orders[0].context
        exact = [Fraction(str(weight)) for weight in weights]
        self.weights = [weight / sum(exact) for weight in exact]
        if min(self.weights) < SMALLEST_SHARE:
            raise InputError(
                f"weight {min(weights)} is below {float(SMALLEST_SHARE):g} of a mixture's {float(sum(exact)):g}; "
                "give the source more or leave it out"
            )
        self.cumulative = list(itertools.accumulate(self.weights))
        self.block = max(BLOCK, math.ceil(1 / min(self.weights)))
        self.windows_per_epoch = sum(order.windows_per_epoch for order in orders)
        """Windows that all sources hold together."""
        self._block: tuple[int, np.ndarray, np.ndarray] | None = None  # the one last used

    def window(self, index: int) -> np.ndarray:
        """Window number `index` of training, counted from 0: (context + 1,) int64."""
        source, own = self.place(index)
        return self.orders[source].window(own)

    def batch(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Several windows: (len(indices), context + 1) int64."""
        return np.stack([self.window(int(index)) for index in indices])

    def place(self, index: int) -> tuple[int, int]:
        """The source of window `index`, and which of the source's windows it is."""
        if index < 0:
            raise IndexError(f"window {index}")
        block, i = divmod(index, self.block)
        sources, own = self._order(block)
        return int(sources[i]), int(own[i])

    def want(self, windows: int) -> None:
        """Have the data of the first `windows` windows prepared, where that is done while training."""
        for order, own in zip(self.orders, self.counts(windows), strict=True):
            order.want(own)

    def counts(self, windows: int) -> list[int]:
        """How many of the first `windows` windows are each source's."""
        block, rest = divmod(windows, self.block)
        begun = self._order(block)[0][:rest] if rest else np.zeros(0, dtype=np.int64)
        return [count + int((begun == s).sum()) for s, count in enumerate(self._before(block))]

    def shares(self, windows: int) -> list[Share]:
        """What each source gives to the first `windows` windows, exactly."""
        return [
            Share(count, count * self.context, count / max(1, windows), count / order.windows_per_epoch)
            for count, order in zip(self.counts(windows), self.orders, strict=True)
        ]

    def _before(self, block: int) -> list[int]:
        """Windows of each source before a block."""
        ends = [0] + [math.floor(share * block * self.block) for share in self.cumulative]
        return [after - before for before, after in itertools.pairwise(ends)]

    def _order(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """The source of each window of a block, and its number among the source's windows: (block,) int64 each."""
        if self._block is None or self._block[0] != block:
            permutation = Permutation(self.block, drawn(b"mixture", self.seed, block))
            before, after = self._before(block), self._before(block + 1)
            source_of = np.repeat(np.arange(len(before)), np.subtract(after, before))
            sources = source_of[[permutation(i) for i in range(self.block)]]
            own = np.empty(self.block, dtype=np.int64)
            for s, (first, stop) in enumerate(zip(before, after, strict=True)):
                own[sources == s] = np.arange(first, stop)
            self._block = (block, sources, own)
        return self._block[1:]


# ---- the file of a mixture


@dataclass(frozen=True)
class SourceSpec:
    """One entry of a mixture file."""

    name: str
    data: tuple[str, ...]
    """What ``--data`` takes: a shard folder, or sources."""
    weight: float
    """Of its tokens in training, relative to the other entries'."""


def read_mixture(path: str | Path) -> list[SourceSpec]:
    """Read a mixture file: a YAML list of entries ``{name, data, weight}``.

    Raises:
        InputError: it is unreadable, or some entries are wrong: all of them, in one line.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--mixture {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"--mixture {path} is not UTF-8 at byte {error.start}. {FORM}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or a number that Python does not have
        raise InputError(f"--mixture {path}{yaml_fault(error)}. {FORM}") from None
    if not isinstance(content, list) or not content:
        raise InputError(
            f"--mixture {path}: must be a list of entries such as {{name: wiki, data: wiki, weight: 3}}. {FORM}"
        )
    problems: list[str] = []
    specs: list[SourceSpec] = []
    for number, entry in enumerate(content, 1):
        if wrong := entry_problem(entry, {spec.name for spec in specs}):
            problems.append(f"entry {number}: {wrong}")
            continue
        names = [entry["data"]] if isinstance(entry["data"], str) else entry["data"]
        specs.append(SourceSpec(entry["name"], tuple(names), float(entry["weight"])))
    if problems:
        raise InputError(f"--mixture {path}: {'; '.join(problems)}")
    return specs


def entry_problem(entry: object, taken: set[str]) -> str | None:
    """What is wrong with an entry, or None."""
    if not isinstance(entry, Mapping) or set(entry) != set(FILE_KEYS):
        found = ", ".join(map(str, entry)) if isinstance(entry, Mapping) else repr(entry)
        return f"must have {', '.join(FILE_KEYS)} and nothing else, not {found}"
    name, data, weight = (entry[key] for key in FILE_KEYS)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return f"name {name!r} may hold a-z, 0-9, _ and - only"
    if name in taken:
        return f"name {name!r} is taken already; names must differ"
    names = [data] if isinstance(data, str) else data
    if not isinstance(names, list) or not names or not all(isinstance(each, str) and each.strip() for each in names):
        return f"data {data!r} must name a source, or be a list of such"
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < math.inf:
        return f"weight {weight!r} must be a number above 0"
    return None
