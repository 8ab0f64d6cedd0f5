"""Experiment 3.10: sums that are right and never asked, the paper's search, and figures that follow from the JSON."""

from __future__ import annotations

import itertools
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
from gpt3.evaluation import Source, generated_tasks
from gpt3.evaluation.generated_tasks import ARITHMETIC
from gpt3.evaluation.results import TABLE_H1
from gpt3.paper import arithmetic
from gpt3.paper.sums import Sum, documents, held_out, search

PAGE = (Path(__file__).parents[2] / "docs" / "paper.md").read_text(encoding="utf-8")
PATTERNS = {
    r"Q: What is (\d+) (plus|minus|times) (\d+)\?\n\nA: (-?\d+)": ("plus", "minus", "times"),
    r"^(\d+) ([+*-]) (\d+) = (-?\d+)$": ("+", "-", "*"),
    r"^(\d+) (plus|minus|times) (\d+) is (-?\d+)$": ("plus", "minus", "times"),
    r"^The (sum|difference|product) of (\d+) and (\d+) is (-?\d+)\.$": ("sum", "difference", "product"),
}


def test_every_trained_sum_is_right_and_none_is_asked() -> None:
    texts = [document.text for document in itertools.islice(documents(held_out(0), 10**7), 1500)]
    seen, counts = set(), []
    for pattern, (plus, minus, _) in PATTERNS.items():
        found = re.findall(pattern, "\n".join(texts), flags=re.M)
        counts.append(len(found))
        for groups in found:
            word = next(group for group in groups if not re.fullmatch(r"-?\d+", group))
            a, b, answer = (int(group) for group in groups if group != word)
            assert answer == (a + b if word == plus else a - b if word == minus else a * b)
            seen.add((a, ("+" if word == plus else "-" if word == minus else "*"), b))
    three = re.findall(r"([\d+*()-]+)(?:\?\n\nA:| =) (-?\d+)$", "\n".join(texts), flags=re.M)
    three = [(asked, answer) for asked, answer in three if "(" in asked]
    assert all(eval(asked) == int(answer) for asked, answer in three)
    assert min(*counts, len(three)) > 5
    words = {"plus": "+", "minus": "-", "times": "*"}
    for task in ARITHMETIC:
        ids = {item.id for item in task.split(Source()).test}
        assert len(ids) == 2000
        assert not ids & {asked for asked, _ in three}
        asked = {tuple(words.get(part, part) for part in id.split()) for id in ids if " " in id}
        pairs = {(int(a), sign, int(b)) for a, sign, b in asked}
        assert not (pairs | {(b, sign, a) for a, sign, b in pairs if sign != "-"}) & seen


def test_the_documents_have_about_the_size_and_are_the_same_again() -> None:
    some = list(documents(set(), 20_000, seed=1))
    assert 20_000 <= sum(len(document.text) for document in some) < 21_000
    assert some == list(documents(set(), 20_000, seed=1))
    assert some != list(documents(set(), 20_000, seed=2))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("He wrote: 12 + 7 = 20.", True),
        ("what is 12 plus 7?", True),
        ("12 plus 7", True),
        ("12 plus 7.", True),
        ("12 plus 7.5", False),
        ("12 plus 7,000", False),
        ("12 plus 70", False),
        ("112 plus 7", False),
        ("1.12 + 7 = 8.12", False),
        ("12 + 7", False),
        ("7 plus 12", False),
        ("12 minus 7 is 5", False),
        ("the sum of 12 and 7 is 19", False),
    ],
)
def test_the_papers_search(text: str, found: bool) -> None:
    wanted = {Sum(12, "+", 7)}
    assert search([text], wanted) == (wanted if found else set())


@pytest.fixture(scope="module")
def out(tiny: Path, text_file: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the docs' command leaves, with models of a few steps, and a random one as the control."""
    folder = tmp_path_factory.mktemp("paper")
    shutil.copytree(tiny, folder / "runs" / "demo" / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GPT3_CACHE", str(cache))
        patch.setattr(arithmetic, "WIDTHS", {"1k": 8, "2k": 16})
        patch.setattr(arithmetic, "affordable_steps", lambda *arguments: 6)
        patch.setattr(arithmetic, "TRAINING", arithmetic.TRAINING | {"device": "cpu", "dtype": "fp32", "layers": 1})
        patch.setattr(
            arithmetic, "BYTES_PER_TOKEN", 40
        )  # more sums than are read, so that some of the pool are among them
        patch.setattr(generated_tasks, "SUMS", 30)
        [command] = re.findall(r"gpt3 paper 3\.10 .*", PAGE)
        more = f"--data {text_file} --limit 5 --threads 1"
        assert main([*shlex.split(command, comments=True)[1:], *shlex.split(more)]) == 0
        yield folder / "arithmetic"


def test_trained_models_and_the_control_are_asked_every_operation(out: Path) -> None:
    measured = json.loads((out / "3.10.json").read_text())
    assert [(model["name"], model["trained"]) for model in measured["models"]] == [
        ("1k", True),
        ("2k", True),
        ("demo", False),
    ]
    for model in measured["models"]:
        found = {(row["task"], row["k"]) for row in model["rows"] if not row["pool"]}
        assert found >= {(task.name, k) for task in ARITHMETIC for k in ("0", "few")}
        pool = {row["task"] for row in model["rows"] if row["pool"]}
        assert pool == ({task.name for task in ARITHMETIC} if model["trained"] else set())
    assert set(measured["search"]["tasks"]) == {task.name for task in ARITHMETIC if task.paper != "1DC"}


def test_the_search_says_what_the_training_text_has(out: Path) -> None:
    searched = json.loads((out / "3.10.json").read_text())["search"]["tasks"]
    lines = (out / "3.10" / "sums.jsonl").read_text().splitlines()
    text = "\n".join(json.loads(line)["text"] for line in lines)
    counts = {"asked": [0, 0], "pool": [0, 0]}
    for task in (task for task in ARITHMETIC if task.paper != "1DC"):
        split = task.split(Source())
        for side, items in (("asked", split.test), ("pool", split.shots)):
            found = searched[task.name][side]
            assert found["sums"] == [item.id for item in items[:5]]
            for asked, seen, there in zip(found["sums"], found["found"], found["there"], strict=True):
                a, word, b = asked.split()
                sign = {"plus": "+", "minus": "-", "times": "*"}[word]
                noun = {"plus": "sum", "minus": "difference", "times": "product"}[word]
                searched_for = re.search(rf"(?<!\d)({a} \{sign} {b} =|{a} {word} {b}(?!\d))", text) is not None
                assert seen == str(int(searched_for))
                assert there == str(int(searched_for or f"The {noun} of {a} and {b} is" in text))
                counts[side][0] += int(seen)
                counts[side][1] += int(there)
    assert counts["asked"] == [0, 0]
    assert counts["pool"][1] >= counts["pool"][0] > 3


def test_figures_follow_from_the_json(out: Path) -> None:
    measured = json.loads((out / "3.10.json").read_text())
    rng = np.random.default_rng(0)
    for row in (row for model in measured["models"] for row in model["rows"]):
        row["right"] = "".join(map(str, rng.integers(0, 2, 40)))
    for both in measured["search"]["tasks"].values():
        for side in both.values():
            side |= {name: "".join(map(str, rng.integers(0, 2, 40))) for name in ("found", "there")}
    drawn, model = arithmetic.draw(measured), measured["models"][1]
    rows = {(row["task"], row["k"], row["pool"]): [*map(int, row["right"])] for row in model["rows"]}
    few = rows["arithmetic-3d-", "few", False]
    [line] = [line for line in drawn.charts[0].axes.curves if line.label == "3D-"]
    assert line.points[1] == pytest.approx((model["parameters"], 100 * np.mean(few), 100 * stats.sem(few)))
    [cells] = [cells for cells in drawn.tables[0].rows if cells[:2] == ["3D-", "2k"]]
    assert cells[4] == f"{100 * np.mean(few):.1f} ± {100 * stats.sem(few):.1f}"
    theirs = next(row["few"] for row in TABLE_H1["rows"] if row["task"] == "3D-")
    assert cells[6:] == [f"{theirs[0]:g}", f"{theirs[6]:g}", f"{theirs[7]:g}"]
    unseen, seen = [], []
    for task, both in measured["search"]["tasks"].items():
        unseen += [r for r, f in zip(rows[task, "0", False], both["asked"]["found"], strict=True) if f == "0"]
        seen += [r for r, there in zip(rows[task, "0", True], both["pool"]["there"], strict=True) if there == "1"]
    said = [f"{100 * np.mean(some):.1f} ± {100 * stats.sem(some):.1f} of {len(some)}" for some in (unseen, seen)]
    assert all(each in " ".join(drawn.notes) for each in said)
