"""Continuous batching: the texts of many requests to a model are generated in parallel and take turns for slots.

Requests join and leave between steps. Slots go to requests in turn, a text each, so that one request for a hundred texts does not
shut out the next one. What a text becomes depends on its own prompt, options and seed, not on who else is served.
"""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Sequence

from gpt3.errors import InputError, RunError
from gpt3.inference.decoding import Decoder
from gpt3.inference.row import Row
from gpt3.inference.text_model import TextModel
from gpt3.serving.errors import ApiError
from gpt3.serving.metrics import Metrics
from gpt3.serving.outbox import Outbox, PendingRequest
from gpt3.serving.texts import Piece, Text


class Worker:
    """Generates the texts of all requests to a model, on the thread that computes.

    Args:
        model: to serve.
        slots: texts in parallel.
        queue: requests that may wait.
        prompt_tokens: of prompts read in one step.
        metrics: what it counts.
        bell: held while the queues change, and notified then.
    """

    def __init__(
        self, model: TextModel, slots: int, queue: int, prompt_tokens: int, metrics: Metrics, bell: threading.Condition
    ) -> None:
        self.model, self.metrics = model, metrics
        self.slots, self.queue, self.prompt_tokens = slots, queue, prompt_tokens
        self._lock = bell
        self._turns: deque[PendingRequest] = deque()  # requests with texts that have not begun, in the order of turns
        self._cancelled: list[PendingRequest] = []
        self._running: dict[Row, tuple[PendingRequest, Text]] = {}
        self._refuse_at: float | None = None  # draining: when requests that are not done are refused
        self._outbox = Outbox()
        self._step_seconds = 0.0  # of the last step
        self._decoder = self._new_decoder()

    def _new_decoder(self) -> Decoder:
        return Decoder(self.model.engine, self.slots, self.model.engine.context, prompt_tokens=self.prompt_tokens)

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do in the next turn."""
        return bool(self._turns or self._running or self._cancelled)

    @property
    def running(self) -> int:
        """Texts being generated."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests of which no text has begun."""
        return sum(request.begun == 0 for request in list(self._turns))

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the server stops."""
        return self._refuse_at is not None

    def submit(self, request: PendingRequest) -> None:
        """Hand in a request.

        Raises:
            ApiError: 429, the queue is full; 503, the server stops.
        """
        with self._lock:
            if self.draining:
                raise _shutting_down({"Retry-After": "5"})
            if self.waiting >= self.queue and self.running + self.waiting >= self.slots:
                self.metrics.add("gpt3_rejected_total")
                message = f"the queue is full ({self.queue} requests wait). Try again later."
                raise ApiError(429, message, code="queue_full", headers={"Retry-After": str(self._patience())})
            self._turns.append(request)
            self._lock.notify()

    def cancel(self, request: PendingRequest) -> None:
        """Nobody waits for this request any more. Does nothing when it has ended."""
        with self._lock:
            if not request.over:
                request.over = True
                self._cancelled.append(request)
                self.metrics.add("gpt3_cancelled_total")
                self._lock.notify()

    def drain(self, seconds: float) -> None:
        """Take no more requests, and refuse those not done after `seconds`. Safe in a signal handler."""
        self._refuse_at = time.monotonic() + seconds

    def _patience(self) -> int:
        """Seconds until a slot may be free: about what a waiting request has waited, between 1 and 60."""
        now = time.monotonic()
        return round(min(60.0, max([1.0, *(now - request.arrived for request in self._turns)])))

    def turn(self, alone: bool) -> None:
        """Give free slots away and take a step.

        Args:
            alone: the next turn comes at once, not after another model's.
        """
        with self._lock:
            cancelled, self._cancelled = self._cancelled, []
        try:
            for request in cancelled:
                self._drop(request)
            self._expire()
            self._seat()
            if self._running:
                self._outbox.send_if_due(self._busy_for() if alone else math.inf)
                self._step()
        except Exception as error:  # of the engine: requests being served get an error, the next ones are served
            message = str(error)
            if not isinstance(error, (InputError, RunError)):
                traceback.print_exc()
                message = f"internal error: {type(error).__name__}"
            served = dict.fromkeys(request for request, _ in self._running.values())
            self._running.clear()
            self._decoder = self._new_decoder()
            for request in served:
                self._end(request, ApiError(500, message, code="engine"))
        if not self._running:
            self._outbox.send()

    def _busy_for(self) -> float:
        """About the seconds of the next step; infinite when a prompt is read."""
        return math.inf if any(len(row.unread) > 1 for row in self._running) else self._step_seconds

    def _drop(self, request: PendingRequest) -> None:
        """Take a request's texts out of turns and slots."""
        with self._lock:
            if request in self._turns:
                self._turns.remove(request)
        for row in [row for row, (owner, _) in self._running.items() if owner is request]:
            self._decoder.leave(row)
            del self._running[row]

    def _expire(self) -> None:
        """End requests whose time is over."""
        now = time.monotonic()
        stopping = self._refuse_at is not None and now >= self._refuse_at
        with self._lock:
            requests = dict.fromkeys([*self._turns, *(request for request, _ in self._running.values())])
        for request in requests:
            if stopping:
                self._end(request, _shutting_down())
            elif now >= request.deadline:
                self.metrics.add("gpt3_timeouts_total")
                limit = request.deadline - request.arrived
                self._end(request, ApiError(504, f"the request took more than {limit:g} s", code="timeout"))

    def _seat(self) -> None:
        """Give free slots to requests in turn, a text at a time."""
        while True:
            with self._lock:
                if not self._turns or len(self._running) >= self.slots:
                    return
                request = self._turns.popleft()
                text = request.texts[request.begun]
                request.begun += 1
                if request.begun < len(request.texts):
                    self._turns.append(request)
            self.metrics.add("gpt3_prompt_tokens_total", len(text.prompt))
            if text.needs_engine:
                self._running[text.row] = request, text
                self._decoder.join(text.row)
            else:
                self._give(request, text.take_piece([]))

    def _step(self) -> None:
        """One forward; pieces to the requests that got some."""
        began = time.monotonic()
        self.metrics.add("gpt3_steps_total")
        count = 0
        for row, tokens in self._decoder.step():
            request, text = self._running[row]
            before = len(text.tokens)
            piece = text.take_piece(tokens)
            count += len(text.tokens) - before
            if not request.has_token:
                request.has_token = True
                self.metrics.observe("gpt3_first_token_seconds", time.monotonic() - request.arrived)
            if piece.finish_reason is not None:
                self._decoder.leave(row)
                del self._running[row]
            self._give(request, piece)
        self.metrics.add("gpt3_completion_tokens_total", count)
        self._step_seconds = time.monotonic() - began

    def _give(self, request: PendingRequest, piece: Piece) -> None:
        if request.stream and (piece.text or piece.tokens or piece.finish_reason is not None):
            self._outbox.put(request, [piece])
        if piece.finish_reason is not None:
            request.open -= 1
            if not request.open:
                self._end(request, None)

    def _end(self, request: PendingRequest, error: ApiError | None) -> None:
        """The last event of a request: an error, or None when all its texts are complete."""
        if error is not None:
            self._drop(request)
        with self._lock:
            over, request.over = request.over, True
        if not over:
            self._outbox.put(request, error)
            self.metrics.observe("gpt3_request_seconds", time.monotonic() - request.arrived)


class ComputeThread:
    """Goes round the workers of all models, a step each.

    It is one thread whatever the number of models: a step takes all cores anyway, and the OpenMP library gives each thread that
    computes helpers of its own. When these are more than there are cores, they sleep after each loop in place of waiting for
    the next one, and a small model's step takes three times as long.

    Args:
        workers: one per model.
        bell: what they notify when their queues change.
    """

    def __init__(self, workers: Sequence[Worker], bell: threading.Condition) -> None:
        self.workers, self.bell = workers, bell
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="gpt3-compute", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """End the thread. Requests that are not done are answered that the server stops."""
        for worker in self.workers:
            worker.drain(0)
        with self.bell:
            self._closing = True
            self.bell.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _serve(self) -> None:
        while True:
            with self.bell:
                self.bell.wait_for(lambda: self._closing or any(worker.has_work for worker in self.workers))
                busy = [worker for worker in self.workers if worker.has_work]
            if not busy:
                return
            for worker in busy:
                worker.turn(alone=len(busy) == 1)


def _shutting_down(headers: dict[str, str] | None = None) -> ApiError:
    return ApiError(503, "the server is shutting down", code="shutting_down", headers=headers)
