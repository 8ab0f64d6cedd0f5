"""The energy that a piece of work takes: a GPU's by NVML, the processor's by RAPL, else by an estimate that says what it assumes.

NVML and RAPL count whole devices, with all else that runs on them; the estimate counts the processor time of this process. What
else a machine needs (fans, disks, memory where RAPL has no counter of it, losses of its power supply) is in none of them.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

KWH = 3.6e6
"""Joules of a kilowatt-hour."""
CORE_WATTS = 12.0
"""Assumed for a busy core where nothing is measured: what Green Algorithms takes for any CPU (Lannelongue et al. 2021)."""
UNITS = ((1e6, "GWh"), (1e3, "MWh"), (1.0, "kWh"), (1e-3, "Wh"))
LOOK_SECONDS = 1.0
"""Counters are looked at this often: RAPL's begin again at 0, some within the hour, and powers are summed between readings."""
POWERCAP = Path("/sys/class/powercap")
"""Where Linux has RAPL's counters, of AMD's processors, too."""


@dataclass(frozen=True)
class Energy:
    """An amount of energy and where the numbers are from."""

    joules: Mapping[str, float] = field(default_factory=dict)
    """By source, in words."""

    @property
    def kwh(self) -> float:
        """Kilowatt-hours of all sources."""
        return sum(self.joules.values()) / KWH

    def __add__(self, other: Energy) -> Energy:
        names = dict.fromkeys([*self.joules, *other.joules])
        return Energy({name: self.joules.get(name, 0.0) + other.joules.get(name, 0.0) for name in names})

    def __str__(self) -> str:
        parts = self.joules.items()
        amounts = [name if len(parts) == 1 else f"{amount(joules / KWH)} {name}" for name, joules in parts]
        return f"{amount(self.kwh)} ({'; '.join(amounts) or 'not measured'})"


def amount(kwh: float) -> str:
    """Three digits: ``1.25 kWh``, ``0.41 Wh``, ``32.1 GWh``."""
    size, unit = next((each for each in UNITS if kwh >= each[0]), UNITS[-1])
    return f"{kwh / size:.3g} {unit}"


class Counter(Protocol):
    """Something that counts energy."""

    name: str
    """In words, such as ``CPU: RAPL``."""

    def joules(self) -> float:
        """What was counted since this object was made. Call it at least every few minutes."""


class Meter:
    """Measures from its making on.

    Args:
        device: what computes besides the CPU: ``cuda:0``, or ``cpu`` for nothing else.
        whole: count what belongs to the whole machine, too (RAPL): of several processes of one machine one does.
    """

    def __init__(self, device: str = "cpu", whole: bool = True) -> None:
        cpu = Rapl.found() if whole else None
        elsewhere = not whole and Rapl.found() is not None
        self._cpu: Counter = cpu or (Nothing("CPU: RAPL, counted once per machine") if elsewhere else Estimate())
        self._gpu = None if device.startswith("cpu") else gpu_counter(device)
        self._looked = time.monotonic()

    @property
    def names(self) -> tuple[str, str]:
        """Sources of the two amounts that `joules` gives; the first is empty without a GPU."""
        return "" if self._gpu is None else self._gpu.name, self._cpu.name

    def joules(self) -> tuple[float, float]:
        """Of the GPU and of the CPU."""
        self._looked = time.monotonic()
        return 0.0 if self._gpu is None else self._gpu.joules(), self._cpu.joules()

    def look(self) -> None:
        """Read the counters if that is due. Call it often; it costs nothing otherwise."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self.joules()

    def energy(self) -> Energy:
        """So far."""
        return named(self.names, self.joules())


def named(names: Sequence[str], joules: Sequence[float]) -> Energy:
    """Amounts with their sources; a source without a name is none."""
    return Energy({name: each for name, each in zip(names, joules, strict=True) if name})


@dataclass
class Nothing:
    """What cannot be counted, or is counted elsewhere."""

    name: str

    def joules(self) -> float:
        """None."""
        return 0.0


class Estimate:
    """The processor time of this process, all threads, at CORE_WATTS."""

    name = f"CPU: estimate, {CORE_WATTS:g} W per busy core"

    def __init__(self) -> None:
        self._began = time.process_time()

    def joules(self) -> float:
        """See Counter."""
        return CORE_WATTS * (time.process_time() - self._began)


class Rapl:
    """The counters of the processor's packages and their memory, in the kernel's powercap folder.

    Args:
        zones: folders with ``energy_uj``, which begins again at 0 after ``max_energy_range_uj``.

    Raises:
        OSError, ValueError: a counter cannot be read; most systems let only root read it.
    """

    name = "CPU: RAPL"

    def __init__(self, zones: Sequence[Path]) -> None:
        self._zones = [(zone / "energy_uj", _number(zone / "max_energy_range_uj")) for zone in zones]
        self._last = [_number(path) for path, _ in self._zones]
        self._sum = 0

    @classmethod
    def found(cls) -> Rapl | None:
        """Those of this machine; None where there are none, or none may be read.

        Packages count their cores and what else is in them, not the memory. ``psys`` counts packages once more.
        """
        zones = [
            zone
            for zone in sorted(POWERCAP.glob("intel-rapl:*"))
            if _text(zone / "name").startswith(("package", "dram"))
        ]
        try:
            return cls(zones) if zones else None
        except (OSError, ValueError):
            return None

    def joules(self) -> float:
        """See Counter."""
        for index, (path, wraps) in enumerate(self._zones):
            try:
                now = _number(path)
            except (OSError, ValueError):
                continue
            self._sum += (now - self._last[index]) % (wraps + 1)
            self._last[index] = now
        return self._sum / 1e6


def gpu_counter(device: str) -> Counter:
    """NVML's of a device of torch's; a Nothing with the reason where there is none."""
    if not device.startswith("cuda"):
        return Nothing("GPU: not measured, it has no counter")
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return Nothing("GPU: not measured, the extra energy is not installed")
    import torch

    uuid = str(getattr(torch.cuda.get_device_properties(torch.device(device)), "uuid", ""))
    try:
        nvml.nvmlInit()
        return Nvml(nvml, nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}"))
    except nvml.NVMLError as error:
        return Nothing(f"GPU: not measured, NVML says: {error}")


class Nvml:
    """A GPU's counter of its energy (Volta and later), else its power, integrated between readings.

    Args:
        nvml: the module `pynvml`.
        handle: of the GPU.

    Raises:
        nvml.NVMLError: it has neither.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle
        self._sum = 0.0
        try:
            self._first = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)  # mJ since the driver was loaded
            self.name, self._integrates = "GPU: NVML's energy counter", False
        except nvml.NVMLError:
            self.name, self._integrates = "GPU: NVML's power, integrated", True
            self._last = time.monotonic(), nvml.nvmlDeviceGetPowerUsage(handle)  # mW

    def joules(self) -> float:
        """See Counter."""
        try:
            if not self._integrates:
                self._sum = (self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) - self._first) / 1e3
            else:
                (before, power), now = self._last, time.monotonic()
                self._last = now, self._nvml.nvmlDeviceGetPowerUsage(self._handle)
                self._sum += (power + self._last[1]) / 2e3 * (now - before)
        except self._nvml.NVMLError:  # a reading that fails now and then must not end a run
            pass
        return self._sum


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
