"""Who may write to a run folder, what a run does there when things go wrong, and what the further options change."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from gpt3.cli.train import run
from gpt3.errors import InputError, RunError
from gpt3.model_folder.load import load_transformers
from gpt3.report.run_folder import read_metrics
from gpt3.tokenizer.train import train_tokenizer
from gpt3.training.checkpoint import checkpoints
from gpt3.training.run import train
from gpt3.training.trainer import Trainer

resource = pytest.importorskip("resource", reason="file-size limits are a Unix thing")


def test_a_second_run_in_the_same_folder_is_refused(tiny) -> None:
    """While the first one trains, which goes on; test_work_folder.py has the lock between processes and after a death."""
    options = tiny(steps=3)

    class Second:
        every = 2
        refused = 0

        def __call__(self, model: torch.nn.Module, step: int) -> dict[str, float]:
            with pytest.raises(InputError, match="is in use by another process"):
                train(options)
            self.refused += 1
            return {}

    second = Second()
    assert train(options, evaluators=[second]).finished
    assert second.refused


def test_a_refused_run_leaves_no_folder(tiny, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exceeds the"):
        train(tiny(context=4096))
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_one_line_and_loses_nothing(tiny, tmp_path: Path) -> None:
    """A file-size limit that weights fit in and optimizer state does not; then room, and the run goes on."""
    options = tiny(steps=12, checkpoint_every=4)
    train(tiny(steps=12, checkpoint_every=4, out=str(tmp_path / "whole")))
    biggest = max(p.stat().st_size for p in (tmp_path / "whole" / "checkpoints" / "step-12").iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (biggest - 1, hard))
    try:
        with pytest.raises(RunError, match="could not be written"):
            run(options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "run").rglob("*.partial"))
    assert train(options).finished
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_damaged_checkpoint_is_named_and_passed_over(tiny, tmp_path: Path, capsys) -> None:
    options = tiny(steps=12, checkpoint_every=4, keep_checkpoints=9)
    train(options)
    whole = load_file(tmp_path / "run" / "model" / "model.safetensors")
    shutil.rmtree(tmp_path / "run" / "model")
    weights = tmp_path / "run" / "checkpoints" / "step-12" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    capsys.readouterr()
    assert train(options).finished
    assert "Skipping" in (error := capsys.readouterr().err)
    assert "step-12: model.safetensors is damaged" in error
    again = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_run_whose_checkpoints_another_version_wrote_is_refused_and_left_as_it_is(tiny, tmp_path: Path) -> None:
    options = tiny(steps=8, checkpoint_every=4)
    train(options)
    shutil.rmtree(tmp_path / "run" / "model")
    for path in checkpoints(tmp_path / "run" / "checkpoints"):
        manifest = (path / "manifest.json").read_text(encoding="utf-8")
        (path / "manifest.json").write_text(manifest.replace('"format": 2', '"format": 3'), encoding="utf-8")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"step-8 has format 3, this program reads 2"):
        train(options)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_resume_from_a_named_checkpoint_sets_later_ones_aside(tiny, tmp_path: Path) -> None:
    options = tiny(steps=12, checkpoint_every=4, validate_every=12, keep_checkpoints=9)
    train(options)
    shutil.rmtree(tmp_path / "run" / "model")
    folder = tmp_path / "run" / "checkpoints"
    assert train(dataclasses.replace(options, resume=str(folder / "step-4"))).finished
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["aside-step-12", "aside-step-8", "step-12", "step-4", "step-8"]
    with pytest.raises(InputError, match="nor a checkpoint"):
        train(dataclasses.replace(options, resume=str(tmp_path)))


def test_spikes_are_skipped_logged_with_their_sequences_and_stop_the_run(tiny, tmp_path: Path, monkeypatch) -> None:
    original = Trainer.accumulate

    def spiky(self: Trainer, step: int) -> torch.Tensor:
        loss = original(self, step)
        return loss * 50 if step in (20, 35) else loss

    monkeypatch.setattr(Trainer, "accumulate", spiky)
    train(tiny(steps=40, spike_window=8, spike_sigmas=20.0))
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    skipped = [r for r in records if "skipped" in r]
    assert [r["step"] for r in skipped] == [21, 36]
    assert skipped[0]["windows"] == [160, 167]
    assert "sigmas above the mean" in skipped[0]["skipped"]
    with pytest.raises(RunError, match="1 steps in a row were skipped"):
        train(tiny(steps=30, spike_window=8, spike_sigmas=20.0, spike_patience=1, out=str(tmp_path / "other")))


def test_the_plan_is_printed_and_nothing_is_made(tiny, tmp_path: Path, capsys) -> None:
    assert run(tiny(plan=True, steps=200)) == 0
    shown = capsys.readouterr().out
    for needle in ("tokens", "batch", "FLOPs", "MFU", "learning rate over tokens", "epochs", "warm-up"):
        assert needle in shown
    assert not (tmp_path / "run").exists()


def test_further_options_leave_what_they_promise(tiny, tmp_path: Path, text_file: Path) -> None:
    """Validation sets, a weight average, a profile, early stopping, an own evaluator, the report."""

    class Norm:
        every = 5

        def __call__(self, model, step: int) -> dict[str, float]:
            return {"norm": float(model.transformer.wte.weight.detach().norm())}

    options = tiny(
        steps=60, validate_every=5, val=[f"all={text_file}"], ema=0.5, profile=2, early_stop=1, min_lr_ratio=1.0, lr=0.5,
        early_stop_on="all", spike_sigmas=0.0, recipe="paper",
    )  # fmt: skip
    result = train(options, evaluators=[Norm()])
    records = read_metrics(result.folder / "metrics.jsonl")
    validations = [r for r in records if "val/loss" in r]
    losses = [r["val/all/loss"] for r in validations]
    assert validations[-1]["step"] < 60  # a rate of 0.5 is soon worse
    assert losses[-1] > min(losses)
    best = validations[losses.index(min(losses))]["step"]
    assert f"step-{best}" in [path.name for path in checkpoints(result.folder / "checkpoints")]
    assert validations[-1]["step"] == validations[-2]["step"]  # the last one reads everything
    assert [r["step"] for r in records if "eval/norm" in r] == [r["step"] for r in validations[:-1]]
    assert (result.folder / "profile" / "trace.json").exists()
    assert "val/all/loss" in (result.folder / "report.html").read_text(encoding="utf-8")
    last = result.folder / "checkpoints" / f"step-{validations[-1]['step']}"
    average, final = load_file(last / "ema.safetensors"), load_file(result.folder / "model" / "model.safetensors")
    assert all(torch.equal(final[name], average[name]) for name in final)
    model, _ = load_transformers(result.folder)
    assert torch.equal(model.transformer.wte.weight, average["transformer.wte.weight"])


def test_a_mixture_trains_and_tells_its_shares(tiny, tmp_path: Path, text_file: Path) -> None:
    lines = text_file.read_text(encoding="utf-8").splitlines(keepends=True)
    for name, part in (("a", lines[:50]), ("b", lines[50:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(part), encoding="utf-8")
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text(
        "".join(f"- {{name: {n}, data: '{tmp_path / n}.jsonl', weight: {w}}}\n" for n, w in (("a", 3), ("b", 1)))
    )
    train(tiny(data=["wiki"], mixture=str(mixture), steps=32))  # 256 sequences: a block of the mixture
    rows = json.loads((tmp_path / "run" / "data.json").read_text())["sources"]
    assert [(row["name"], row["share"]) for row in rows] == [("a", 0.75), ("b", 0.25)]
    record = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if "val/loss" in r][-1]
    assert {"val/a/loss", "val/b/loss"} <= record.keys()
    assert (record["share/a"], record["share/b"]) == (0.75, 0.25)  # of what has been read so far
    assert [record[f"epochs/{row['name']}"] for row in rows] == [row["epochs"] for row in rows]


def test_fp16_scales_its_loss_and_survives_a_spike(tiny, tmp_path: Path, monkeypatch) -> None:
    original = Trainer.accumulate

    def spiky(self: Trainer, step: int) -> torch.Tensor:
        loss = original(self, step)
        return loss * 50 if step == 20 else loss

    monkeypatch.setattr(Trainer, "accumulate", spiky)
    train(tiny(steps=30, dtype="fp16", spike_window=8, spike_sigmas=20.0, checkpoint_every=15))
    records = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if "lr" in r]
    assert [r["step"] for r in records if "skipped" in r] == [21]
    assert records[-1]["loss"] < records[0]["loss"] - 0.5
    state = json.loads((checkpoints(tmp_path / "run" / "checkpoints")[-1] / "state.json").read_text())
    assert state["scaler"]["scale"] > 1


def test_a_run_goes_on_only_with_its_own_data(tiny, tmp_path: Path, text_file: Path) -> None:
    lines = text_file.read_text(encoding="utf-8").splitlines(keepends=True)
    data = tmp_path / "data.jsonl"
    data.write_text("".join(lines[:80]), encoding="utf-8")
    train_tokenizer(lines[:20], 300).save_pretrained(tmp_path / "own")  # the same for both data
    options = tiny(data=[str(data)], tokenizer=str(tmp_path / "own"), steps=2, checkpoint_every=1)
    train(options)
    shutil.rmtree(tmp_path / "run" / "model")
    data.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match="is not what the run began with"):
        train(options)


def test_minutes_size_the_batch_by_the_run_they_allow(tiny, tmp_path: Path) -> None:
    """Two seconds of a model whose preset has a batch of 32,768 tokens, ten seconds' work: small steps, not a part of one."""
    result = train(
        tiny(model="17M", steps=None, batch_tokens=None, micro_batch=None, minutes=0.03, validation_tokens=256)
    )
    assert result.finished
    steps = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if "lr" in r]
    assert len(steps) >= 2
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert saved["minutes"] is None
    assert saved["steps"] >= 1
    assert steps[-1]["batch_tokens"] <= max(32, steps[-1]["tokens"] // len(steps) * 2)
