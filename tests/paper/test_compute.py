"""Experiment D: the paper's PF-days from its shapes, and those of a run from what its folder says."""

import json
from pathlib import Path

import pytest

from gpt3.paper import compute
from gpt3.paper.experiment import Model, Work
from gpt3.paper.page import section


def run_folder(folder: Path, tokens: int, joules: dict[str, float] | None = None) -> Path:
    (folder / "model").mkdir(parents=True)
    records = [{"step": 1, "tokens": tokens // 2}, {"step": 2, "tokens": tokens}, {"step": 2, "val/loss": 3.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if joules is not None:
        (folder / "energy.json").write_text(json.dumps({"joules": joules}))
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Work:
    run = run_folder(tmp_path / "run", 3_000_000)
    known, elsewhere = (
        Model("1M", run / "model", 1_000_000, 600_000),
        Model("other", "openai/gpt2", 124_000_000, 85_000_000),
    )
    return Work(tmp_path / "D", [known, elsewhere])


def test_pf_days_are_those_of_the_paper_and_of_the_runs(work: Work) -> None:
    measured = json.loads(json.dumps(compute.measure(work)))
    for row in measured["paper"]:
        found = 6 * row["parameters"] * row["tokens"] / (1e15 * 24 * 3600)
        assert float(f"{found:.3g}") == compute.PRINTED[row["name"]]
    drawing = compute.draw(measured)
    (mine,) = [row for row in drawing.tables[0].rows if row[0] == "1M"]
    assert float(mine[4]) == pytest.approx(6 * 1e6 * 3e6 / 8.64e19, rel=0.01)
    assert "Not drawn, since what they read is not known: other." in drawing.notes
    assert [line.label for line in drawing.charts[0].legend] == ["here", "GPT-3", "T5, BERT, RoBERTa"]
    assert ">10M</text>" in section(drawing)


def test_models_without_a_run_draw_the_papers_alone(work: Work) -> None:
    measured = compute.measure(Work(work.folder, work.models[1:]))
    drawing = compute.draw(measured)
    assert [line.label for line in drawing.charts[0].legend] == ["GPT-3", "T5, BERT, RoBERTa"]
    assert drawing.ours == ["No model here comes from a run that says what it read."]
