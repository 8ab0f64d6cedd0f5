"""A run with a fixed number of threads, killed at any moment, ends in the bits of one that was never killed: weights, optimizer,
metrics. What ``--threads auto`` promises is in test_step_threads.py."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kill_server import Server

from gpt3.report.run_folder import read_metrics
from gpt3.training.checkpoint import checkpoints, damage

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the harness forks its sessions")
STEPS = 40
TIMING = {"tokens_per_s", "mfu", "seconds", "kwh"}
MOMENTS = {"step": 12, "stepped": 12, "record": 12, "fsync": 40, "rename": 30, "renamed": 30, "remove": 4, "later": 900}
"""Moments and the largest count that a session may reach."""


def options(text_file: Path, out: Path, stream: str = "off") -> dict[str, Any]:
    return {
        "data": [str(text_file)], "tokenizer": "own:300", "out": str(out), "steps": STEPS, "context": 32, "batch_tokens": 256,
        "micro_batch": 4, "layers": 2, "width": 32, "heads": 2, "window": 8, "lr": 3e-3, "validation_fraction": 0.1,
        "dtype": "fp32", "device": "cpu", "sample_prompt": ["The "], "workers": 1, "dropout": 0.1, "ema": 0.9,
        "noise_scale": True,
        "checkpoint_every": 4, "validate_every": 10, "sample_every": 20, "spike_window": 8, "stream": stream,
    }  # fmt: skip


def outcome(run: Path) -> dict[str, Any]:
    """All that must be equal to the bit."""
    last = checkpoints(run / "checkpoints")[-1]
    assert damage(last) is None
    files = ["model.safetensors", "optimizer.safetensors", "ema.safetensors", "random.safetensors"]
    state = json.loads((last / "state.json").read_text())
    found: dict[str, Any] = {name: (last / name).read_bytes() for name in files}
    found["state"] = {name: value for name, value in state.items() if name not in ("seconds", "computed")}
    found["final"] = (run / "model" / "model.safetensors").read_bytes()
    found["metrics"] = [{k: v for k, v in r.items() if k not in TIMING} for r in read_metrics(run / "metrics.jsonl")]
    found["samples"] = (run / "samples.jsonl").read_bytes()
    return found


@pytest.fixture(scope="module")
def unbroken(server: Server, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("unbroken")
    assert server.sit(options(text_file, folder / "run"), folder / "cache") == 0, server.log.read_text()
    return outcome(folder / "run")


def kill_until_done(server: Server, chosen: dict[str, Any], cache: Path, kills: int, seed: int) -> Counter[str]:
    """Sit `kills` times with a death each, then to the end; the moments of the deaths.

    A death that a session does not reach (it ended first) is drawn anew in a run begun anew.
    """
    draw, hit = random.Random(seed), Counter[str]()
    order = list(MOMENTS)
    while sum(hit.values()) < kills:
        moment = order[sum(hit.values()) % len(order)]
        code = server.sit(chosen, cache, moment, draw.randint(1, MOMENTS[moment]))
        if code == -signal.SIGKILL:
            hit[moment] += 1
        else:
            assert code == 0, server.log.read_text()
            break
    return hit


def check(
    server: Server, text_file: Path, folder: Path, kills: int, seed: int, unbroken: dict[str, Any], stream: str = "off"
) -> Counter[str]:
    """Kill runs until `kills` deaths are had; each of them must end as the unbroken one."""
    total = Counter[str]()
    for number in range(kills):
        if total.total() >= kills:
            break
        here = folder / str(number)
        chosen = options(text_file, here / "run", stream)
        total += kill_until_done(server, chosen, here / "cache", min(8, kills - total.total()), seed + number)
        if not (here / "run" / "model").exists():
            assert server.sit(chosen, here / "cache") == 0, server.log.read_text()
        found = outcome(here / "run")
        for name, value in unbroken.items():
            assert found[name] == value, f"{name} differs after {dict(total)}"
        left = [path.name for path in (here / "run").rglob("*.partial")]
        assert not left
    return total


def test_five_kills_change_no_bit(server: Server, text_file: Path, tmp_path: Path, unbroken: dict[str, Any]) -> None:
    assert check(server, text_file, tmp_path, 5, 1, unbroken).total() == 5


@pytest.mark.slow
def test_a_hundred_kills_change_no_bit(
    server: Server, text_file: Path, tmp_path: Path, unbroken: dict[str, Any]
) -> None:
    hit = check(server, text_file, tmp_path, 100, 100, unbroken)
    print(f"\nkills by moment: {dict(hit)}")
    assert hit.total() >= 100
    assert set(hit) == set(MOMENTS)


@pytest.mark.parametrize("kills", [2, pytest.param(24, marks=pytest.mark.slow)])
def test_kills_while_data_is_prepared_change_no_bit(
    server: Server, text_file: Path, tmp_path: Path, kills: int
) -> None:
    """The data is prepared by a process beside training; prepared beforehand, the run ends in the same bits."""
    folder = tmp_path / "unbroken"
    assert server.sit(options(text_file, folder / "run", "on"), folder / "cache") == 0, server.log.read_text()
    unbroken = outcome(folder / "run")
    assert len(list((folder / "cache" / "growing").glob("*/train-*.bin"))) > 3
    assert check(server, text_file, tmp_path, kills, 7, unbroken, "on").total() == kills
    again = options(text_file, tmp_path / "again", "on")
    assert server.sit(again, folder / "cache") == 0, server.log.read_text()
    assert outcome(tmp_path / "again") == unbroken


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_at_the_end_of_its_step(
    server: Server, text_file: Path, tmp_path: Path, unbroken: dict[str, Any], number: int, code: int
) -> None:
    chosen = options(text_file, tmp_path / "run")
    assert server.sit(chosen, tmp_path / "cache", f"signal-{int(number)}", 7) == code, server.log.read_text()
    assert checkpoints(tmp_path / "run" / "checkpoints")[-1].name == "step-7"
    assert server.sit(chosen, tmp_path / "cache") == 0
    found = outcome(tmp_path / "run")
    assert all(found[name] == value for name, value in unbroken.items())
