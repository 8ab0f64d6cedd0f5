"""results.json adds up: rows that a command scores again are replaced, others stay, and another model is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from gpt3.cli import main as cli
from gpt3.evaluation.earlier_results import merged, read_results
from gpt3.evaluation.results import Evaluation, Figure, GroupScore, TaskScore

FAST = ["--limit", "4", "--dtype", "fp32"]


def keys(out):
    rows = json.loads((Path(out) / "results.json").read_text())["results"]
    return [(row.get("task") or f"group {row['group']}", row["shots"], row["style"]) for row in rows]


def test_commands_add_up(folder, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["eval", "--model", str(folder), *FAST, "--out", str(out)]
    assert cli.main([*command, "--tasks", "arithmetic-2d+", "--shots", "0,1"]) == 0
    first = json.loads((out / "results.json").read_text())["results"]
    capsys.readouterr()
    assert cli.main([*command, "--tasks", "agreement", "--shots", "0"]) == 0
    shown = capsys.readouterr()
    assert "arithmetic" not in shown.out  # the table is of this command
    assert "with 2 rows of earlier commands" in shown.err
    assert cli.main([*command, "--tasks", "agreement", "--shots", "0", "--style", "cloze"]) == 0
    assert keys(out) == [
        ("arithmetic-2d+", 0, "paper"),
        ("arithmetic-2d+", 1, "paper"),
        ("agreement", 0, "paper"),
        ("agreement", 0, "cloze"),
    ]
    found = json.loads((out / "results.json").read_text())["results"]
    assert found[:2] == first
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "agreement (cloze)" in page
    assert "arithmetic-2d+" in page
    assert {path.name for path in (out / "examples").iterdir()} == {
        "arithmetic-2d+-0.jsonl",
        "arithmetic-2d+-1.jsonl",
        "agreement-0.jsonl",
        "agreement-0-cloze.jsonl",
    }


def test_a_row_scored_again_is_replaced_and_says_its_settings(folder, tmp_path):
    out = tmp_path / "out"
    command = ["eval", "--model", str(folder), *FAST, "--out", str(out), "--tasks", "arithmetic-2d+"]
    assert cli.main([*command, "--shots", "0,1"]) == 0
    assert cli.main([*command, "--shots", "1", "--seed", "3"]) == 0
    rows = json.loads((out / "results.json").read_text())["results"]
    assert [(row["shots"], row["settings"]["seed"], row["settings"]["limit"]) for row in rows] == [(0, 0, 4), (1, 3, 4)]


def test_another_model_is_refused_before_anything_is_scored(folder, network, tmp_path, capsys):
    out, place = tmp_path / "out", tmp_path / "demo"
    shutil.copytree(folder, place)
    command = ["eval", "--model", str(place), *FAST, "--out", str(out), "--tasks", "arithmetic-2d+", "--shots", "0"]
    assert cli.main(command) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    torch.manual_seed(5)
    type(network)(network.config).save_pretrained(place)  # as if it were trained further
    capsys.readouterr()
    assert cli.main(command) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"--out {out} has results of another model: of {place} with other weights" in error
    assert error.endswith("Name a new folder, or replace them with --overwrite.")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert cli.main([*command, "--overwrite", "--shots", "1"]) == 0
    assert keys(out) == [("arithmetic-2d+", 1, "paper")]


def entry(task, shots=0, style="paper", value=0.5):
    return TaskScore(task, shots, 9, 0.5, "acc", {"acc": Figure(value, 0.01)}, style=style)


def evaluation(*rows):
    return Evaluation("m", "hash", 1, "1", 0, "paper", "paper", None, list(rows))


@pytest.mark.parametrize(
    ("shots", "task", "style", "stays"),
    [
        (0, "anli_r1", "paper", False),  # its mean would be of a row that is gone
        (None, "anli_r1", "paper", False),
        (1, "anli_r1", "paper", True),
        (0, "anli_r1", "lm-eval", True),
        (0, "piqa", "paper", True),
    ],
)
def test_a_groups_mean_goes_with_the_rows_it_was_made_of(shots, task, style, stays):
    group = GroupScore("anli", shots, 3, 27, {"acc_macro": Figure(0.5), "acc_micro": Figure(0.5)})
    before = evaluation(*(entry(f"anli_r{n}", shots or 0) for n in (1, 2, 3)), group)
    found = merged(before, evaluation(entry(task, 0, style, 0.7)))
    assert (group in found.results) == stays


def test_results_of_earlier_versions_are_kept(tmp_path):
    content = evaluation(entry("piqa"), entry("boolq")).as_dict() | {"style": "lm-eval", "seed": 7}
    for row in content["results"]:
        for name in ("style", "settings", "shown"):
            del row[name]
    (tmp_path / "results.json").write_text(json.dumps(content))
    first = read_results(tmp_path).results[0]
    assert (first.style, first.settings["seed"], first.metrics["acc"]) == ("lm-eval", 7, Figure(0.5, 0.01))
    (tmp_path / "results.json").write_text('{"results": {"hellaswag": {"acc,none": 0.3}}}')
    assert read_results(tmp_path) is None
