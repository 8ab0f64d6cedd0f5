"""Real code on a device without kernels: how often it waits for it, and nothing that Apple's GPUs lack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def audits(script) -> dict[str, Any]:
    done = script(HERE / "stub_accelerator.py")
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_a_training_step_reads_back_its_loss_and_its_norm_alone(audits: dict[str, Any]) -> None:
    steps = {name: audit for name, audit in audits.items() if "torch." in name}
    assert len(steps) == 7
    for name, audit in steps.items():
        assert audit["operators"] > 100
        assert all("tolist()" in line or "float(norm" in line for line in audit["reads"]), (name, audit["reads"])
        assert sum(audit["reads"].values()) <= 3, (name, audit["reads"])


def test_a_validation_reads_back_once_for_each_forward_pass(audits: dict[str, Any]) -> None:
    """Five windows, two at a time."""
    assert audits["validation"]["operators"] > 100
    (line,) = audits["validation"]["reads"]
    assert line.startswith("validation.py:")
    assert audits["validation"]["reads"][line] == 3


def test_a_training_step_takes_nothing_that_mps_lacks(audits: dict[str, Any]) -> None:
    for name, audit in audits.items():
        assert audit["no_mps_kernel"] == [], name
        if name != "token":  # tokens are chosen in NumPy there
            assert audit["float64"] == [], name


def test_generation_reads_nothing_back_before_the_tokens(audits: dict[str, Any]) -> None:
    assert audits["prompts"]["reads"] == audits["token"]["reads"] == {}
