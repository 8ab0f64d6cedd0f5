"""Several sources in given proportions, each drawn without replacement (Brown et al. 2020, section 2.2 and Table 2.2).

Training is cut into blocks of windows. Of the N windows before a block, source s has floor(W_s N) - floor(W_(s-1) N), where
W_s is the share of the sources up to s: never a whole window off its own share, however long the run. Within a block the
order is a seeded permutation. A source's j-th window in the mixture is the j-th of its own order, which repeats
nothing before its epoch is over. So window i is a pure function of (seed, i), like those of one source.
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

import numpy as np
import yaml

from gpt3.corpus.order import ROUNDS, Permutation, WindowOrder
from gpt3.errors import InputError

BLOCK = 256
"""Windows of a block, where every share comes to a window at least; else as many as the smallest share needs for one."""
SMALLEST_SHARE = Fraction(1, 100_000)
"""Of a mixture's tokens; it bounds the length of a block."""
FILE_KEYS = ("name", "data", "weight")
NAME = re.compile(r"[a-z0-9_-]+")
"""A source's name, which becomes part of a metric's."""


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

    def __init__(self, orders: Sequence[WindowOrder], weights: Sequence[float], seed: int) -> None:
        if not orders or len(orders) != len(weights):
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
        self.cumulative = [sum(self.weights[: s + 1], Fraction(0)) for s in range(len(exact))]
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

    def counts(self, windows: int) -> list[int]:
        """How many of the first `windows` windows are each source's."""
        block, rest = divmod(windows, self.block)
        counts = self._before(block)
        if rest:
            sources, _ = self._order(block)
            counts = [count + int((sources[:rest] == s).sum()) for s, count in enumerate(counts)]
        return counts

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
            key = hashlib.blake2b(
                f"{self.seed} {block}".encode(), digest_size=8 * ROUNDS, person=b"gpt3 mixture"
            ).digest()
            permutation = Permutation(self.block, key)
            before, after = self._before(block), self._before(block + 1)
            source_of = np.repeat(np.arange(len(before)), np.subtract(after, before))
            sources = source_of[[permutation(i) for i in range(self.block)]]
            own = np.empty(self.block, dtype=np.int64)
            for s, first in enumerate(before):
                mine = sources == s
                own[mine] = first + np.arange(mine.sum())
            self._block = (block, sources, own)
        return self._block[1:]


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
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--mixture {path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, list) or not content:
        raise InputError(f"--mixture {path}: must be a list of entries such as {{name: wiki, data: wiki, weight: 3}}")
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
