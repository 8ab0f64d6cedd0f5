"""Experiment 3.1: a branch is the run of its length, fits recover planted laws, and what is shown follows from the JSON."""

import dataclasses
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from gpt3.paper import scaling, scaling_fit
from gpt3.paper.experiment import Work
from gpt3.paper.page import pictures
from gpt3.paper.scaling_fit import Law, Point, fit, frontier, missed_beyond, power_law
from gpt3.paper.scaling_runs import SHAPES, planned, row, size_of
from gpt3.paper.trunks import Score, branch, train_lengths
from gpt3.training.recipes import SCHEDULES

TRUE = Law(2.0, 60.0, 0.34, 400.0, 0.36)
GRID = [(size, tokens) for size in (5e4, 1e5, 2e5, 4e5, 9e5, 1.3e6) for tokens in (2e5, 4e5, 8e5)]


def planted(noise: float = 0.0, seed: int = 0) -> list[Point]:
    rng = np.random.default_rng(seed)
    return [Point(n, d, TRUE.loss(n, d) * math.exp(noise * rng.standard_normal()), 6 * n * d) for n, d in GRID]


def test_a_fit_recovers_a_planted_law() -> None:
    found = fit(planted()).law
    for name in ("floor", "model", "model_power", "data", "data_power"):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=0.02), name
    assert found.loss(math.inf, math.inf) == pytest.approx(2.0, rel=0.01)


def test_intervals_hold_what_is_beyond_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling_fit, "DRAWS", 20)
    inside = 0
    for seed in range(5):
        said = fit(planted(0.004, seed), seed).predict(3e6, 4e6)
        reached = TRUE.loss(3e6, 4e6)
        inside += said.low <= reached <= said.high
        assert said.low < said.value < said.high
        assert abs(said.value / reached - 1) < 0.1
    assert inside >= 4


def test_the_frontier_is_of_runs_that_no_cheaper_one_beats() -> None:
    points = [Point(1, 1, loss, compute) for compute, loss in ((1, 5.0), (2, 4.0), (3, 4.5), (3, 3.9), (4, 3.95))]
    assert [(point.compute, point.loss) for point in frontier(points[::-1])] == [(1, 5.0), (2, 4.0), (3, 3.9)]


def test_a_power_law_is_recovered_with_its_interval() -> None:
    xs = [10.0**k for k in range(-9, -3)]
    level, power = power_law(xs, [2.57 * x**-0.048 for x in xs])
    assert (level.value, power.value) == (pytest.approx(2.57), pytest.approx(0.048))
    assert power.low == pytest.approx(0.048)
    noisy = [2.57 * x**-0.048 * math.exp(0.01 * (-1) ** place) for place, x in enumerate(xs)]
    power = power_law(xs, noisy)[1]
    assert power.low < 0.048 < power.high


def test_the_rate_of_wsd_falls_in_the_last_fifth() -> None:
    rate = SCHEDULES["wsd"]
    assert [rate(done) for done in (0.0, 0.5, 0.8, 0.9, 1.0)] == pytest.approx([1, 1, 1, 0.5, 0])
    assert [SCHEDULES["linear"](done) for done in (0.0, 0.25, 1.0)] == [1, 0.75, 0]
    assert [SCHEDULES["cosine"](done) for done in (0.0, 1 / 3, 1.0)] == pytest.approx([1, 0.75, 0])


TINY = {
    "layers": 1, "width": 16, "heads": 1, "context": 16, "tokenizer": "own:300", "lr": 1e-3, "recipe": "short", "threads": "1",
    "validation_fraction": 0.2,
}  # fmt: skip


def test_a_branch_is_bit_by_bit_the_run_of_its_length(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.mkdir()
    for number in range(10):
        (text / f"{number}.txt").write_text(f"The {number} ships sailed to the harbor and came back. " * 30)
    work, data = Work(tmp_path, threads="1"), [str(text)]
    scores = train_lengths(
        work, "trunk", 20, 64, (0.5, 1), data=data, **{k: v for k, v in TINY.items() if k != "threads"}
    )
    assert [score.steps for score in scores] == [10, 20]
    whole = Work(tmp_path / "alone", threads="1").train(
        "run", steps=10, batch_tokens=64, schedule="wsd", warmup_tokens=32, decay_tokens=640, validate_every=10**6, data=data,
        sample_prompt=["The"], **{k: v for k, v in TINY.items() if k != "threads"},
    )  # fmt: skip
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (tmp_path / "trunk-10", whole))
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("trunk*/model/*")}
    again = train_lengths(
        work, "trunk", 20, 64, (0.5, 1), data=data, **{k: v for k, v in TINY.items() if k != "threads"}
    )
    assert again == scores
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("trunk*/model/*")} == before


def test_a_branch_copies_the_run_but_what_is_the_trunks_own(tmp_path: Path) -> None:
    trunk = tmp_path / "trunk"
    for step in (4, 8):
        (trunk / "checkpoints" / f"step-{step}").mkdir(parents=True)
    for name in (".lock", "config.yaml", "energy.json", "metrics.jsonl"):
        (trunk / name).write_text(name)
    made = branch(trunk, 4, tmp_path / "branch")
    assert sorted(path.name for path in made.iterdir()) == ["checkpoints", "config.yaml", "metrics.jsonl"]
    assert [path.name for path in (made / "checkpoints").iterdir()] == ["step-4"]


def test_losses_are_in_the_papers_unit() -> None:
    found = row(size_of(2, 128), Score(10, 640, 4.0, 2.0), 0, 4.5)
    assert found["loss"] == pytest.approx(2.0 * 4.5 * 0.693147)  # bits per byte, bytes per token, nats per bit
    assert (found["layer_parameters"], found["loss_per_own_token"]) == (393_216, 4.0)


def test_what_the_form_gets_wrong_is_measured_on_the_dearer_runs() -> None:
    assert missed_beyond(planted()) < 1e-4
    ordered = sorted(planted(), key=lambda point: point.compute)
    known = round(0.6 * len(ordered))
    off = [dataclasses.replace(point, loss=1.05 * point.loss) for point in ordered[known:]]
    assert missed_beyond([*ordered[:known], *off]) == pytest.approx(math.log(1.05), rel=0.01)
    assert missed_beyond(ordered[:6]) == 0


def test_the_runs_fill_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {size_of(*shape)["name"]: 0.01 * (place + 1) for place, shape in enumerate(SHAPES)}
    by_width = {shape: seconds[size_of(*shape)["name"]] for shape in SHAPES}
    monkeypatch.setattr(
        "gpt3.paper.scaling_runs.step_seconds",
        lambda work, options, entries: by_width[options["layers"], options["width"]],
    )
    plan = planned(Work(tmp_path, minutes=30))
    trunks = [size["name"] for size in plan["sizes"]] + 2 * [plan["seeds_of"]]
    steps = sum(1.15 * plan["steps"] * seconds[name] for name in trunks)
    steps += plan["predicted_steps"] * seconds[plan["predicted"]["name"]]
    assert steps == pytest.approx(1800, rel=0.03)
    largest = max(size["layer_parameters"] for size in plan["sizes"])
    compute = plan["predicted"]["layer_parameters"] * plan["predicted_steps"] / (largest * plan["steps"])
    assert compute == pytest.approx(10, rel=0.02)
    assert len(plan["sizes"]) >= 6


def measured() -> dict:
    rows = []
    for (n, d), seed in [(pair, 0) for pair in GRID] + [(pair, 1) for pair in GRID if pair[0] == 4e5]:
        loss = TRUE.loss(n, d) * (1 + 0.001 * seed)
        rows.append(
            {"name": f"{n:.0f}", "layers": 2, "width": 64, "layer_parameters": n, "seed": seed, "steps": 1, "tokens": int(d),
             "bits_per_byte": loss / 3, "loss_per_own_token": loss, "loss": loss}
        )  # fmt: skip
    points = [
        Point(row["layer_parameters"], row["tokens"], row["loss"], 6 * row["layer_parameters"] * row["tokens"])
        for row in rows
    ]
    run = rows[0] | {"name": "big", "layer_parameters": 3e6, "tokens": 4_000_000, "loss": 3.1}
    found = fit(points)
    outside = {"reached": 9.0, "value": 3.0, "low": 2.9, "high": 3.1, "beyond": 2.0}
    return {
        "runs": rows, "predicted_run": run, "unique_tokens": 10**8, "splits": [*scaling.splits(points, 0)[:5], outside],
        "prediction": vars(found.predict(3e6, 4e6)), "law": vars(found.law), "resampled": [vars(law) for law in found.others],
    }  # fmt: skip


def test_what_is_shown_follows_from_the_json() -> None:
    content = json.loads(json.dumps(measured()))
    drawing = scaling.draw(content)
    best, losses = [], []
    for run in sorted(content["runs"], key=lambda run: run["layer_parameters"] * run["tokens"]):
        if not losses or run["loss"] < losses[-1]:
            best.append(6 * run["layer_parameters"] * run["tokens"] / (86_400 * 1e15))
            losses.append(run["loss"])
    slope, level = np.polyfit(np.log(best), np.log(losses), 1)
    assert f"L = {math.exp(level):.3g} C^-{-slope:.3f}" in drawing.ours[1]
    off = content["predicted_run"]["loss"] / content["prediction"]["value"] - 1
    assert f"{off:+.2%}, {'inside' if abs(off) < 0.01 else 'outside'} the interval" in drawing.ours[2]
    held = [check["low"] <= check["reached"] <= check["high"] for check in content["splits"]]
    assert f"{sum(held)} of {len(held)} inside" in drawing.ours[3]
    assert len(drawing.tables[1].rows) == 2 + len(content["runs"])
    assert re.search(r"times the largest compute, big on 4,000,000 tokens", drawing.ours[2])


@pytest.mark.slow
def test_the_whole_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt3.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    assert main(["paper", "3.1", "--minutes", "0.1", "--threads", "1"]) == 0
    found = json.loads((tmp_path / "paper" / "3.1.json").read_text())
    assert len({run["layer_parameters"] for run in found["runs"]}) >= 6
    assert len({(run["name"], run["seed"]) for run in found["runs"]}) == 8
    assert all(Path(model["place"]).is_dir() for model in found["models"])
    assert "Loss over compute" in (tmp_path / "paper" / "paper.html").read_text()
    assert (tmp_path / "paper" / "3.1-2.svg").read_text().startswith("<svg")


def test_the_figures_of_the_docs_are_those_of_the_data() -> None:
    root = Path(__file__).parents[2]
    content = json.loads((root / "benchmarks" / "scaling.json").read_text(encoding="utf-8"))
    for name, picture in pictures("3.1", content).items():
        file = {"3.1-1.svg": "scaling.svg", "3.1-2.svg": "scaling-tokens.svg"}[name]
        assert (root / "docs" / file).read_text(encoding="utf-8") == picture
    text = " ".join((root / "docs" / "paper.md").read_text(encoding="utf-8").split())
    for sentence in scaling.draw(content).ours[1:]:
        assert sentence in text
