"""Experiment 1.2: trained, asked and drawn; every figure follows from the JSON."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gpt3.cli.main import main
from gpt3.evaluation import generated_tasks
from gpt3.paper import in_context

PAGE = (Path(__file__).parents[2] / "docs" / "few-shot.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def out(text_file: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the docs' command leaves, with little models of a few steps on little text."""
    folder = tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GPT3_CACHE", str(cache))
        patch.setattr(in_context, "WIDTHS", {"0.09M": 8, "0.28M": 16, "0.96M": 24})
        patch.setattr(in_context, "EPISODES", 300)
        patch.setattr(in_context, "SHOTS", {"released": (0, 2, 4), "paper": (0, 1)})
        patch.setattr(in_context, "affordable_steps", lambda *arguments: 13)
        patch.setattr(generated_tasks, "SCRAMBLED", 200)
        patch.setattr(generated_tasks, "SCRAMBLED_SHOTS", 100)
        generated_tasks.frequent_words.cache_clear()
        [command] = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
        more = f"--data {text_file} --limit 5 --threads 1"
        patch.setattr(
            in_context, "TRAINING", in_context.TRAINING | {"device": "cpu", "dtype": "fp32", "batch_tokens": 512}
        )
        assert main([*shlex.split(command, comments=True)[1:], *shlex.split(more)]) == 0
        yield folder / "paper"
    generated_tasks.frequent_words.cache_clear()


def test_every_stage_is_asked_with_every_number_of_examples(out: Path) -> None:
    measured = json.loads((out / "1.2.json").read_text())
    assert measured["steps"] == 10
    found = {(row["size"], row["steps"], row["instruction"], row["shots"]) for row in measured["rows"]}
    stages = [("0.09M", 10), ("0.28M", 4), ("0.28M", 6), ("0.28M", 10), ("0.96M", 10)]
    assert found >= {(*stage, True, shots) for stage in stages for shots in (0, 1)}
    assert found >= {(*stage, False, shots) for stage in stages for shots in (None, 0, 2, 4)}
    assert all(re.fullmatch("[01]{5}", row["right"]) for row in measured["rows"])


def test_figures_follow_from_the_json(out: Path) -> None:
    measured = json.loads((out / "1.2.json").read_text())
    rng = np.random.default_rng(0)
    for row in measured["rows"]:
        row["right"] = "".join(rng.choice(["0", "1"], 40))
    drawn = in_context.draw(measured)
    [row] = [
        row for row in measured["rows"]
        if (row["task"], row["size"], row["steps"], row["instruction"], row["shots"]) == ("reversed-words", "0.96M", 10, False, 2)
    ]  # fmt: skip
    digits = np.array([*map(int, row["right"])])
    mean, error = 100 * digits.mean(), 100 * stats.sem(digits)
    [line] = [line for line in drawn.charts[1].axes.curves if line.label.startswith("0.96M") and line.dashed]
    assert line.points[1] == pytest.approx((2, mean, error))
    [cells] = [cells for cells in drawn.tables[0].rows if cells[:4] == ["reversed-words", "0.96M", "10", "no"]]
    assert cells[5] == f"{mean:.1f} ± {error:.1f}"


def test_the_page_says_how_many_steps_were_trained(out: Path) -> None:
    page = (out / "paper.html").read_text()
    assert "10 steps of 512 tokens" in page
    assert "The full recipe is 2,000 steps; --minutes allowed 10" in page


def test_a_killed_work_asks_and_trains_nothing_twice(
    out: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = json.loads((out / "1.2.json").read_text())
    (out / "1.2.json").unlink()

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError

    monkeypatch.setattr("gpt3.training.run.train", never)
    monkeypatch.setattr("gpt3.paper.asking.answers", never)
    settings = json.loads((out / "settings.json").read_text())
    words = ["--minutes", str(settings["minutes"]), "--data", str(text_file), "--limit", "5", "--threads", "1"]
    assert main(["paper", "1.2", "--out", "paper", *words]) == 0
    after = json.loads((out / "1.2.json").read_text())
    assert after["rows"] == before["rows"]
