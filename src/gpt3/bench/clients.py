"""The clients of the serving benchmark, in a process of their own: ``python clients.py REQUEST.json`` prints times as JSON.

They speak HTTP over plain sockets and look at no more of an answer than they must, since they share the server's cores.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

EVENT = b"data: "
PROBES = 7
"""First tokens that are timed, one after another, on an idle server and on a busy one."""


class Client:
    """One request for a stream of server-sent events.

    Attributes:
        first, last: when its first and its newest event came, by `time.perf_counter`.
        written: the last event that was no end mark.
        spoke: set with the first event, or when it has ended without one.
    """

    def __init__(self, address: str, path: str, body: dict[str, Any]) -> None:
        host, _, port = address.removeprefix("http://").rpartition(":")
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        self.host, self.port = host, int(port)
        self.request = f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data
        self.first = self.last = 0.0
        self.written = b""
        self.spoke = asyncio.Event()

    async def ask(self) -> None:
        """Send it and read all of the answer.

        Raises:
            RuntimeError: the answer is no stream.
        """
        reader, writer = await asyncio.open_connection(self.host, self.port, limit=1 << 20)
        try:
            writer.write(self.request)
            status = await reader.readline()
            if b" 200 " not in status:
                raise RuntimeError((status + await reader.read()).decode("utf-8", "replace"))
            async for line in reader:
                if line.startswith(EVENT):
                    self.last = time.perf_counter()
                    if not self.spoke.is_set():
                        self.first = self.last
                        self.spoke.set()
                    if not line.startswith(b"data: [DONE]"):
                        self.written = line
        finally:
            self.spoke.set()  # or it never will
            writer.close()

    @property
    def tokens(self) -> int:
        """Tokens that were written, as the server counts them in its last event."""
        event = json.loads(self.written.removeprefix(EVENT))
        if "tokens_predicted" in event:  # llama.cpp
            return int(event["tokens_predicted"])
        return int(event["usage"]["completion_tokens"])


def cpu_seconds(process: int) -> float | None:
    """Processor seconds another process has spent, all threads together; None where the system does not say (all but Linux)."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return None


async def burst(address: str, path: str, bodies: list[dict[str, Any]]) -> dict[str, Any]:
    """All ask at once.

    Returns:
        `firsts`: seconds to each one's first token; `total`: to the last token of all; `tokens`: of each.
    """
    clients = [Client(address, path, body) for body in bodies]
    began = time.perf_counter()
    await asyncio.gather(*(client.ask() for client in clients))
    return {
        "firsts": [client.first - began for client in clients],
        "total": max(client.last for client in clients) - began,
        "tokens": [client.tokens for client in clients],
    }


async def first_tokens(address: str, path: str, probes: list[dict[str, Any]]) -> list[float]:
    """Seconds to the first token of each of these requests, one after another."""
    seconds = []
    for body in probes:
        client = Client(address, path, body)
        began = time.perf_counter()
        await client.ask()
        seconds.append(client.first - began)
    return seconds


async def first_tokens_beside(
    address: str, path: str, probes: list[dict[str, Any]], background: list[dict[str, Any]]
) -> list[float]:
    """The same while others are written to."""
    others = [Client(address, path, body) for body in background]
    tasks = [asyncio.create_task(other.ask()) for other in others]
    try:
        await asyncio.gather(*(other.spoke.wait() for other in others))
        seconds = await first_tokens(address, path, probes)
        if ended := [task for task in tasks if task.done()]:
            raise RuntimeError(f"{len(ended)} of {len(tasks)} texts beside ended too early ({ended[0].exception()})")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return seconds


async def timed(request: dict[str, Any]) -> dict[str, Any]:
    """Warm the server up, let all clients ask at once, then time first tokens on the idle and the half-loaded server.

    Args:
        request: `address`, `path`, `process` (the server's number); lists of bodies: `warm`, `bodies`, `idle`, `busy`, and
            `background`, those that are written to while `busy` are timed. Without `background` neither is timed.

    Returns:
        firsts, total, tokens (see `burst`), cpu_seconds of the server meanwhile, or None; idle, busy: seconds, or empty.
    """
    where = request["address"], request["path"]
    await burst(*where, request["warm"])
    spent = cpu_seconds(request["process"])
    found = await burst(*where, request["bodies"])
    now = cpu_seconds(request["process"])
    found["cpu_seconds"] = None if now is None or spent is None else now - spent
    if not request["background"]:
        return {**found, "idle": [], "busy": []}
    idle = await first_tokens(*where, request["idle"])
    return {**found, "idle": idle, "busy": await first_tokens_beside(*where, request["busy"], request["background"])}


if __name__ == "__main__":
    sys.path.pop(0)
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print("\n" + json.dumps(asyncio.run(timed(asked))))
