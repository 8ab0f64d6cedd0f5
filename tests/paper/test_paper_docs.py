"""The commands of docs/paper.md that ask models work as written."""

import re
import shlex
from pathlib import Path

import pytest

from gpt3.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "paper.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^gpt3 (paper .*--model starter .*)$", PAGE, flags=re.M)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)
    assert main(words) == 0
    assert (tmp_path / words[words.index("--out") + 1] / "paper.html").is_file()
