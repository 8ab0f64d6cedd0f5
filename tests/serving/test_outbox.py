"""When events leave the worker's thread: the first and the last of a request at once, what lies between a few times a second."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt3.device import in_passing_thread
from gpt3.serving import worker
from gpt3.serving.completions import Delta
from gpt3.serving.schema import ApiError
from gpt3.serving.worker import LONGEST_PAUSE, PAUSE, PAUSE_PER_STREAM, Outbox


class Loop:
    """An event loop that notes how often it was woken."""

    def __init__(self) -> None:
        self.woken = 0

    def call_soon_threadsafe(self, call, *arguments) -> None:
        self.woken += 1
        call(*arguments)


class Request:
    """A streamed request as the outbox sees it."""

    def __init__(self, loop: Loop) -> None:
        self.loop, self.events, self.has_event = loop, asyncio.Queue(), False


def delta(text: str) -> Delta:
    return Delta(0, text, [], None)


def taken(request: Request) -> list:
    return [request.events.get_nowait() for _ in range(request.events.qsize())]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands."""
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(worker, "time", clock)
    return clock


def test_the_first_piece_and_the_end_do_not_wait(clock) -> None:
    box, one = Outbox(), Request(Loop())
    box.put(one, delta("a"))
    box.send_if_due(0.0)
    assert taken(one) == [delta("a")]
    box.put(one, delta("b"))
    box.send_if_due(PAUSE / 10)
    assert taken(one) == []
    other = Request(one.loop)
    box.put(other, delta("x"))
    box.send_if_due(0.0)
    assert (taken(one), taken(other)) == ([], [delta("x")])  # the others wait on
    box.put(one, None)
    box.send_if_due(0.0)
    assert taken(one) == [delta("b"), None]
    error = ApiError(500, "no")
    box.put(other, error)
    box.send_if_due(0.0)
    assert taken(other) == [error]


def test_nothing_waits_over_a_long_step(clock) -> None:
    box, one = Outbox(), Request(Loop())
    box.put(one, delta("a"))
    box.send_if_due(0.0)
    assert taken(one) == [delta("a")]
    for busy in (2 * PAUSE, float("inf")):
        box.put(one, delta("b"))
        box.send_if_due(busy)
        assert taken(one) == [delta("b")]


def test_many_streams_are_woken_less_often(clock) -> None:
    box, requests = Outbox(), [Request(Loop()) for _ in range(20)]
    assert PAUSE < 20 * PAUSE_PER_STREAM < LONGEST_PAUSE

    def grow(count: int) -> None:
        for one in requests[:count]:
            box.put(one, delta("a"))

    grow(20)
    box.send()
    assert all(taken(one) for one in requests)
    grow(20)
    clock.now += PAUSE * 1.01
    box.send_if_due(0.0)
    assert not any(map(taken, requests))
    clock.now += 20 * PAUSE_PER_STREAM - PAUSE
    box.send_if_due(0.0)
    assert all(taken(one) for one in requests)
    grow(1)
    clock.now += PAUSE * 1.01
    box.send_if_due(0.0)
    assert taken(requests[0])


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, PAUSE)), max_size=40))
def test_every_event_comes_once_and_in_order_and_loops_are_woken_seldom(steps) -> None:
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "time", clock)
        loops = [Loop(), Loop()]
        requests = [Request(loops[0]), Request(loops[0]), Request(loops[1])]
        box, put = Outbox(), {0: [], 1: [], 2: []}
        for number, (who, seconds) in enumerate(steps):
            box.put(requests[who], delta(str(number)))
            put[who].append(delta(str(number)))
            clock.now += seconds
            box.send_if_due(0.0)
        spent = clock.now - 100.0
        box.send()
        assert [taken(one) for one in requests] == [put[who] for who in range(3)]
        for loop in loops:
            assert loop.woken <= 3 + spent / PAUSE + 1  # a first delta of each, the pauses, the end


def test_a_loop_that_is_closed_keeps_nothing_from_the_others() -> None:
    class Closed(Loop):
        def call_soon_threadsafe(self, call, *arguments) -> None:
            raise RuntimeError("Event loop is closed")

    box, gone, here = Outbox(), Request(Closed()), Request(Loop())
    box.put(gone, None)
    box.put(here, None)
    box.send()
    assert taken(here) == [None]


def test_what_loads_leaves_no_thread_behind() -> None:
    names = in_passing_thread(lambda: [threading.current_thread().name])
    assert names[0] not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(ZeroDivisionError):
        in_passing_thread(lambda: 1 / 0)
