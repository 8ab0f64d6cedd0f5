"""What docs/evaluation.md says to type works as written."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt3.evaluation.tasks import FILE_TASKS, GROUPS, TASKS

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are written for a shell")
def test_the_commands(folder, tmp_path):
    for name in ("demo", "longer"):
        shutil.copytree(folder, tmp_path / "runs" / name / "model")
    (tmp_path / "data").mkdir()
    row = {"goal": "How?", "sol1": "So.", "sol2": "Not.", "label": 1}
    (tmp_path / "data" / "piqa.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    question = {"question": "Where?", "choices": ["here", "there", "up", "down"], "answer": 1}
    rows = [question | {"subject": name.removeprefix("mmlu_")} for name in GROUPS["mmlu"]]
    (tmp_path / "data" / "mmlu.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (commands,) = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
    script = f'set -e\ngpt3() {{ "{sys.executable}" -m gpt3 "$@"; }}\n{commands}'
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "piqa.json").read_text())["results"][0]["task"] == "piqa"
    assert (tmp_path / "scrambles" / "results.json").is_file()
    assert (tmp_path / "eval" / "comparison.json").is_file()
    rows = json.loads((tmp_path / "mmlu" / "results.json").read_text())["results"]
    assert [(row["task"], row["metrics"].keys()) for row in rows if row["task"] == "mmlu"] == [("mmlu", {"acc"})]


def test_the_python_example(folder, tmp_path, monkeypatch, capsys):
    shutil.copytree(folder, tmp_path / "runs" / "demo" / "model")
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)[0]
    exec(compile(code, str(PAGE), "exec"), {})
    shown = capsys.readouterr().out
    assert re.search(r"^arithmetic-2d\+ +1 +20 +acc ", shown, flags=re.M)  # the table
    assert re.search(r"^arithmetic-2d\+ 1 [01]\.\d+$", shown, flags=re.M)


def test_every_option_is_on_the_page():
    from gpt3.evaluation.options import EvalOptions

    page = PAGE.read_text(encoding="utf-8")
    names = {field.name for field in dataclasses.fields(EvalOptions)}
    assert {name for name in names if f"--{name.replace('_', '-')}" not in page} == set()


def rule(task):
    """A task's scoring in the page's words."""
    if task.kind == "choice":
        partial = task.name in ("winograd", "winogrande")
        unconditional = f"P(answer) / P(answer after `{task.answer_context.strip()}`)"
        rules = {"token": "per token", "sum": "sum", "unconditional": unconditional}
        return "partial scoring" if partial else rules[task.normalization]
    return {"greedy": "greedy", "word": "whole word", "text": "beam search"}[task.kind]


def lines():
    """The page's rows of the tasks with files."""
    for task in (*FILE_TASKS, TASKS["mmlu_anatomy"], TASKS["blimp_adjunct_island"]):
        hub = task.hub
        place = (
            "yours"
            if task.name == "pairs"
            else "on request"
            if hub is None
            else f"`{hub.repository}`" + (f" {hub.config}" if hub.config else "")
        )
        splits = "test" if hub is None else hub.test + ("" if hub.shots is None else f", {hub.shots}")
        groups = {"mmlu_anatomy": "mmlu (57 subjects)", "blimp_adjunct_island": "blimp (67 paradigms)"}
        name = groups.get(task.name, task.name)
        place = place.removesuffix(" adjunct_island")
        figures = ", ".join(
            {"ppl": "perplexity", "f1": "F1", "f1a": "F1a", "bleu": "BLEU"}.get(m, m) for m in task.metrics
        )
        yield f"| {name} | {place} | {splits} | {task.shots} | {rule(task)} | {figures} |"


def test_the_table_of_tasks_is_the_programs():
    page = PAGE.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines() if line not in page] == []
