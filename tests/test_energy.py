"""gpt3.energy: each source, held to a fake whose energy is known, and what is said where there is none."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from gpt3 import energy
from gpt3.energy import CORE_WATTS, KWH, Energy, Meter, amount


def zone(root: Path, folder: str, name: str, uj: int, wraps: int = 1_000_000_000) -> Path:
    place = root / folder
    place.mkdir(parents=True)
    (place / "name").write_text(f"{name}\n")
    (place / "energy_uj").write_text(f"{uj}\n")
    (place / "max_energy_range_uj").write_text(f"{wraps}\n")
    return place


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    return tmp_path


def test_rapl_counts_packages_and_memory_once_and_through_a_wrap(powercap: Path) -> None:
    package = zone(powercap, "intel-rapl:0", "package-0", 999_000_000)
    second = zone(powercap, "intel-rapl:1", "package-1", 5)
    memory = zone(powercap, "intel-rapl:0:1", "dram", 100, wraps=65_000_000)
    others = [
        zone(powercap, "intel-rapl:0:0", "core", 0),  # in its package already
        zone(powercap, "intel-rapl:2", "psys", 0),
        zone(powercap, "intel-rapl-mmio:0", "package-0", 0),
    ]
    meter = Meter()
    (package / "energy_uj").write_text("1999999\n")  # 1 J to the end of the range, 2 J after it
    (second / "energy_uj").write_text("4000005\n")
    (memory / "energy_uj").write_text("500100\n")
    for other in others:
        (other / "energy_uj").write_text("777000000\n")
    assert meter.joules() == (0.0, pytest.approx(3 + 4 + 0.5, abs=1e-5))
    (package / "energy_uj").write_text("2999999\n")
    assert meter.energy().joules == {"CPU: RAPL": pytest.approx(8.5, abs=1e-5)}


def test_without_counters_processor_seconds_are_priced(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([5.0, 8.0])
    clock = SimpleNamespace(process_time=lambda: next(seconds), monotonic=time.monotonic)
    monkeypatch.setattr(energy, "time", clock)
    found = Meter().energy()
    assert found.joules == {"CPU: estimate, 12 W per busy core": 3.0 * CORE_WATTS}
    assert str(found) == "0.01 Wh (CPU: estimate, 12 W per busy core)"


def test_counters_that_only_root_may_read_are_not_there(powercap: Path) -> None:
    place = zone(powercap, "intel-rapl:0", "package-0", 7)
    (place / "energy_uj").unlink()
    (place / "energy_uj").mkdir()  # reading it fails for every user
    assert Meter().names == ("", "CPU: estimate, 12 W per busy core")


def test_of_several_processes_one_counts_the_machine(powercap: Path) -> None:
    place = zone(powercap, "intel-rapl:0", "package-0", 0)
    meters = Meter(), Meter(whole=False)
    (place / "energy_uj").write_text("2000000\n")
    assert [meter.joules()[1] for meter in meters] == [2.0, 0.0]


class FakeNvml(ModuleType):
    """Two GPUs; the energy counter in mJ, the power in mW."""

    class NVMLError(Exception):
        pass

    def __init__(self, counter: bool) -> None:
        super().__init__("pynvml")
        self.counter, self.energy, self.power = counter, 1_000_000, 100_000

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != "GPU-22-33":
            raise self.NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        if not self.counter:
            raise self.NVMLError("Not Supported")
        return self.energy

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        return self.power


def gpu(monkeypatch: pytest.MonkeyPatch, nvml: ModuleType | None, uuid: str = "22-33") -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: SimpleNamespace(uuid=uuid))


def test_nvmls_energy_counter(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(counter=True)
    gpu(monkeypatch, nvml)
    meter = Meter("cuda:1")
    nvml.energy += 7_200
    assert meter.joules()[0] == 7.2
    assert meter.names[0] == "GPU: NVML's energy counter"


def test_nvmls_power_is_integrated(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(counter=False)
    gpu(monkeypatch, nvml)
    now = 0.0
    monkeypatch.setattr(energy, "time", SimpleNamespace(monotonic=lambda: now, process_time=time.process_time))
    meter = Meter("cuda")
    now, nvml.power = 2.0, 300_000  # from 100 W to 300 W in 2 s
    meter.look()
    now = 2.5  # too early to look
    nvml.power = 0
    meter.look()
    now, nvml.power = 12.0, 300_000
    assert meter.joules()[0] == pytest.approx(2 * 200 + 10 * 300)
    assert meter.names[0] == "GPU: NVML's power, integrated"


@pytest.mark.parametrize(
    ("device", "nvml", "uuid", "name"),
    [
        ("cuda", None, "22-33", "GPU: not measured, the extra energy is not installed"),
        ("cuda", FakeNvml(True), "other", "GPU: not measured, NVML says: Not Found"),
        ("mps", None, "", "GPU: not measured, it has no counter"),
    ],
)
def test_a_gpu_that_is_not_measured_is_named(
    device: str, nvml: ModuleType | None, uuid: str, name: str, powercap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(monkeypatch, nvml, uuid)
    assert list(Meter(device).energy().joules) == [name, "CPU: estimate, 12 W per busy core"]


def test_energies_add_up_by_source() -> None:
    total = Energy({"a": 1 * KWH}) + Energy({"a": 2 * KWH, "b": 0.5 * KWH})
    assert total.joules == {"a": 3 * KWH, "b": 0.5 * KWH}
    assert total.kwh == 3.5
    assert str(total) == "3.5 kWh (3 kWh a; 500 Wh b)"
    assert [amount(kwh) for kwh in (0.0, 2e-5, 0.9994, 1.0, 1234.0, 3.21e8)] == [
        "0 Wh", "0.02 Wh", "999 Wh", "1 kWh", "1.23 MWh", "321 GWh"
    ]  # fmt: skip
    assert str(Energy()) == "0 Wh (not measured)"
