"""What a run is predicted to reach before its first step; at its end what it reached, and what would have helped most.

Both come from the law of the short recipe (law.py). ``prediction.json`` in the run folder holds them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt3.corpus.shards import TokenSplit
from gpt3.durable import write_text
from gpt3.ladder.presets import Preset
from gpt3.report.run_folder import PREDICTION
from gpt3.training.automatic import Choice
from gpt3.training.data import TrainingData
from gpt3.training.law import Amount, Law, Prediction, fitted_law
from gpt3.training.options import AUTO, TrainOptions
from gpt3.training.plan import Plan

PIECES = 64
"""A sample is taken from this many places, evenly spread over a text."""
TRAIN_BYTES, TEST_BYTES = 1_000_000, 60_000
"""Sizes of the samples that hardness is measured on."""
RESIZED = 1.3
"""Width and layers of a larger model, as multiples of the run's."""
WORTH = 0.01
"""A change that takes less than this share off the bits per byte is not worth it."""


@dataclass(frozen=True)
class Outlook:
    """A run's place on the law."""

    shape: Preset
    token_bytes: float
    unique_bytes: float
    hardness: float
    """See law.py; 1 where nothing is predicted."""
    choice: Choice | None
    """What ``--model auto`` chose, in the session in which it did."""

    def amount(self, tokens: int) -> Amount:
        """What a run of this many tokens reads."""
        return Amount(tokens * self.token_bytes, self.unique_bytes)

    def predict(self, tokens: int) -> Prediction:
        """Bits per byte of the held-out documents after this many tokens."""
        return fitted_law().predict(self.shape, self.amount(tokens), self.hardness)

    def reservation(self, tokens: int) -> str:
        """What to add to a statement by the law about a run that it was not fitted to; else nothing."""
        return "" if fitted_law().covers(self.shape, self.amount(tokens)) else "; beyond the runs of the law"

    def rows(self, plan: Plan) -> list[tuple[str, str]]:
        """The lines of the plan; none unless the size was chosen."""
        if self.shape.name != AUTO:
            return []
        rows = [("predicted", f"{self.predict(plan.tokens)} bits per byte{self.reservation(plan.tokens)}")]
        if self.choice is not None:  # both by the speeds that were estimated before the chosen shape was measured
            best = self.choice.best.bits
            others = (f"{each}: {each.bits / best - 1:+.1%} bits per byte" for each in self.choice.next)
            rows += [("next best", other) for other in others]
        return rows


def outlook(
    options: TrainOptions, plan: Plan, shape: Preset, data: TrainingData, choice: Choice | None
) -> Outlook | None:
    """The run's place on the law; None for what the law does not hold for: the paper's recipe, weights that exist."""
    if plan.recipe != "short" or options.init_from is not None or not data.tokens:
        return None
    text_bytes = sum(split.text_bytes for split in data.training)
    each = text_bytes / data.tokens
    unique = math.inf if data.known_tokens is None else float(text_bytes)
    return Outlook(shape, each, unique, hardness(data) if shape.name == AUTO else 1.0, choice)


def hardness(data: TrainingData) -> float:
    """How hard the held-out documents are to predict after the training text, relative to the law's."""
    train = b"".join(sample(split, data, round(TRAIN_BYTES * len(split) / data.tokens)) for split in data.training)
    return fitted_law().hardness(train, sample(data.held_out, data, TEST_BYTES))


def sample(split: TokenSplit, data: TrainingData, size: int) -> bytes:
    """About `size` bytes of a split, or all of it, in `PIECES` evenly spread."""
    if not len(split):
        return b""
    tokens = max(1, round(size / PIECES * len(split) / split.text_bytes))
    starts = np.linspace(0, max(0, len(split) - tokens), PIECES).astype(int).tolist()
    if tokens * PIECES >= len(split):
        starts, tokens = [0], len(split)
    pieces = (split.read(start, min(len(split), start + tokens)) for start in starts)
    return "".join(str(data.tokenizer.decode(piece, skip_special_tokens=True)) for piece in pieces).encode(
        "utf-8", "replace"
    )


def write_prediction(folder: Path, found: Outlook | None, plan: Plan) -> None:
    """prediction.json of a new run whose size was chosen."""
    if found is not None and found.shape.name == AUTO:
        values = {"tokens": plan.tokens, **dataclasses.asdict(found.predict(plan.tokens))}
        write_text(folder / PREDICTION, json.dumps(values, indent=1) + "\n")


def conclude(folder: Path, found: Outlook | None, tokens: int, reached: float | None) -> list[str]:
    """Lines for the end of a run: prediction and result, and what would have helped most; prediction.json holds them, too.

    Args:
        tokens: that the run has read.
        reached: bits per byte of its held-out documents.
    """
    if found is None or reached is None:
        return []
    path, lines = folder / PREDICTION, list[str]()
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if "tokens" in values:
        planned = values["tokens"]
        read = "" if abs(tokens / planned - 1) < 0.05 else f" with {tokens:,} tokens instead of {planned:,}"
        before = Prediction(values["bits"], values["low"], values["high"])
        lines.append(f"predicted {before}, reached {reached:.3f} bits per byte{read}")
    lines.append(verdict(fitted_law(), found.shape, found.amount(tokens), reached) + found.reservation(tokens))
    write_text(path, json.dumps({**values, "reached": reached, "lines": lines}, indent=1) + "\n")
    return lines


def verdict(law: Law, shape: Preset, amount: Amount, reached: float) -> str:
    """One line: whether the run's time was well spent, and the change that would help most, by the law.

    Args:
        reached: the run's bits per byte, of which the changes take their shares.
    """
    now = law.bits(shape, amount)
    gains = {name: 1 - law.bits(*changed) / now for name, changed in changes(shape, amount).items()}
    best = max(gains, key=lambda name: gains[name])
    size = "a larger model" if gains["a larger model"] > gains["a smaller model"] else "a smaller model"
    place = "well spent"
    if gains["twice the data"] > max(WORTH, gains[size]):
        place = "data-limited"
    elif gains[size] > WORTH:
        place = "undertrained" if size == "a smaller model" else "too small a model"
    shown = [f"{name} {-gain:+.1%}" for name, gain in gains.items() if name != best]
    return (
        f"{place}: {best} would help most, to about {reached * (1 - gains[best]):.3f} bits per byte ({-gains[best]:+.1%}; "
        f"{', '.join(shown)})"
    )


def changes(shape: Preset, amount: Amount) -> dict[str, tuple[Preset, Amount]]:
    """What a run may change: its time, its data, or for the same computation its size."""
    found = {
        "twice the time": (shape, Amount(2 * amount.read, amount.unique)),
        "twice the data": (shape, Amount(amount.read, 2 * amount.unique)),
    }
    for name, factor in (("a larger model", RESIZED), ("a smaller model", 1 / RESIZED)):
        width, layers = round(shape.d_model * factor), max(1, round(shape.n_layers * factor))
        other = dataclasses.replace(shape, n_layers=layers, d_model=width, n_heads=1, d_head=width)
        read = amount.read * shape.flops_per_token / other.flops_per_token
        found[name] = (other, Amount(read, amount.unique))
    return found
