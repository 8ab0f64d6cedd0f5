"""How many bits per byte a run of the short recipe reaches: a law of its shape, its text, and how often it reads it.

    L = s (E + ((A / N^a + C / V^c)^4 + (B / D^b)^4)^(1/4))

N is the parameters of the layers without biases and gains, V those of the token embedding, D the bytes read. The parts are
those of Hoffmann et al. 2022 (arXiv 2203.15556) and, of the vocabulary, Tao et al. 2024 (arXiv 2407.13623). Model and data are
joined as in Kaplan et al. 2020 (eq. 1.5): where one of the two limits a run, the other helps little. Bytes that are read again
count less (Muennighoff et al. 2023, arXiv 2305.16264, eq. 5): of U bytes read 1 + r times, D = U (1 + R (1 - exp(-r / R))).
Their R is 15.4; small texts are soon memorized, so R is at most a fitted number times U / (N + V). s is how hard the
held-out text is to predict after the training text (hardness.py), relative to the novels that the law was fitted to.

benchmarks/law_runs.py makes the runs, benchmarks/law_fit.py fits assets/law.json; docs/auto.md has what came out.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from gpt3.ladder.presets import Preset
from gpt3.training.hardness import bits_per_byte

CONTEXT = 128
"""Of all runs that the law was fitted to."""
MOST_REPEATS = 15.4
"""R at most."""
WITHIN = 1.96
"""Standard deviations of a 95% interval."""


@dataclass(frozen=True)
class Amount:
    """What a run reads."""

    read: float
    """Bytes of text, repeats included."""
    unique: float
    """Bytes of the training text; infinite where nobody knows."""

    @property
    def epochs(self) -> float:
        """How often the text is read."""
        return self.read / self.unique

    def worth(self, most: float = MOST_REPEATS) -> float:
        """D: what it would take of text that is read once.

        Args:
            most: R.
        """
        again = max(0.0, self.epochs - 1)
        return self.unique * (1 + most * (1 - math.exp(-again / most))) if again else self.read


@dataclass(frozen=True)
class Curve:
    """One fitted set of the law's numbers for s = 1, by the letters of the module's docstring."""

    floor: float
    """E, bits per byte."""
    layers: float
    """A."""
    layers_power: float
    """a."""
    vocabulary: float
    """C."""
    vocabulary_power: float
    """c."""
    data: float
    """B."""
    data_power: float
    """b."""
    repeats: float
    """R as a multiple of U / (N + V)."""

    def bits(self, shape: Preset, amount: Amount) -> float:
        """Bits per byte of held-out text at the end of a run."""
        entries = shape.vocab_size * shape.d_model
        most = min(MOST_REPEATS, self.repeats * amount.unique / (layer_parameters(shape) + entries))
        worth = amount.worth(most)
        model = self.layers / layer_parameters(shape) ** self.layers_power
        model += self.vocabulary / (shape.vocab_size * shape.d_model) ** self.vocabulary_power
        return float(self.floor + math.hypot(model**2, (self.data / worth**self.data_power) ** 2) ** 0.5)


@dataclass(frozen=True)
class Prediction:
    """Bits per byte with a 95% interval."""

    bits: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.bits:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Law:
    """The fit in use, and how far it may be off."""

    best: Curve
    others: Sequence[Curve]
    """Bootstrap: fits to the same runs, resampled."""
    spread: float
    """Standard deviation of log L of the runs around the fit."""
    text_spread: float
    """The same between texts, of what s leaves over."""
    text_bits: Mapping[float, float]
    """Of the text that the law was fitted to, by the bytes of the training sample: `gpt3.training.hardness.bits_per_byte`."""
    layer_range: tuple[float, float]
    """`layer_parameters` of the runs."""
    read_range: tuple[float, float]
    """Bytes that the runs read."""
    bytes_per_token: Mapping[float, float]
    """Of tokenizers trained on that text, by their number of entries."""

    def bits(self, shape: Preset, amount: Amount, hardness: float = 1.0) -> float:
        """The predicted bits per byte.

        Args:
            hardness: s.
        """
        return hardness * self.best.bits(shape, amount)

    def predict(self, shape: Preset, amount: Amount, hardness: float = 1.0) -> Prediction:
        """`bits` with its interval."""
        middle = self.best.bits(shape, amount)
        drawn = [math.log(curve.bits(shape, amount) / middle) for curve in self.others]
        spread = sum(value**2 for value in drawn) / max(1, len(drawn)) + self.spread**2 + self.text_spread**2
        factor = math.exp(WITHIN * math.sqrt(spread))
        return Prediction(hardness * middle, hardness * middle / factor, hardness * middle * factor)

    def covers(self, shape: Preset, amount: Amount) -> bool:
        """Whether the runs that the law was fitted to were as small, as large, as short and as long, with this context."""
        low, high = self.layer_range
        least, most = self.read_range
        return shape.context == CONTEXT and low <= layer_parameters(shape) <= high and least <= amount.read <= most

    def token_bytes(self, vocabulary: int) -> float:
        """Bytes of text per token of a tokenizer of this size, on a line over the logarithm of the size."""
        return on_logarithm(self.bytes_per_token, vocabulary)

    def hardness(self, train: bytes, test: bytes) -> float:
        """s of a held-out text after a training text, from samples of both; 1 where there is none."""
        return bits_per_byte(train, test) / on_logarithm(self.text_bits, len(train)) if train and test else 1.0


def on_logarithm(known: Mapping[float, float], size: float) -> float:
    """The value at `size` on lines between the known ones over the logarithm of their sizes, the outer ones continued."""
    pairs = list(itertools.pairwise(sorted(known.items())))
    (below, low), (above, high) = next((pair for pair in pairs if size <= pair[1][0]), pairs[-1])
    return low + (high - low) * math.log(size / below) / math.log(above / below)


def layer_parameters(shape: Preset) -> float:
    """12 L d²: the matrices of the layers."""
    return 4 * shape.n_layers * shape.d_model * (shape.n_heads * shape.d_head + 2 * shape.d_model)


def law_of(values: Mapping[str, Any]) -> Law:
    """The law in the form of assets/law.json."""
    best, *others = (Curve(*row) for row in values["curves"])
    text_bits, token_bytes = (
        {float(size): each for size, each in values[name].items()} for name in ("text_bits", "bytes_per_token")
    )
    layer_range, read_range = tuple(values["layer_range"]), tuple(values["read_range"])
    return Law(best, others, values["spread"], values["text_spread"], text_bits, layer_range, read_range, token_bytes)


@cache
def fitted_law() -> Law:
    """The law in use."""
    text = (resources.files("gpt3.training") / "assets" / "law.json").read_text(encoding="utf-8")
    return law_of(json.loads(text))
