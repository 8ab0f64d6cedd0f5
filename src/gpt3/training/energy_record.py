"""What a run's energy.json records: the energy of its sessions, from the first step to the model's last byte, by source."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import torch

from gpt3.durable import write_text
from gpt3.energy import Energy, Meter, named
from gpt3.report.run_folder import ENERGY, read_energy
from gpt3.training.distributed import World

WRITE_SECONDS = 30.0
"""At most this much of a killed session is not recorded, or one step."""


class EnergyRecord:
    """Measures a session of a run; earlier ones are in the file. Steps that a kill lost are counted: they took energy, too.

    Args:
        folder: the run folder.
        device: that this process computes on.
    """

    def __init__(self, folder: Path, device: torch.device, world: World) -> None:
        self.path, self.world = folder / ENERGY, world
        self.before = read_energy(folder) if world.first else Energy()
        self.meter = Meter(str(device), whole=os.environ.get("LOCAL_RANK", "0") == "0")
        self.total = self.before
        self._written = time.monotonic()

    def measure(self) -> Energy:
        """The run's so far; every process calls it. Writes it down now and then."""
        sums = self.world.all_reduce(torch.tensor(self.meter.joules(), dtype=torch.float64)).tolist()
        self.total = self.before + named(self.meter.names, sums)
        if time.monotonic() - self._written > WRITE_SECONDS:
            self.write()
        return self.total

    def write(self) -> None:
        """Write down what was measured last; of one process, what there is now."""
        if self.world.size == 1:
            self.total = self.before + self.meter.energy()
        if self.world.first:
            self._written = time.monotonic()
            joules = {name: round(each, 3) for name, each in self.total.joules.items()}
            write_text(self.path, json.dumps({"kwh": self.total.kwh, "joules": joules}, indent=1) + "\n")
