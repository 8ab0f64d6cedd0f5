"""Continuous batching: the texts of many requests to a model are written side by side and take turns for slots.

Requests join and leave between steps. Slots go to requests in turn, a text each, so that one request for a hundred texts does not
shut out the next one. What a text becomes depends on its own prompt, options and seed, not on who else is served.
"""

from __future__ import annotations

import asyncio
import math
import time
import traceback
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpt3.errors import InputError, RunError
from gpt3.inference.decoding import Decoder
from gpt3.inference.row import Row
from gpt3.serving.errors import ApiError
from gpt3.serving.metrics import Metrics
from gpt3.serving.outbox import Event, Outbox
from gpt3.serving.texts import Piece, Text

if TYPE_CHECKING:
    from gpt3.inference.language_model import LanguageModel
    from gpt3.serving.compute import ComputeThread


class Ticket:
    """A request that was handed in.

    Args:
        texts: what it asks for.
        stream: give pieces as they are made; otherwise only the end.
        seconds: it may take.

    Attributes:
        events: what happens to it, see Event; put there on the event loop that made the ticket.
    """

    def __init__(self, texts: Sequence[Text], stream: bool, seconds: float) -> None:
        self.texts, self.stream = list(texts), stream
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()
        self.arrived = time.monotonic()
        self.deadline = self.arrived + seconds
        self.begun = 0  # texts that have or had a slot
        self.open = len(self.texts)  # texts that are not complete
        self.spoke = False  # a token was written
        self.heard = False  # an event went into the outbox
        self.over = False  # it ended, or nobody waits for it


class Worker:
    """Writes the texts of all requests to a model, on the thread that computes.

    Args:
        model: to serve.
        slots: texts side by side.
        queue: requests that may wait.
        prompt_tokens: of prompts read in one step.
        metrics: what it counts.
        compute: the thread.
    """

    def __init__(
        self,
        model: LanguageModel,
        slots: int,
        queue: int,
        prompt_tokens: int,
        metrics: Metrics,
        compute: ComputeThread,
    ) -> None:
        self.model, self.metrics = model, metrics
        self.slots, self.queue, self.prompt_tokens = slots, queue, prompt_tokens
        self._lock = compute.bell
        self._turns: deque[Ticket] = deque()  # requests with texts that have not begun, in the order of their turns
        self._cancelled: list[Ticket] = []
        self._running: dict[Row, tuple[Ticket, Text]] = {}
        self._refuse_at: float | None = None  # draining: requests that are not done by then are told so
        self._outbox = Outbox()
        self._step_seconds = 0.0  # of the last step
        self._decoder = self._new_decoder()
        compute.workers.append(self)

    def _new_decoder(self) -> Decoder:
        return Decoder(self.model.engine, self.slots, self.model.engine.context, prompt_tokens=self.prompt_tokens)

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do in the next turn."""
        return bool(self._turns or self._running or self._cancelled)

    @property
    def running(self) -> int:
        """Texts being written."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests of which no text has begun."""
        return sum(ticket.begun == 0 for ticket in list(self._turns))

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the server stops."""
        return self._refuse_at is not None

    def submit(self, ticket: Ticket) -> None:
        """Hand in a request.

        Raises:
            ApiError: 429, the queue is full; 503, the server stops.
        """
        with self._lock:
            if self.draining:
                raise ApiError(503, "the server is shutting down", code="shutting_down", headers={"Retry-After": "5"})
            if self.waiting >= self.queue and self.running + self.waiting >= self.slots:
                self.metrics.add("gpt3_rejected_total")
                message = f"the queue is full ({self.queue} requests wait); try again later"
                raise ApiError(429, message, code="queue_full", headers={"Retry-After": str(self._patience())})
            self._turns.append(ticket)
            self._lock.notify()

    def cancel(self, ticket: Ticket) -> None:
        """Nobody waits for this request any more. Does nothing when it has ended."""
        with self._lock:
            if not ticket.over:
                ticket.over = True
                self._cancelled.append(ticket)
                self.metrics.add("gpt3_cancelled_total")
                self._lock.notify()

    def drain(self, seconds: float) -> None:
        """Take no more requests; those not done after `seconds` are told that the server stops. Safe in a signal handler."""
        self._refuse_at = time.monotonic() + seconds

    def _patience(self) -> int:
        """Seconds until a slot may be free: about what a waiting request has waited, between 1 and 60."""
        now = time.monotonic()
        return round(min(60.0, max([1.0, *(now - ticket.arrived for ticket in self._turns)])))

    def turn(self, alone: bool) -> None:
        """Give free slots away and take a step.

        Args:
            alone: the next turn comes at once, not after another model's.
        """
        with self._lock:
            cancelled, self._cancelled = self._cancelled, []
        try:
            for ticket in cancelled:
                self._drop(ticket)
            self._expire()
            self._seat()
            if self._running:
                self._outbox.send_if_due(self._busy_for() if alone else math.inf)
                self._step()
        except Exception as error:  # of the engine: those being served are told, and the next ones are served
            if not isinstance(error, (InputError, RunError)):
                traceback.print_exc()
            told = (
                str(error) if isinstance(error, (InputError, RunError)) else f"internal error: {type(error).__name__}"
            )
            served = list(dict.fromkeys(ticket for ticket, _ in self._running.values()))
            self._running.clear()
            self._decoder = self._new_decoder()
            for ticket in served:
                self._drop(ticket)
                self._end(ticket, ApiError(500, told, code="engine"))
        if not self._running:
            self._outbox.send()

    def _busy_for(self) -> float:
        """About the seconds of the next step; infinite when a prompt is read."""
        return math.inf if any(len(row.unread) > 1 for row in self._running) else self._step_seconds

    def _drop(self, ticket: Ticket) -> None:
        """Take a request's texts out of turns and slots."""
        with self._lock:
            if ticket in self._turns:
                self._turns.remove(ticket)
        for row in [row for row, (owner, _) in self._running.items() if owner is ticket]:
            self._decoder.leave(row)
            del self._running[row]

    def _expire(self) -> None:
        """End requests whose time is over."""
        now = time.monotonic()
        stopping = self._refuse_at is not None and now >= self._refuse_at
        with self._lock:
            tickets = dict.fromkeys([*self._turns, *(ticket for ticket, _ in self._running.values())])
        for ticket in tickets:
            if stopping:
                self._drop(ticket)
                self._end(ticket, ApiError(503, "the server is shutting down", code="shutting_down"))
            elif now >= ticket.deadline:
                self._drop(ticket)
                self.metrics.add("gpt3_timeouts_total")
                limit = ticket.deadline - ticket.arrived
                self._end(ticket, ApiError(504, f"the request took more than {limit:g} s", code="timeout"))

    def _seat(self) -> None:
        """Give free slots to requests in turn, a text at a time."""
        while True:
            with self._lock:
                if not self._turns or len(self._running) >= self.slots:
                    return
                ticket = self._turns.popleft()
                text = ticket.texts[ticket.begun]
                ticket.begun += 1
                if ticket.begun < len(ticket.texts):
                    self._turns.append(ticket)
            self.metrics.add("gpt3_prompt_tokens_total", len(text.prompt))
            if text.needs_engine:
                self._running[text.row] = ticket, text
                self._decoder.join(text.row)
            else:
                self._note(ticket, text.take_piece([]))

    def _step(self) -> None:
        """One forward; pieces to the requests that got some."""
        began = time.monotonic()
        self.metrics.add("gpt3_steps_total")
        written = 0
        for row, tokens in self._decoder.step():
            ticket, text = self._running[row]
            before = len(text.tokens)
            piece = text.take_piece(tokens)
            written += len(text.tokens) - before
            if not ticket.spoke:
                ticket.spoke = True
                self.metrics.observe("gpt3_first_token_seconds", time.monotonic() - ticket.arrived)
            if piece.finish_reason is not None:
                self._decoder.leave(row)
                del self._running[row]
            self._note(ticket, piece)
        self.metrics.add("gpt3_completion_tokens_total", written)
        self._step_seconds = time.monotonic() - began

    def _note(self, ticket: Ticket, piece: Piece) -> None:
        if ticket.stream and (piece.text or piece.tokens or piece.finish_reason is not None):
            self._outbox.put(ticket, [piece])
        if piece.finish_reason is not None:
            ticket.open -= 1
            if not ticket.open:
                self._end(ticket, None)

    def _end(self, ticket: Ticket, event: ApiError | None) -> None:
        with self._lock:
            over, ticket.over = ticket.over, True
        if not over:
            self._outbox.put(ticket, event)
            self.metrics.observe("gpt3_request_seconds", time.monotonic() - ticket.arrived)
