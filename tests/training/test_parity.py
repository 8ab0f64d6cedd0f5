"""Several processes learn what one does: losses, weights and averages of steps of the real trainer; checkpoints of each
resumed in each other. Every run accumulates gradients, clips them and averages weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from checkpoint_case import read_set, same_tensors
from kill_server import Server
from parity_ranks import KINDS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks; gloo with DTensor is tested on Linux")
QUICK = ("single", "hsdp", "tensor, fsdp")


def trained(server: Server, folder: Path, jobs: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """What each job recorded, by its name. Jobs with as many processes that follow each other share them."""
    (folder / "jobs.json").write_text(json.dumps({"folder": str(folder), "jobs": jobs}))
    done = server.script(Path(__file__).with_name("parity_ranks.py"), str(folder / "jobs.json"))
    assert done.returncode == 0, done.stderr[-4000:]
    return {job["name"]: json.loads((folder / f"{job['name']}.json").read_text()) for job in jobs}


def check_alike(server: Server, folder: Path, jobs: list[dict[str, Any]], tolerance: float, steps: int = 20) -> None:
    """Losses and gradient norms of all jobs are the first one's, and so are the weights and averages of the last step."""
    found = trained(server, folder, [{"steps": steps, "save": [steps], **job} for job in jobs])
    first = found[jobs[0]["name"]]
    assert len(first["losses"]) == steps
    assert first["losses"][-1] < 0.8 * first["losses"][0]
    assert all(norm > 0.5 for norm in first["norms"][:5])  # clipped
    sets = [read_set(folder / jobs[0]["name"] / f"step-{steps}", stem) for stem in ("model", "ema")]
    for job in jobs[1:]:
        for name in ("losses", "norms"):
            assert found[job["name"]][name] == pytest.approx(first[name], rel=tolerance), (job["name"], name)
        for stem, expected in zip(("model", "ema"), sets, strict=True):
            there = read_set(folder / job["name"] / f"step-{steps}", stem)
            for key, value in there.items():
                scale = float(expected[key].abs().max()) + 1e-3
                width = max(tolerance, 1e-6 if stem == "ema" else 0)  # averages are float32
                assert float((value - expected[key]).abs().max()) <= 10 * width * scale, (job["name"], stem, key)


def test_losses_of_several_processes_are_those_of_one(server: Server, tmp_path: Path) -> None:
    check_alike(server, tmp_path, [{"name": kind, "kind": kind} for kind in QUICK], 1e-9, steps=11)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "dtype", "tolerance"),
    [
        ({}, "float64", 1e-9),
        ({}, "float32", 1e-3),
        ({"optimizer": "muon"}, "float64", 5e-3),  # whose orthogonalization is bfloat16
        ({"optimizer": "lion", "lion_lr": 4e-3}, "float64", 1e-9),
        ({"gradient_checkpointing": True, "mask_documents": True}, "float64", 1e-9),
        ({"selective_checkpointing": True}, "float64", 1e-9),
        ({"compile": True}, "float64", 1e-9),
        ({"opt_state_on_cpu": True}, "float64", 1e-9),
    ],
    ids=str,
)
def test_the_same_of_other_options(
    server: Server, options: dict[str, Any], dtype: str, tolerance: float, tmp_path: Path
) -> None:
    kinds = [kind for kind in KINDS if "tensor" not in kind or not {"compile", "opt_state_on_cpu"} & options.keys()]
    jobs = [{"name": kind, "kind": kind, "options": options, "dtype": dtype} for kind in kinds]
    if options.get("compile"):
        jobs = [{"name": "eager", "kind": "single"}, *({**job, "backend": "aot_eager"} for job in jobs)]
    check_alike(server, tmp_path, jobs, tolerance)


@pytest.mark.slow
def test_a_checkpoint_of_each_resumes_in_each_other(server: Server, tmp_path: Path) -> None:
    """What was read is written again, bit for bit, and what is learned from there is what one process learns."""
    first = [{"name": kind, "kind": kind, "save": [10], "steps": 20 if kind == "single" else 10} for kind in KINDS]
    then = [
        {"name": f"{source}-to-{kind}", "kind": kind, "resume": f"{source}/step-10", "save": [10]}
        for kind in KINDS
        for source in KINDS
    ]
    found = trained(server, tmp_path, first + then)
    for job in then:
        assert found[job["name"]]["losses"] == pytest.approx(found["single"]["losses"][10:], rel=1e-9), job["name"]
        for stem in ("model", "optimizer", "ema"):
            read, written = (read_set(tmp_path / place, stem) for place in (job["resume"], f"{job['name']}/step-10"))
            assert same_tensors(read, written), (job["name"], stem)
