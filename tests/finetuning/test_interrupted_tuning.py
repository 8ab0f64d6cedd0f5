"""A run that was killed or interrupted ends in the same bits, and nothing in its folder is ever half written."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from run_files import records, weights

from gpt3.errors import InputError

pytest.importorskip("trl")
pytest.importorskip("peft")

from gpt3.cli import finetune as command
from gpt3.finetuning import trainers, tuning
from gpt3.finetuning.tuning import choose_folder, finetune
from gpt3.work_folder import requested


@pytest.mark.parametrize("lora", [False, True])
def test_a_killed_run_ends_in_the_same_bits(tiny, tmp_path, monkeypatch, lora: bool) -> None:
    changes = {"lora": lora, "lora_dropout": 0.1 if lora else 0.0}
    finetune(tiny(out=str(tmp_path / "whole"), **changes))

    class KilledError(Exception):
        pass

    def dies(self, args, state, control, **keywords):
        if state.global_step == 5:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(trainers.Recorder, "on_step_end", dies, raising=False)
        with pytest.raises(KilledError):
            finetune(tiny(out=str(tmp_path / "killed"), **changes))
    half = tmp_path / "killed/checkpoints/step-5"
    shutil.copytree(tmp_path / "killed/checkpoints/step-4", half)
    (half / "optimizer.safetensors").write_bytes(b"broken")  # a damaged one is skipped
    names = {path.name for path in half.iterdir()}
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))], names
    assert choose_folder(tiny(out=str(tmp_path / "killed"), **changes)) == tmp_path / "killed"
    finetune(tiny(out=str(tmp_path / "killed"), **changes))
    whole, killed = weights(tmp_path / "whole/model"), weights(tmp_path / "killed/model")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert records(tmp_path / "whole", "val/loss") == records(tmp_path / "killed", "val/loss")
    seconds = records(tmp_path / "killed", "seconds")
    assert seconds == sorted(seconds)  # counted on


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_after_the_running_step_and_the_same_command_goes_on(
    tiny, tmp_path, monkeypatch, number
) -> None:
    finetune(tiny(out=str(tmp_path / "whole")))

    def struck(self, args, state, control, **keywords):
        if state.global_step == 2:
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(trainers.Recorder, "on_step_begin", struck, raising=False)
        result = finetune(tiny())
    assert (result.finished, result.exit_code, result.steps) == (False, 128 + number, 3)
    assert not (tmp_path / "run/model").exists()
    kept = {path.name for path in (tmp_path / "run/checkpoints").iterdir()}
    assert kept == {"step-2", "step-3"}
    files = {path.suffix for path in (tmp_path / "run/checkpoints").rglob("*") if path.is_file()}
    assert files <= {".safetensors", ".json", ".py", ".md", ".jinja"}  # no pickles
    assert finetune(tiny()).finished
    whole, run = weights(tmp_path / "whole/model"), weights(tmp_path / "run/model")
    assert all(torch.equal(whole[name], run[name]) for name in whole)
    assert records(tmp_path / "whole", "val/loss") == records(tmp_path / "run", "val/loss")
    assert records(tmp_path / "whole", "tokens")[-1] == records(tmp_path / "run", "tokens")[-1]


def test_the_command_says_what_was_made_and_how_to_resume(tiny, tmp_path, monkeypatch, capfd) -> None:
    def struck(self, args, state, control, **keywords):
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(trainers.Recorder, "on_step_begin", struck, raising=False)
        assert command.run(tiny(steps=2)) == 130
    assert f"Saved to {tmp_path / 'run'} at step 1. Run the same command to resume." in capfd.readouterr().err
    assert command.run(tiny(steps=2)) == 0
    out, err = capfd.readouterr()
    assert f"Resuming {tmp_path / 'run'} from step 1" in err
    assert re.search(r"^held-out loss: \d\.\d{3} -> \d\.\d{3}$", out, flags=re.M)
    assert f"model: {tmp_path / 'run/model'} " in out
    assert command.run(tiny(show=2)) == 0
    assert "--- sample 2: " in capfd.readouterr().out


def test_the_folder_of_an_interrupted_run_is_resumed_and_no_other(tiny, tmp_path, monkeypatch) -> None:
    def interrupted(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "asked.json").write_text(json.dumps(requested(tiny(), tuning.FREE_TO_CHANGE)), encoding="utf-8")

    folder = tmp_path / "run"
    assert choose_folder(tiny()) == folder
    folder.mkdir()
    assert choose_folder(tiny()) == folder  # empty
    interrupted(folder)
    assert choose_folder(tiny()) == choose_folder(tiny(track=["none"], merge=False)) == folder
    for changes, needle in (
        ({"seed": 1}, "--seed was 0, now 1"), ({"lr": 0.1}, "--lr was 0.003, now 0.1"), ({"resume": "never"}, "never"),
        ({"data": ["other.json"]}, "--data was"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=needle):
            choose_folder(tiny(**changes))
    (folder / "adapter").mkdir()
    with pytest.raises(InputError, match="is finished"):
        choose_folder(tiny())
    monkeypatch.chdir(tmp_path)
    assert choose_folder(tiny(out=None)) == Path("runs/sft-tiny")
    for number in ("", "-2"):
        Path(f"runs/sft-tiny{number}").mkdir(parents=True)
    interrupted(Path("runs/sft-tiny-2"))
    assert choose_folder(tiny(out=None)) == Path("runs/sft-tiny-2")
    assert choose_folder(tiny(out=None, seed=1)) == Path("runs/sft-tiny-3")


class DiedError(Exception):
    """A process that ends here, as far as files can tell."""


def dies(*arguments: object) -> None:
    raise DiedError


def test_a_checkpoint_and_a_model_are_whole_or_not_there(tiny, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("gpt3.training.checkpoint.manifest_text", dies)
        with pytest.raises(DiedError):
            finetune(tiny())
    folder = tmp_path / "run"
    assert not (folder / "checkpoints/step-2").exists()
    with monkeypatch.context() as patch:
        patch.setattr("gpt3.finetuning.tuning.Tuning._card", dies)
        with pytest.raises(DiedError):
            finetune(tiny())
    assert not (folder / "model").exists()
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names == {"step-4", "step-6"}  # the newest two, of which one is the best
    assert finetune(tiny()).finished  # from the last checkpoint, which is still there
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"model"}
