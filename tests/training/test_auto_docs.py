"""What docs/auto.md says to type works as written, at a planted speed; its figures are those of the fit."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gpt3.cli.main import main
from gpt3.training import automatic
from gpt3.training.law import fitted_law
from gpt3.training.step_speed import StepSpeed

PAGE = (Path(__file__).parents[2] / "docs" / "auto.md").read_text(encoding="utf-8")


def test_the_commands(
    text_file: Path,
    shared_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPT3_CACHE", str(shared_cache))
    Path("texts.jsonl").write_bytes(text_file.read_bytes())
    monkeypatch.setattr(automatic, "measure_speed", lambda *arguments: StepSpeed((1e-9, 1e-7), (1e-7, 1e-9)))
    monkeypatch.setattr("gpt3.training.trainer.Trainer.measure_token", lambda self: 1.0)  # 600 tokens in ten minutes
    monkeypatch.setattr(
        "gpt3.training.run.choose_step", lambda *arguments: arguments[4]
    )  # torch's operators: no compiling
    (commands,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in commands.replace("100K", "1K").splitlines():
        assert main([*shlex.split(line, comments=True)[1:], *shlex.split("--device cpu --dtype fp32 --threads 1")]) == 0
    said, lines = capsys.readouterr(), []
    for text in (said.out, said.err):
        lines += text.splitlines()
    assert any(re.match(r" *next best +2 layers of", line) for line in lines), lines
    assert sum(line.startswith("predicted ") for line in lines) >= 2


def test_the_law_on_the_page_is_the_one_in_use() -> None:
    best, words = fitted_law().best, PAGE.split()
    for value in (best.floor, best.layers_power, best.vocabulary_power, best.data_power, best.repeats):
        assert f"{value:.3g}" in words
