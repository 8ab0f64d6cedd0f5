"""One process, DDP and FSDP2 on any number of ranks write the same tensors and resume from each other's. Real gloo processes."""

import os
from pathlib import Path

import pytest
import torch
from checkpoint_case import read_set, same_tensors

from gpt3.training.checkpoint import damage

SETS = ("model", "optimizer", "ema")
PHASES = ["single:1:2", "fsdp:2:0", "fsdp:2:2", "ddp:2:0", "ddp:2:1", "fsdp:2:1", "single:1:0", "single:1:1"]
MORE_PHASES = [
    "single:1:1",
    "fsdp:4:0",
    "fsdp:4:2",
    "ddp:4:0",
    "ddp:4:1",
    "fsdp:2:0",
    "fsdp:2:1",
    "fsdp:4:1",
    "single:1:1",
]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="ranks are forked, so that Python starts once")
@pytest.mark.parametrize("phases", [PHASES, pytest.param(MORE_PHASES, marks=pytest.mark.slow)], ids=["two", "four"])
def test_a_run_may_change_ranks_and_kind(script, phases: list[str], tmp_path: Path) -> None:
    """A phase without steps saves, bit for bit, what it loaded; all phases together are the run of one process."""
    alone = tmp_path / "alone"
    changing = tmp_path / "changing"
    total = sum(int(phase.split(":")[2]) for phase in phases)
    words = []
    for folder, what in ((changing, phases), (alone, [f"single:1:{total}"])):
        folder.mkdir()
        words += [str(folder), ",".join(what)]
    result = script(Path(__file__).with_name("checkpoint_ranks.py"), *words)
    assert result.returncode == 0, result.stderr[-3000:]
    step = 0
    for number, phase in enumerate(phases):
        _, ranks, steps = phase.split(":")
        before, step = changing / str(number - 1) / f"step-{step}", step + int(steps)
        path = changing / str(number) / f"step-{step}"
        assert damage(path) is None
        names = {file.name for file in path.glob("optimizer*.safetensors")}
        several = {f"optimizer-{rank:05}-of-{int(ranks):05}.safetensors" for rank in range(1, int(ranks) + 1)}
        assert names == (several if int(ranks) > 1 else {"optimizer.safetensors"})  # each rank has written its own
        if steps == "0":
            for name in SETS:
                assert same_tensors(read_set(path, name), read_set(before, name)), (phase, name)
            for rank in range(int(ranks)):
                name = f"random-{rank}.safetensors"
                if (before / name).exists() and (path / name).exists():  # one process's file has another name
                    assert (path / name).read_bytes() == (before / name).read_bytes()
    for name in ("model", "ema"):
        one, other = read_set(path, name), read_set(alone / "0" / f"step-{total}", name)
        assert one.keys() == other.keys()
        for key in one:
            torch.testing.assert_close(one[key], other[key], rtol=1e-5, atol=1e-6)
