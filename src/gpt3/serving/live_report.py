"""The report of runs over HTTP, drawn anew while they train."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from gpt3.errors import InputError
from gpt3.report.page import live_page
from gpt3.report.run_folder import FINAL_MODEL, METRICS, SAMPLES
from gpt3.serving.host import is_local

SECONDS = 5
"""How often an open page asks whether there is something new."""


def report_server(runs: Sequence[Path], listening: socket.socket) -> ThreadingHTTPServer:
    """A server of the page of run folders at a socket. It answers this machine's browsers only."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """The page."""
            try:
                self._answer(200, "text/html", live_page(runs, SECONDS, state(runs)).encode())
            except InputError as error:  # such as a run that was removed; another may begin under its name
                self._answer(500, "text/plain", str(error).encode(), {"Refresh": str(SECONDS)})

        def do_HEAD(self) -> None:
            """Its state, as the ETag."""
            self._answer(200, "text/html", b"")

        def _answer(self, status: int, kind: str, body: bytes, further: dict[str, str] | None = None) -> None:
            if not is_local(self.headers.get("host", "")):  # a foreign web page can point its name here
                status, kind, body = 403, "text/plain", b"This page is for this machine only: ask for it as 127.0.0.1."
            elif self.path != "/":
                status, kind, body = 404, "text/plain", b"The page is at /."
            self.send_response(status)
            headers = {"Content-Type": f"{kind}; charset=utf-8", "ETag": state(runs), "Cache-Control": "no-store"}
            for name, value in (headers | {"X-Content-Type-Options": "nosniff"} | (further or {})).items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the browser has left
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the terminal is for other things."""

    server = ThreadingHTTPServer(listening.getsockname()[:2], Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    return server


def state(runs: Sequence[Path]) -> str:
    """Another text whenever a run has written something."""
    seen = []
    for run in runs:
        for name in (METRICS, SAMPLES, FINAL_MODEL):
            with contextlib.suppress(OSError):
                found = (run / name).stat()
                seen.append((str(run), name, found.st_mtime_ns, found.st_size))
    return f'"{hashlib.sha256(repr(seen).encode()).hexdigest()[:16]}"'
