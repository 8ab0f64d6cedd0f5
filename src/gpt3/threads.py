"""Threads that compute: numba's loops take as many as torch does, and no thread is left behind that has computed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_passing_thread(work: Callable[[], Result]) -> Result:
    """What `work` returns or raises, in a thread that ends with it.

    The OpenMP library gives each thread that computes helpers of its own, and keeps them as long as the thread lives. Where all
    helpers together are more than cores, waiting gets slow (see gpt3.serving.worker): a main thread that only loads a model, for
    another thread to use, loads it here.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=run, name="gpt3-load", daemon=True)  # Ctrl-C does not wait for it
    thread.start()
    thread.join()
    return future.result()


def follow_torch() -> None:
    """Let numba's next parallel function run on as many threads as torch's operators do.

    numba's pool, when it starts, sets the OpenMP library's number of threads. torch may use the same library: its own number is
    put back.
    """
    import numba
    import torch

    threads = torch.get_num_threads()
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    numba.set_num_threads(min(threads, most))
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
