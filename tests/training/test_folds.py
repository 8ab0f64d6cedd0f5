"""Cross-validation with real runs: three folds, interrupted and resumed; the table is the runs' own numbers."""

import dataclasses
import json
import shutil
import statistics
from pathlib import Path

import pytest

from gpt3.corpus.shards import documents
from gpt3.errors import InputError
from gpt3.report.run_folder import read_metrics
from gpt3.training.data import open_data
from gpt3.training.folds import fold_options, last_score, run_folds
from gpt3.training.options import TrainOptions
from gpt3.training.plan import shape_of
from gpt3.training.run import train
from gpt3.training.run_folder import RunResult


@pytest.fixture
def asked(tiny, tmp_path):
    """A function of changes that gives the options of a tiny cross-validation in tmp_path/cv."""

    def make(**changes):
        return tiny(**({"out": str(tmp_path / "cv"), "steps": 4, "sample_every": 100, "folds": 3} | changes))

    return make


def test_three_folds_interrupted_and_gone_on_with(asked, tmp_path: Path, capsys) -> None:
    out, trained = tmp_path / "cv", []

    def interrupted(options: TrainOptions) -> RunResult:
        trained.append(options.fold)
        if len(trained) == 2:
            return RunResult(Path(options.out), None, 0.0, finished=False)
        return train(options)

    table = run_folds(asked(), interrupted)
    assert (table.finished, [row["fold"] for row in table.rows]) == (False, [1])
    assert not json.loads((out / "folds.json").read_text())["finished"]
    table = run_folds(asked(workers=2), interrupted)
    assert trained == ["1/3", "2/3", "2/3", "3/3"]  # the finished fold is read, not repeated
    assert table.finished
    shown = capsys.readouterr().out
    written = json.loads((out / "folds.json").read_text())
    assert written["finished"]
    assert written["rows"] == list(table.rows)
    for number, row in enumerate(table.rows, 1):
        last = read_metrics(out / f"fold-{number}" / "metrics.jsonl")[-1]
        assert row == {"fold": number, **last_score(out / f"fold-{number}")}
        assert (row["loss"], row["tokens"]) == (last["val/loss"], last["val/tokens"])
        assert row["loss_low"] < row["loss"] < row["loss_high"]
        assert f"{row['loss']:.4f}" in shown
    losses = [row["loss"] for row in table.rows]
    assert written["summary"]["loss"] == pytest.approx(
        {"mean": statistics.mean(losses), "sd": statistics.stdev(losses)}
    )
    assert f"{statistics.mean(losses):.4f} ± {statistics.stdev(losses):.4f}" in shown
    assert sum(row["documents"] for row in table.rows) == 100  # every document held out once

    run_folds(asked(), lambda options: pytest.fail("all folds are finished"))
    with pytest.raises(
        InputError, match=r"cv was started with other options: --lr was 0.003, now 0.0001; --folds was 3, now 2"
    ):
        run_folds(asked(folds=2, lr=1e-4), train)


@pytest.mark.parametrize("again", [False, True])
def test_every_document_is_held_out_in_one_fold(asked, tmp_path: Path, again: bool) -> None:
    options = asked()
    if again:  # the same from a shard folder
        shards = open_data(dataclasses.replace(options, folds=None), shape_of(options)).shards[0]
        shutil.copytree(shards.path, tmp_path / "shards")
        options = asked(data=[str(tmp_path / "shards")], tokenizer=None)
    held_out, whole = [], set()
    for number in (1, 2, 3):
        folder = open_data(fold_options(options, number, 3, tmp_path / "x"), shape_of(options)).shards[0]
        parts = {name: [d.tobytes() for d in documents(folder.split(name))] for name in ("train", "validation")}
        assert not set(parts["train"]) & set(parts["validation"])
        held_out += parts["validation"]
        whole |= {*parts["train"], *parts["validation"]}
    assert len(held_out) == len(set(held_out)) == 100
    assert set(held_out) == whole


def test_what_cannot_be_is_said_in_one_line(asked, tmp_path: Path, monkeypatch) -> None:
    for changes, message in (
        ({"folds": 1}, "--folds 1 must be a whole number of at least 2 and at most 1000"),
        ({"fold": "1/3"}, "--folds 3 runs every fold; leave out --fold 1/3"),
        ({"resume": "x/step-1"}, "names one run's checkpoint"),
    ):
        with pytest.raises(InputError, match=message):
            run_folds(asked(**changes), train)
    (tmp_path / "cv").mkdir()
    (tmp_path / "cv" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        run_folds(asked(), train)


def test_the_default_folder_is_numbered_and_an_unfinished_one_gone_on_with(asked, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    def stop(options: TrainOptions) -> RunResult:
        return RunResult(Path(options.out), None, 0.0, finished=False)

    assert run_folds(asked(out=None), stop).folder == Path("runs/articles-folds")
    assert run_folds(asked(out=None), stop).folder == Path("runs/articles-folds")
    assert run_folds(asked(out=None, lr=1e-4), stop).folder == Path("runs/articles-folds-2")
