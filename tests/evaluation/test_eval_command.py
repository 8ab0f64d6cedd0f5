"""`gpt3 eval` from model folder to table and files; a second call goes on where the first ended."""

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from task_rows import ROWS

from gpt3.cli import main as cli
from gpt3.evaluation.page import page
from gpt3.evaluation.results import Evaluation, Figure, TaskScore

TASKS = ["--tasks", "arithmetic-2d+,wiki-topic", "--shots", "0,1", "--limit", "4", "--dtype", "fp32"]


def test_a_table_with_errors_chance_and_the_papers_figures(folder, network, tmp_path, capsys):
    assert cli.main(["eval", "--model", str(folder), *TASKS, "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "76.9" in shown
    assert " ± " in shown
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(entry["task"], entry["shots"]) for entry in results["results"]] == [
        ("arithmetic-2d+", 0),
        ("arithmetic-2d+", 1),
        ("wiki-topic", 0),
        ("wiki-topic", 1),
    ]
    assert results["results"][0]["paper"]["acc"]["175B"] == 76.9
    lines = (tmp_path / "out" / "examples" / "wiki-topic-1.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 5
    assert len(json.loads(lines[1])["detail"]["logprobs"]) == 11
    assert results["parameters"] == network.num_parameters()
    drawn = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert drawn.count("<svg") == 2
    ElementTree.fromstring(drawn.split("\n", 1)[1].replace('<meta charset="utf-8">', ""))  # every mark closed


def test_models_are_drawn_over_their_size():
    def results(name, size, accuracy):
        score = TaskScore("t", 1, 9, 0.5, "acc", {"acc": Figure(accuracy, 0.01)})
        return Evaluation(name, "", size, "1", 0, "paper", "paper", None, [score])

    shown = page([results("a<b", 1_000_000, 0.5), results("c", 25_000_000, 0.75)])
    assert "a&lt;b" in shown
    assert ">1M<" in shown
    assert ">25M<" in shown
    assert shown.count("<svg") == 2


def test_it_goes_on_after_a_kill_and_ends_with_the_same_bytes(folder, tmp_path, monkeypatch, capsys):
    command = ["eval", "--model", str(folder), *TASKS, "--out", str(tmp_path / "out"), "--json"]
    assert cli.main(command) == 0
    whole = json.loads(capsys.readouterr().out)
    path = tmp_path / "out" / "examples" / "wiki-topic-1.jsonl"
    before = path.read_bytes()
    path.write_bytes(before[:-40])  # a half line at the end
    from gpt3.evaluation import runner as module

    asked = []
    monkeypatch.setattr(
        module, "score", lambda model, task, questions, batch: asked.extend(questions) or score(model, task, questions)
    )
    from gpt3.evaluation.protocol import score

    assert cli.main(command) == 0
    assert path.read_bytes() == before
    assert len(asked) == 1
    assert json.loads(capsys.readouterr().out) == whole
    assert cli.main([*command, "--seed", "3"]) == 0  # other questions: begun anew
    assert len(asked) == 1 + 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "aritmetic"], "no task aritmetic; did you mean arithmetic"),
        (
            ["--tasks", "hellaswag,storycloze"],
            "storycloze: the hub has no such rows (docs/evaluation.md). Use --data-dir",
        ),
        (
            ["--tasks", "hellaswag"],
            "hellaswag (dataset Rowan/hellaswag): the hub cannot be reached (",
        ),
        (
            ["--tasks", "quac"],
            "hf download --repo-type dataset allenai/quac; https://huggingface.co/datasets/allenai/quac) and",
        ),
        (["--shots", "0,many"], "--shots '0,many' must be"),
        (["--limit", "0"], "--limit 0 must be"),
        (["--data-dir", "nowhere"], "--data-dir nowhere is not a folder"),
        (["--data-dir", "nowhere@5"], "--data-dir nowhere@5 is not a folder"),
        (["--data-dir", "nowhere@5k"], "nowhere@5k: a slice of rows is a number of rows, such as @500"),
        (
            ["--tasks", "wiki-topic", "--shots", "20", "--limit", "3"],
            "of wiki-topic exceeds the model's 512 positions. About",
        ),
    ],
)
def test_bad_input_is_one_line(arguments, message, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert cli.main(["eval", "--model", str(folder), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_bad_row_and_a_model_without_tokenizer_are_one_line(folder, tmp_path, capsys):
    good = {"goal": "How?", "sol1": "So.", "sol2": "Not.", "label": 1}
    rows = [good, {**good, "label": 7}]
    (tmp_path / "piqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ["eval", "--tasks", "piqa", "--data-dir", str(tmp_path), "--shots", "0", "--limit", "1"]
    assert cli.main([*command, "--model", str(folder)]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'piqa.jsonl'}: line 2: the right option is 7, but there are 2" in error
    assert error.count("\n") == 1
    (tmp_path / "piqa.jsonl").write_text(json.dumps(good) + "\n", encoding="utf-8")
    mute = tmp_path / "mute"
    shutil.copytree(folder, mute, ignore=shutil.ignore_patterns("tokenizer*", "*.txt"))
    assert cli.main([*command, "--model", str(mute)]) == 2
    error = capsys.readouterr().err
    assert str(mute) in error
    assert "tokenizer" in error
    assert error.count("\n") == 1


def test_many_tasks_without_data_are_named_in_a_line_that_can_be_read(folder, tmp_path, capsys):
    command = ["eval", "--model", str(folder), "--shots", "0", "--data-dir", str(tmp_path)]
    assert cli.main([*command, "--tasks", "superglue"]) == 2
    error = capsys.readouterr().err
    assert error.count("has no") == 3
    assert error.endswith("; and 5 more: cb, wic, wsc, multirc, record\n")
    assert cli.main([*command, "--tasks", "mmlu"]) == 2
    assert capsys.readouterr().err.count("mmlu.jsonl") == 1  # of 57 subjects


def test_k_is_what_there_is_where_a_file_has_fewer_rows(folder, tmp_path, capsys):
    rows = [{"goal": f"How {word}?", "sol1": "So.", "sol2": "Not.", "label": 1} for word in "abc"]
    (tmp_path / "piqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [
        "eval",
        "--model",
        str(folder),
        "--tasks",
        "piqa",
        "--data-dir",
        str(tmp_path),
        "--dtype",
        "fp32",
        "--json",
    ]
    assert cli.main([*command, "--shots", "0,K", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    assert [entry["shots"] for entry in json.loads(shown.out)["results"]] == [0, 2]
    assert "K reduced to the available examples: piqa 2 of 50" in shown.err
    assert cli.main([*command, "--shots", "3", "--out", str(tmp_path / "out")]) == 2
    assert "--shots 3 of piqa exceeds the 2 examples to draw from" in capsys.readouterr().err


def test_the_list_of_tasks_needs_no_model(capsys):
    assert cli.main(["eval", "--list-tasks"]) == 0
    assert "reversed-words" in capsys.readouterr().out


def test_figures_of_all_kinds_of_answers_reach_the_table(folder, tmp_path, capsys):
    pytest.importorskip("sacrebleu")
    names = ["record", "multirc", "cb", "wsc", "squad2", "wmt16_de_en"]
    for name in names:
        rows = [{**ROWS[name], "split": part} for part in ("train", "test", "test")]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ["eval", "--model", str(folder), "--tasks", ",".join(names), "--data-dir", str(tmp_path), "--shots", "1"]
    assert cli.main([*command, "--dtype", "fp32", "--out", str(tmp_path / "out"), "--json"]) == 0
    found = {entry["task"]: entry for entry in json.loads(capsys.readouterr().out)["results"]}
    figures = {
        name: set(entry["metrics"]) - {"acc_sum", "acc_token", "acc_byte", "acc_char"} for name, entry in found.items()
    }
    assert figures == {
        "record": {"acc", "f1"},
        "multirc": {"acc", "f1a"},
        "cb": {"acc", "f1"},
        "wsc": {"acc"},
        "squad2": {"acc", "f1"},
        "wmt16_de_en": {"bleu"},
    }
    assert found["wmt16_de_en"]["paper"]["bleu"]["175B"] == 32.1
    assert found["squad2"]["paper"]["acc"]["175B"] == 60.1
    assert found["multirc"]["paper"]["f1a"]["175B"] == 72.9
    assert found["cb"]["data"]["file"].endswith("cb.jsonl")


def test_two_models_of_one_name_have_two_folders(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    places = [str(shutil.copytree(folder, tmp_path / part / "demo")) for part in ("a", "b")]
    command = ["eval", *TASKS, "--model"]
    assert cli.main([*command, places[0]]) == cli.main([*command, places[1]]) == cli.main([*command, *places]) == 0
    capsys.readouterr()
    models = {path.parent.name: json.loads(path.read_text())["model"] for path in Path("eval").glob("*/results.json")}
    assert models == {"demo": places[0], "demo-2": places[1]}
    assert cli.main([*command, *places, "--out", "both"]) == 0
    assert {path.name for path in Path("both").iterdir()} == {"demo", "demo-2", "report.html", "comparison.json"}


@pytest.mark.parametrize("name", ["results.json", "report.html"])
def test_files_of_others_are_not_replaced(folder, tmp_path, capsys, name):
    other = tmp_path / "out" / name
    other.parent.mkdir()
    other.write_text('{"mine": 1}', encoding="utf-8")
    command = ["eval", "--model", str(folder), *TASKS, "--out", str(tmp_path / "out")]
    assert cli.main(command) == 2
    assert f"--out {other} exists, and gpt3 did not write it" in capsys.readouterr().err
    assert [path.name for path in other.parent.iterdir()] == [name]
    assert cli.main([*command, "--overwrite"]) == cli.main(command) == 0  # our own are
