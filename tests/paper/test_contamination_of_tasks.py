"""Experiment C: planted questions are found, asked with clean ones, and what is shown follows from the JSON."""

import json
import statistics
from pathlib import Path

import pytest

from gpt3.paper import contamination
from gpt3.paper.contamination import TABLE_C1, both_kinds, change
from gpt3.paper.experiment import Model, Work
from gpt3.paper.page import section

PLANTED = (3, 4, 17)


def question(number: int) -> dict[str, object]:
    goal = " ".join(f"word{number}x{place}" for place in range(9))
    return {"goal": goal, "sol1": f"take {number} sticks and a stone", "sol2": "wait for rain", "label": 0}


@pytest.fixture(scope="module")
def measured(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> contamination.Measured:
    folder = tmp_path_factory.mktemp("contamination")
    rows = [question(number) for number in range(24)]
    (folder / "piqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [f"Once upon a time {rows[number]['goal']} take {number} sticks and a stone." for number in PLANTED]
    texts += [f"A long story about nothing at all, the {number}th of its kind." for number in range(20)]
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    data = folder / "files"
    data.mkdir()
    (folder / "piqa.jsonl").rename(data / "piqa.jsonl")
    model = Model("tiny", tiny, 10_000, 5_000)
    work = Work(folder / "C", [model], [str(folder / "text.jsonl")], limit=12, threads="1", data_dir=str(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpt3.evaluation.tasks.GENERATED", ())
        found = contamination.measure(work)
    (answers,) = (folder / "C" / "answers").rglob("piqa.json")
    golds = [result["gold"] for result in json.loads(answers.read_text())["results"]]
    return json.loads(json.dumps(found | {"golds": golds}))


def test_planted_questions_are_found_and_asked_with_clean_ones(measured: contamination.Measured) -> None:
    (task,) = measured["tasks"]
    assert task == "piqa"
    assert [number for number, digit in enumerate(measured["tasks"][task]["clean"]) if digit == "0"] == list(PLANTED)
    (score,) = measured["scores"]
    assert (score["clean"].count("0"), score["clean"].count("1")) == (3, 9)
    assert set(score["values"]) <= {0.0, 1.0}
    asked = both_kinds(measured["tasks"][task]["clean"], 12, 0)
    assert [gold.strip() for gold in measured["golds"]] == [f"take {number} sticks and a stone" for number in asked]


def test_what_is_shown_follows_from_the_json(measured: contamination.Measured) -> None:
    measured = measured | {"scores": [measured["scores"][0] | {"values": [1.0, 0.0, 1.0] * 4}]}
    (score,) = measured["scores"]
    dirty, clean = ([v for v, c in zip(score["values"], score["clean"], strict=True) if c == kind] for kind in "01")
    whole = (3 * statistics.mean(dirty) + 21 * statistics.mean(clean)) / 24
    moved = (statistics.mean(clean) - whole) / whole
    drawing = contamination.draw(measured)
    assert drawing.tables[0].rows[1] == [
        "piqa", drawing.tables[0].rows[1][1], "24", "3", "87.5%", f"{100 * whole:.1f}", f"{100 * statistics.mean(dirty):.1f}",
        f"{100 * statistics.mean(clean):.1f}", f"{moved:+.1%}", "71%", "-4%",
    ]  # fmt: skip
    assert drawing.charts[0].legend[1].points[0][:2] == (87.5, pytest.approx(100 * moved))
    assert len(drawing.charts[0].legend[2].points) == len(TABLE_C1) == 42
    assert "24 questions of 1 task were looked for in 23 documents" in drawing.ours[0]
    assert "87.5%" in section(drawing)


def test_questions_all_asked_give_the_plain_difference() -> None:
    whole, values = "0110111", [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0]
    found = change({"clean": whole, "values": values}, whole)
    assert found is not None
    everything, clean = statistics.mean(values), statistics.mean([0.0, 1.0, 0.0, 1.0, 0.0])
    assert (found.whole, found.relative) == (
        pytest.approx(everything),
        pytest.approx((clean - everything) / everything),
    )


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [1.0]])
def test_no_difference_without_right_answers_or_without_one_kind(values: list[float]) -> None:
    assert change({"clean": "011"[: len(values)], "values": values}, "011") is None


def test_both_kinds_are_asked_as_far_as_there_are() -> None:
    clean = "0" * 30 + "1" * 70
    chosen = both_kinds(clean, 20, seed=1)
    assert [clean[number] for number in chosen] == ["0"] * 10 + ["1"] * 10
    assert chosen == both_kinds(clean, 20, seed=1) != both_kinds(clean, 20, seed=2)
    assert len(both_kinds("0" + "1" * 99, 20, 0)) == 20
    assert both_kinds("1" * 9, 20, 0) == []
    assert both_kinds("000", 20, 0) == [0, 1, 2]
