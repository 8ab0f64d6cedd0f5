"""Continuous batching: the texts of many requests to a model are generated in parallel and share its slots.

Requests join and leave between steps. Slots go to requests in turn, a text each, so that one request for a hundred texts does not
block the next one. A text depends on its own prompt, options and seed, not on other requests.

event loop ─ Worker.submit(PendingRequest) ─▶ ComputeThread: Worker.turn ─ Outbox ─▶ PendingRequest.events on the event loop
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from gpt3.errors import InputError, RunError
from gpt3.inference.decoding import Decoder
from gpt3.inference.row import Row
from gpt3.serving.metrics import Metrics
from gpt3.serving.options import ServeOptions
from gpt3.serving.schema import ApiError
from gpt3.serving.texts import Choice, Delta, ServedModel

PAUSE = 0.02
"""Seconds between two deliveries while texts only grow.

Each delivery wakes an event loop, which takes the interpreter and a core from the engine: with a small model, whose step takes a
millisecond or two, for as long as the step itself. Nobody reads faster than fifty times a second.
"""
Event = Delta | ApiError | None
"""What a choice grew by; an error, which is the last event; None: all choices are complete."""


@dataclass(eq=False)
class PendingRequest:
    """A request in progress; made on the event loop that waits for its `events`."""

    choices: Sequence[Choice]
    stream: bool
    """Whether deltas are sent; otherwise only the end."""
    seconds: float
    """It may take."""
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    arrived: float = field(default_factory=time.monotonic)
    started: int = 0
    """Choices that have or had a slot."""
    has_token: bool = False
    has_event: bool = False
    ended: bool = False
    """It is complete, failed, or its client went away."""


class Outbox:
    """Events on their way from the compute thread to the event loops. For one thread."""

    def __init__(self) -> None:
        self._events: list[tuple[PendingRequest, Event]] = []
        self._urgent = False
        self._sent = 0.0

    def put(self, request: PendingRequest, event: Event) -> None:
        """Take an event; a request's first one and its last do not wait."""
        self._urgent |= not request.has_event or not isinstance(event, Delta)
        request.has_event = True
        self._events.append((request, event))

    def send_if_due(self, busy: float) -> None:
        """Deliver everything, unless it can wait and the next call comes soon, in about `busy` seconds."""
        if self._urgent or time.monotonic() + busy - self._sent >= PAUSE:
            self.send()

    def send(self) -> None:
        """Deliver everything, with one call for each event loop."""
        if not self._events:
            return
        events, self._events, self._urgent = self._events, [], False
        self._sent = time.monotonic()
        for loop in dict.fromkeys(request.loop for request, _ in events):
            try:
                loop.call_soon_threadsafe(_deliver, [pair for pair in events if pair[0].loop is loop])
            except RuntimeError:  # the loop is closed: nobody waits any more
                continue


def _deliver(events: Sequence[tuple[PendingRequest, Event]]) -> None:
    for request, event in events:
        request.events.put_nowait(event)


class Worker:
    """Generates the texts of all requests to a model, on the compute thread.

    Args:
        served: the model.
        options: slots, queue and prompt tokens per step.
        metrics: what it counts.
        condition: held while the queues change, and notified then.
    """

    def __init__(
        self, served: ServedModel, options: ServeOptions, metrics: Metrics, condition: threading.Condition
    ) -> None:
        self.served, self.options, self.metrics = served, options, metrics
        self._lock = condition
        self._queue: deque[PendingRequest] = (
            deque()
        )  # requests with choices that have not started, in the order of turns
        self._cancelled: list[PendingRequest] = []
        self._running: dict[Row, tuple[PendingRequest, Choice]] = {}
        self._refuse_at: float | None = None  # draining: when requests that are not done are refused
        self._outbox = Outbox()
        self._step_seconds = 0.0  # of the last step
        self._decoder = self._new_decoder()

    def _new_decoder(self) -> Decoder:
        engine = self.served.model.engine
        return Decoder(engine, self.options.slots, engine.context, prompt_tokens=self.options.prompt_tokens)

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do in the next turn."""
        return bool(self._queue or self._running or self._cancelled)

    @property
    def running(self) -> int:
        """Texts being generated."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests of which no text has started."""
        return sum(request.started == 0 for request in list(self._queue))

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the server stops."""
        return self._refuse_at is not None

    def submit(self, request: PendingRequest) -> None:
        """Queue a request.

        Raises:
            ApiError: 429, the queue is full; 503, the server stops.
        """
        with self._lock:
            if self.draining:
                raise _shutting_down({"Retry-After": "5"})
            limit = self.options.queue
            if self.waiting >= limit and self.running + self.waiting >= self.options.slots:
                self.metrics.add("gpt3_rejected_total")
                longest = max((time.monotonic() - one.arrived for one in self._queue), default=0.0)
                headers = {"Retry-After": str(round(min(60.0, max(1.0, longest))))}  # about when a slot may be free
                message = f"the queue is full ({limit} requests wait). Try again later."
                raise ApiError(429, message, code="queue_full", headers=headers)
            self._queue.append(request)
            self._lock.notify()

    def cancel(self, request: PendingRequest) -> None:
        """Nobody waits for this request any more. Does nothing when it has ended."""
        with self._lock:
            if not request.ended:
                request.ended = True
                self._cancelled.append(request)
                self.metrics.add("gpt3_cancelled_total")
                self._lock.notify()

    def drain(self, seconds: float) -> None:
        """Take no more requests, and refuse those not done after `seconds`. Safe in a signal handler."""
        self._refuse_at = time.monotonic() + seconds

    def turn(self, alone: bool) -> None:
        """Fill free slots and take a step.

        Args:
            alone: the next turn comes at once, not after another model's.
        """
        with self._lock:
            cancelled, self._cancelled = self._cancelled, []
        try:
            for request in cancelled:
                self._drop(request)
            self._expire()
            self._fill_slots()
            if self._running:
                reads = any(len(row.unread) > 1 for row in self._running)  # such a step may be a long one
                self._outbox.send_if_due(self._step_seconds if alone and not reads else math.inf)
                self._step()
        except Exception as error:  # of the engine: running requests get an error, the next ones are served
            message = str(error)
            if not isinstance(error, (InputError, RunError)):
                traceback.print_exc()
                message = f"internal error: {type(error).__name__}"
            failed = dict.fromkeys(request for request, _ in self._running.values())
            self._running.clear()
            self._decoder = self._new_decoder()
            for request in failed:
                self._end(request, ApiError(500, message, code="engine"))
        if not self._running:
            self._outbox.send()

    def _drop(self, request: PendingRequest) -> None:
        """Remove a request's choices from queue and slots."""
        with self._lock:
            if request in self._queue:
                self._queue.remove(request)
        for row in [row for row, (owner, _) in self._running.items() if owner is request]:
            self._release(row)

    def _release(self, row: Row) -> None:
        self._decoder.leave(row)
        del self._running[row]

    def _expire(self) -> None:
        """End requests whose time is over."""
        now = time.monotonic()
        stopping = self._refuse_at is not None and now >= self._refuse_at
        with self._lock:
            requests = dict.fromkeys([*self._queue, *(request for request, _ in self._running.values())])
        for request in requests:
            if stopping:
                self._end(request, _shutting_down())
            elif now >= request.arrived + request.seconds:
                self.metrics.add("gpt3_timeouts_total")
                self._end(request, ApiError(504, f"the request took more than {request.seconds:g} s", code="timeout"))

    def _fill_slots(self) -> None:
        """Give free slots to requests in turn, a choice at a time."""
        while True:
            with self._lock:
                if not self._queue or len(self._running) >= self.options.slots:
                    return
                request = self._queue.popleft()
                choice = request.choices[request.started]
                request.started += 1
                if request.started < len(request.choices):
                    self._queue.append(request)
            self.metrics.add("gpt3_prompt_tokens_total", len(choice.prompt))
            if choice.needs_engine:
                self._running[choice] = request, choice
                self._decoder.join(choice)
            else:
                self._publish(request, choice.advance([]))

    def _step(self) -> None:
        """One forward; deltas to the requests that got some."""
        began = time.monotonic()
        self.metrics.add("gpt3_steps_total")
        count = 0
        for row, tokens in self._decoder.step():
            request, choice = self._running[row]
            before = len(choice.text_ids)
            delta = choice.advance(tokens)
            count += len(choice.text_ids) - before
            if not request.has_token:
                request.has_token = True
                self.metrics.observe("gpt3_first_token_seconds", time.monotonic() - request.arrived)
            if delta.finish_reason is not None:
                self._release(row)
            self._publish(request, delta)
        self.metrics.add("gpt3_completion_tokens_total", count)
        self._step_seconds = time.monotonic() - began

    def _publish(self, request: PendingRequest, delta: Delta) -> None:
        finished = delta.finish_reason is not None
        if request.stream and (delta.text or delta.tokens or finished):
            self._outbox.put(request, delta)
        if finished and all(choice.finish_reason is not None for choice in request.choices):
            self._end(request, None)

    def _end(self, request: PendingRequest, error: ApiError | None) -> None:
        """The last event of a request: an error, or None when all its choices are complete."""
        if error is not None:
            self._drop(request)
        with self._lock:
            ended, request.ended = request.ended, True
        if not ended:
            self._outbox.put(request, error)
            self.metrics.observe("gpt3_request_seconds", time.monotonic() - request.arrived)


class ComputeThread(threading.Thread):
    """Lets the workers of all models take turns, a step each.

    It is one thread whatever the number of models: a step takes all cores anyway, and the OpenMP library gives each thread that
    computes helpers of its own. When these are more than there are cores, they sleep after each loop in place of waiting for
    the next one, and a small model's step takes three times as long.

    Args:
        workers: one per model.
        condition: what they notify when their queues change.
    """

    def __init__(self, workers: Sequence[Worker], condition: threading.Condition) -> None:
        super().__init__(name="gpt3-compute", daemon=True)
        self.workers, self.condition, self.closing = workers, condition, False

    def close(self) -> None:
        """End the thread. Requests that are not done get an error: the server stops."""
        for worker in self.workers:
            worker.drain(0)
        with self.condition:
            self.closing = True
            self.condition.notify()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Serve until `close`, and until no request is left."""
        while True:
            with self.condition:
                self.condition.wait_for(lambda: self.closing or any(worker.has_work for worker in self.workers))
                busy = [worker for worker in self.workers if worker.has_work]
            if not busy:
                return
            for worker in busy:
                worker.turn(alone=len(busy) == 1)


def _shutting_down(headers: dict[str, str] | None = None) -> ApiError:
    return ApiError(503, "the server is shutting down", code="shutting_down", headers=headers)
