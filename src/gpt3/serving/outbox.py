"""Requests handed to a worker's thread, and what becomes of them on its way to the event loops that wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from gpt3.serving.errors import ApiError
from gpt3.serving.texts import Piece, Text

PAUSE = 0.02
"""Seconds between two deliveries while texts only grow.

Each delivery wakes an event loop, which takes the interpreter and a core from the engine: with a small model, whose step takes a
millisecond or two, for as long as the step itself. Nobody reads faster than fifty times a second.
"""


Event = list[Piece] | ApiError | None
"""Pieces of texts; an error, after which nothing comes; None: all texts are complete."""


class PendingRequest:
    """A request that was handed in.

    Args:
        texts: what it asks for.
        stream: give pieces as they are made; otherwise only the end.
        seconds: it may take.

    Attributes:
        events: put there on the event loop that made this.
    """

    def __init__(self, texts: Sequence[Text], stream: bool, seconds: float) -> None:
        self.texts, self.stream = list(texts), stream
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()
        self.arrived = time.monotonic()
        self.deadline = self.arrived + seconds
        self.begun = 0  # texts that have or had a slot
        self.open = len(self.texts)  # texts that are not complete
        self.has_token = False
        self.has_event = False  # in the outbox
        self.over = False  # it ended, or nobody waits for it


class Outbox:
    """Events that were not delivered yet. For one thread."""

    def __init__(self) -> None:
        self._events: list[tuple[PendingRequest, Event]] = []
        self._urgent = False
        self._sent = 0.0

    def put(self, request: PendingRequest, event: Event) -> None:
        """Take an event; a request's first one and its last do not wait."""
        self._urgent |= not request.has_event or not isinstance(event, list)
        request.has_event = True
        self._events.append((request, event))

    def send_if_due(self, busy: float) -> None:
        """Deliver everything, unless that can wait and the next chance comes soon.

        Args:
            busy: seconds until then, about.
        """
        if self._urgent or time.monotonic() + busy - self._sent >= PAUSE:
            self.send()

    def send(self) -> None:
        """Deliver everything, with one call for each event loop."""
        if not self._events:
            return
        events, self._events, self._urgent = self._events, [], False
        self._sent = time.monotonic()
        for loop in dict.fromkeys(request.loop for request, _ in events):
            _deliver(loop, [(request, event) for request, event in events if request.loop is loop])


def _deliver(loop: asyncio.AbstractEventLoop, events: list[tuple[PendingRequest, Event]]) -> None:
    def put() -> None:
        for request, event in events:
            request.events.put_nowait(event)

    try:
        loop.call_soon_threadsafe(put)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return
