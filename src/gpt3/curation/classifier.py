"""The quality classifier: logistic regression that tells good text from raw text, and what it looks like before it is applied."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt3.curation.features import FEATURES, frequencies, scores, words_of
from gpt3.durable import replacing
from gpt3.errors import InputError, require

Array = np.ndarray[Any, Any]

VERSION = 2
"""Counts changes in what is learned."""
HELD_OUT = 10
"""One document of this many of each kind is held out."""
FEWEST = 20
"""Documents of a kind below which nothing can be learned."""
TOP = 20
WEIGHTS, ABOUT = "model.safetensors", "classifier.json"


@dataclass(frozen=True)
class About:
    """What is known of a classifier."""

    good: int
    """Documents of good text that it learned from."""
    raw: int
    auc: float
    """Area under the ROC curve on held-out documents: 0.5 tells nothing, 1 tells all."""
    correlation_with_length: float
    """Of held-out raw documents' scores with the logarithm of their length."""
    good_words: list[str]
    """Of the largest weights."""
    raw_words: list[str]
    """Of the smallest weights."""
    mean_good: float
    """Mean score of held-out good documents."""
    mean_raw: float

    @property
    def warnings(self) -> list[str]:
        """What makes it doubtful."""
        found = []
        if self.auc < 0.7:
            found.append(f"held-out AUC is {self.auc:.2f}: good and raw text look alike to it")
        if abs(self.correlation_with_length) > 0.7:
            found.append(f"its score is nearly the length (correlation {self.correlation_with_length:.2f})")
        return found


@dataclass(frozen=True)
class Classifier:
    """Weights of features, a bias, and what is known."""

    weights: Array
    """(features,) float64."""
    bias: float
    good_scores: Array
    """Of held-out good documents, float64, rising."""
    about: About

    def scores(self, texts: Sequence[str]) -> Array:
        """(texts,) float64 in [0, 1]."""
        return scores(texts, self.weights, self.bias)

    def save(self, folder: Path) -> None:
        """Write the folder, whole or not at all."""
        from safetensors.numpy import save_file

        with replacing(folder) as temporary:
            temporary.mkdir()
            tensors = {"weights": self.weights, "bias": np.array([self.bias]), "good_scores": self.good_scores}
            save_file(tensors, temporary / WEIGHTS)
            (temporary / ABOUT).write_text(
                json.dumps(asdict(self.about), indent=1, ensure_ascii=False), encoding="utf-8"
            )

    @classmethod
    def load(cls, folder: Path) -> Classifier:
        """Read what `save` wrote."""
        from safetensors.numpy import load_file

        tensors = load_file(folder / WEIGHTS)
        about = About(**json.loads((folder / ABOUT).read_text(encoding="utf-8")))
        return cls(tensors["weights"], float(tensors["bias"][0]), tensors["good_scores"], about)


def learn(good: Sequence[str], raw: Sequence[str]) -> Classifier:
    """Learn from documents of good and of raw text, each in an order without meaning.

    Raises:
        InputError: too few documents, or scikit-learn is missing.
    """
    linear = require("sklearn.linear_model", extra="corpus", purpose="the quality classifier")
    for kind, texts in (("good", good), ("raw", raw)):
        if len(texts) < FEWEST:
            raise InputError(
                f"quality: {len(texts)} documents of {kind} text are too few to learn from (at least {FEWEST})"
            )
    training = [*(t for i, t in enumerate(good) if i % HELD_OUT), *(t for i, t in enumerate(raw) if i % HELD_OUT)]
    labels = np.arange(len(training)) < sum(1 for i in range(len(good)) if i % HELD_OUT)
    model = linear.LogisticRegression(solver="lbfgs", max_iter=1000)
    counts = frequencies(training)
    used = np.unique(counts.indices)  # the weights of all others are 0, which costs time to find
    model.fit(counts[:, used], labels)
    weights, bias = np.zeros(FEATURES), float(model.intercept_[0])
    weights[used] = model.coef_[0]
    held_good, held_raw = scores(good[::HELD_OUT], weights, bias), scores(raw[::HELD_OUT], weights, bias)
    lengths = np.log([len(text) for text in raw[::HELD_OUT]])
    constant = held_raw.std() == 0 or lengths.std() == 0
    best, worst = top_words(training, weights)
    about = About(
        good=len(good), raw=len(raw), auc=area(held_good, held_raw),
        correlation_with_length=0.0 if constant else float(np.corrcoef(held_raw, lengths)[0, 1]),
        good_words=best, raw_words=worst, mean_good=float(held_good.mean()), mean_raw=float(held_raw.mean()),
    )  # fmt: skip
    return Classifier(weights, bias, np.sort(held_good), about)


def area(good: Array, raw: Array) -> float:
    """The probability that a good document has the higher score; ties count half."""
    ordered = np.sort(raw)
    below = np.searchsorted(ordered, good, side="left") + np.searchsorted(ordered, good, side="right")
    return float(below.mean() / (2 * len(raw)))


def top_words(texts: Sequence[str], weights: Array) -> tuple[list[str], list[str]]:
    """The most frequent word of each of the largest and of the smallest weights."""
    order = np.argsort(weights, kind="stable")
    wanted = {int(number) for number in (*order[:TOP], *order[-TOP:])}
    counts: dict[int, Counter[bytes]] = {number: Counter() for number in wanted}
    for start in range(0, len(texts), 256):
        numbers, _, words = words_of(texts[start : start + 256], FEATURES)
        for number, word in zip(numbers.tolist(), words, strict=True):
            if number in wanted:
                counts[number][word] += 1

    def name(number: int) -> str:
        found = sorted(counts[number].items(), key=lambda pair: (-pair[1], pair[0]))
        return found[0][0].decode("utf-8", "replace") if found else ""

    return [name(int(n)) for n in order[::-1][:TOP]], [name(int(n)) for n in order[:TOP]]
