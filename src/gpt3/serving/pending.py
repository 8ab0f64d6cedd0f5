"""A request on its way: handed to a worker's thread, with what becomes of it on the event loop that waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from gpt3.serving.errors import ApiError
from gpt3.serving.texts import Piece, Text

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
