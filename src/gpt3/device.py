"""The device a name means: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`. torch is imported when a name is looked up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gpt3.errors import InputError

if TYPE_CHECKING:
    import torch

NAME = re.compile(r"cpu|mps|cuda(:\d+)?")


def choose_device(name: str) -> torch.device:
    """The device called `name`; ``auto`` is CUDA, else MPS, else the CPU.

    Raises:
        InputError: there is no such name, or no such device here.
    """
    import torch

    if name != "auto" and not NAME.fullmatch(name):
        raise InputError(f"--device {name} is unknown; use auto, cpu, cuda, cuda:N or mps")
    here = ["cpu"]
    if torch.backends.mps.is_available():
        here.insert(0, "mps")
    if torch.cuda.is_available():
        here = ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count())), *here]
    if name == "auto":
        return torch.device(here[0])
    if name not in here:
        raise InputError(f"--device {name} is not here; this machine has {', '.join(here)} (or use auto)")
    return torch.device(name)
