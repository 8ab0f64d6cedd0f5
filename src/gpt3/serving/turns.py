"""Whose turn it is to compute, where several models share a processor."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that is given in the order in which it is asked for, so that a busy model does not keep it to itself.

    One model computes at a time: each step takes all cores anyway, and not every threading layer of numba's kernels may be
    entered by two threads at once.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._given = 0  # numbers drawn so far
        self._now = 0  # the number whose turn it is

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Wait for the turn, and have it for the length of the block."""
        with self._changed:
            number, self._given = self._given, self._given + 1
            self._changed.wait_for(lambda: self._now == number)
        try:
            yield
        finally:
            with self._changed:
                self._now += 1
                self._changed.notify_all()
