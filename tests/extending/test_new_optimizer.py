"""Add an optimizer as CONTRIBUTING.md says: a file and one line; help, plan, memory, training, resume and card know it."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from gpt3.cli import main as cli
from gpt3.ladder.presets import preset
from gpt3.report.run_folder import read_metrics
from gpt3.training.distributed import ALONE, choose_compute
from gpt3.training.fitting import memory_of
from gpt3.training.optimizers import OPTIMIZERS, Optimizer
from gpt3.training.options import TrainOptions
from gpt3.training.plan import make_plan

ROOT = Path(__file__).parents[2]
RUN = [
    "--layers",
    "2",
    "--width",
    "32",
    "--heads",
    "2",
    "--context",
    "32",
    "--batch-tokens",
    "256",
    "--tokenizer",
    "own:300",
]
RUN += ["--steps", "6", "--dtype", "fp32", "--device", "cpu"]
RUN += ["--checkpoint-every", "2", "--validate-every", "2", "--optimizer", "sgd", "--lr", "0.1"]


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file and the line of CONTRIBUTING.md's section."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("### An optimizer")[1].split("\n### ")[0]
    code, line = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    path = tmp_path / "sgd.py"
    path.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("gpt3.training.optimizers.sgd", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(OPTIMIZERS, "sgd", eval("{" + line + "}", {"Optimizer": Optimizer})["sgd"])


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    texts = (f"{n} and {n + 1} are neighbors, and {n + 2} comes next." for n in range(300))
    lines = (json.dumps({"text": text}) + "\n" for text in texts)
    (tmp_path / "data.jsonl").write_text("".join(lines), encoding="utf-8")
    return ["--data", "data.jsonl", "--workers", "1", "--validation-fraction", "0.1"]


def test_an_added_optimizer_is_known_everywhere(registered: None, data: list[str], capsys, tmp_path: Path) -> None:
    assert cli.main(["train", "--help-all"]) == 0
    assert re.search(r"--optimizer \{?adamw,muon,lion,sgd", " ".join(capsys.readouterr().out.split()))
    assert cli.main(["train", "--optimizer", "sgdd"]) == 2
    assert "must be one of adamw, muon, lion, sgd" in capsys.readouterr().err

    shape, compute = preset("17M"), choose_compute("cpu", "fp32")
    options = {name: TrainOptions(model="17M", tokens="1M", optimizer=name) for name in ("adamw", "sgd")}
    memory = {name: memory_of(o, shape, make_plan(o, 10**6), compute, ALONE) for name, o in options.items()}
    assert memory["sgd"].optimizer == memory["adamw"].optimizer / 2

    assert cli.main(["train", *RUN, *data, "--plan"]) == 0
    assert "SGD with momentum: beta1 0.9; decay 0.1" in capsys.readouterr().out

    assert cli.main(["train", *RUN, *data]) == 0
    losses = [r["loss"] for r in read_metrics(tmp_path / "runs/data/metrics.jsonl") if "loss" in r]
    assert losses[-1] < losses[0]
    assert "| optimizer | SGD with momentum: beta1 0.9;" in (tmp_path / "runs/data/model/README.md").read_text()
    whole = (tmp_path / "runs/data/model/model.safetensors").read_bytes()
    (tmp_path / "runs/data/model").rename(tmp_path / "first")
    (tmp_path / "runs/data/checkpoints/step-6").rename(tmp_path / "step-6")
    assert cli.main(["train", *RUN, *data]) == 0  # resumes from step 4 with its momentum
    assert "resuming from step-4" in capsys.readouterr().err
    assert (tmp_path / "runs/data/model/model.safetensors").read_bytes() == whole


def test_the_page_lists_every_optimizer() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    rows = {name: f"| `{name}` | {entry.summary} | {entry.state_bytes:g} |" for name, entry in OPTIMIZERS.items()}
    assert [row for row in rows.values() if row not in page] == []
