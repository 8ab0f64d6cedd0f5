"""What happened to requests, on its way from the worker's thread to the event loops that they wait on."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from gpt3.serving.errors import ApiError
from gpt3.serving.texts import Piece

if TYPE_CHECKING:
    from gpt3.serving.worker import Ticket

Event = list[Piece] | ApiError | None
"""Pieces of texts; an error, after which nothing comes; None: all texts are complete."""

PAUSE = 0.02
"""Seconds between two deliveries, while texts only go on.

Each delivery wakes an event loop, which takes the interpreter and a core from the engine: with a small model, whose step takes a
millisecond or two, for as long as the step itself. Nobody reads faster than fifty times a second.
"""


class Outbox:
    """Events that were not handed over yet. For one thread."""

    def __init__(self) -> None:
        self._events: list[tuple[Ticket, Event]] = []
        self._urgent = False
        self._sent = 0.0

    def put(self, ticket: Ticket, event: Event) -> None:
        """Take an event; a request's first one and its last do not wait."""
        self._urgent |= not ticket.heard or not isinstance(event, list)
        ticket.heard = True
        self._events.append((ticket, event))

    def send_if_due(self, busy: float) -> None:
        """Hand everything over, unless that can wait and the next chance comes soon.

        Args:
            busy: seconds until then, about.
        """
        if self._urgent or time.monotonic() + busy - self._sent >= PAUSE:
            self.send()

    def send(self) -> None:
        """Hand everything over, one call for each event loop."""
        if not self._events:
            return
        events, self._events, self._urgent = self._events, [], False
        self._sent = time.monotonic()
        for loop in dict.fromkeys(ticket.loop for ticket, _ in events):
            _hand_over(loop, [(ticket, event) for ticket, event in events if ticket.loop is loop])


def _hand_over(loop: asyncio.AbstractEventLoop, events: list[tuple[Ticket, Event]]) -> None:
    def put() -> None:
        for ticket, event in events:
            ticket.events.put_nowait(event)

    try:
        loop.call_soon_threadsafe(put)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return
