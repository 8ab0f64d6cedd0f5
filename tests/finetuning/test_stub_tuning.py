"""Fine-tuning on a device without kernels: how often it waits for it, and nothing that Apple's GPUs lack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # a process of its own that imports TRL
PROGRAM = Path(__file__).with_name("stub_tuning.py")


@pytest.fixture(scope="module")
def audits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found = tmp_path_factory.mktemp("stub") / "found.json"
    done = subprocess.run([sys.executable, str(PROGRAM), str(found)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(found.read_text(encoding="utf-8"))


def test_a_step_reads_back_what_trl_does_and_one_mask(audits: dict[str, Any]) -> None:
    """TRL reads its three metrics, and before two of them whether there are any labels."""
    for name in ("whole: step", "lora: step"):
        ours = {line: count for line, count in audits[name]["reads"].items() if line != "elsewhere"}
        assert audits[name]["operators"] > 500
        assert [line.partition(":")[0] for line in ours] == ["banded_attention.py"], name
        assert sum(ours.values()) == 1, name
        assert audits[name]["reads"]["elsewhere"] <= 5, name


def test_the_held_out_loss_reads_back_once_per_batch(audits: dict[str, Any]) -> None:
    """And whether the batch is padded; of two batches."""
    for name in ("whole: held out", "lora: held out"):
        assert {line.partition(":")[0]: count for line, count in audits[name]["reads"].items()} == {
            "banded_attention.py": 2, "trainers.py": 2,
        }, name  # fmt: skip


def test_fine_tuning_takes_nothing_that_mps_lacks(audits: dict[str, Any]) -> None:
    for name, audit in audits.items():
        assert audit["float64"] == audit["no_mps_kernel"] == [], name
