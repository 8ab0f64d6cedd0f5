"""All random generators of a process as one set of tensors: Python's, numpy's global one, torch's on the CPU and the GPU."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def capture() -> dict[str, Tensor]:
    """The state of every generator: ``python.*``, ``numpy.*`` (int64, float64), ``torch.*`` (uint8), all on the CPU.

    Of several GPUs it is the current one, so that a rank finds its generator again on another card.
    """
    _, numbers, python_gauss = random.getstate()
    _, keys, position, has_gauss, numpy_gauss = np.random.get_state()
    tensors = {
        "python.state": torch.tensor(numbers, dtype=torch.int64),  # 624 words and the position in them
        "python.gauss": torch.tensor([] if python_gauss is None else [python_gauss], dtype=torch.float64),
        "numpy.state": torch.tensor([*np.asarray(keys).tolist(), position], dtype=torch.int64),
        "numpy.gauss": torch.tensor([numpy_gauss] if has_gauss else [], dtype=torch.float64),
        "torch.cpu": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        tensors["torch.cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        tensors["torch.mps"] = torch.mps.get_rng_state()
    return tensors


def restore(tensors: Mapping[str, Tensor]) -> None:
    """Put back what `capture` gave. A GPU's state is ignored where there is no such GPU."""
    gauss = tensors["python.gauss"].tolist()
    random.setstate((3, tuple(tensors["python.state"].tolist()), gauss[0] if gauss else None))
    *keys, position = tensors["numpy.state"].tolist()
    gauss = tensors["numpy.gauss"].tolist()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, len(gauss), gauss[0] if gauss else 0.0))
    torch.set_rng_state(tensors["torch.cpu"])
    if "torch.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["torch.cuda"])
    if "torch.mps" in tensors and torch.backends.mps.is_available():
        torch.mps.set_rng_state(tensors["torch.mps"])


def derive(tensors: Mapping[str, Tensor], rank: int) -> None:
    """Seed every generator from another rank's state and this rank's number: for a rank that did not exist before."""
    digest = hashlib.sha256(tensors["torch.cpu"].numpy().tobytes() + rank.to_bytes(4, "little")).digest()
    seed = int.from_bytes(digest[:4], "little")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
