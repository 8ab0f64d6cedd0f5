"""What docs/report.md and docs/checkpoints.md say to type works as written, on a tiny run."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from gpt3.cli import main as cli
from gpt3.training.run import train

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def home(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with runs/demo and runs/demo-2."""
    train(tiny(out=str(tmp_path / "runs" / "demo"), steps=2))
    shutil.copytree(tmp_path / "runs" / "demo", tmp_path / "runs" / "demo-2")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_report_and_checkpoints(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (commands,) = blocks("report.md", "sh")
    lines = [shlex.split(line, comments=True) for line in commands.splitlines()]
    assert len(lines) == 4
    for line in lines:
        assert line[:2] == ["gpt3", "report"]
        assert not cli.main(line[1:])
        said = capsys.readouterr().out.split()
        assert any(Path(word).suffix == ".html" and Path(word).stat().st_size > 10_000 for word in said), said
    assert (home / "both.html").exists()
    (code,) = blocks("report.md", "python")
    exec(code, {})
    (code,) = blocks("checkpoints.md", "python")
    exec(code, {})
    assert capsys.readouterr().out.splitlines() == [f"{Path('runs/demo/checkpoints/step-2')} []", "None"]
