"""The first run on a machine compiles the CPU engine's kernels, some 15 seconds once: whoever waits is told why."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 2.0
NOTE = "compiling the kernels for this machine, once; some 15 seconds"


def compiling() -> bool:
    """Whether a kernel was not in numba's cache, so that it is being compiled or was."""
    kernels = sys.modules.get("gpt3.inference.kernels")
    dispatchers = [x for x in vars(kernels).values() if hasattr(x, "stats")] if kernels is not None else []
    return any(dispatcher.stats.cache_misses for dispatcher in dispatchers)


@contextmanager
def told_when_compiling(tell: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Call `tell` from another thread if a kernel is compiled and that takes longer than PATIENCE_SECONDS.

    Yields:
        What ends the watch before the block does, once the first token is there.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(PATIENCE_SECONDS):
            if compiling():
                tell(NOTE)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield over.set
    finally:
        over.set()
