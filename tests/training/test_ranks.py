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
from kill_server import Server

from gpt3.report.run_folder import read_metrics
from gpt3.training.checkpoint import checkpoints

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and gloo's interfaces differ there")
TWO: dict[str, Any] = {"nproc": 2, "parallel": "ddp", "checkpoint_every": 10, "keep_checkpoints": 99}


def options(text_file: Path, out: Path, **changes: Any) -> dict[str, Any]:
    values = {
        "data": [str(text_file)], "tokenizer": "own:300", "out": str(out), "steps": 30, "context": 32, "batch_tokens": 512,
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


def train(server: Server, chosen: dict[str, Any], cache: Path) -> Path:
    """A whole session, with forks of the server as ranks; its run folder."""
    assert server.sit(chosen, cache) == 0, server.log.read_text()
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
def one_process(server: Server, text_file: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(server, options(text_file, tmp_path_factory.mktemp("one") / "run"), shared_cache)


@pytest.fixture(scope="module")
def two_ranks(server: Server, text_file: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(server, options(text_file, tmp_path_factory.mktemp("two") / "run", **TWO), shared_cache)


def test_two_ranks_learn_what_one_does(one_process: Path, two_ranks: Path) -> None:
    same_as(one_process, two_ranks)


@pytest.mark.parametrize("way", [{}, pytest.param({"tensor_parallel": 2}, marks=pytest.mark.slow)], ids=str)
def test_two_ranks_with_a_part_of_each_tensor_learn_what_one_does(
    way: dict[str, Any], server: Server, one_process: Path, text_file: Path, shared_cache: Path, tmp_path: Path
) -> None:
    """Samples and validations, too."""
    chosen = options(text_file, tmp_path / "run", nproc=2, parallel="fsdp", **way)
    same_as(one_process, train(server, chosen, shared_cache))


def same_as(one_process: Path, run: Path) -> None:
    assert len(losses(run)) == 30
    assert losses(run) == pytest.approx(losses(one_process), rel=1e-5)
    for name in ("val/loss", "val/loss_low", "val/bits_per_byte"):
        both = [[r[name] for r in read_metrics(f / "metrics.jsonl") if name in r] for f in (run, one_process)]
        assert both[0] == pytest.approx(both[1], rel=1e-5)
    state = json.loads((checkpoints(run / "checkpoints")[-1] / "state.json").read_text())
    assert state["computed"]["ranks"] == 2
    assert (run / "samples.jsonl").read_text().count("\n") == 2


def test_a_killed_rank_stops_all_and_a_restart_is_exact(
    server: Server, two_ranks: Path, text_file: Path, shared_cache: Path, tmp_path: Path
) -> None:
    chosen = options(text_file, tmp_path / "run", **TWO)
    said, began = len(server.log.read_text()), time.monotonic()
    assert server.sit(chosen, shared_cache, "stepped", 24, rank="1") == 70
    assert time.monotonic() - began < 100
    error = server.log.read_text()[said:]
    assert "RunError('process 1 of 2 was killed by signal 9; the others were stopped" in error
    assert "Traceback" not in error, error
    assert not (tmp_path / "run" / "model").exists()
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-10", "step-20"]
    broken = train(server, chosen, shared_cache)
    assert losses(broken) == losses(two_ranks)
    last = [run / "checkpoints" / "step-30" for run in (broken, two_ranks)]
    files = sorted(path.name for path in last[1].glob("*.safetensors"))
    assert "model-00002-of-00002.safetensors" in files
    for name in files:
        assert (last[0] / name).read_bytes() == (last[1] / name).read_bytes()


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes in /proc")
def test_a_killed_launcher_leaves_no_rank_behind(
    server: Server, text_file: Path, shared_cache: Path, tmp_path: Path
) -> None:
    chosen = options(text_file, tmp_path / "run", nproc=2, steps=100_000, checkpoint_every=5)
    assert server.sit(chosen, shared_cache, "launcher", 12) == -signal.SIGKILL
    all_end([int((shared_cache / f"rank-{rank}").read_text()) for rank in range(2)], 60)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the ranks in /proc")
def test_a_launcher_killed_while_its_ranks_start_leaves_none_behind(text_file: Path, tmp_path: Path) -> None:
    process = start(options(text_file, tmp_path / "run", nproc=2, steps=100_000), tmp_path)
    while len(ranks := ranks_of(process.pid)) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.wait()
    all_end(ranks, 60)  # a rank that starts first imports


def all_end(ranks: list[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while left := [rank for rank in ranks if alive(rank)]:
        assert time.monotonic() < deadline, f"ranks {left} go on"
        time.sleep(0.05)


def alive(process: int) -> bool:
    """Whether it runs: it is there, and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_mistake_is_told_once_by_the_first_rank(
    server: Server, text_file: Path, shared_cache: Path, tmp_path: Path
) -> None:
    said = len(server.log.read_text())
    assert server.sit(options(text_file, tmp_path / "run", nproc=2, data=["no/such/file.txt"]), shared_cache) == 2
    is_told_once(server.log.read_text()[said:])


@pytest.mark.slow
def test_a_mistake_is_told_once_by_processes_that_are_no_forks(tmp_path: Path, text_file: Path) -> None:
    process = start(options(text_file, tmp_path / "run", nproc=2, data=["no/such/file.txt"]), tmp_path)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    is_told_once(error)


def is_told_once(error: str) -> None:
    assert error.count("no/such/file.txt") == 1, error
    assert error.count("\n") == 1, error
