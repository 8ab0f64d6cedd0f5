"""Ctrl-C and SIGTERM while training: the step is finished and saved, then the run ends. A second signal ends it at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """The signal that asked the run to end; None so far."""

    def __init__(self) -> None:
        self.number: int | None = None

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for SIGTERM, as a shell reports them."""
        return 128 + (self.number or signal.SIGINT)


@contextmanager
def interruptible(speak: bool = True) -> Iterator[Interruption]:
    """Note SIGINT and SIGTERM in place of ending by them; outside the main thread nothing is changed.

    Args:
        speak: say on standard error what happens.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if interruption.number is not None:
            os._exit(128 + number)
        interruption.number = number
        if speak:
            message = "interrupted: finishing this step and saving; once more to stop at once\n"
            os.write(sys.stderr.fileno(), message.encode())

    old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
