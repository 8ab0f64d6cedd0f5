"""``--model auto``: what it chooses at planted speeds and laws, which options it refuses, and a run that resumes its choice."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from gpt3.errors import InputError
from gpt3.training import automatic
from gpt3.training.automatic import Choice, Text, batch_for, candidates, choose, choose_for_tokens, text_of, tokens_in
from gpt3.training.distributed import ALONE, agree_on_compute
from gpt3.training.law import Amount, Curve, Law
from gpt3.training.options import TrainOptions
from gpt3.training.outlook import Outlook
from gpt3.training.plan import auto_preset
from gpt3.training.run import train
from gpt3.training.step_speed import StepSpeed, measure_shape, solved, token_work

LAW = Law(
    Curve(0.8, 24.0, 0.31, 4.0, 0.22, 150.0, 0.36, 3.0), [], 0.01, 0.02, {1e5: 2.6, 1e6: 2.2}, (1e4, 1e9), (1e5, 1e12),
    {1024: 2.5, 4096: 3.5},
)  # fmt: skip
SPEED = StepSpeed((3e-12, 1e-9), (0.4e-9, 3e-9))
TEXT = Text(1e9, {1024: 2.5, 4096: 3.5, 16_384: 4.2}, own=True)


def at(minutes: float, speed: StepSpeed = SPEED, text: Text = TEXT) -> Choice:
    return choose(60 * minutes, speed, text, LAW, 128)


def test_the_choice_is_the_least_of_all_candidates_with_the_next_widths() -> None:
    choice = at(5)
    best: dict[int, float] = {}
    for each in candidates(300, SPEED, TEXT, LAW, 128):
        best[each.shape.d_model] = min(best.get(each.shape.d_model, math.inf), each.bits)
    assert [choice.best.bits, *(each.bits for each in choice.next)] == sorted(best.values())[:3]
    shape = choice.best.shape
    assert (shape.n_layers, shape.n_heads) == (max(2, shape.d_model // 64), shape.d_model // 64)
    read = Amount(choice.best.tokens * TEXT.token_bytes[shape.vocab_size], TEXT.unique_bytes)
    assert choice.best.bits == LAW.bits(shape, read)


def test_more_time_and_a_faster_machine_choose_larger_models() -> None:
    widths = [at(minutes).best.shape.d_model for minutes in (0.1, 1, 10, 100, 1000)]
    assert widths == sorted(widths)
    assert widths[0] < widths[2] < widths[4]
    faster = StepSpeed((3e-13, 1e-10), (0.4e-10, 3e-10))
    assert at(1, faster) == at(10)


def test_little_text_has_few_entries_and_a_small_model() -> None:
    assert at(1000, text=Text(3e5, {1024: 2.5})).best.bits > at(1000).best.bits


def test_tokens_and_batch_fit_each_other_and_the_time() -> None:
    shape = auto_preset(192, 4096, 128)
    tokens, batch = tokens_in(300, SPEED, shape, None)
    assert batch == batch_for(tokens, 128)
    assert tokens / batch * SPEED.step_seconds(shape, batch) == pytest.approx(300, rel=1e-4)
    assert tokens_in(300, SPEED, shape, 512)[1] == 512
    assert [batch_for(n, 128) for n in (1e5, 1e6, 4e6, 1.6e7)] == [128, 896, 2048, 4096]
    assert batch_for(300e9, 128) == pytest.approx(0.5e6, rel=0.15)  # the paper's smallest, Table 2.1


@pytest.mark.parametrize(("tokens", "expected"), [(100, 1), (1_000_000, 7), (3e6, 16), (64e6, 64), (6.6e6, 16)])
def test_the_batch_is_a_thousandth_then_grows_with_the_root(tokens: float, expected: int) -> None:
    """In sequences of 128 tokens; from 16 on a multiple of 16."""
    assert batch_for(tokens, 128) == 128 * expected


def test_the_plan_ranks_the_next_best_by_the_same_estimate() -> None:
    """Not by the chosen shape's measured speed, which may be another: then the next best could look better than the best."""
    choice = at(5)
    found = Outlook(choice.best.shape, 3.5, 1e9, 1.2, choice)
    (_, predicted), *others = found.rows(SimpleNamespace(tokens=choice.best.tokens // 2))  # type: ignore[arg-type]
    assert predicted.startswith(str(found.predict(choice.best.tokens // 2)))
    ratios = [each.bits / choice.best.bits - 1 for each in choice.next]
    assert [text.rpartition(": ")[2] for _, text in others] == [f"{ratio:+.1%} bits per byte" for ratio in ratios]
    assert min(ratios) >= 0


def test_a_number_of_tokens_gets_the_shape_of_the_time_that_it_takes() -> None:
    wanted = at(20).best
    found = choose_for_tokens(wanted.tokens, at).best
    assert (
        abs(found.shape.d_model - wanted.shape.d_model) <= 64
    )  # where one width follows another, two times read as many
    assert found.tokens == pytest.approx(wanted.tokens, rel=1e-3)


def test_two_measured_shapes_price_both_kinds_of_work() -> None:
    work = [token_work(auto_preset(width, 4096, 128)) for width in (128, 384)]
    times = [3e-12 * products + 1e-9 * loops for products, loops in work]
    assert solved(work, times) == pytest.approx((3e-12, 1e-9))
    assert min(solved(work, [times[0], times[0] / 2])) == 0  # noise


@pytest.mark.parametrize("length", [{"minutes": 1.0}, {"tokens": "1M", "model": "auto"}])
def test_steps_are_measured_before_a_size_is_chosen(length: dict[str, Any]) -> None:
    options = TrainOptions(device="cpu", threads="1", **length)
    per_token, of_update = measure_shape(options, auto_preset(64, 300, 32), agree_on_compute(options, ALONE), ALONE)
    assert per_token > 0
    assert of_update > 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "demo"),
        ({"minutes": 5}, "auto"),
        ({"minutes": 5, "width": 64}, "demo"),
        ({"minutes": 5, "init_from": "gpt2"}, "demo"),
        ({"minutes": 5, "model": "17M"}, "17M"),
        ({"minutes": 5, "fold": "1/5"}, "demo"),
        ({"tokens": "1M"}, "demo"),
        ({"model": "auto", "tokens": "1M"}, "auto"),
    ],
)
def test_the_size_that_is_not_given(given: dict[str, object], expected: str) -> None:
    assert TrainOptions(**given).size == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"minutes": 5, "width": 64}, "--model auto chooses --layers, --width and --heads; leave them out"),
        ({"steps": 9}, "--model auto needs the run's length; give --minutes or --tokens"),
        ({"minutes": 5, "folds": 3}, "--model auto would choose for each fold anew"),
        ({"minutes": 5, "init_from": "gpt2"}, "--model auto and --init-from gpt2 both name the model"),
    ],
)
def test_options_that_contradict_it(given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainOptions(model="auto", **given)  # type: ignore[arg-type]


def test_the_text_decides_which_vocabularies_there_are(
    tiny: Any, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tiny(tokenizer=None, layers=None, width=None, heads=None, steps=None, minutes=1.0)
    found = text_of(plain, LAW)
    assert found.unique_bytes == text_file.stat().st_size
    assert found.own
    assert [*found.token_bytes] == [1024]  # too little text even for these
    monkeypatch.setattr(automatic, "BYTES_PER_ENTRY", 10)
    assert [*text_of(plain, LAW).token_bytes] == [1024, 2048, 4096]
    assert [*text_of(dataclasses.replace(plain, tokenizer="own:300"), LAW).token_bytes] == [300]
    assert [*text_of(dataclasses.replace(plain, tokenizer="gpt2"), LAW).token_bytes] == [50_257]


def test_a_run_keeps_its_choice_and_says_what_it_reached(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "measure_speed", lambda *arguments: StepSpeed((1e-10, 1e-8), (1e-7, 1e-9)))
    monkeypatch.setattr("gpt3.training.trainer.Trainer.measure_token", lambda self: 0.3 / 1000)
    monkeypatch.setattr(
        "gpt3.training.run.choose_step", lambda *arguments: arguments[4]
    )  # torch's operators: no compiling
    shape = dict.fromkeys(
        ("layers", "width", "heads", "window", "batch_tokens", "micro_batch", "lr", "tokenizer", "steps")
    )
    options = tiny(**shape, minutes=0.005, threads="1", validation_tokens=256, validate_every=100)
    whole = train(options)
    saved = yaml.safe_load((whole.folder / "config.yaml").read_text(encoding="utf-8"))
    assert (saved["model"], saved["width"], saved["layers"], saved["heads"]) == ("auto", 64, 2, 1)
    assert saved["tokenizer"].startswith("own:")
    predicted, advice = whole.outlook
    assert whole.score is not None
    assert predicted.startswith("predicted ")
    assert f"reached {whole.score.bits_per_byte:.3f} bits per byte" in predicted
    written = json.loads((whole.folder / "prediction.json").read_text(encoding="utf-8"))
    assert written["low"] < written["bits"] < written["high"]
    assert written["lines"] == [predicted, advice]

    # the same numbers again from config.yaml, without a choice
    monkeypatch.setattr(automatic, "measure_speed", None)
    again = TrainOptions(**(saved | {"out": str(tmp_path / "again")}))
    assert train(again).score == whole.score
