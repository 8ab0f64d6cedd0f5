"""The report card of small models, and the committed measurements that it and docs/small-models.md are made of."""

import dataclasses
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from gpt3.cli import main as cli
from gpt3.evaluation import report_card
from gpt3.evaluation.page import page
from gpt3.evaluation.results import Evaluation, Figure, GroupScore
from gpt3.evaluation.tasks import GROUPS, TASKS

stats = pytest.importorskip("scipy.stats")
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "small-models.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def signal() -> ModuleType:
    """benchmarks/task_signal.py."""
    path = ROOT / "benchmarks" / "task_signal.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def measured() -> dict:
    return json.loads((ROOT / "benchmarks" / "task_signal.json").read_text(encoding="utf-8"))


def test_the_page_and_the_card_are_of_the_measurements(signal, measured):
    assert signal.card(measured) == report_card.known()
    cells = [*report_card.rows("yours", 10**9, [group(0.5, 0.1)])[1:-1], *signal.by_size(measured)]
    assert [row for row in cells if f"\n| {' | '.join(row)} |" not in PAGE] == []


@pytest.mark.slow
def test_pairs_and_seeds_on_the_page_are_of_the_measurements(signal, measured):
    assert [line for line in signal.tables(measured).splitlines() if line not in PAGE] == []


def test_centred_means_follow_from_the_digits(measured):
    for model, known in zip(measured["models"], report_card.known()["models"], strict=True):
        values, variances = [], []
        for name in GROUPS["small"]:
            right = np.array([int(digit) for digit in model["tasks"][name]["right"]])
            chance = TASKS[name].chance
            values.append((right.mean() - chance) / (1 - chance))
            variances.append((stats.sem(right) / (1 - chance)) ** 2)
        assert known["centred"]["value"] == pytest.approx(np.mean(values), abs=1e-6)
        assert known["centred"]["error"] == pytest.approx(np.sqrt(sum(variances)) / len(values), abs=1e-6)


def test_intervals_are_scipys(signal, measured):
    row = measured["models"][-1]["tasks"]["agreement"]
    right = np.array([int(digit) for digit in row["right"]], float)
    expected = stats.bootstrap(
        (right,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(2)
    ).confidence_interval
    assert signal.interval(row) == pytest.approx((expected.low, expected.high), abs=0.005)
    guessed = {"chance": 0.5, "constant": 0.01, "right": "01" * 200}
    assert [signal.verdict(guessed | {"right": digits * 100}) for digits in ("0111", "01", "0001")] == [
        "above",
        "",
        "below",
    ]
    assert signal.verdict(guessed | {"right": "0111" * 100, "constant": 0.73}) == ""  # as always saying yes


def group(value: float, error: float, examples: int = 2614, shots: int | None = 0, style: str = "paper") -> GroupScore:
    figures = {"acc_macro": Figure(0.5), "acc_micro": Figure(0.5), "centred": Figure(value, error)}
    return GroupScore("small", shots, 6, examples, figures, style)


def test_a_model_is_set_among_the_others_by_its_size():
    cells = report_card.rows("mine", 600_000, [group(0.25, 0.02)])
    sizes = [int(row[1].replace(",", "")) for row in cells[1:]]
    assert sizes == sorted(sizes)
    [mine] = [row for row in cells if row[0].startswith("→")]
    assert mine == ("→ mine", "600,000", "", "25.0", "21.1 to 28.9")
    [mine] = [row for row in report_card.rows("mine", 1, [group(0.25, 0.02, 60)]) if row[0].startswith("→")]
    assert mine[0] == "→ mine (60 of 2,614 questions)"


@pytest.mark.parametrize("other", [{"shots": 1}, {"shots": None}, {"style": "cloze"}])
def test_other_settings_have_no_card(other):
    assert report_card.rows("mine", 1, [group(0.25, 0.02, **other)]) == []
    assert report_card.card("mine", 1, []) == ""


def test_the_report_has_it():
    about = Evaluation("runs/a&b", "", 1, "1", 0, "paper", "paper", None, [])
    assert "small models" not in page([about])
    shown = page([dataclasses.replace(about, results=[group(0.25, 0.02)])])
    assert "<td>→ a&amp;b</td><td>1</td><td></td><td>25.0</td><td>21.1 to 28.9</td>" in shown


@pytest.mark.slow
def test_the_pages_command_measures_the_starter_model_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    [command] = re.findall(r"^gpt3 (eval .*)$", PAGE, flags=re.M)
    assert cli.main(command.split()) == 0
    [found] = re.findall(r"^→ starter +5,128,960 +(\d+\.\d) ", capsys.readouterr().out, flags=re.M)
    assert float(found) == pytest.approx(100 * report_card.known()["models"][-1]["centred"]["value"], abs=1)
