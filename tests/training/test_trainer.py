"""A real trace of a tiny module: how many steps are in it, and when it is written."""

import json
from pathlib import Path

import pytest
import torch

from gpt3.training.tracking import step_profiler


def train_for(steps: int, folder: Path, recorded: int) -> None:
    layer = torch.nn.Linear(8, 8)
    with step_profiler(folder, recorded) as step_done:
        for _ in range(steps):
            layer(torch.randn(4, 8)).sum().backward()
            step_done()


def steps_in(trace: Path) -> list[str]:
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    return sorted({event["name"] for event in events if str(event.get("name", "")).startswith("ProfilerStep#")})


def matrix_products(trace: Path) -> int:
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    return sum(event.get("name") == "aten::addmm" for event in events)


def test_it_records_the_steps_asked_for_and_no_others(tmp_path: Path) -> None:
    train_for(9, tmp_path, 3)
    assert matrix_products(tmp_path / "profile" / "trace.json") == 3
    assert steps_in(tmp_path / "profile" / "trace.json") == ["ProfilerStep#2", "ProfilerStep#3", "ProfilerStep#4"]
    assert "aten::addmm" in (tmp_path / "profile" / "summary.txt").read_text(encoding="utf-8")
    assert sorted(path.name for path in (tmp_path / "profile").iterdir()) == ["summary.txt", "trace.json"]


def test_the_files_are_there_as_soon_as_the_last_recorded_step_has_ended(tmp_path: Path) -> None:
    with step_profiler(tmp_path, 1) as step_done:
        for step in range(3):
            assert not (tmp_path / "profile").exists(), step
            torch.ones(2).sum()
            step_done()
        assert (tmp_path / "profile" / "trace.json").exists()


def test_a_shorter_run_leaves_what_there_was(tmp_path: Path) -> None:
    train_for(4, tmp_path, 100)
    assert matrix_products(tmp_path / "profile" / "trace.json") == 2


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_run_within_the_warm_up_says_that_there_is_no_trace(steps: int, tmp_path: Path, capsys) -> None:
    train_for(steps, tmp_path, 5)
    assert not (tmp_path / "profile").exists()
    assert "no trace" in capsys.readouterr().err


def test_an_error_in_the_loop_stays_the_error(tmp_path: Path) -> None:
    def fail() -> None:
        with step_profiler(tmp_path, 5) as step_done:
            step_done()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
