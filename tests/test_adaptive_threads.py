"""``--threads auto`` on simulated machines: what it costs beside the better of one thread and all, and what it never does."""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Callable

import pytest

from gpt3.adaptive_threads import AdaptiveThreads, others_seconds, set_threads, threads_error

Speeds = Callable[[float, int], float]
Load = Callable[[float, int], float | None]


class Machine:
    """Cores, other processes and a clock; a step of `work` takes what `speeds` (of the time and threads) says."""

    def __init__(self, cores: int, speeds: Speeds, load: Load, work: float = 500.0) -> None:
        self.speeds, self.load, self.work = speeds, load, work
        self.now, self.used, self.threads, self.noise = 0.0, 0.0, cores, random.Random(1)
        self.tick = 0.05 if work < 1000 else 10.0
        self.unknown = load(0.0, cores) is None
        self.adaptive = AdaptiveThreads(cores, self.use, others=self.others, cores=cores, clock=lambda: self.now)
        self.done: list[tuple[float, int]] = []  # the time of each step's end, and its threads

    def use(self, threads: int) -> None:
        self.threads = threads

    def others(self) -> float | None:
        return None if self.unknown else round(self.used, 2)  # in the kernel's ticks

    def run(self, seconds: float) -> None:
        """Steps for so long."""
        end = self.now + seconds
        while self.now < end:
            start, left = self.now, self.work * self.noise.uniform(0.97, 1.05)
            while left > 0:
                speed = self.speeds(self.now, self.threads)
                passed = min(left / speed, self.tick)
                self.used += (self.load(self.now, self.threads) or 0.0) * passed
                self.now, left = self.now + passed, left - speed * passed
            self.done.append((self.now, self.threads))
            self.adaptive.after(self.now - start, self.work)

    def worst_minute(self) -> float:
        """The least share, over any minute, of what the better of one thread and all cores would have done in it."""
        grid, ends = 0.1, [end for end, _ in self.done]
        totals = {}
        for n in (1, self.adaptive.most):
            speeds = (self.speeds(grid * i, n) * grid for i in range(int(ends[-1] / grid)))
            totals[n] = [0.0, *itertools.accumulate(speeds)]
        minute, shares = round(60 / grid), []
        for i in range(len(totals[1]) - minute):
            steps = bisect.bisect(ends, grid * (i + minute)) - bisect.bisect(ends, grid * i)
            shares.append(steps * self.work / max(total[i + minute] - total[i] for total in totals.values()))
        return min(shares)


def measured(busy: int, threads: int) -> float:
    """Tokens/s of the demo on two cores, as issue reports have them; two threads beside a busy process in a bad minute."""
    return {(0, 1): 11_240, (0, 2): 15_841, (1, 1): 10_701, (1, 2): 156, (2, 1): 7_500, (2, 2): 150}[busy, threads]


def share(busy: int, threads: int) -> float:
    """Cores that busy processes get of two, next to this many threads."""
    return min(busy, 2 * busy / (busy + threads)) if busy + threads > 2 else busy


@pytest.mark.parametrize("busy", [0, 1, 2])
def test_it_costs_at_most_a_tenth_of_the_better_in_any_minute(busy: int) -> None:
    machine = Machine(2, lambda t, n: measured(busy, n), lambda t, n: share(busy, n) + 0.03)
    machine.run(400)
    assert machine.worst_minute() > 0.9
    assert machine.adaptive.threads == (1 if busy else 2)


@pytest.mark.parametrize("minutes", [1, 3])
def test_other_processes_that_come_and_go_are_followed(minutes: int) -> None:
    def busy(t: float) -> int:
        return int(t / (60 * minutes)) % 3

    machine = Machine(2, lambda t, n: measured(busy(t), n), lambda t, n: share(busy(t), n))
    machine.run(900)
    assert machine.worst_minute() > 0.9
    assert {n for _, n in machine.done} == {1, 2}


def test_a_model_too_small_for_two_threads_is_found_out_by_trials() -> None:
    machine = Machine(2, lambda t, n: {1: 9_000.0, 2: 6_000.0}[n], lambda t, n: 0.02)
    machine.run(300)
    assert machine.adaptive.threads == 1
    late = [n for end, n in machine.done if end > 60]
    assert late.count(2) / len(late) < 0.05


def test_a_core_used_in_part_is_decided_by_trials() -> None:
    for speed_of_two, best in ((13_000.0, 2), (8_000.0, 1)):
        machine = Machine(2, lambda t, n, two=speed_of_two: {1: 11_000.0, 2: two}[n], lambda t, n: 0.27)
        machine.run(300)
        assert machine.adaptive.threads == best
        late = [n for end, n in machine.done if end > 60]
        assert late.count(best) / len(late) > 0.95


def test_where_the_load_is_unknown_speed_alone_decides() -> None:
    machine = Machine(2, lambda t, n: measured(int(t > 200), n) if n == 1 or t < 200 else 4_517.0, lambda t, n: None)
    machine.run(150)
    assert machine.adaptive.threads == 2
    machine.run(200)
    assert machine.adaptive.threads == 1


def test_many_cores_give_up_one_for_each_busy_process() -> None:
    def speeds(t: float, n: int) -> float:
        return 1_000.0 * (n if n <= 14 else 7)

    machine = Machine(16, speeds, lambda t, n: 2.0)
    machine.run(100)
    assert {n for end, n in machine.done if end > 2} == {14}


def test_long_steps_are_not_spent_on_trials() -> None:
    """A step of a minute: trials are rare, one in ten steps at first and fewer later."""
    machine = Machine(8, lambda t, n: 1_000.0 * n, lambda t, n: 0.1, work=480_000.0)
    machine.run(60 * 300)
    assert [n for _, n in machine.done].count(4) <= 5
    assert machine.adaptive.threads == 8


def test_bursts_are_lived_with() -> None:
    machine = Machine(2, lambda t, n: measured(int(t % 3 < 0.6), n), lambda t, n: float(t % 3 < 0.6))
    machine.run(300)
    assert machine.worst_minute() > 0.8


def test_what_others_used_while_something_else_was_done_decides_at_once() -> None:
    machine = Machine(2, lambda t, n: 1.0, lambda t, n: 1.0)
    machine.now, machine.used = 5.0, 5.0
    machine.adaptive.begin()
    assert machine.threads == 1


@pytest.mark.parametrize("value", ["auto", "1", "16"])
def test_values(value: str) -> None:
    assert threads_error(value) is None


@pytest.mark.parametrize("value", ["0", "-1", "many", "", "1.5", "AUTO", "²"])
def test_values_that_are_none(value: str) -> None:
    assert threads_error(value) == f"--threads {value!r} must be auto or a whole number of at least 1"


def test_a_number_and_the_environment_are_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        assert set_threads("2") is None
        assert torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        assert set_threads("auto") is None
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert set_threads("auto", adapt=False) is None
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(others_seconds() is None, reason="nobody says what other processes use")
def test_own_computing_is_not_that_of_others() -> None:
    import time

    start, before = time.process_time(), others_seconds()
    while time.process_time() - start < 0.3:
        pass
    end = others_seconds()
    assert before is not None
    assert end is not None
    assert end - before > -0.1
