"""The law of `--model auto` fitted to the runs of benchmarks/law_runs.py.

    python benchmarks/law_fit.py [--write]

Least squares on the logarithm of bits per byte with Huber's loss, from several starts. The interval comes from a
bootstrap. --write puts the numbers into src/gpt3/training/assets/law.json. Printed: the fit, each run against it, and
each run against a fit to all others. A record with "fitted": false is not fitted, only compared.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import least_squares

from gpt3.durable import write_text
from gpt3.ladder.presets import Preset
from gpt3.training.law import Amount, Curve, layer_parameters

RECORDS = Path(__file__).with_name("law_runs.json")
LAW = Path(__file__).parents[1] / "src" / "gpt3" / "training" / "assets" / "law.json"
HUBER = 0.01
"""Residuals of log L above this count linearly."""
STARTS = (
    (0.7, 30.0, 0.35, 3.0, 0.2, 100.0, 0.35, 15.0),
    (0.4, 5.0, 0.2, 1.0, 0.1, 20.0, 0.25, 15.0),
    (0.9, 100.0, 0.5, 10.0, 0.3, 1000.0, 0.5, 8.0),
)
LOWEST = (0.2, 1e-3, 0.05, 1e-3, 0.05, 1e-2, 0.05, 0.2)
HIGHEST = (1.5, 1e5, 1.0, 1e5, 1.0, 1e7, 1.0, 60.0)
TO_DEVIATION = 1.4826
"""Of a normal distribution's median distance from its middle to its standard deviation."""
DRAWS = 24
"""Bootstrap samples."""
EXPECTED = {
    0: (0.8, 0.1),
    1: (25.0, 0.7),
    2: (0.34, 0.15),
    3: (10.0, 0.7),
    4: (0.34, 0.15),
    6: (0.28, 0.25),
    7: (3.0, 1.0),
}
"""So few runs leave the numbers open along valleys: these have expected values with spreads in their logarithm, each counting as
a run. The powers are those of Hoffmann et al. 2022; A gives what Kaplan et al. 2020 found for models of 0.1M to 2M parameters."""
FITTED = ("both->novels", "novels->novels", "wiki->wiki")
"""Training and held-out text of the runs that are fitted; the others are compared."""


class Point(NamedTuple):
    """What a run was, and the bits per byte that it reached, divided by how hard its text is."""

    shape: Preset
    amount: Amount
    bits: float


def fit(points: Sequence[Point], starts: Sequence[Sequence[float]] = STARTS) -> Curve:
    """The curve nearest to the points."""

    def curve(logs: np.ndarray) -> Curve:
        return Curve(*np.exp(logs).tolist())

    def residuals(logs: np.ndarray) -> np.ndarray:
        expected = [HUBER * (logs[at] - math.log(value)) / spread for at, (value, spread) in EXPECTED.items()]
        return np.concatenate([misses(curve(logs), points), expected])

    def at(start: Sequence[float]) -> Any:
        bounds = np.log(LOWEST), np.log(HIGHEST)
        begin = np.clip(np.log(start), bounds[0] + 1e-6, bounds[1] - 1e-6)
        return least_squares(residuals, begin, bounds=bounds, loss="huber", f_scale=HUBER)

    return curve(min((at(start) for start in starts), key=lambda found: found.cost).x)


def misses(curve: Curve, points: Sequence[Point]) -> np.ndarray:
    """log of reached over predicted."""
    return np.array([math.log(point.bits / curve.bits(point.shape, point.amount)) for point in points])


def bootstrap(points: Sequence[Point], best: Curve) -> list[Curve]:
    """Fits to as many points, drawn with replacement."""
    random, start = np.random.default_rng(0), [tuple(vars(best).values())]
    return [fit([points[i] for i in random.integers(0, len(points), len(points))], start) for _ in range(DRAWS)]


def points_of(record: Mapping[str, Any], hardness: Mapping[str, float]) -> dict[str, Point]:
    """A record of law_runs.json as a point for each held-out text, by ``TRAINED->HELD_OUT``."""
    width, found = record["width"], {}
    shape = Preset("run", record["layers"], width, width // 64, 64, 2048, 1e-3, 128, 32, record["vocabulary"])
    each = token_bytes(record)
    amount = Amount(record["tokens"] * each, record["unique_tokens"] * each)
    for asked, bits in record["bits_per_byte"].items():
        text = f"{record['text']}->{asked}"
        found[text] = Point(shape, amount, bits / hardness[text])
    return found


def token_bytes(record: Mapping[str, Any]) -> float:
    """Bytes per token of what a run read most of: novels, or wiki alone."""
    text = "novels" if "novels" in record["loss"] else "wiki"
    return float(record["loss"][text] / math.log(2) / record["bits_per_byte"][text])


def relative(samples: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """How hard each text is, by its largest sample; novels after novels are 1."""
    size = max(samples["novels->novels"], key=float)
    return {text: bits[size] / samples["novels->novels"][size] for text, bits in samples.items()}


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    records = json.loads(RECORDS.read_text(encoding="utf-8"))
    samples = records.pop("hardness")
    records = {name: record for name, record in records.items() if record["rate"] == 1}
    points, compared = dict[str, Point](), dict[str, Point]()
    for name, record in records.items():
        for text, point in points_of(record, relative(samples)).items():
            fitted = text in FITTED and record.get("fitted", True)
            (points if fitted else compared)[f"{name} {text}"] = point
    best = fit([*points.values()])
    print(best)
    left_out = []
    for name, own in points.items():
        rest = fit([point for other, point in points.items() if other != name], [tuple(vars(best).values())])
        left_out.append(misses(rest, [own])[0])
        print(f"{name:55} predicted {-misses(best, [own])[0]:+.1%}, without it {-left_out[-1]:+.1%}")
    spread = float(TO_DEVIATION * np.median(np.abs(left_out)))
    print(f"standard deviation by the median, each without itself: {spread:.2%}")
    for name, own in compared.items():
        print(f"not fitted: {name:55} predicted {-misses(best, [own])[0]:+.1%}")
    beyond = np.mean(misses(best, [*compared.values()]) ** 2) - np.mean(misses(best, [*points.values()]) ** 2)
    sizes = {
        str(each["vocabulary"]): round(token_bytes(each), 4) for each in records.values() if each["text"] == "both"
    }
    curves = [best, *bootstrap([*points.values()], best)]
    layers = [layer_parameters(point.shape) for point in points.values()]
    read = [round(point.amount.read) for point in points.values()]
    values = {
        "how": "benchmarks/law_fit.py --write, from benchmarks/law_runs.json; curves: the fit, then its bootstrap",
        "curves": [[float(f"{value:.5g}") for value in vars(curve).values()] for curve in curves],
        "spread": round(spread, 5),
        "text_spread": round(math.sqrt(max(0.0, float(beyond))), 5),
        "text_bits": samples["novels->novels"],
        "layer_range": [min(layers), max(layers)],
        "read_range": [min(read), max(read)],
        "bytes_per_token": sizes,
    }
    if given.write:
        write_text(LAW, json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
