"""Experiment 1.3: which tasks are averaged, and how; the paper's means are those of its table."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gpt3.cli.main import main
from gpt3.evaluation import generated_tasks
from gpt3.evaluation.results import TABLE_H1
from gpt3.paper import aggregate

PAGE = (Path(__file__).parents[2] / "docs" / "paper.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def out(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the docs' command leaves, of a random model, with two questions of each task."""
    folder = tmp_path_factory.mktemp("means")
    shutil.copytree(tiny, folder / "runs" / "demo" / "model")
    rows = [{"goal": f"How {n}?", "sol1": "So.", "sol2": "Not so.", "label": n % 2} for n in range(6)]
    (folder / "data").mkdir()
    (folder / "data" / "piqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    passage = {"passage": "word " * 900, "question": "why", "answer": True}
    (folder / "data" / "boolq.jsonl").write_text(f"{json.dumps(passage)}\n" * 4)
    [command] = re.findall(r"gpt3 paper 1\.3 .*", PAGE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(generated_tasks, "SUMS", 30)
        patch.setattr(generated_tasks, "SCRAMBLED", 40)
        patch.setattr(generated_tasks, "SCRAMBLED_SHOTS", 20)
        generated_tasks.frequent_words.cache_clear()
        words = shlex.split(command.replace("--limit 100", "--limit 3"))
        assert main([*words[1:], "--threads", "1"]) == 0
    generated_tasks.frequent_words.cache_clear()
    return folder / "means"


def test_generated_tasks_and_those_with_a_file_are_asked(out: Path) -> None:
    measured = json.loads((out / "1.3.json").read_text())
    names = {task.name for task in (*generated_tasks.ARITHMETIC, *generated_tasks.SCRAMBLING)}
    assert set(measured["paper_names"]) == names | {"wiki-topic", "novel-words", "grammar-correction", "piqa", "boolq"}
    [model] = measured["models"]
    asked = {(row["task"], row["k"]): row for row in model["rows"]}
    assert all((name, k) in asked for name in names for k in ("0", "1", "few"))
    assert all(len(row["right"]) == 3 for row in model["rows"])
    assert asked["piqa", "few"]["shots"] == 5  # of six rows, the others
    assert ("boolq", "0") in asked
    assert ("boolq", "1") not in asked  # an example does not fit
    assert "boolq" not in aggregate.common_tasks(measured)
    assert "Left out, as an example does not fit some model: boolq." in (out / "paper.html").read_text()


def test_means_follow_from_the_json(out: Path) -> None:
    measured = json.loads((out / "1.3.json").read_text())
    rng, [model] = np.random.default_rng(0), measured["models"]
    means, centred, variances = [], [], []
    for row in model["rows"]:
        digits = rng.integers(0, 2, 40)
        row |= {"right": "".join(map(str, digits)), "acc": digits.mean(), "error": stats.sem(digits)}
        if row["k"] == "few" and row["task"] != "boolq":
            means.append(digits.mean())
            centred.append((digits.mean() - row["chance"]) / (1 - row["chance"]))
            variances.append((stats.sem(digits) / (1 - row["chance"])) ** 2)
    table = {row[3]: row for row in aggregate.draw(measured).tables[0].rows}
    assert table["all"][6].startswith(f"{100 * np.mean(means):.1f} ± ")
    error = 100 * np.sqrt(np.sum(variances)) / len(variances)
    assert table["all, centred"][6] == f"{100 * np.mean(centred):.1f} ± {error:.1f}"


def test_without_a_task_that_fits_nothing_is_averaged() -> None:
    model = {"name": "m", "parameters": 1000, "rows": []}
    drawn = aggregate.draw(
        {"questions": 5, "files": False, "paper_names": {"arithmetic-2d+": "2D+"}, "models": [model]}
    )
    assert drawn.ours[0].startswith("0 tasks")
    assert [chart.caption for chart in drawn.charts] == ["The paper: all 42, as in Figure 1.3"]
    assert len(drawn.tables[0].rows) == len(drawn.tables[1].rows) == 1


def test_the_papers_mean_is_over_its_42_accuracies() -> None:
    rows = [row for row in TABLE_H1["rows"] if row["metric"] in ("acc", "em")]
    assert len(rows) == 42
    assert aggregate.paper_average()["few"] == pytest.approx(np.mean([row["few"] for row in rows], axis=0))
    # Table H.1: 2D+ and PIQA of 175B, zero-shot
    assert aggregate.paper_average(["2D+", "PIQA"])["zero"][-1] == pytest.approx((76.9 + 81) / 2)


def test_a_data_dir_that_is_no_folder_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["paper", "1.3", "--data-dir", str(tmp_path / "no"), "--out", str(tmp_path / "out")]) == 2
    assert re.search(r"--data-dir .*no is not a folder", capsys.readouterr().err)
    assert not (tmp_path / "out" / "settings.json").exists()
