"""What docs/finetune.md and docs/chat.md say to type works as written, and every option is on its page."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt3.cli.chat import ChatOptions
from gpt3.finetuning.catalogue import CATALOGUE
from gpt3.finetuning.options import FinetuneOptions
from gpt3.inference.options import SamplingOptions

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are written for a shell")
def test_the_commands(base, questions, pairs, tmp_path, monkeypatch, capfd) -> None:
    pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base, tmp_path / "runs/demo/model")
    (tmp_path / "talks.jsonl").write_text(
        "\n".join(map(json.dumps, json.loads(questions.read_text(encoding="utf-8")))), encoding="utf-8"
    )
    shutil.copy(pairs, tmp_path / "pairs.json")
    commands = "\n".join([*blocks("finetune.md", "sh"), *blocks("chat.md", "sh")])
    script = f'set -e\ngpt3() {{ "{sys.executable}" -m gpt3 "$@"; }}\n{commands}'
    done = subprocess.run(["bash", "-c", script], capture_output=True, encoding="utf-8", input="", timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("--- sample") == 3
    assert len(json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))["messages"]) == 2
    (code,) = blocks("chat.md", "python")
    exec(compile(code, "chat.md", "exec"), {})
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"demo", "assistant", "adapted", "preferred"}


def test_every_option_and_name_is_on_the_page() -> None:
    page = (DOCS / "finetune.md").read_text(encoding="utf-8")
    missing = [
        field.name for field in dataclasses.fields(FinetuneOptions) if f"--{field.name.replace('_', '-')}" not in page
    ]
    assert missing == []
    for name, known in CATALOGUE.items():
        assert re.search(rf"^\| `{name}` \| {known.repository}.*\| {re.escape(known.licence)} \|$", page, flags=re.M), (
            name
        )
    chat = (DOCS / "chat.md").read_text(encoding="utf-8")
    own = {field.name for field in dataclasses.fields(ChatOptions)} - {
        f.name for f in dataclasses.fields(SamplingOptions)
    }
    missing = [name for name in own if f"--{name.replace('_', '-')}" not in chat]
    assert missing == []
