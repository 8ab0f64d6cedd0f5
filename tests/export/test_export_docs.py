"""What docs/export.md says to type works as written."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

from gpt3.cli.formats import ExportOptions
from gpt3.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.M | re.S)


def test_the_commands(home, new_model, tokenizer, capsys):
    new_model(sliding_window=32).save_pretrained("runs/demo/model")
    (commands,) = blocks("sh")
    for line in commands.splitlines():
        assert main(shlex.split(line, comments=True)[1:]) == 0
    assert {path.name for path in home.iterdir()} == {"runs", "demo.gguf", "demo-gpt-neo", "demo-gpt2"}


def test_the_python_example(home, capsys):
    (code,) = blocks("python")
    exec(compile(code, "export.md", "exec"), {})
    assert capsys.readouterr().out.startswith("The history of")


def test_every_option_is_on_the_page():
    for field in dataclasses.fields(ExportOptions):
        assert f"`--{field.name}`" in PAGE
