"""What docs/evaluation.md says to type works as written."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are written for a shell")
def test_the_commands(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "runs" / "demo" / "model")
    (tmp_path / "data").mkdir()
    row = {"goal": "How?", "sol1": "So.", "sol2": "Not.", "label": 1}
    (tmp_path / "data" / "piqa.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (commands,) = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
    script = f'set -e\ngpt3() {{ "{sys.executable}" -m gpt3 "$@"; }}\n{commands}'
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "piqa.json").read_text())["results"][0]["task"] == "piqa"
    assert (tmp_path / "scrambles" / "results.json").is_file()


def test_every_option_is_on_the_page():
    from gpt3.evaluation.options import EvalOptions

    page = PAGE.read_text(encoding="utf-8")
    names = {field.name for field in dataclasses.fields(EvalOptions)}
    assert {name for name in names if f"--{name.replace('_', '-')}" not in page} == set()
