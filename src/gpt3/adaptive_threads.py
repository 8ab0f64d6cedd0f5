"""How many threads compute on a machine that is also used for other things (``--threads``).

OpenMP's threads wait for one another after each operator. Where another process takes one of their cores, all of them wait for
the thread that it delays, and two threads become slower than one (docs/speed.md). `AdaptiveThreads` therefore looks at what other
processes use, and at the speed, twice a second, and computes with as many threads as there are free cores.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator

from gpt3.device import compute_threads, set_compute_threads, usable_cores
from gpt3.errors import InputError

AUTO = "auto"
WINDOW = 0.5
"""Seconds of computing between two decisions, at least one step."""
BUSY, QUIET = 0.4, 0.15
"""A core counts as taken when others use more than BUSY of it, and as free when they use less than QUIET."""
SETTLE, LONGEST_SETTLE = 1.0, 8.0
"""Seconds that a core must be free before it is used again; doubled each time that it is soon taken again."""
SOON = 10.0
BETTER = 1.05
"""A number of threads that is tried is kept if it is this many times as fast."""
SLOWED = 0.75
"""A speed below this share of the recent one is a reason to try another number of threads."""
FIRST_TRY, RAREST_TRY = 10, 120
"""Windows until another number of threads is tried; doubled each time that it was not better."""


class AdaptiveThreads:
    """Chooses the number of threads while steps are computed.

    Two things decide. What other processes use says at once how many cores are free: a taken core is given up within a window, a
    free one is used after SETTLE seconds. Where others use a core in part, or nothing is known of them, short trials of half and
    of twice as many threads compare speeds.

    Args:
        most: threads, at most.
        use: sets the number of threads.
        others: CPU seconds that other processes have used so far on this process's cores; None where nobody says.
        cores: cores that this process may run on.
        clock: seconds.

    Attributes:
        threads: the number in use.
    """

    def __init__(
        self,
        most: int,
        use: Callable[[int], object],
        *,
        others: Callable[[], float | None],
        cores: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most, self.cores, self._use, self._others, self._clock = most, cores, use, others, clock
        self._settle, self._raised = SETTLE, -math.inf
        self._free_seconds = 0.0
        self._before: tuple[int, float] | None = None  # threads and speed before a trial
        self._ceiling, self._ceiling_mood = most, ""  # what trials found best, and when
        self._patience, self._windows, self._up = FIRST_TRY, 0, False
        self._seen, self.threads = (clock(), others()), most
        self.switch(most)

    def switch(self, threads: int) -> None:
        """Compute with this many threads from now on."""
        if threads > self.threads:
            self._raised = self._clock()
        self.threads = threads
        self._use(threads)
        self._speed = self._work = self._seconds = 0.0
        self._warm = False

    def begin(self) -> None:
        """Steps begin, or begin again: what others used since this was made, or since the last step, decides."""
        if self._clock() - self._seen[0] >= WINDOW / 2:
            self._follow(self._load(), 0.0)

    def after(self, seconds: float, work: float = 0.0) -> None:
        """A step has been computed.

        Args:
            seconds: that it took.
            work: its size, such as tokens; 0 where steps cannot be compared. Then only the load decides.
        """
        if not self._warm and seconds < WINDOW:  # the first step after a change takes longer
            self._warm = True
            return
        self._work, self._seconds = self._work + work, self._seconds + seconds
        if self._seconds < WINDOW:
            return
        load, speed, lasted = self._load(), self._work / self._seconds, self._seconds
        self._work = self._seconds = 0.0
        if not self._follow(load, lasted) and work:
            self._compare(load, speed)

    def _load(self) -> float | None:
        """Cores that other processes used since the last call."""
        (then, before), now, used = self._seen, self._clock(), self._others()
        self._seen = now, used
        if before is None or used is None or now <= then:
            return None
        return max(0.0, used - before) / (now - then)

    def _mood(self, load: float | None) -> str:
        """busy: fewer cores are free than `most`; quiet: that many are; between: one is in part; unknown."""
        if load is None:
            return "unknown"
        if self.cores - load + BUSY < self.most:
            return "busy"
        return "quiet" if self.cores - load + QUIET >= self.most else "between"

    def _follow(self, load: float | None, lasted: float) -> bool:
        """Give up cores that are taken and use those that are free. True: the number of threads has changed."""
        mood = self._mood(load)
        if mood != self._ceiling_mood and self._ceiling != self.most:
            self._ceiling, self._patience = self.most, FIRST_TRY
        if load is None:
            return False
        free = max(1, math.floor(self.cores - load + BUSY))
        if free < self.threads:
            self._settle = min(2 * self._settle, LONGEST_SETTLE) if self._clock() - self._raised < SOON else SETTLE
            self._free_seconds, self._before = 0.0, None
            self.switch(free)
            return True
        target = min(self._ceiling, math.floor(self.cores - load + QUIET))
        self._free_seconds = self._free_seconds + lasted if target > self.threads and self._before is None else 0.0
        if self._free_seconds < self._settle:
            return False
        self._free_seconds = 0.0
        self.switch(target)
        return True

    def _compare(self, load: float | None, speed: float) -> None:
        """Try another number of threads from time to time, and keep the faster one."""
        mood = self._mood(load)
        if self._before is not None:
            (threads, before), self._before = self._before, None
            self._windows = 0
            if speed > BETTER * before:
                self._ceiling, self._ceiling_mood, self._patience = self.threads, mood, FIRST_TRY
                self._speed = speed
            else:
                self._patience = min(2 * self._patience, RAREST_TRY)
                self.switch(threads)
                self._speed = before
            return
        self._windows += 1
        slowed = self._windows >= FIRST_TRY and speed < SLOWED * self._speed
        self._speed = (self._speed + speed) / 2 if self._speed else speed
        if mood != "busy" and (slowed or self._windows >= self._patience):
            self._up = not self._up
            other = next(self._other_numbers(), None)
            if other is not None:
                self._before = self.threads, self._speed
                self.switch(other)

    def _other_numbers(self) -> Iterator[int]:
        """Half and twice as many threads, the one whose turn it is first."""
        numbers = [max(1, self.threads // 2), min(self.most, 2 * self.threads)]
        return (number for number in (reversed(numbers) if self._up else numbers) if number != self.threads)


def threads_error(threads: str) -> str | None:
    """What is wrong with a value of ``--threads``, in a clause; None for auto and whole numbers from 1."""
    if threads == AUTO or (threads.isascii() and threads.isdigit() and int(threads) > 0):
        return None
    return f"--threads {threads!r} must be auto or a whole number of at least 1"


def set_threads(threads: str, *, adapt: bool = True) -> AdaptiveThreads | None:
    """Set the number of threads that compute, and return what adapts it; None where it stays. torch has it per thread.

    A number is fixed, and so is the environment's OMP_NUM_THREADS. ``auto`` begins with every core that this process may use.

    Args:
        threads: auto or a number, as ``--threads`` has it.
        adapt: False: auto stays at the cores there are, as on a GPU or among several processes.

    Raises:
        InputError: neither auto nor a whole number of at least 1.
    """
    if error := threads_error(threads):
        raise InputError(error)
    if threads != AUTO:
        set_compute_threads(int(threads))
        return None
    if os.environ.get("OMP_NUM_THREADS"):
        return None
    most = min(usable_cores(), compute_threads())
    set_compute_threads(most)
    if not adapt or most == 1:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else most
    return AdaptiveThreads(most, set_compute_threads, others=others_seconds, cores=cores)


def others_seconds() -> float | None:
    """CPU seconds that other processes have used since the start on the cores this one may use; None outside Linux.

    Processes of a lower priority (nice) do not count: they give way.
    """
    try:
        with open("/proc/stat", encoding="ascii") as file:
            lines = [line.split() for line in file if line.startswith("cpu") and not line.startswith("cpu ")]
        mine = os.sched_getaffinity(0)
        columns = [1, 3, 6, 7]  # user, system, two kinds of interrupts
        if os.getpriority(os.PRIO_PROCESS, 0) > 0:  # this process counts as nice, too
            columns.append(2)
        ticks = sum(int(line[column]) for line in lines if int(line[0][3:]) in mine for column in columns)
        return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()
    except (OSError, AttributeError, ValueError, IndexError):
        return None
