"""How many steps fit into minutes, and the mixture of made documents with other text."""

from pathlib import Path

import pytest

from gpt3.corpus.mixture import read_mixture
from gpt3.paper import budget
from gpt3.paper.experiment import Work
from gpt3.paper.mixture import write_mixture


def test_all_trainings_have_the_steps_that_fill_the_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def seconds(work: Work, options: dict[str, int], vocabulary: int) -> float:
        measured.append((options["width"], vocabulary))
        return options["width"] / 1000

    monkeypatch.setattr(budget, "step_seconds", seconds)
    work, trainings = Work(tmp_path, minutes=2), [{"width": 100}, {"width": 300}]
    steps = budget.affordable_steps(work, trainings, 257, 10_000)
    assert steps * (0.1 + 0.3) * budget.REST == pytest.approx(120, abs=0.4 * budget.REST)
    assert budget.affordable_steps(work, trainings, 257, 10_000) == steps
    assert measured == [(100, 257), (300, 257)]  # once
    assert budget.affordable_steps(work, trainings, 257, 50) == 50


def test_made_documents_have_their_share_and_are_made_once(tmp_path: Path) -> None:
    path = write_mixture(tmp_path / "new", "made", lambda: iter(["a", "b"]), ["wiki", "texts"], 0.9)
    text, made = read_mixture(path)
    assert (text.data, text.weight, made.weight) == (("wiki", "texts"), 0.1, 0.9)
    assert Path(made.data[0]).read_text() == '{"text": "a"}\n{"text": "b"}\n'
    write_mixture(tmp_path / "new", "made", lambda: iter(["c"]), ["wiki"], 0.9)
    assert Path(made.data[0]).read_text() == '{"text": "a"}\n{"text": "b"}\n'
