"""A new evaluation task is one function and one line of registration, as CONTRIBUTING.md shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from gpt3.cli import main as cli
from gpt3.evaluation import choice_rows, tasks
from gpt3.model import GPT3Config, GPT3ForCausalLM
from gpt3.tokenizer.train import train_tokenizer

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
ROWS = [
    {"thing": thing, "options": ["blue", "red", "green"], "label": n % 3}
    for n, thing in enumerate(["sea", "rose", "leaf"])
]


@pytest.fixture
def colors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The page's task, registered."""
    text = PAGE.read_text(encoding="utf-8")
    (function,) = re.findall(r"^```python\n(def colors.*?)^```", text, flags=re.M | re.S)
    (entry,) = re.findall(r"^```python\n(file_task\(.*?)^```", text, flags=re.M | re.S)
    names = dict(vars(choice_rows))
    exec(compile(function, str(PAGE), "exec"), names)
    monkeypatch.setattr(choice_rows, "colors", names["colors"], raising=False)
    task = eval(entry, dict(vars(tasks)))
    monkeypatch.setitem(tasks.TASKS, task.name, task)
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["Color of the sea: blue\n\n" * 20], 280)
    config = GPT3Config(
        vocab_size=len(tokenizer),
        max_position_embeddings=128,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    place = tmp_path / "tiny"
    GPT3ForCausalLM(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def test_list_lm_eval_definitions_and_messages_know_it(colors: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["eval", "--list-tasks"]) == 0
    assert re.search(
        r"^colors +choice +2 +the color of things \(example/colors\)$", capsys.readouterr().out, flags=re.M
    )
    assert cli.main(["eval", "--lm-eval-tasks"]) == 0
    definitions = Path(capsys.readouterr().out.strip())
    assert "gpt3_task: colors\n" in (definitions / "gpt3_colors.yaml").read_text(encoding="utf-8")
    assert cli.main(["eval", "--tasks", "color"]) == 2
    assert "did you mean colors" in capsys.readouterr().err


def test_it_is_evaluated_and_drawn(
    colors: None, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "colors.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    command = ["eval", "--model", str(folder), "--tasks", "colors", "--shots", "0,K", "--data-dir", str(tmp_path)]
    assert cli.main([*command, "--out", str(tmp_path / "out")]) == 0
    assert re.search(r"^colors +0 +3 +acc ", capsys.readouterr().out, flags=re.M)
    found = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["results"]
    assert [(score["task"], score["shots"], score["examples"]) for score in found] == [
        ("colors", 0, 3),
        ("colors", 2, 3),
    ]
    assert found[0]["chance"] == pytest.approx(1 / 3)
    assert ">colors<" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    first = (tmp_path / "out" / "examples" / "colors-0.jsonl").read_text(encoding="utf-8").splitlines()[1]
    assert json.loads(first)["gold"] == "blue"


def test_lm_eval_runs_it(colors: None, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: the extra eval")
    from lm_eval.tasks import TaskManager

    (tmp_path / "colors.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    folder = tasks.write_lm_eval_definitions()
    manager = TaskManager(include_path=folder, include_defaults=False, metadata={"data_dir": str(tmp_path)})
    task = manager.load(["gpt3_colors"])["tasks"]["gpt3_colors"]
    assert [task.doc_to_text(doc) for doc in task.test_docs()] == [f"Color of the {row['thing']}:" for row in ROWS]
