"""`gpt3 runs`, `gpt3 runs rename` and `gpt3 runs remove`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpt3.cli.main import main
from gpt3.work_folder import locked_folder


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """Two runs in ./runs, one of them finished, and a folder that is none."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs"
    for name, steps in (("first", 3), ("second", 5)):
        (folder / name).mkdir(parents=True)
        records = [{"step": step, "tokens": 100 * step, "loss": 2.0} for step in range(1, steps + 1)]
        records[-2] |= {"val/loss": 1.5, "val/perplexity": 4.48, "val/bits_per_byte": 0.9}
        (folder / name / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        (folder / name / "config.yaml").write_text("steps: 5\n")
    (folder / "second" / "model").mkdir()
    (folder / "notes").mkdir()
    (folder / "notes" / "text").write_text("mine")
    return folder


def test_list(runs, capsys):
    with locked_folder(runs / "first"):
        assert main(["runs", "--json"]) == 0
    rows = {row["run"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == ["second", "first"] or list(rows) == ["first", "second"]
    assert rows["first"]["state"] == "running"
    assert rows["second"]["state"] == "finished"
    assert (rows["first"]["step"], rows["first"]["steps"], rows["first"]["tokens"]) == (3, 5, 300)
    assert (rows["second"]["loss"], rows["second"]["perplexity"]) == (1.5, 4.48)
    assert main(["runs"]) == 0
    table = capsys.readouterr().out
    assert "unfinished" in table  # nobody is at work in it any more
    assert "notes" not in table


def test_a_run_that_diverged_has_no_loss_from_before(runs, capsys):
    with open(runs / "second" / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 6, "tokens": 600, "val/loss": None}) + "\n")
    assert main(["runs", "--json", "--folder", str(runs / "second")]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["step"], row["loss"], row["perplexity"]) == (6, None, None)


def test_list_nothing_or_damaged(runs, capsys):
    assert main(["runs", "--folder", str(runs / "notes")]) == 0
    assert capsys.readouterr().out == f"no runs in {runs / 'notes'}\n"
    assert main(["runs", "--folder", "nowhere"]) == 2
    assert "nowhere is not a folder of runs" in capsys.readouterr().err
    (runs / "first" / "metrics.jsonl").write_text("{\n")
    assert main(["runs"]) == 0
    assert "unfinished, metrics.jsonl unreadable" in capsys.readouterr().out


def test_a_run_given_as_the_folder_is_listed_itself(runs, capsys):
    assert main(["runs", "--json", "--folder", str(runs / "second")]) == 0
    assert [row["run"] for row in json.loads(capsys.readouterr().out)] == ["second"]


def test_rename(runs, capsys):
    assert main(["runs", "rename", "first", "novels"]) == 0
    assert not (runs / "first").exists()
    assert (runs / "novels" / "metrics.jsonl").is_file()
    assert main(["runs", "rename", str(runs / "novels"), "first"]) == 0
    assert (runs / "first" / "metrics.jsonl").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rename", "first", "second"], "exists. Choose another name."),
        (["rename", "first", "a/b"], "'a/b' is not a name"),
        (["rename", "first", ".."], "'..' is not a name"),
        (["rename", "first"], "give the run and its new name"),
        (
            ["rename", "nothing", "new"],
            "no such run folder, nor a run of that name in ./runs; runs are made by gpt3 train",
        ),
        (["rename", "secnod", "new"], "did you mean second?"),
        (["rename", "notes", "new"], "is not a run folder"),
        (["remove"], "name the runs to remove"),
        (["remove", "notes", "--yes"], "is not a run folder"),
        (["remove", "first", "notes", "--yes"], "is not a run folder"),
        (["remove", "first"], "Add --yes to remove."),
    ],
)
def test_refusals_change_nothing(runs, capsys, arguments, message):
    before = sorted(path.relative_to(runs) for path in runs.rglob("*"))
    assert main(["runs", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.relative_to(runs) for path in runs.rglob("*")) == before


def test_a_run_in_use_or_a_link_is_refused(runs, capsys):
    with locked_folder(runs / "first"):
        for arguments in (["rename", "first", "new"], ["remove", "first", "--yes"]):
            assert main(["runs", *arguments]) == 2
            assert "is in use by another process" in capsys.readouterr().err
    (runs / "link").symlink_to(runs / "second", target_is_directory=True)
    assert main(["runs", "remove", "link", "--yes"]) == 2
    assert "is a link" in capsys.readouterr().err
    assert (runs / "second" / "metrics.jsonl").is_file()


def test_remove(runs, capsys):
    assert main(["runs", "remove", "first", "runs/first", "second", "--yes"]) == 0
    assert [path.name for path in runs.iterdir()] == ["notes"]
    assert capsys.readouterr().out.count("removed") == 2
