"""A run resumes on its own data, tokenizer and shape, to its end or further; what is refused changes nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from gpt3.cli import main as cli
from gpt3.errors import InputError
from gpt3.report.run_folder import read_metrics
from gpt3.training.run import train
from gpt3.training.trainer import Trainer


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the finished run of this file's tests is; it is made once and copied."""
    return {}


@pytest.fixture
def done(tiny, tmp_path: Path, finished: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 12 steps with checkpoints at 4, 8 and 12."""
    if not finished:
        finished["run"] = tmp_path_factory.mktemp("finished") / "run"
        train(tiny(out=str(finished["run"]), recipe="paper", checkpoint_every=4, validate_every=12, keep_checkpoints=9))
    return Path(shutil.copytree(finished["run"], tmp_path / "run"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(capsys: pytest.CaptureFixture[str], run: Path, *words: str) -> str:
    """What `gpt3 train` says; exit code 2, one line, and nothing in the run folder has changed."""
    before = content(run)
    capsys.readouterr()
    assert cli.main(["train", *words]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    line = error.splitlines()[-1]
    assert line.startswith("gpt3 train: ")
    after = content(run)
    after.pop(".lock", None)
    before.pop(".lock", None)
    assert after == before
    return line


def test_another_corpus_tokenizer_or_shape_is_refused_by_name(
    done: Path, tmp_path: Path, text_file: Path, capsys
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(text_file.read_text(encoding="utf-8"), encoding="utf-8")
    step = str(done / "checkpoints" / "step-4")
    for words, named in (
        (["--data", str(other)], "now ["),
        (["--mixture", "m.yaml"], "--mixture was unset, now m.yaml"),
        (["--replay", "wiki=5%"], "--replay was []"),
        (["--tokenizer", "gpt2"], "--tokenizer was own:300, now gpt2"),
        (["--layers", "3", "--width", "64"], "--layers was 2, now 3; --width was 32, now 64"),
        (["--context", "16"], "--context was 32, now 16"),
        (["--model", "17M"], "--model was demo, now 17M"),
        (["--no-pre-layernorm"], "--pre-layernorm was true, now false"),
        (["--positions", "64"], "--positions was unset, now 64"),
        (["--init-from", "gpt2"], "--init-from was unset, now gpt2"),
        (["--seed", "7"], "--seed was 1337, now 7"),
    ):
        error = refused(capsys, done, "--resume", step, "--steps", "20", *words)
        assert error.startswith(f"gpt3 train: --resume {step} is another run: ")
        assert named in error
        assert error.endswith(f"start a new run: gpt3 train --init-from {step}")
    error = refused(capsys, done, "--resume", step, "--out", str(tmp_path / "elsewhere"))
    assert f"gpt3 train --init-from {step} --out {tmp_path / 'elsewhere'}" in error
    assert not (tmp_path / "elsewhere").exists()


def test_an_unfinished_run_in_out_is_refused_by_name_too(tiny, done: Path, tmp_path: Path, text_file: Path) -> None:
    shutil.rmtree(done / "model")
    other = tmp_path / "other.jsonl"
    other.write_text(text_file.read_text(encoding="utf-8"), encoding="utf-8")
    options = tiny(recipe="paper", checkpoint_every=4, validate_every=12, keep_checkpoints=9)
    for changes in ({"data": [str(other)]}, {"tokenizer": "own:290"}, {"width": 16}):
        with pytest.raises(
            InputError, match=rf"is another run: --{next(iter(changes))} was .*gpt3 train --init-from {done}"
        ):
            train(dataclasses.replace(options, **changes))
    with pytest.raises(InputError, match="was started with other options: --lr"):
        train(dataclasses.replace(options, lr=1e-4))


def test_data_of_another_tokenizer_under_the_same_name_is_refused(done: Path, capsys) -> None:
    """The options are the run's; the folder that they name holds something else now."""
    step = done / "checkpoints" / "step-4"
    saved = yaml.safe_load((done / "config.yaml").read_text())
    (done / "config.yaml").write_text(yaml.safe_dump(saved | {"tokenizer": "own:280"}))
    error = refused(capsys, done, "--resume", str(step), "--steps", "20")
    assert "was trained with another tokenizer (hash " in error
    assert f"gpt3 train --init-from {step}" in error


def test_a_checkpoint_past_the_length_is_one_line(done: Path, tmp_path: Path, capsys) -> None:
    step = str(done / "checkpoints" / "step-12")
    for words in (["--steps", "8"], ["--tokens", "2K"]):
        error = refused(capsys, done, "--resume", step, *words)
        assert f"{step} is at step 12, past the 8 steps (2,048 tokens) that the run is to have" in error
    shutil.move(done / "checkpoints" / "step-8", done / "checkpoints" / "aside-step-8")
    error = refused(capsys, done, "--resume", str(done / "checkpoints" / "aside-step-8"), "--steps", "20")
    assert error.endswith("aside-step-8 holds step 8. Rename it to step-8, so that its place is known")
    assert "is finished: step-12 is its last of 12 steps" in refused(capsys, done, "--resume", step)
    assert "is finished" in refused(capsys, done, "--resume", str(done), "--steps", "12")
    assert "Give --steps or --tokens" in refused(capsys, done, "--resume", str(done), "--minutes", "5")
    error = refused(capsys, done, "--out", str(done))
    assert error.endswith(f"or extend it: gpt3 train --resume {done} --steps N")
    (done / "config.yaml").unlink()
    error = refused(capsys, done, "--resume", step, "--steps", "20")
    assert "config.yaml is missing, so what it was trained on is unknown" in error
    assert f"gpt3 train --init-from {step}" in error


def test_a_finished_run_is_extended(tiny, done: Path, tmp_path: Path, capsys) -> None:
    """The schedule is the run's own, whose floor the further steps have: as if it had been that long with that cosine."""
    settled = yaml.safe_load((done / "config.yaml").read_text())
    old_model = content(done / "model")
    assert cli.main(["train", "--resume", str(done), "--steps", "20"]) == 0
    assert content(done / "aside-model-step-12") == old_model
    records = [record for record in read_metrics(done / "metrics.jsonl") if "lr" in record]
    assert [record["step"] for record in records] == list(range(1, 21))
    assert [record["lr"] for record in records[12:]] == pytest.approx([3e-4] * 8)
    whole = {"recipe": "paper", "warmup_tokens": settled["warmup_tokens"], "decay_tokens": settled["decay_tokens"]}
    train(
        tiny(out=str(tmp_path / "whole"), steps=20, checkpoint_every=4, validate_every=12, keep_checkpoints=9, **whole)
    )
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (done, tmp_path / "whole"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert cli.main(["train", "--resume", str(done), "--tokens", "6K"]) == 0
    assert read_metrics(done / "metrics.jsonl")[-1]["step"] == 24


def test_steps_at_a_rate_of_0_are_refused(tiny, tmp_path: Path, capsys) -> None:
    """The short recipe's rate ends at 0. The remedy spreads its fall over the longer run."""
    train(tiny(steps=4))
    run = str(tmp_path / "run")
    error = refused(capsys, tmp_path / "run", "--resume", run, "--steps", "8")
    assert (
        "its rate comes to 0 at 1,024 tokens, so steps beyond would learn nothing. Give --decay-tokens 2048," in error
    )
    assert cli.main(["train", "--resume", run, "--steps", "8", "--decay-tokens", "2048"]) == 0
    rates = [record["lr"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if "lr" in record]
    assert len(rates) == 8
    assert rates[4] > rates[5] > rates[6] > rates[7] == 0


def test_an_interrupted_extension_says_how_to_resume_and_does(done: Path, monkeypatch, capfd) -> None:
    original = Trainer.one_step

    def stopping(self: Trainer, *args: Any) -> dict[str, Any]:
        if self.step == 15:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "one_step", stopping)
        assert cli.main(["train", "--resume", str(done / "checkpoints" / "step-12"), "--steps", "20"]) == 143
    assert f"Run gpt3 train --resume {done} to resume." in capfd.readouterr().err
    assert not (done / "model").exists()
    assert cli.main(["train", "--resume", str(done)]) == 0
    assert (done / "model").exists()
    assert [r["step"] for r in read_metrics(done / "metrics.jsonl") if "lr" in r] == list(range(1, 21))
    asked = json.loads((done / "asked.json").read_text())
    assert (asked["steps"], asked["width"], asked["tokenizer"]) == (20, 32, "own:300")
