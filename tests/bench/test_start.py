"""`gpt3 bench start`: whole processes are timed, and each says what it made."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gpt3.bench.start import BenchStartOptions, command, summary, table, timed_process
from gpt3.errors import InputError, RunError

MODEL = Path(__file__).parents[1] / "compatibility" / "made_by_0_1" / "trained" / "whole" / "model"


def python(program: str) -> dict:
    return timed_process([sys.executable, "-c", program], {"WHO": "bench"}, "Python")


def test_a_process_is_timed_from_its_start_to_its_end() -> None:
    program = (
        "import os, time; print(os.environ['WHO'], flush=True); time.sleep(0.9); x = b'1' * 60_000_000; time.sleep(0.1)"
    )
    found = python(program)
    assert 0 < found["first"] < found["seconds"] - 0.35  # the reader may be half a second late
    if hasattr(os, "wait4"):
        assert 0 < found["cpu_seconds"] < found["seconds"]
    if Path("/proc/self/status").exists():
        assert 60e6 < found["anonymous_bytes"] < found["peak_bytes"] < 200e6


def test_memory_is_that_of_the_process_alone() -> None:
    ours = b"1" * 200_000_000
    peak = python("print()")["peak_bytes"]
    assert peak is None or peak < len(ours) / 2


def test_a_process_that_fails_or_makes_too_little_is_no_measurement() -> None:
    with pytest.raises(RunError, match=r"Python failed: .*ZeroDivisionError"):
        python("1 / 0")
    program = "import sys; print('3 tokens in 0.1 s', file=sys.stderr)"
    line = [sys.executable, "-c", program, "--max-new-tokens"]
    assert timed_process([*line, "3"], {}, "Python")["first"] is None
    with pytest.raises(RunError, match="Python generated 3 tokens instead of 4"):
        timed_process([*line, "4"], {}, "Python")


def test_what_gpt3_is_asked_gives_that_many_tokens() -> None:
    found = timed_process(command("gpt3", {"model": str(MODEL)}, 5, 1), {"OMP_NUM_THREADS": "1"}, "gpt3")
    assert found["first"] < found["seconds"]


def test_the_table_has_medians_and_leaves_unknown_memory_empty(undocumented) -> None:
    answers = [
        {"seconds": seconds, "first": None, "cpu_seconds": seconds, "peak_bytes": None, "anonymous_bytes": peak}
        for seconds, peak in ((3.0, 1_000_000), (1.0, 5_000_000), (2.0, None))
    ]
    result = summary("demo", "gpt3", answers)
    assert result["peak_bytes"] is None
    assert table([result]).splitlines()[-1] == "| gpt3 generate | 2.00 s (1.00-3.00) |  | 2.00 s |  | 5 MB |"
    assert undocumented(result) == []


def test_more_tokens_than_the_model_has_positions() -> None:
    with pytest.raises(InputError, match="--new-tokens 5000 does not fit demo"):
        BenchStartOptions(new_tokens=5000)
    with pytest.raises(InputError, match="nonsense"):
        BenchStartOptions(model="nonsense")
