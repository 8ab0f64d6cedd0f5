"""Threads of numba's compiled loops: as many as torch uses."""

from __future__ import annotations

import numba
import torch


def follow_torch() -> None:
    """Let numba's next parallel function run on as many threads as torch's operators do.

    numba's pool, when it starts, sets the OpenMP library's number of threads. torch may use the same library: its own number is
    put back.
    """
    threads = torch.get_num_threads()
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    numba.set_num_threads(min(threads, most))
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
