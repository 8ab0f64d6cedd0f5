"""A live server on a loopback port, in a thread."""

import contextlib
import importlib.util
import json
import queue
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

spec = importlib.util.spec_from_file_location(
    "inference_fixtures", Path(__file__).parents[1] / "inference" / "conftest.py"
)
fixtures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fixtures)

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTEXT = 128


@dataclass
class Live:
    """A server and how to ask it."""

    url: str
    compute: Any
    stop: Callable[[], None]
    thread: threading.Thread
    name: str

    @property
    def worker(self) -> Any:
        """The first model's."""
        return next(iter(self.compute.workers.values()))

    def ask(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any, Any]:
        """Status, JSON (or text) and headers of an answer."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json", **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, content, head = answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            status, content, head = error.code, error.read(), error.headers
        kind = head.get("content-type", "")
        return status, json.loads(content) if kind.startswith("application/json") else content.decode(), head

    def complete(self, **body: Any) -> dict[str, Any]:
        """The answer to a completion that succeeds."""
        status, answer, _ = self.ask("/v1/completions", body)
        assert status == 200, answer
        return answer

    def stream(self, path: str = "/v1/completions", **body: Any) -> list[dict[str, Any]]:
        """The chunks of a stream, which ends with [DONE]."""
        status, text, head = self.ask(path, {**body, "stream": True})
        assert status == 200, text
        assert head["content-type"].startswith("text/event-stream")
        assert head["x-accel-buffering"] == "no"  # else nginx holds the events back
        *events, done, rest = text.split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events]


def save_model(tokenizer, folder: Path, **changes: Any) -> Path:
    """A model folder of random weights."""
    fixtures.make_model(tokenizer, **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@contextlib.contextmanager
def slowed(engine, seconds: float):
    """Each forward takes so much longer meanwhile, so that there is a middle of a text to do something in."""
    forward = engine.forward
    engine.forward = lambda *a: (time.sleep(seconds), forward(*a))[1]
    try:
        yield
    finally:
        del engine.forward


@contextlib.contextmanager
def serving(model, /, **options: Any):
    from gpt3.serving.app import assemble
    from gpt3.serving.host import address_of, listen, serve
    from gpt3.serving.options import ServeOptions

    models = model if isinstance(model, dict) else {options.get("name", ["tiny"])[0]: model}
    defaults = {"model": list(models), "port": 0, "slots": 4, "prompt_tokens": 16, "grace": 5}
    chosen = ServeOptions(**{**defaults, **options})
    listening = listen(chosen.host, chosen.port)
    app, compute = assemble(models, chosen)
    ready: queue.Queue[Callable[[], None]] = queue.Queue()
    thread = threading.Thread(target=serve, args=(app, compute, listening, chosen, ready.put))
    thread.start()
    stop = ready.get(timeout=60)
    try:
        yield Live(address_of(listening), compute, stop, thread, next(iter(models), ""))
    finally:
        stop()
        thread.join(60)
        listening.close()
        assert not thread.is_alive(), f"the server has not stopped in 30 s:\n{stacks()}"


def stacks() -> str:
    """What every thread does."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"{names.get(ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    )
