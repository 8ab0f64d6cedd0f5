"""Experiment 2.3: what is shown follows from the JSON, planted noise is found, and what noise hides is not drawn."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt3.paper import noise_scale, scaling_runs
from gpt3.paper.experiment import Work
from gpt3.paper.noise_scale import parts
from gpt3.paper.page import section
from gpt3.training.options import TrainOptions


def planted(square: float, trace: float, count: int = 600, seed: int = 1) -> list[list[float]]:
    """Steps with unbiased, noisy estimates; the loss falls."""
    draw = np.random.default_rng(seed)
    tokens = 4096 * np.arange(1, count + 1)
    squares, traces = square * (1 + draw.normal(size=count)), trace * (1 + 0.2 * draw.normal(size=count))
    return np.stack([tokens, 9 - np.log10(tokens), squares, traces], 1).tolist()


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> noise_scale.Measured:
    """The experiment with runs that are written down instead of trained."""

    def train(work: Work, name: str, **options: Any) -> Path:
        chosen = TrainOptions(**options)
        assert chosen.noise_scale
        assert (chosen.log_every, chosen.minutes) == (1, 3.0)
        assert chosen.batch_tokens == 8 * chosen.micro_batch * chosen.context
        folder = work.folder / name
        folder.mkdir(parents=True)
        keys = ("tokens", "loss", "noise_square", "noise_trace")
        rows = [dict(zip(keys, row, strict=True)) for row in planted(2.0, 3e4, seed=chosen.width)]
        lines = [{"step": step, **row} for step, row in enumerate(rows, 1)]
        lines.insert(3, {"step": 3, "tokens": 1, "loss": 9.0, "skipped": "loss 9 is far off"})
        lines.append({"step": 600, "val/loss": 3.0, "val/bits_per_byte": 3.0 / math.log(2) / 4.0})
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    monkeypatch.setattr(Work, "train", train)
    monkeypatch.setattr(scaling_runs, "bytes_per_gpt2_token", lambda work: 5.0)
    return json.loads(json.dumps(noise_scale.measure(Work(tmp_path, minutes=6.0))))


def test_what_is_shown_follows_from_the_json(measured: noise_scale.Measured) -> None:
    drawing = noise_scale.draw(measured)
    size = measured["sizes"][1]
    assert len(size["steps"]) == 600
    steps = np.array(size["steps"])[-(600 - 291) :]  # of the last part: from 16 to 600 in five equal factors
    scale = steps[:, 3].mean() / steps[:, 2].mean()
    last = drawing.tables[0].rows[-1]
    assert last[0] == "3.15M"
    assert last[3] == f"{scale:,.0f}"
    loss = steps[:, 1].mean() * 5 / 4  # nats per token of 5 bytes
    assert last[5] == f"{2e8 / loss ** (1 / 0.21) * 5 / 4:,.0f}"
    assert drawing.charts[0].legend[1].points[-1][:2] == (steps[:, 0].mean(), pytest.approx(scale))
    x, y, _ = sorted(drawing.charts[1].legend[1].points)[0]
    assert (x, 10**y) == (pytest.approx(loss), pytest.approx(scale * 4 / 5))
    assert "Table 2.1" in section(drawing)


def test_the_rule_is_the_plans_for_a_run_of_this_length(measured: noise_scale.Measured) -> None:
    assert [size["rule_batch"] for size in measured["sizes"]] == [
        2048,
        2048,
    ]  # of 2.5M tokens a thousandth, at most the demo's


def test_errors_are_those_of_repeated_runs() -> None:
    last = [parts(planted(2.0, 3e4, seed=seed))[-1] for seed in range(60)]
    scales = np.array([part.scale for part in last])
    assert scales.mean() == pytest.approx(1.5e4, rel=0.05)
    assert np.mean([part.error for part in last]) == pytest.approx(scales.std(), rel=0.3)


def test_what_noise_hides_is_not_drawn(measured: noise_scale.Measured) -> None:
    hidden = [[tokens, loss, square - 2.0, trace] for tokens, loss, square, trace in measured["sizes"][0]["steps"]]
    assert len(parts(hidden)) <= 1  # one in forty by chance
    one_step = measured["sizes"][1]["steps"][:1]
    sizes = [size | {"steps": steps} for size, steps in zip(measured["sizes"], (hidden[:1], one_step), strict=True)]
    drawing = noise_scale.draw(measured | {"sizes": sizes})
    assert not drawing.charts
    assert drawing.ours == ["Nothing: the runs were too short to tell the gradient from its noise."]
    assert drawing.notes[-1].startswith("Too noisy to show: 98.3K, 3.15M.")


def test_a_run_that_resumes_keeps_its_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though other experiments, chosen with it, change its part of --minutes."""
    asked: list[float] = []
    monkeypatch.setattr(noise_scale, "trained", lambda work, layers, width, minutes: asked.append(minutes))
    monkeypatch.setattr("gpt3.paper.scaling_runs.bytes_per_gpt2_token", lambda work: 4.5)
    for minutes in (6.0, 60.0):
        noise_scale.measure(Work(tmp_path, minutes=minutes))
    assert asked == [3.0] * 4
