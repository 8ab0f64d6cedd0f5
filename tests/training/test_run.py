"""Whole runs: what they leave behind, and that a killed one ends in the same bits."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file

import gpt3
from gpt3.corpus.shards import open_shards
from gpt3.errors import InputError, RunError
from gpt3.model.packed_documents import document_positions
from gpt3.model_folder.load import load_transformers
from gpt3.report.run_folder import read_metrics
from gpt3.training import trainer
from gpt3.training.checkpoint import checkpoints
from gpt3.training.data import open_data
from gpt3.training.options import TrainOptions
from gpt3.training.plan import shape_of
from gpt3.training.run import train
from gpt3.training.trainer import Trainer


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def assert_equal_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_leaves_what_the_design_says(tiny, tmp_path: Path) -> None:
    result = train(tiny(steps=40, validate_every=20, sample_every=None))
    folder = tmp_path / "run"
    assert result.folder == folder
    assert result.finished
    records = read_metrics(folder / "metrics.jsonl")
    steps = [r for r in records if "loss" in r]
    assert {"step", "tokens", "loss", "lr", "grad_norm", "tokens_per_s", "mfu", "kwh"} <= steps[-1].keys()
    assert 0 < steps[0]["kwh"] < steps[-1]["kwh"] < json.loads((folder / "energy.json").read_text())["kwh"]
    assert steps[-1]["tokens"] == 40 * 256
    assert steps[0]["loss"] == pytest.approx(math.log(300), rel=0.03)  # fresh weights know nothing
    scores = [r for r in records if "val/loss" in r]
    assert [r["step"] for r in scores] == [20, 40]
    assert scores[-1]["val/loss"] < math.log(300) - 1
    assert scores[-1]["val/perplexity"] == pytest.approx(math.exp(scores[-1]["val/loss"]))
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [s["step"] for s in samples] == [20, 40]
    assert len(checkpoints(folder / "checkpoints")) == 2
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["steps"] == 40
    assert saved["dtype"] == "fp32"
    assert gpt3.load(folder).complete("The", max_new_tokens=5, seed=1)[0].text
    card = ModelCard.load(folder / "model" / "README.md")  # as the hub reads it
    assert card.data.to_dict() == {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["gpt3"]}
    for part in (
        "bits per byte",
        "share of the run",
        "## Training loss",
        "gpt3 export --model PATH_OF_THIS_FOLDER --format",
    ):
        assert part in card.text


def test_bits_per_byte_is_what_the_logits_say(tiny, tmp_path: Path) -> None:
    """Recomputed from the final model's own logits with torch's cross-entropy, token by token."""
    options = tiny(steps=5)
    result = train(options)
    split = open_data(options, shape_of(options)).held_out
    model, _ = load_transformers(tmp_path / "run")
    nats = 0.0
    for start in range(0, len(split) - 1, 32):
        stop = min(start + 33, len(split))
        window = torch.from_numpy(split.read(start, stop))[None]
        with torch.no_grad():
            logits = model(window[:, :-1]).logits
        nats += float(torch.nn.functional.cross_entropy(logits[0].double(), window[0, 1:], reduction="sum"))
    assert result.score.tokens == len(split) - 1
    assert result.score.loss == pytest.approx(nats / (len(split) - 1), rel=1e-5)
    assert result.score.bits_per_byte == pytest.approx(nats / math.log(2) / split.text_bytes, rel=1e-5)


def test_accumulation_does_not_change_what_is_learned(tiny, tmp_path: Path) -> None:
    """With a larger epsilon: the keys' biases change nothing, and Adam would turn the rounding of their gradients into steps."""
    train(tiny(out=str(tmp_path / "whole"), micro_batch=8, eps=1e-4))
    train(tiny(out=str(tmp_path / "parts"), micro_batch=2, eps=1e-4))
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=2e-5)


def test_config_yaml_repeats_the_run(tiny, tmp_path: Path) -> None:
    train(tiny(steps=None, tokens="3K"))
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    train(TrainOptions(**(saved | {"out": str(tmp_path / "again")})))
    assert_equal_weights(tmp_path / "run", tmp_path / "again")


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.1}, {"mask_documents": True}])
def test_resume_is_bit_exact(tiny, tmp_path: Path, changes: dict) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(tiny(out=str(whole), checkpoint_every=4, keep_checkpoints=9, **changes))
    shutil.copytree(whole, broken)
    shutil.rmtree(broken / "model")
    for late in checkpoints(broken / "checkpoints")[1:]:
        shutil.rmtree(late)
    (broken / "checkpoints" / "step-8.123.partial").mkdir()  # what a kill in the middle of a save leaves
    result = train(tiny(out=str(broken), checkpoint_every=4, keep_checkpoints=9, **changes))
    assert result.finished
    assert_equal_weights(whole, broken)
    losses = [
        [(r["step"], r["val/loss"]) for r in read_metrics(f / "metrics.jsonl") if "val/loss" in r]
        for f in (whole, broken)
    ]
    assert losses[0] == losses[1]  # each step is in the file once


@pytest.mark.skipif(hasattr(os, "fork"), reason="test_kills.py has this at many moments")
def test_a_killed_run_goes_on_and_ends_in_the_same_bits(tiny, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = {"steps": 150, "checkpoint_every": 5, "validate_every": 1000}
    train(tiny(out=str(whole), **options))
    saved = tiny(out=str(killed), **options)
    code = f"from gpt3.training.run import *\ntrain({saved!r})"
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not checkpoints(killed / "checkpoints") and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    process.communicate()
    assert process.returncode != 0  # it had not finished
    assert not (killed / "model").exists()
    assert train(saved).finished
    assert_equal_weights(whole, killed)


def test_an_out_that_holds_another_run_is_refused(tiny, tmp_path: Path) -> None:
    train(tiny())
    with pytest.raises(InputError, match="is finished"):
        train(tiny())
    shutil.rmtree(tmp_path / "run" / "model")
    with pytest.raises(InputError, match=r"was started with other options: --lr was 0.003, now 0.0001"):
        train(tiny(lr=1e-4))
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        train(tiny(out=str(other)))
    assert (other / "thesis.txt").read_text() == "mine"


def test_default_folders_are_numbered(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert train(tiny(out=None, steps=2)).folder == Path("runs/articles")
    assert train(tiny(out=None, steps=2)).folder == Path("runs/articles-2")


def test_a_machine_that_is_busy_at_the_start_does_not_make_the_run_shorter(tiny, monkeypatch) -> None:
    def planned(busy: int) -> list[float]:
        """Seconds a token that the run is planned by, where the first `busy` steps take 2 s and all others 0.1 s."""
        clock = SimpleNamespace(now=0.0, steps=0, perf_counter=lambda: clock.now, monotonic=time.monotonic)
        accumulate, measure, found = Trainer.accumulate, Trainer.measure_token, []

        def timed(self: Trainer, step: int) -> torch.Tensor:
            clock.steps += 1
            clock.now += 2.0 if clock.steps <= busy else 0.1
            return accumulate(self, step)

        with monkeypatch.context() as patch:
            patch.setattr(trainer, "time", clock)
            patch.setattr(Trainer, "accumulate", timed)
            patch.setattr(Trainer, "measure_token", lambda self: found.append(measure(self)) or found[-1])
            train(tiny(steps=None, minutes=1.0, plan=True))
        return found

    quiet = planned(0)
    assert quiet[0] * 256 == pytest.approx(0.1)
    assert planned(1) == pytest.approx(quiet)
    assert planned(3) == pytest.approx(quiet)


def test_a_loss_that_is_no_longer_finite_stops_the_run(tiny) -> None:
    with pytest.raises(RunError, match=r"step 11: 10 steps in a row were skipped, the last for loss nan is not finite"):
        train(tiny(lr=1e30, clip=0, steps=60, warmup_tokens=0))


def test_a_tokenizer_that_is_not_the_shards_is_refused(tiny) -> None:
    options = tiny()
    shards = open_data(options, shape_of(options)).shards[0]
    assert open_shards(shards.path).vocab_size == 300
    with pytest.raises(InputError, match="tokenizer"):
        train(tiny(data=[str(shards.path)], tokenizer="gpt2"))


def test_no_room_on_the_disk_is_said_before_the_work(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    options = tiny()
    open_data(options, shape_of(options))  # prepared while there was room
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(InputError, match="no room for checkpoints"):
        train(options)
    assert not (tmp_path / "run").exists()


def test_positions_restart_after_end_of_text() -> None:
    inputs = torch.tensor([[5, 9, 6, 7, 9, 9, 8], [9, 1, 2, 3, 4, 5, 6]])
    expected = [[0, 1, 0, 1, 2, 0, 0], [0, 0, 1, 2, 3, 4, 5]]
    assert document_positions(inputs, end_of_text=9).tolist() == expected
