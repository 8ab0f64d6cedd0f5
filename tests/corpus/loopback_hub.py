"""A Hugging Face hub on 127.0.0.1: as much of it as streaming a dataset asks for, with failures on order.

`HF_ENDPOINT` must point at it before `datasets` is imported, so what reads from it runs in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"

Failure = Callable[[str, str, int], str | int | None]
"""(method, path, number of the request for this path) → a status to answer, "drop" to cut the body in half, None: serve."""


class LoopbackHub:
    """Serves one dataset repository. A context manager; `endpoint` is its address, `requests` what was asked."""

    def __init__(self, repository: str, files: dict[str, bytes], failure: Failure | None = None) -> None:
        self.repository, self.files, self.failure = repository, files, failure
        self.requests: list[tuple[str, str]] = []
        self.failed = 0
        self.counts: dict[str, int] = {}
        self.lock = threading.Lock()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                hub.answer(self, unquote(urlsplit(self.path).path), body)

            do_GET = do_HEAD = do_POST = answer  # noqa: N815

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> LoopbackHub:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, path: str, body: bytes) -> None:
        """Answer one request, or fail as ordered."""
        with self.lock:
            self.requests.append((request.command, path))
            self.counts[path] = self.counts.get(path, 0) + 1
            failure = self.failure(request.command, path, self.counts[path]) if self.failure else None
            self.failed += failure is not None
        if isinstance(failure, int):
            send(request, failure, b"ordered failure")
            return
        api, resolve = f"/api/datasets/{self.repository}", f"/datasets/{self.repository}/resolve/"
        if path == api or re.fullmatch(api + r"/revision/[^/]+", path):
            siblings = [{"rfilename": name} for name in self.files]
            card = {"license": "cc0-1.0"}
            send_json(request, {"id": self.repository, "sha": REVISION, "siblings": siblings, "cardData": card})
        elif path.startswith(api + "/tree/"):
            folder = path.removeprefix(api + "/tree/").partition("/")[2]
            send_json(request, self.entries(lambda name: name.startswith(folder)))
        elif path.startswith(api + "/paths-info/"):
            asked = json.loads(body)["paths"]
            send_json(request, self.entries(lambda name: name in asked))
        elif path.startswith(resolve) and path.removeprefix(resolve).partition("/")[2] in self.files:
            self.send_file(request, path.removeprefix(resolve).partition("/")[2], failure == "drop")
        else:
            send(request, 404, b"", {"X-Error-Code": "EntryNotFound" if path.startswith(resolve) else "RepoNotFound"})

    def entries(self, wanted: Callable[[str], bool]) -> list[dict[str, Any]]:
        """Files and folders as the hub's tree lists them."""
        found = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in self.files.items()
            if wanted(name)
        ]
        folders = sorted({name.rpartition("/")[0] for name in self.files} - {""})
        return found + [
            {"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in folders if wanted(name)
        ]

    def send_file(self, request: BaseHTTPRequestHandler, name: str, drop: bool) -> None:
        """Send a file or the range of it that was asked for; when dropping, close the connection halfway."""
        data = self.files[name]
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes"}
        status = 200
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", "")):
            start, stop = int(match[1]), min(int(match[2] or len(data)), len(data) - 1) + 1
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            data, status = data[start:stop], 206
        send(request, status, data, headers, len(data) // 2 if drop else None)


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
