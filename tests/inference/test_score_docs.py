"""What docs/score.md says to type works as written."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "score.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)


def test_the_python_example(home, capfd):
    (code,) = blocks("python")
    exec(compile(code, str(PAGE), "exec"), {})
    out = capfd.readouterr().out
    assert re.search(r"^\d+\.\d{3} nats per token, \d+\.\d{3} bits per byte$", out, flags=re.M)
    assert len(re.findall(r"^-\d+\.\d\d (True|False)$", out, flags=re.M)) == 2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are written for a shell")
def test_the_commands(home):
    (commands,) = blocks("sh")
    (home / "notes.txt").write_text("The sea was calm and the ships were small.\n" * 30, encoding="utf-8")
    (home / "letters.txt").write_text("Once upon a time.\n", encoding="utf-8")
    script = f'set -e\ngpt3() {{ "{sys.executable}" -m gpt3 "$@"; }}\n{commands}'
    done = subprocess.run(["bash", "-c", script], cwd=home, capture_output=True, encoding="utf-8", input="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\ntotal ") == 2
    record = json.loads((home / "scores.jsonl").read_text(encoding="utf-8"))
    assert len(record["per_token"]) == record["tokens"]
    assert (home / "score.html").is_file()


def test_every_option_is_on_the_page():
    from gpt3.cli.score import ScoreOptions

    page = PAGE.read_text(encoding="utf-8")
    names = {field.name for field in dataclasses.fields(ScoreOptions)} - {"files"}
    missing = {name for name in names if f"--{name.replace('_', '-')}" not in page}
    assert missing == set()
