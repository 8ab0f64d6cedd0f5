"""A run on own data: what it is called, what it says at its end, and a run that holds nothing out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gpt3.cli.train import run
from gpt3.corpus.wiki import articles, document
from gpt3.errors import InputError
from gpt3.report.run_folder import read_metrics
from gpt3.training.options import TrainOptions
from gpt3.training.run import train
from gpt3.training.run_name import default_name
from gpt3.training.trainer import Trainer


def test_an_unfinished_run_that_an_earlier_version_named_after_its_model_is_resumed(
    tiny, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(tiny(out="runs/demo", steps=4, checkpoint_every=2))
    shutil.rmtree("runs/demo/model")
    assert train(tiny(out=None, steps=4, checkpoint_every=2)).folder == Path("runs/demo")
    assert train(tiny(out=None, steps=4, checkpoint_every=2)).folder == Path("runs/articles")


def test_a_run_may_hold_nothing_out(tiny, tmp_path: Path, capsys) -> None:
    assert run(tiny(validation_fraction=0, sample_prompt=[], steps=4)) == 0
    shown = capsys.readouterr().out
    assert "held-out text" not in shown
    folder = tmp_path / "run"
    assert not any("val/loss" in record for record in read_metrics(folder / "metrics.jsonl"))
    prompt = json.loads((folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()[0])["prompt"]
    text = document(next(iter(articles())))
    assert text.startswith(prompt)  # of the first document
    next_one = shown.splitlines()[-1].removeprefix(f"try next: gpt3 generate --model {folder} --temperature 0.7 ")
    words = next_one.strip('"').split()
    assert words == text.split()[: len(words)]
    assert 1 <= len(words) <= 5
    assert "Not measured" in (folder / "model" / "README.md").read_text(encoding="utf-8")
    assert (folder / "report.html").exists()
    with pytest.raises(InputError, match="--early-stop 2: the run holds out no text of its own"):
        train(tiny(validation_fraction=0, early_stop=2, out=str(tmp_path / "other")))


def test_the_end_names_a_prompt_of_the_data_and_counts_skipped_steps(tiny, tmp_path: Path, monkeypatch, capsys) -> None:
    original = Trainer.accumulate
    monkeypatch.setattr(Trainer, "accumulate", lambda self, step: original(self, step) * (50 if step == 20 else 1))
    assert run(tiny(steps=25, spike_window=8, spike_sigmas=20.0, sample_prompt=['Say "$HOME": 100%!\nThe'])) == 0
    output = capsys.readouterr()
    assert "skipped steps: 1 (" in output.out
    assert "skipped" not in output.err
    assert output.out.splitlines()[-1].endswith('--temperature 0.7 "Say HOME: 100"')


def test_the_rules_are_shown_with_the_plan_only(tiny, capsys) -> None:
    assert run(tiny(steps=2)) == 0
    assert "Table 2.1" not in "".join(capsys.readouterr())
    assert run(tiny(steps=2, plan=True, out=None)) == 0
    assert "Table 2.1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (["wiki"], "demo"), (["wiki@500"], "demo"), (["texts/novels.jsonl.gz#body@20M"], "novels"), (["my texts/"], "my-texts"),
        (["books/*.txt"], "books"), (["hf:roneneldan/TinyStories:train"], "TinyStories"), (["fineweb:sample-10BT"], "fineweb"),
        (["wiki", "letters.txt"], "letters"), (["wiki,letters.txt"], "letters"), (["Ökonomie.txt"], "Ökonomie"),
    ],
)  # fmt: skip
def test_a_run_on_own_data_is_named_after_it(data: list[str], name: str) -> None:
    assert default_name(TrainOptions(data=data)) == name
    assert default_name(TrainOptions(data=data, model="17M")) == ("17M" if name == "demo" else name)
    assert default_name(TrainOptions(mixture="mixtures/my.yaml")) == "my"
    given = default_name(TrainOptions(data=data, init_from="runs/base/checkpoints/step-5"))
    assert given == ("from-base" if name == "demo" else f"{name}-from-base")
