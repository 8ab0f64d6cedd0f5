"""Two processes (gloo, on the CPU) learn what one does; when one dies the other stops, and a restart goes on exactly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpt3.report.run_folder import read_metrics
from gpt3.training.checkpoint import checkpoints

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and gloo's interfaces differ there")
TIMING = {"tokens_per_s", "mfu", "seconds"}


def options(text_file: Path, out: Path, **changes: Any) -> dict[str, Any]:
    values = {
        "data": [str(text_file)], "tokenizer": "own:300", "out": str(out), "steps": 50, "context": 32, "batch_tokens": 512,
        "micro_batch": 4, "layers": 2, "width": 32, "heads": 2, "window": 8, "lr": 3e-3, "validation_fraction": 0.1,
        "dtype": "fp32", "device": "cpu", "sample_prompt": ["The "], "workers": 1, "validate_every": 25, "checkpoint_every": 25,
    }  # fmt: skip
    return values | changes


def start(chosen: dict[str, Any], folder: Path) -> subprocess.Popen[str]:
    """``gpt3 train`` with these options."""
    config = folder / "options.yaml"
    config.write_text(yaml.safe_dump(chosen), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "gpt3", "train", "--config", str(config)],
        env={name: value for name, value in os.environ.items() if name != "RANK"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def train(chosen: dict[str, Any], folder: Path) -> Path:
    process = start(chosen, folder)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return Path(chosen["out"])


def losses(run: Path) -> list[float]:
    return [r["loss"] for r in read_metrics(run / "metrics.jsonl") if "lr" in r]


def ranks_of(launcher: int) -> list[int]:
    """The launcher's children, the first rank first."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == launcher:
            found.append(int(stat.parent.name))
    return sorted(found)


@pytest.fixture(scope="module")
def one_process(text_file: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["GPT3_CACHE"] = str(shared_cache)
    folder = tmp_path_factory.mktemp("one")
    return train(options(text_file, folder / "run"), folder)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_learn_what_one_does(
    one_process: Path,
    text_file: Path,
    shared_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parallel: str,
) -> None:
    monkeypatch.setenv("GPT3_CACHE", str(shared_cache))
    run = train(options(text_file, tmp_path / "run", nproc=2, parallel=parallel), tmp_path)
    assert len(losses(run)) == 50
    assert losses(run) == pytest.approx(losses(one_process), rel=1e-5)
    for name in ("val/loss", "val/loss_low", "val/bits_per_byte"):
        both = [[r[name] for r in read_metrics(f / "metrics.jsonl") if name in r] for f in (run, one_process)]
        assert both[0] == pytest.approx(both[1], rel=1e-5)
    state = json.loads((checkpoints(run / "checkpoints")[-1] / "state.json").read_text())
    assert state["computed"]["ranks"] == 2
    assert (run / "samples.jsonl").read_text().count("\n") == 2


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the ranks in /proc")
def test_a_killed_rank_stops_all_and_a_restart_is_exact(
    text_file: Path, shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT3_CACHE", str(shared_cache))
    chosen = options(text_file, tmp_path / "run", nproc=2, steps=120, checkpoint_every=10, keep_checkpoints=99)
    process = start(chosen, tmp_path)
    deadline = time.monotonic() + 200
    while not checkpoints(tmp_path / "run" / "checkpoints"):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    began = time.monotonic()
    os.kill(ranks_of(process.pid)[1], signal.SIGKILL)
    _, error = process.communicate(timeout=120)
    assert time.monotonic() - began < 60
    assert process.returncode == 1, error
    assert "process 1 of 2 was killed by signal 9" in error
    assert "Traceback" not in error, error
    assert not (tmp_path / "run" / "model").exists()
    broken = train(chosen, tmp_path)
    (tmp_path / "whole").mkdir()
    whole = train(chosen | {"out": str(tmp_path / "whole" / "run")}, tmp_path / "whole")
    assert losses(broken) == losses(whole)
    last = [sorted((run / "checkpoints").iterdir(), key=lambda p: int(p.name[5:]))[-1] for run in (broken, whole)]
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (last[0] / name).read_bytes() == (last[1] / name).read_bytes()


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the ranks in /proc")
@pytest.mark.parametrize("moment", ["training", pytest.param("starting", marks=pytest.mark.slow)])
def test_a_killed_launcher_leaves_no_rank_behind(
    text_file: Path, shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setenv("GPT3_CACHE", str(shared_cache))
    chosen = options(text_file, tmp_path / "run", nproc=2, steps=100_000, checkpoint_every=5)
    process = start(chosen, tmp_path)
    deadline = time.monotonic() + 200
    while len(ranks_of(process.pid)) < 2 or (moment == "training" and not checkpoints(tmp_path / "run/checkpoints")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    ranks = ranks_of(process.pid)
    process.kill()
    process.wait()
    deadline = time.monotonic() + (5 if moment == "training" else 30)  # a rank that starts first imports
    while left := [rank for rank in ranks if alive(rank)]:
        assert time.monotonic() < deadline, f"ranks {left} go on"
        time.sleep(0.05)


def alive(process: int) -> bool:
    """Whether it runs: it is there, and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_mistake_is_told_once_by_the_first_rank(tmp_path: Path, text_file: Path) -> None:
    process = start(options(text_file, tmp_path / "run", nproc=2, data=["no/such/file.txt"]), tmp_path)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert error.count("no/such/file.txt") == 1, error
    assert error.count("\n") == 1, error
