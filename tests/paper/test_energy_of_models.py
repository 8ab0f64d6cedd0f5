"""Experiment 6.3: what runs took is what their folders say, and 100 pages cost what was measured per word."""

import json
from pathlib import Path

import pytest

from gpt3.energy import CORE_WATTS
from gpt3.model_folder.locate import STARTER
from gpt3.paper import energy
from gpt3.paper.experiment import Model, Work
from gpt3.paper.page import section


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> energy.Measured:
    """The starter model as that of a run, and once without one."""
    folder = tmp_path_factory.mktemp("energy")
    run = folder / "run"
    run.mkdir()
    (run / "model").symlink_to(Path(STARTER), target_is_directory=True)
    (run / "metrics.jsonl").write_text('{"step": 4, "tokens": 25000000, "loss": 3.0}\n')
    (run / "energy.json").write_text(json.dumps({"joules": {"CPU: RAPL": 7.2e6}}))
    models = [Model("run", run / "model", 6_000_000, 4_000_000), Model("starter", STARTER, 6_000_000, 4_000_000)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(energy, "SECONDS", 0.01)
        patch.setattr(energy, "TOKENS", 12)
        return json.loads(json.dumps(energy.measure(Work(folder / "6.3", models, threads="1"))))


def test_the_json_has_what_the_page_shows(measured: energy.Measured) -> None:
    run, starter = measured["models"]
    assert (run["tokens"], run["joules"], starter["tokens"], starter["joules"]) == (
        25_000_000,
        {"CPU: RAPL": 7.2e6},
        None,
        {},
    )
    found = starter["generation"]
    assert sum(found["tokens"]) <= len(found["tokens"]) * 8 * 12
    (joules,) = found["joules"].values()
    per_page = joules / sum(found["words"]) * 500
    drawing = energy.draw(measured)
    (line, paper) = drawing.charts[0].legend
    assert 10 ** line.points[1][1] == pytest.approx(100 * per_page / 3.6e6)
    assert 10 ** paper.points[0][1] == pytest.approx(0.4)
    assert drawing.ours[0] == "Training run took 2 kWh in all."
    per_operation = 7.2e6 / (6 * 6_000_000 * 25_000_000)
    gwh = per_operation * 6 * 174_604_259_328 * 300e9 / 3.6e12
    assert f"would take {gwh:.3g} GWh" in drawing.notes[0]
    assert "0.4 kWh" in section(drawing)


def test_energy_is_that_of_the_time_it_took(measured: energy.Measured) -> None:
    for row in measured["models"]:
        for source, joules in row["generation"]["joules"].items():
            if "estimate" in source:  # one thread; setting up and ending are not all of it
                assert 0 < joules < 3 * CORE_WATTS * row["generation"]["seconds"] + CORE_WATTS


def test_without_runs_and_words_nothing_is_drawn_of_them() -> None:
    silent = {"words": [0], "tokens": [5], "seconds": 1.0, "joules": {"CPU: RAPL": 3.0}}
    row = {"name": "a", "parameters": 10, "tokens": None, "joules": {}, "generation": silent}
    drawing = energy.draw({"page_words": 500, "models": [row]})
    assert not drawing.charts
    assert drawing.notes[0].startswith("No model here comes from a run that recorded its energy")
    assert drawing.tables[0].rows[1][-2] == "-"
