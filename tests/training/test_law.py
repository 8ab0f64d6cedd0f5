"""The law of a run's bits per byte: its arithmetic, what a fit recovers, and what it says about a finished run."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gpt3.ladder.presets import PRESETS
from gpt3.training.hardness import bits_per_byte
from gpt3.training.law import Amount, Curve, Law, fitted_law, layer_parameters
from gpt3.training.outlook import verdict
from gpt3.training.plan import auto_preset, small_rate

PLANTED = Curve(0.8, 24.0, 0.31, 4.0, 0.22, 150.0, 0.36, 3.0)
LAW = Law(PLANTED, [], 0.01, 0.02, {1e5: 2.6, 1e6: 2.2}, (1e4, 1e9), (1e5, 1e12), {1024: 2.5, 4096: 3.5})


@pytest.fixture(scope="module")
def fitting() -> ModuleType:
    pytest.importorskip("scipy")
    path = Path(__file__).parents[2] / "benchmarks" / "law_fit.py"
    spec = importlib.util.spec_from_file_location("law_fit", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def grid(fitting: ModuleType, curve: Curve, noise: float = 0.0) -> list[Any]:
    draw = random.Random(0)
    points = []
    for width in (64, 128, 256, 384):
        for vocabulary in (1024, 8192):
            for read, unique in ((1e6, 1e9), (4e6, 1e9), (1.6e7, 1e9), (4e6, 5e5), (1.6e7, 5e5)):
                shape, amount = auto_preset(width, vocabulary, 128), Amount(read, unique)
                points.append(fitting.Point(shape, amount, curve.bits(shape, amount) * math.exp(draw.gauss(0, noise))))
    return points


def test_layer_parameters_are_those_of_the_models_matrices() -> None:
    shape = auto_preset(128, 4096, 128)
    d, layers, positions = 128, shape.n_layers, 128
    beside = (4096 + positions) * d + 2 * d + layers * (4 * d + 3 * d + d + 4 * d + d)  # tables, norms, biases
    assert layer_parameters(shape) == shape.parameters - beside


def test_the_law_by_hand() -> None:
    """Two layers of 128: N = 12 · 2 · 128², V = 4,096 · 128, D = 10⁷."""
    model = 24 / 393_216**0.31 + 4 / 524_288**0.22
    expected = 0.8 + (model**4 + (150 / 1e7**0.36) ** 4) ** 0.25
    assert PLANTED.bits(auto_preset(128, 4096, 128), Amount(1e7, 1e12)) == pytest.approx(expected)


def test_what_the_runs_of_the_law_were_like() -> None:
    shape, amount = auto_preset(128, 4096, 128), Amount(1e7, 1e12)
    assert LAW.covers(shape, amount)
    assert not LAW.covers(auto_preset(128, 4096, 256), amount)
    assert not LAW.covers(shape, Amount(1e4, 1e12))
    assert not dataclasses.replace(LAW, layer_range=(1e6, 1e9)).covers(shape, amount)


def test_the_rate_is_that_of_equation_d1() -> None:
    """GPT-3 Small's layers have 84.9M parameters; Table 2.1 rounds to 6e-4."""
    assert small_rate(12, 768) == pytest.approx(0.003239 - 0.0001395 * math.log(84_934_656))
    assert small_rate(12, 768) == pytest.approx(6e-4, rel=0.2)
    assert small_rate(200, 20_000) == PRESETS["175B"].learning_rate


def test_repeats_count_less_and_less_but_never_nothing() -> None:
    shape = auto_preset(128, 4096, 128)
    new, unique = PLANTED.bits(shape, Amount(8e6, 8e6)), 1e6
    bits = [PLANTED.bits(shape, Amount(epochs * unique, unique)) for epochs in (1, 4, 8, 400)]
    assert bits == sorted(bits, reverse=True)
    assert bits[2] > new
    large = PLANTED.bits(shape, Amount(4e8, 1e8))  # "almost as good as new"
    assert large == pytest.approx(PLANTED.bits(shape, Amount(4e8, 1e12)), rel=0.01)
    most = PLANTED.repeats * unique / (layer_parameters(shape) + 4096 * 128)
    assert bits[3] == pytest.approx(PLANTED.bits(shape, Amount((1 + most) * unique, 1e12)), rel=1e-6)
    endless = PLANTED.bits(shape, Amount(1e12, 1e8))  # no more than 15.4 epochs' worth
    assert endless == pytest.approx(PLANTED.bits(shape, Amount(16.4e8, 1e12)), rel=1e-6)


def test_a_fit_recovers_the_curve_that_made_the_runs(fitting: ModuleType) -> None:
    points = grid(fitting, PLANTED)
    found = fitting.fit(points)
    for shape, amount, bits in points:
        assert found.bits(shape, amount) == pytest.approx(bits, rel=5e-3)
    assert found.repeats == pytest.approx(PLANTED.repeats, rel=0.1)
    far = auto_preset(640, 4096, 128), Amount(1e9, 1e12)
    assert found.bits(*far) == pytest.approx(PLANTED.bits(*far), rel=0.03)


def test_a_run_that_went_wrong_hardly_moves_the_fit(fitting: ModuleType) -> None:
    points = grid(fitting, PLANTED, noise=0.003)
    points[7] = points[7]._replace(bits=2 * points[7].bits)
    found = fitting.fit(points, [tuple(vars(PLANTED).values())])
    assert max(abs(math.log(found.bits(*each[:2]) / PLANTED.bits(*each[:2]))) for each in points) < 0.01


def test_the_interval_holds_the_fits_to_other_draws_and_the_spreads() -> None:
    shape, amount = auto_preset(128, 4096, 128), Amount(1e7, 1e8)
    alone = LAW.predict(shape, amount, 1.1)
    assert alone.bits == 1.1 * PLANTED.bits(shape, amount)
    assert math.log(alone.high / alone.bits) == pytest.approx(1.96 * math.hypot(0.01, 0.02))
    assert alone.low * alone.high == pytest.approx(alone.bits**2)
    others = [dataclasses.replace(PLANTED, data=factor * PLANTED.data) for factor in (0.8, 1.2)]
    assert dataclasses.replace(LAW, others=others).predict(shape, amount, 1.1).high > alone.high


def test_hardness_is_what_byte_n_grams_find() -> None:
    draw = random.Random(1)
    letters = bytes(draw.choice(b"abcdefgh") for _ in range(20_000))
    train, test = letters[:10_000], letters[10_000:]
    assert 3 < bits_per_byte(train, test) < 4.5  # 3 bits each, of which n-grams learn nothing but the letters
    assert bits_per_byte(b"ab" * 5000, b"ab" * 500) < 0.05
    assert LAW.hardness(train, test) == bits_per_byte(train, test) / 3.0  # 0.4 per factor of 10
    assert LAW.hardness(train, b"") == LAW.hardness(b"", test) == 1


def test_n_grams_of_a_few_bytes_by_hand() -> None:
    train, test = b"abab", b"b"
    unigram = (2 + 2 * 1 / 256) / (4 + 2)  # b twice of four, two different bytes
    zeros = [unigram]  # no context of zeros has b after it: a came first, 1 of 1 time
    for _ in range(5):
        zeros.append(1 * zeros[-1] / (1 + 1))
    assert bits_per_byte(train, test) == pytest.approx(-math.log2(zeros[-1]))


def test_bytes_per_token_lie_on_a_line_over_the_logarithm() -> None:
    assert [LAW.token_bytes(size) for size in (1024, 2048, 4096, 8192)] == pytest.approx([2.5, 3.0, 3.5, 4.0])


@pytest.mark.parametrize(
    ("width", "read", "unique", "expected"),
    [
        (256, 3e7, 1e12, "well spent: twice the time"),
        (768, 1e6, 1e12, "undertrained: "),
        (64, 1e9, 1e12, "too small a model: "),
        (128, 3e7, 3e4, "data-limited: twice the data"),
    ],
)
def test_a_finished_run_says_what_would_have_helped_most(width: int, read: float, unique: float, expected: str) -> None:
    line = verdict(LAW, auto_preset(width, 4096, 128), Amount(read, unique), 1.7)
    assert line.startswith(expected), line
    now, then = 1.7, float(line.partition("to about ")[2].partition(" ")[0])
    assert then < now


def test_the_fitted_law_is_whole() -> None:
    law = fitted_law()
    assert len(law.others) >= 20
    demo = auto_preset(192, 4096, 128)
    bits = [law.bits(demo, Amount(read, 1e9)) for read in (1e6, 4e6, 1.6e7)]
    assert 3 > bits[0] > bits[1] > bits[2] > 1
