"""Threads of each step: recorded where they change, repeated by a resume, and said where this machine cannot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from gpt3.adaptive_threads import AdaptiveThreads
from gpt3.report.run_folder import read_metrics
from gpt3.training import distributed, step_threads
from gpt3.training.options import TrainOptions
from gpt3.training.run import train


class Scripted(AdaptiveThreads):
    """Changes the number of threads after the steps that a test names."""

    def __init__(self, changes: dict[int, int]) -> None:
        super().__init__(2, torch.set_num_threads, others=lambda: None, cores=2)
        self.changes, self.steps = changes, 0

    def after(self, seconds: float, work: float = 0.0) -> None:
        self.steps += 1
        if self.steps in self.changes:
            self.switch(self.changes[self.steps])


class Watch:
    """Notes the number of threads after each step, and ends the run as a crash would."""

    every = 1

    def __init__(self, crash_at: int = 0) -> None:
        self.threads: dict[int, int] = {}
        self.crash_at = crash_at

    def __call__(self, model: torch.nn.Module, step: int) -> dict[str, float]:
        self.threads[step] = torch.get_num_threads()
        if step == self.crash_at:
            raise KeyError("crash")
        return {}


@pytest.fixture(autouse=True)
def threads_put_back() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def follow(monkeypatch: pytest.MonkeyPatch, changes: dict[int, int]) -> None:
    """Let the next run change its threads so; the steps count from the first that is not repeated."""
    monkeypatch.setattr(distributed, "set_threads", lambda threads, adapt: Scripted(changes))
    monkeypatch.setattr(step_threads, "usable_cores", lambda: 2)


def losses(run: Path) -> dict[int, float]:
    return {record["step"]: record["loss"] for record in read_metrics(run / "metrics.jsonl") if "loss" in record}


def lines(run: Path) -> list[dict[str, int]]:
    return [json.loads(line) for line in (run / "threads.jsonl").read_text().splitlines()]


def test_a_resume_repeats_the_threads_of_the_steps_it_lost(
    tiny: Callable[..., TrainOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, run = tiny(steps=9, checkpoint_every=3, validate_every=9), tmp_path / "run"
    follow(monkeypatch, {1: 1, 4: 2, 5: 1})  # after steps 1, 4 and 5
    first = Watch(crash_at=6)
    with pytest.raises(KeyError):
        train(options, evaluators=[first])
    before, written = losses(run), lines(run)
    assert [tuple(row.values()) for row in written] == [(1, 2), (2, 1), (5, 2), (6, 1)]

    follow(monkeypatch, {1: 2, 2: 1})  # after the first steps that are not repeated
    again = Watch()
    train(options, evaluators=[again])
    assert [again.threads[step] for step in (4, 5, 6)] == [first.threads[step] for step in (4, 5, 6)] == [1, 2, 1]
    assert {step: losses(run)[step] for step in before} == before
    assert lines(run) == [*written, {"step": 8, "threads": 2}, {"step": 9, "threads": 1}]


def test_a_fixed_number_is_recorded_and_replaces_what_is_lost(
    tiny: Callable[..., TrainOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, changes = tmp_path / "run", {"steps": 6, "checkpoint_every": 3, "validate_every": 6}
    with monkeypatch.context() as patch:
        follow(patch, {4: 1})
        with pytest.raises(KeyError):
            train(tiny(**changes), evaluators=[Watch(crash_at=5)])
    watch = Watch()
    train(tiny(**changes, threads="1"), evaluators=[watch])
    assert watch.threads == {4: 1, 5: 1, 6: 1}
    assert lines(run) == [{"step": 1, "threads": 2}, {"step": 4, "threads": 1}]


def test_a_machine_with_fewer_cores_says_that_it_cannot_repeat(
    tiny: Callable[..., TrainOptions],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    follow(monkeypatch, {})
    with pytest.raises(KeyError):
        train(tiny(steps=6, checkpoint_every=3, validate_every=6), evaluators=[Watch(crash_at=5)])
    capsys.readouterr()
    monkeypatch.setattr(step_threads, "usable_cores", lambda: 1)
    watch = Watch()
    train(tiny(steps=6, checkpoint_every=3, validate_every=6), evaluators=[watch])
    assert "Steps 4 to 5 were computed with up to 2 threads. This machine allows 1" in capsys.readouterr().err
    assert watch.threads[4] == 1
