"""``--minutes`` ends in time when the speed changes: the schedule is laid out again, without a jump, and a resume repeats it."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.report.run_folder import read_metrics
from gpt3.training import pace
from gpt3.training.layouts import Layout, schedule_tokens
from gpt3.training.options import TrainOptions
from gpt3.training.pace import TimeBudget, recorded_layouts
from gpt3.training.plan import Plan, make_plan
from gpt3.training.run import train

PLAN = make_plan(TrainOptions(steps=1_000, batch_tokens=512, context=128, threads="1"), 10**6)


def rates(plan: Plan) -> list[float]:
    return [plan.learning_rate(plan.tokens_after(step)) for step in range(1, plan.steps + 1)]


@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0.2, 2)), max_size=3))
@settings(max_examples=50, deadline=None)
def test_a_schedule_laid_out_again_has_no_jump_and_comes_to_its_end(changes: list[tuple[float, float]]) -> None:
    plan = PLAN
    for share, factor in changes:
        done = plan.layouts[-1].step if plan.layouts else 0
        step, before = done + int((plan.steps - done) * share), rates(plan)
        plan = plan.laid_out(step, step + max(1, int((plan.steps - step) * factor)))
        assert rates(plan)[:step] == before[:step]  # to the bit: a resume computes them with the later layouts known
    assert rates(plan)[-1] == pytest.approx(PLAN.learning_rate(PLAN.tokens))
    if plan.layouts:  # from where it was to its end in equal parts
        last = range(plan.layouts[-1].step, plan.steps + 1)
        places = [schedule_tokens(plan.layouts, plan.tokens_after(step), plan.tokens_after) for step in last]
        parts = [b - a for a, b in itertools.pairwise(places)]
        assert parts == pytest.approx([(PLAN.tokens - places[0]) / len(parts)] * len(parts))


def test_the_same_length_is_the_same_schedule() -> None:
    assert rates(PLAN.laid_out(300, 1_000)) == pytest.approx(rates(PLAN), rel=1e-9)


def simulate(folder: Path, speed: Callable[[float], float], seconds: float) -> tuple[float, Plan]:
    """Seconds until the end of a run that was planned for a speed of 10,000 tokens/s, and its last plan."""
    planned = make_plan(TrainOptions(batch_tokens=512, context=128), 10**6, int(10_000 * seconds))
    noise, now, step = random.Random(3), 0.0, 0
    budget = TimeBudget(folder, seconds, planned, 0.0, 0)
    while step < budget.plan.steps:
        budget.look(step, now)
        now += 512 / speed(now) * noise.uniform(0.8, 1.2)
        step += 1
    return now, budget.plan


@pytest.mark.parametrize("when", [0.0, 0.1, 0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_it_ends_within_a_tenth_of_what_was_asked(tmp_path: Path, when: float, factor: float) -> None:
    seconds, _ = simulate(tmp_path, lambda t: 10_000 * (factor if t >= 222 * when else 1), 222)
    assert seconds == pytest.approx(222, rel=0.1)


def test_a_speed_that_changes_often_ends_in_time(tmp_path: Path) -> None:
    seconds, plan = simulate(tmp_path, lambda t: 10_000 * (0.6, 1.0, 0.3)[int(t / 100) % 3], 600)
    assert seconds == pytest.approx(600, rel=0.1)
    assert recorded_layouts(tmp_path, make_plan(TrainOptions(batch_tokens=512, context=128), 10**6, 6_000_000)) == plan


def test_a_steady_speed_changes_nothing(tmp_path: Path) -> None:
    _, plan = simulate(tmp_path, lambda t: 10_000 * (0.9 if t % 40 < 8 else 1.01), 222)
    assert plan.layouts == ()
    assert not list(tmp_path.iterdir())


def test_another_length_begins_a_new_record(tmp_path: Path) -> None:
    (tmp_path / pace.FILE_NAME).write_text('{"step": 0, "steps": 1000}\n{"step": 10, "steps": 700}\n')
    assert recorded_layouts(tmp_path, PLAN).layouts == (Layout(0, 1_000), Layout(10, 700))
    longer = make_plan(TrainOptions(steps=1_200, batch_tokens=512, context=128), 10**6)
    assert recorded_layouts(tmp_path, longer) is longer


class Crash:
    every = 1

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, model: torch.nn.Module, step: int) -> dict[str, float]:
        if step == self.step:
            raise KeyError("crash")
        return {}


def test_a_resume_repeats_the_schedule(
    tiny: Callable[..., TrainOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_step_four(self: TimeBudget, step: int, seconds: float) -> Plan | None:
        if step != 4 or self.plan.layouts:
            return None
        self.plan = self.plan.laid_out(4, 9)
        self.path.write_text("".join(json.dumps(layout._asdict()) + "\n" for layout in self.plan.layouts))
        return self.plan

    monkeypatch.setattr(TimeBudget, "look", at_step_four)
    monkeypatch.setattr("gpt3.training.trainer.Trainer.measure_token", lambda self: 3 / (256 * 12))
    changes = {"steps": None, "minutes": 0.05, "checkpoint_every": 3, "validate_every": 20}
    whole, run = tmp_path / "whole", tmp_path / "run"
    train(tiny(**changes, out=str(whole)))
    with pytest.raises(KeyError):
        train(tiny(**changes), evaluators=[Crash(6)])
    monkeypatch.setattr(TimeBudget, "look", lambda self, step, seconds: None)
    train(tiny(**changes))
    losses = [
        {r["step"]: (r["loss"], r["lr"]) for r in read_metrics(folder / "metrics.jsonl") if "loss" in r}
        for folder in (whole, run)
    ]
    assert losses[0] == losses[1]
    assert max(losses[0]) == 9
