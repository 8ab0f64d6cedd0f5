"""A Hugging Face hub on 127.0.0.1: as much of it as streaming a dataset asks for, with failures on order; models: model_hub.py.

`HF_ENDPOINT` must point at it before `datasets` is imported, so what reads from it runs in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any, Self
from urllib.parse import unquote, urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"

Failure = Callable[[str, str, int], str | int | None]
"""(method, path, number of the request for this path) → a status to answer, "drop" to cut the body in half, None: serve."""


class HubServer(ABC):
    """Answers requests in threads. A context manager.

    Attributes:
        endpoint: its address.
    """

    def __init__(self) -> None:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are written one after the other

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                hub.answer(self, unquote(urlsplit(self.path).path), body)

            do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @abstractmethod
    def answer(self, request: BaseHTTPRequestHandler, path: str, body: bytes) -> None:
        """Answer one request, by `send` or `send_json`."""


class LoopbackHub(HubServer):
    """Serves dataset repositories, name → path → content.

    Attributes:
        failed: how many requests failed as ordered.
        sent: how many bytes of files were sent.
    """

    def __init__(self, repositories: dict[str, dict[str, bytes]], failure: Failure | None = None) -> None:
        super().__init__()
        self.repositories, self.failure = repositories, failure
        self.failed = self.sent = 0
        self.counts: dict[str, int] = {}
        self.lock = threading.Lock()

    def answer(self, request: BaseHTTPRequestHandler, path: str, body: bytes) -> None:
        """Answer one request, or fail as ordered."""
        with self.lock:
            self.counts[path] = self.counts.get(path, 0) + 1
            failure = self.failure(request.command, path, self.counts[path]) if self.failure else None
            self.failed += failure is not None
        if isinstance(failure, int):
            send(request, failure, b"ordered failure")
            return
        match = re.match(r"(/api)?/datasets/([^/]+/[^/]+)(?:/([a-z-]+)/([^/]+)/?(.*))?$", path)
        files = self.repositories.get(match[2]) if match else None
        if match is None or files is None:
            send(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
        elif match[1] and match[3] in (None, "revision"):
            siblings = [{"rfilename": name} for name in files]
            send_json(
                request, {"id": match[2], "sha": REVISION, "siblings": siblings, "cardData": {"license": "cc0-1.0"}}
            )
        elif match[1] and match[3] == "tree":
            folder = match[5]
            send_json(request, entries(files, lambda name: name.startswith(folder)))
        elif match[1] and match[3] == "paths-info":
            asked = json.loads(body)["paths"]
            send_json(request, entries(files, lambda name: name in asked))
        elif match[3] == "resolve" and match[5] in files:
            self.send_file(request, files[match[5]], failure == "drop")
        else:
            send(request, 404, b"", {"X-Error-Code": "EntryNotFound"})

    def send_file(self, request: BaseHTTPRequestHandler, data: bytes, drop: bool) -> None:
        """Send a file or the range of it that was asked for; when dropping, close the connection halfway."""
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes"}
        status = 200
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", "")):
            start, stop = int(match[1]), min(int(match[2] or len(data)), len(data) - 1) + 1
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            data, status = data[start:stop], 206
        with self.lock:
            self.sent += len(data) if request.command == "GET" else 0
        send(request, status, data, headers, len(data) // 2 if drop else None)


def entries(files: dict[str, bytes], wanted: Callable[[str], bool]) -> list[dict[str, Any]]:
    """Files and folders as the hub's tree lists them."""
    folders = sorted({str(folder) for name in files for folder in PurePosixPath(name).parents} - {"."})
    return [
        {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        for name, data in files.items()
        if wanted(name)
    ] + [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in folders if wanted(name)]


def send_json(request: BaseHTTPRequestHandler, value: Any) -> None:
    """Answer with JSON."""
    send(request, 200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def send(
    request: BaseHTTPRequestHandler,
    status: int,
    data: bytes,
    headers: dict[str, str] | None = None,
    cut: int | None = None,
) -> None:
    """Answer; with `cut`, only so many bytes of the body, and then the end of the connection."""
    request.send_response(status)
    for key, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
        request.send_header(key, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(data[:cut])
    if cut is not None:
        request.close_connection = True
