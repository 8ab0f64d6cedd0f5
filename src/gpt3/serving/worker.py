"""Continuous batching: the texts of many requests to a model are generated in parallel and share its slots.

Requests join and leave between steps. Slots go to requests in turn, a text each, so that one request for a hundred texts does not
block the next one. A text depends on its own prompt, options and seed, not on other requests.

event loop ─ Worker.submit(TextRequest) ─▶ ComputeThread: Worker.turn ─ Outbox ─▶ TextRequest.events on the event loop
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping, Sequence

from gpt3.errors import InputError, RunError
from gpt3.inference.decoding import Decoder
from gpt3.inference.language_model import LanguageModel
from gpt3.inference.row import Row
from gpt3.serving.completions import Choice, Delta, Event, TextRequest
from gpt3.serving.options import ServeOptions
from gpt3.serving.schema import ApiError
from gpt3.serving.served_model import ServedModel

PAUSE, PAUSE_PER_STREAM, LONGEST_PAUSE = 0.04, 0.003, 0.1
"""Seconds between two deliveries while texts only grow: at least the first, the second for each stream, at most the third.

Each delivery wakes the event loop and the clients, if they are on this machine: a tenth to half a millisecond for each stream,
taken from the engine. With a small model that is as long as a step.
"""
SECONDS_TO_STOP = 2.0
"""Time for the step in progress when the server stops: it may take minutes, and cannot be interrupted."""
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, math.inf)
"""Upper bounds of the histograms, seconds."""
HELP = {
    "gpt3_requests_total": ("counter", "Answered requests by path and status."),
    "gpt3_prompt_tokens_total": ("counter", "Tokens of prompts of requests that began."),
    "gpt3_completion_tokens_total": ("counter", "Tokens generated."),
    "gpt3_steps_total": ("counter", "Forward passes of the engine."),
    "gpt3_cancelled_total": ("counter", "Requests whose client went away."),
    "gpt3_timeouts_total": ("counter", "Requests that took longer than the limit."),
    "gpt3_rejected_total": ("counter", "Requests refused because the queue was full."),
    "gpt3_texts_running": ("gauge", "Texts being generated."),
    "gpt3_requests_waiting": ("gauge", "Requests of which no text has started."),
    "gpt3_first_token_seconds": ("histogram", "From a request's arrival to its first token."),
    "gpt3_request_seconds": ("histogram", "From a request's arrival to its last token."),
}


class Metrics:
    """Counters and histograms in Prometheus' text format. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._values: dict[str, dict[str, float]] = {name: {} for name in HELP}  # of each series, by its metric
        for name, (kind, _) in HELP.items():
            if kind == "histogram":
                self.observe(name, 0.0, 0)
            elif name != "gpt3_requests_total":  # it has labels
                self.add(name, 0)

    def add(self, name: str, number: float = 1, suffix: str = "", **labels: str) -> None:
        """Count; the suffix is that of a histogram's series."""
        label = ",".join(f'{label}="{value}"' for label, value in labels.items())
        series = f"{name}{suffix}{{{label}}}" if label else name + suffix
        with self._lock:
            self._values[name][series] = self._values[name].get(series, 0) + number

    def observe(self, name: str, seconds: float, count: int = 1) -> None:
        """Add a duration to a histogram."""
        with self._lock:
            for bound in BUCKETS:
                label = "+Inf" if bound == math.inf else str(bound)
                self.add(name, count if seconds <= bound else 0, "_bucket", le=label)
            self.add(name, seconds, "_sum")
            self.add(name, count, "_count")

    def render(self, **gauges: float) -> str:
        """The text of /metrics; the caller reads the gauges."""
        lines = []
        with self._lock:
            for name, (kind, text) in HELP.items():
                values = {name: gauges[name]} if kind == "gauge" else self._values[name]
                lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
                lines += [f"{series} {value:.15g}" for series, value in values.items()]
        return "\n".join(lines) + "\n"


class Outbox:
    """Events on their way from the compute thread to the event loops. For one thread."""

    def __init__(self) -> None:
        self._events: dict[TextRequest, list[Event]] = {}
        self._urgent: dict[TextRequest, None] = {}
        self._sent = 0.0

    def put(self, request: TextRequest, event: Event) -> None:
        """Take an event; a request's first one and its last do not wait."""
        if not request.has_event or not isinstance(event, Delta):
            request.has_event = True
            self._urgent[request] = None
        self._events.setdefault(request, []).append(event)

    def send_if_due(self, busy: float) -> None:
        """Deliver what cannot wait; and everything, unless the next call comes soon enough, in about `busy` seconds."""
        pause = min(max(PAUSE, PAUSE_PER_STREAM * len(self._events)), LONGEST_PAUSE)
        if time.monotonic() + busy - self._sent >= pause:
            self.send()
        elif self._urgent:
            self._deliver({request: self._events.pop(request) for request in self._urgent})

    def send(self) -> None:
        """Deliver everything."""
        if self._events:
            self._sent = time.monotonic()
            events, self._events = self._events, {}
            self._deliver(events)

    def _deliver(self, events: dict[TextRequest, list[Event]]) -> None:
        """Deliver, with one call for each event loop."""
        self._urgent.clear()
        for loop in dict.fromkeys(request.loop for request in events):
            try:
                loop.call_soon_threadsafe(_receive, {one: new for one, new in events.items() if one.loop is loop})
            except RuntimeError:  # the loop is closed: nobody waits any more
                continue


def _receive(events: Mapping[TextRequest, Sequence[Event]]) -> None:
    """On the event loop."""
    for request, new in events.items():
        for event in new:
            request.events.put_nowait(event)


class Worker:
    """Generates the texts of all requests to a model, on the compute thread.

    Args:
        served: the model.
        options: slots, queue and prompt tokens per step.
        metrics: what it counts.
        compute: runs it. Its condition is held while the queue changes, and notified then.
    """

    def __init__(self, served: ServedModel, options: ServeOptions, metrics: Metrics, compute: ComputeThread) -> None:
        self.served, self.options, self.metrics, self.compute = served, options, metrics, compute
        self._lock = compute.condition
        self._queue: deque[TextRequest] = deque()  # with choices that have not started, in the order of turns
        self._running: dict[Row, TextRequest] = {}
        self._outbox = Outbox()
        self._step_seconds = 0.0  # of the last step
        self._decoder = self._new_decoder()

    def _new_decoder(self) -> Decoder:
        engine = self.served.model.engine
        return Decoder(engine, self.options.slots, engine.context, prompt_tokens=self.options.prompt_tokens)

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do in the next turn."""
        return bool(self._queue or self._running)

    @property
    def running(self) -> int:
        """Texts being generated."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests of which no text has started."""
        return sum(request.started == 0 for request in list(self._queue))

    def submit(self, request: TextRequest) -> None:
        """Queue a request.

        Raises:
            ApiError: 429, the queue is full; 503, the server stops.
        """
        with self._lock:
            if self.compute.draining:
                raise _shutting_down({"Retry-After": "5"})
            limit = self.options.queue
            if self.waiting >= limit and self.running + self.waiting >= self.options.slots:
                self.metrics.add("gpt3_rejected_total")
                longest = max((time.monotonic() - one.arrived for one in self._queue), default=0.0)
                headers = {"Retry-After": str(round(min(60.0, max(1.0, longest))))}  # about when a slot may be free
                message = f"the queue is full ({limit} requests wait). Try again later."
                raise ApiError(429, message, code="queue_full", headers=headers)
            request.loop = asyncio.get_running_loop()
            self._queue.append(request)
            self._lock.notify()

    def cancel(self, request: TextRequest) -> None:
        """Nobody waits for this request any more; the next turn drops it. Does nothing when it has ended."""
        with self._lock:
            if not request.ended:
                request.ended = True
                self.metrics.add("gpt3_cancelled_total")

    def turn(self, alone: bool) -> None:
        """Fill free slots and take a step.

        Args:
            alone: the next turn comes at once, not after another model's.
        """
        try:
            self._drop_ended()
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
            failed = dict.fromkeys(self._running.values())
            self._running.clear()
            self._decoder = self._new_decoder()
            for request in failed:
                self._end(request, ApiError(500, message, code="engine"))
        if not self._running:
            self._outbox.send()

    def _drop_ended(self) -> None:
        """End requests whose time is over, and remove those that ended from queue and slots."""
        now = time.monotonic()
        with self._lock:
            for request in dict.fromkeys([*self._queue, *self._running.values()]):
                if now >= self.compute.refuse_at:
                    self._end(request, _shutting_down())
                elif now >= request.arrived + self.options.timeout and not request.ended:
                    self.metrics.add("gpt3_timeouts_total")
                    message = f"the request took more than {self.options.timeout:g} s"
                    self._end(request, ApiError(504, message, code="timeout"))
            self._queue = deque(request for request in self._queue if not request.ended)
        for row, request in list(self._running.items()):
            if request.ended:
                self._release(row)

    def _release(self, row: Row) -> None:
        self._decoder.leave(row)
        del self._running[row]

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
                self._running[choice] = request
                self._decoder.join(choice)
            else:
                self._publish(request, choice.advance([]))

    def _step(self) -> None:
        """One forward; deltas to the requests that got some."""
        began = time.monotonic()
        self.metrics.add("gpt3_steps_total")
        count = 0
        for row, tokens in self._decoder.step():
            assert isinstance(row, Choice)
            request = self._running[row]
            before = len(row.text_ids)
            delta = row.advance(tokens)
            count += len(row.text_ids) - before
            if not request.has_token:
                request.has_token = True
                self.metrics.observe("gpt3_first_token_seconds", time.monotonic() - request.arrived)
            if delta.finish_reason is not None:
                self._release(row)
            self._publish(request, delta)
        self.metrics.add("gpt3_completion_tokens_total", count)
        self._step_seconds = time.monotonic() - began

    def _publish(self, request: TextRequest, delta: Delta) -> None:
        finished = delta.finish_reason is not None
        if request.stream and (delta.text or delta.tokens or finished):
            self._outbox.put(request, delta)
        if finished and all(choice.finish_reason is not None for choice in request.choices):
            self._end(request, None)

    def _end(self, request: TextRequest, error: ApiError | None) -> None:
        """The last event of a request: an error, or None when all its choices are complete."""
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

    Attributes:
        workers: one per model, by its id. Another dictionary when a model is added.
        refuse_at: when requests that are not done are refused, by time.monotonic().
    """

    def __init__(self, models: Mapping[str, LanguageModel], options: ServeOptions, metrics: Metrics) -> None:
        super().__init__(name="gpt3-compute")
        self.condition = threading.Condition()
        self.closing, self.refuse_at = False, math.inf
        self.options, self.metrics = options, metrics
        self.workers: dict[str, Worker] = {}
        for name, model in models.items():
            self.add(name, model)

    def add(self, name: str, model: LanguageModel) -> None:
        """Serve another model from now on, from any thread."""
        worker = Worker(ServedModel(model, name, self.options.max_samples), self.options, self.metrics, self)
        with self.condition:
            self.workers = {**self.workers, name: worker}  # other threads may be reading the one that was

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the server stops."""
        return self.refuse_at < math.inf

    def drain(self, seconds: float) -> None:
        """Take no more requests, and refuse those not done after `seconds`. Safe in a signal handler."""
        self.refuse_at = time.monotonic() + seconds

    def close(self) -> None:
        """End the thread: the server stops. Requests that are not done get an error; the process waits for a longer step."""
        self.drain(0)
        with self.condition:
            self.closing = True
            self.condition.notify()
        self.join(SECONDS_TO_STOP)

    def run(self) -> None:
        """Serve until `close`, and until no request is left."""
        while True:
            with self.condition:
                self.condition.wait_for(
                    lambda: self.closing or any(worker.has_work for worker in self.workers.values())
                )
                busy = [worker for worker in self.workers.values() if worker.has_work]
            if not busy:
                return
            for worker in busy:
                worker.turn(alone=len(busy) == 1)


def _shutting_down(headers: dict[str, str] | None = None) -> ApiError:
    return ApiError(503, "the server is shutting down", code="shutting_down", headers=headers)
