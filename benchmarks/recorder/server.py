"""The server: its answers to some two hundred requests, one after another, on a loopback port."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.recorder import bodies, models
from benchmarks.recorder.record import Record
from benchmarks.recorder.workshop import Workshop

WAIT = 300
"""Seconds for a start, and for an answer."""
JSON = {"Content-Type": "application/json"}
HEADERS = ("content-type", "retry-after", "cache-control", "x-content-type-options", "www-authenticate", "allow")


def observe(record: Record, w: Workshop) -> None:
    """An open server with two models and a small one with a key."""
    places = [models.assistant(w), models.unusual(w)]
    with serving(w, *places, "--name", "first", "--name", "second") as port:
        plain = {
            "completion": bodies.combinations() + bodies.GOOD,
            "refused": bodies.BAD,
            "stream": bodies.streams(),
        }
        for kind, asked in plain.items():
            for number, body in enumerate(asked):
                ask(record, f"server/{kind}/{number:03}", port, "POST", "/v1/completions", body)
        for kind, asked in (("chat", bodies.CHAT), ("refused chat", bodies.BAD_CHAT)):
            for number, body in enumerate(asked):
                ask(record, f"server/{kind}/{number:03}", port, "POST", "/v1/chat/completions", body)
        streamed = {**bodies.CHAT[0], "stream": True, "stream_options": {"include_usage": True}}
        ask(record, "server/chat/stream", port, "POST", "/v1/chat/completions", streamed)
        for number, (path, raw) in enumerate(bodies.RAW):
            ask(record, f"server/raw/{number}", port, "POST", path, raw)
        for path in bodies.PATHS:
            ask(record, f"server/path/GET {path}", port, "GET", path, None)
            ask(record, f"server/path/DELETE {path}", port, "DELETE", path, None)
        ask(record, "server/path/old", port, "POST", "/v1/engines/second/completions", {"prompt": "x", "seed": 1})
        ask(record, "server/path/old, unknown", port, "POST", "/v1/engines/none/completions", {"prompt": "x"})
        ask(record, "server/host", port, "POST", "/v1/completions", {"seed": 1}, {"Host": "evil.example", **JSON})
        ask(record, "server/form", port, "POST", "/v1/completions", b"prompt=x", {"Content-Type": "text/plain"})
        ask(
            record,
            "server/origin",
            port,
            "POST",
            "/v1/completions",
            {"seed": 1},
            {"Origin": "http://evil.example", **JSON},
        )
        document(record, port)
        metrics(record, port)
    options = [
        "--api-key",
        "secret",
        "--slots",
        2,
        "--queue",
        1,
        "--max-samples",
        4,
        "--max-body",
        2000,
        "--dtype",
        "bf16",
    ]
    with serving(w, models.plain(w), *options) as port:
        key = {"Authorization": "Bearer secret", **JSON}
        for name, given in {"none": JSON, "wrong": {**key, "Authorization": "Bearer other"}, "right": key}.items():
            for path in ("/v1/models", "/metrics", "/health", "/"):
                ask(record, f"server/key/{name} GET {path}", port, "GET", path, None, given)
            ask(record, f"server/key/{name}", port, "POST", "/v1/completions", {"prompt": "x", "seed": 1}, given)
        ask(record, "server/limits/samples", port, "POST", "/v1/completions", {"prompt": "x", "n": 5}, key)
        ask(record, "server/limits/four", port, "POST", "/v1/completions", {"prompt": "x", "n": 4, "seed": 1}, key)
        ask(record, "server/limits/body", port, "POST", "/v1/completions", {"prompt": "x" * 3000}, key)


@contextlib.contextmanager
def serving(w: Workshop, *words: object) -> Iterator[int]:
    """A server's port, as long as it is needed; it ends as Ctrl-C ends it.

    Raises:
        RuntimeError: it does not start.
    """
    log = w.root / "serve.log"
    with open(log, "wb") as file:
        process = w.start("serve", *words, "--port", 0, "--device", "cpu", stdout=file, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + WAIT
            while (found := re.search(rb"127\.0\.0\.1:(\d+)", log.read_bytes())) is None:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"no server: {log.read_text(encoding='utf-8')[-1500:]}")
                time.sleep(0.1)
            yield int(found[1])
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def ask(
    record: Record, key: str, port: int, method: str, path: str, body: Any, headers: dict[str, str] | None = None
) -> None:
    """Record an answer: status, some headers, content; the messages of errors and whole pages as prose."""
    with record.attempt(key):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
        data = body if isinstance(body, bytes) else None if method == "GET" else json.dumps(body).encode()
        connection.request(method, path, data, JSON if headers is None else headers)
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        kept = {name: answer.headers[name] for name in HEADERS if answer.headers[name] is not None}
        found: dict[str, Any] = {"status": answer.status, "headers": kept}
        kind = kept.get("content-type", "")
        prose: list[str] = []
        if kind.startswith("application/json"):
            found["body"] = normal(json.loads(raw), prose)
        elif kind.startswith("text/event-stream"):
            found["events"] = [event(line, prose) for line in raw.decode("utf-8").split("\n\n") if line]
        else:
            found["empty"] = not raw
        record.add(key, found)
        if prose:
            record.words(key, prose)


def event(text: str, prose: list[str]) -> Any:
    """An event of a stream."""
    content = text.removeprefix("data: ")
    return content if content == "[DONE]" else normal(json.loads(content), prose)


def normal(value: Any, prose: list[str]) -> Any:
    """An answer with its ids by their kind only, without times; messages of errors go to `prose`."""
    if isinstance(value, list):
        return [normal(each, prose) for each in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for name, inner in value.items():
        if name == "message" and isinstance(inner, str):
            prose.append(inner)
        elif name == "id" and isinstance(inner, str) and re.fullmatch(r"\w*cmpl-.+", inner):
            found[name] = inner.split("-")[0]
        else:
            found[name] = normal(inner, prose)
    return found


def document(record: Record, port: int) -> None:
    """Record the OpenAPI document without its descriptions."""
    with record.attempt("server/openapi"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
        connection.request("GET", "/openapi.json")
        found = json.loads(connection.getresponse().read())
        record.add("server/openapi/paths", {path: sorted(ways) for path, ways in found["paths"].items()})
        for name, schema in sorted(found["components"]["schemas"].items()):
            record.add(f"server/openapi/{name}", bare(schema))


def bare(value: Any) -> Any:
    """A schema without prose."""
    if isinstance(value, dict):
        prose = ("description", "title", "summary", "example", "examples")
        return {name: bare(inner) for name, inner in value.items() if name not in prose or isinstance(inner, dict)}
    return [bare(inner) for inner in value] if isinstance(value, list) else value


def metrics(record: Record, port: int) -> None:
    """Record what is counted, and the counts that do not depend on the clock."""
    with record.attempt("server/metrics"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode("utf-8").splitlines()
        record.add("server/metrics/names", sorted({re.split(r"[ {]", line)[0] for line in lines if line[:1] != "#"}))
        record.add("server/metrics/types", sorted(line for line in lines if line.startswith("# TYPE")))
        kept = [line for line in lines if line[:1] != "#" and "seconds" not in line]
        record.add("server/metrics/counts", sorted(kept))
