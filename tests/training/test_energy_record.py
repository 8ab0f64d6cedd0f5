"""energy.json of a run: the sum of its sessions, also of one that was killed."""

import json
from pathlib import Path

import pytest
import torch

from gpt3 import energy
from gpt3.report.page import read_runs, report_data
from gpt3.report.run_folder import read_energy
from gpt3.training import energy_record
from gpt3.training.distributed import ALONE
from gpt3.training.energy_record import EnergyRecord

SOURCE = "CPU: estimate, 12 W per busy core"


class Clock:
    """Processor seconds of this process, set by hand."""

    seconds = 100.0


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "none")
    clock = Clock()
    monkeypatch.setattr("time.process_time", lambda: clock.seconds)
    return clock


def record(folder: Path) -> EnergyRecord:
    return EnergyRecord(folder, torch.device("cpu"), ALONE)


def test_sessions_add_up(tmp_path: Path, clock: Clock) -> None:
    first = record(tmp_path)
    clock.seconds += 10
    first.write()
    second = record(tmp_path)
    clock.seconds += 5
    assert second.measure().joules == {SOURCE: 15 * 12}
    second.write()
    assert json.loads((tmp_path / "energy.json").read_text()) == {"kwh": 180 / 3.6e6, "joules": {SOURCE: 180.0}}


def test_a_killed_session_is_counted_up_to_its_last_record(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = record(tmp_path)
    clock.seconds += 20
    killed.measure()
    assert not (tmp_path / "energy.json").exists()  # not at every step
    monkeypatch.setattr(energy_record, "WRITE_SECONDS", 0.0)
    killed.measure()
    assert record(tmp_path).measure().joules == {SOURCE: 240.0}


def test_a_damaged_file_is_named_in_the_report_and_loses_no_run(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "tokens": 8, "loss": 3.0, "kwh": 0.1}\n')
    (tmp_path / "energy.json").write_text('{"joules": {"a": 7200000.0, "b": null}}')
    figures = {row["label"]: row for row in report_data(read_runs([tmp_path]))["runs"][0]["summary"]}
    assert (figures["energy"]["text"], figures["energy"]["hint"]) == ("2 kWh", "a")
    (tmp_path / "energy.json").write_text("{")
    assert read_energy(tmp_path).joules == {}
    (run,) = report_data(read_runs([tmp_path]))["runs"]
    assert "energy.json is left out" in run["notes"][0]
    assert "energy" not in {row["label"] for row in run["summary"]}
    assert "kwh" not in run["series"]
