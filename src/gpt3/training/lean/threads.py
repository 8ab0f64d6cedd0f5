"""Compiled loops on torch's own threads.

A loop is a function of one address: of `COUNTERS` counters, then its arguments, all int64. Every thread calls it, and claims
tasks from the counter until none is left; a task's result does not depend on who computes it.

numba's own threads are another pool on Linux, and torch's wait actively after each operator, on the cores that numba's then want.
So a loop is given to the OpenMP library that torch itself uses. Where there is none (macOS, Windows), numba's threads run it.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from numba import njit, prange, types
from numba.core.ccallback import CFunc

from gpt3.device import follow_threads
from gpt3.inference import activations, kernel_cache, microkernel
from gpt3.training.lean import half_tiles, tiles, vectors

COUNTERS = 2
"""The next task, and the next thread's place in `scratch`."""
FAST: dict[str, Any] = {"fastmath": True, "error_model": "numpy"}


class Loop:
    """A loop for torch's threads: a decorator of a Python function of one address, which numba compiles at the first call.

    Calls run it over its tasks with torch's number of threads. Their arguments are integers and addresses.
    """

    def __init__(self, function: Callable[[Any], None]) -> None:
        self.function = function
        functools.update_wrapper(self, function)

    def __call__(self, *arguments: int) -> None:
        """Run the loop."""
        data = (ctypes.c_int64 * (COUNTERS + len(arguments)))(0, 0, *arguments)
        threads, address = torch.get_num_threads(), ctypes.addressof(data)
        if threads == 1:
            self.alone(address)
        elif (parallel := torch_parallel()) is not None:
            parallel(self.compiled.address, address, threads, 0)
        else:
            follow_threads()
            self.on_numba(address, threads)

    @functools.cached_property
    def compiled(self) -> Any:
        """Machine code with C's calling convention, kept in numba's cache.

        As numba.cfunc makes it, but that a changed file which the loop compiles from makes the cached code stale.
        """
        made = CFunc(self.function, ((types.int64,), types.void), {}, FAST)
        made.enable_caching()
        kernel_cache.depend_on({self.function.__name__: made}, activations, microkernel, tiles, vectors, half_tiles)
        made.compile()
        return made

    @functools.cached_property
    def alone(self) -> Any:
        """A function of the address that releases the interpreter's lock, for one thread."""
        return ctypes.CFUNCTYPE(None, ctypes.c_int64)(self.compiled.address)

    @functools.cached_property
    def on_numba(self) -> Any:
        """A function of the address and the number of threads, on numba's own."""
        body = njit(**FAST)(self.function)

        @njit(parallel=True, **FAST)
        def run(address, threads):  # pragma: no cover - compiled
            for _ in prange(threads):
                body(address)

        return run


@functools.cache
def torch_parallel() -> Callable[..., None] | None:
    """GOMP_parallel of the OpenMP library that torch uses: (function, argument, threads, flags); None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        found = library.GOMP_parallel
    except (OSError, AttributeError):
        return None
    found.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    found.restype = None
    return found


def scratch(floats: int) -> torch.Tensor:
    """Memory of each thread's own: (threads, floats) float32."""
    return torch.empty(torch.get_num_threads(), floats)
