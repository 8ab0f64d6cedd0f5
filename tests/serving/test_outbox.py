"""When events leave the worker's thread: the first and the last of a request at once, what lies between fifty times a second."""

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
from gpt3.serving.worker import PAUSE, Outbox


class Loop:
    """An event loop that notes how often it was woken."""

    def __init__(self) -> None:
        self.woken = 0

    def call_soon_threadsafe(self, call, *arguments) -> None:
        self.woken += 1
        call(*arguments)


def request_in(loop: Loop) -> SimpleNamespace:
    return SimpleNamespace(loop=loop, events=asyncio.Queue(), has_event=False)


def delta(text: str) -> Delta:
    return Delta(0, text, [], None)


def taken(request: SimpleNamespace) -> list:
    return [request.events.get_nowait() for _ in range(request.events.qsize())]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands."""
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(worker, "time", clock)
    return clock


def test_the_first_piece_and_the_end_do_not_wait(clock) -> None:
    box, one = Outbox(), request_in(Loop())
    box.put(one, delta("a"))
    box.send_if_due(0.0)
    assert taken(one) == [delta("a")]
    box.put(one, delta("b"))
    box.send_if_due(PAUSE / 10)
    assert taken(one) == []
    other = request_in(one.loop)
    box.put(other, delta("x"))  # takes along what waits
    box.send_if_due(0.0)
    assert (taken(one), taken(other)) == ([delta("b")], [delta("x")])
    box.put(one, delta("c"))
    box.put(one, None)
    box.send_if_due(0.0)
    assert taken(one) == [delta("c"), None]
    error = ApiError(500, "no")
    box.put(other, error)
    box.send_if_due(0.0)
    assert taken(other) == [error]


def test_nothing_waits_over_a_long_step(clock) -> None:
    box, one = Outbox(), request_in(Loop())
    box.put(one, delta("a"))
    box.send_if_due(0.0)
    assert taken(one) == [delta("a")]
    for busy in (2 * PAUSE, float("inf")):
        box.put(one, delta("b"))
        box.send_if_due(busy)
        assert taken(one) == [delta("b")]


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, PAUSE)), max_size=40))
def test_every_event_comes_once_and_in_order_and_loops_are_woken_seldom(steps) -> None:
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "time", clock)
        loops = [Loop(), Loop()]
        requests = [request_in(loops[0]), request_in(loops[0]), request_in(loops[1])]
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

    box, gone, here = Outbox(), request_in(Closed()), request_in(Loop())
    box.put(gone, None)
    box.put(here, None)
    box.send()
    assert taken(here) == [None]


def test_what_loads_leaves_no_thread_behind() -> None:
    names = in_passing_thread(lambda: [threading.current_thread().name])
    assert names[0] not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(ZeroDivisionError):
        in_passing_thread(lambda: 1 / 0)
