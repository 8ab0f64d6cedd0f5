"""Clients that behave badly, for minutes: ``python benchmarks/serve_load.py [--seconds 120] [--clients 64] [--model FOLDER …]``.

A server in a process of its own (a tiny random model unless some are given) is asked by many clients at once. Each draws what it
does next: a completion, a stream, going away at a random moment, malformed JSON, a body that is too large, a prompt that is
scored, more tokens than the context has. It fails (exit code 1) if an answer is of another kind than the request deserves (a 5xx
is), if a stream is neither complete nor cleanly ended, if memory grows, or if a slot is still taken at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from gpt3.bench.generate import make_models

KINDS = ["json", "stream", "stream", "leave", "leave the stream", "malformed", "too large", "score", "too long"]
DESERVED = {
    "json": {200, 429},
    "stream": {200, 429},
    "malformed": {400},
    "too large": {413},
    "score": {200, 429},
    "too long": {400},
}
MAX_BODY = 200_000
QUEUE = 40
GROWTH = 1.1
"""Resident memory at the end over that of the first quarter's end, at most."""


@dataclass
class Tally:
    """What came back."""

    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By kind of request and status; `left` where the client did not wait."""
    faults: list[str] = field(default_factory=list)
    """What should not have happened."""


async def exchange(address: tuple[str, int], data: bytes, leave_after: float | None) -> bytes | None:
    """Send a request, read the whole answer; or go away after some seconds (None)."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode() + data)
        if leave_after is not None:
            await asyncio.sleep(leave_after)
            return None
        return await asyncio.wait_for(reader.read(), 120)
    finally:
        writer.close()


def body_of(kind: str, chance: random.Random, models: list[str]) -> bytes:
    """A request of this kind to one of the models."""
    model = chance.choice(models)
    body: dict[str, object] = {
        "model": model,
        "prompt": "word " * chance.randint(1, 30),
        "max_tokens": chance.randint(1, 40),
        "n": chance.choice([1, 1, 2, 4]),
    }
    if "stream" in kind:
        body["stream"] = True
    if kind == "score":
        body = {"model": model, "prompt": "word " * 50, "max_tokens": 0, "echo": True, "logprobs": 2}
    if kind == "too long":
        body["max_tokens"] = 10**6
    data = json.dumps(body).encode()
    if kind == "malformed":
        return data[: len(data) // 2]
    return data if kind != "too large" else b" " * (2 * MAX_BODY)


def judge(kind: str, answer: bytes, tally: Tally) -> int:
    """Note an answer; returns its status."""
    head, _, content = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    tally.answers[kind, str(status or "none")] += 1
    if status not in DESERVED[kind]:
        tally.faults.append(f"{kind}: {answer[:200]!r}")
    elif kind == "stream" and status == 200 and (b"data: [DONE]" not in content or b'"error"' in content):
        tally.faults.append(f"a stream that ended with {content[-200:]!r}")
    return status


async def client(address: tuple[str, int], models: list[str], chance: random.Random, end: float, tally: Tally) -> None:
    """One thing after another until the time is over."""
    while time.monotonic() < end:
        kind = chance.choice(KINDS)
        leave_after = chance.random() / 2 if kind.startswith("leave") else None
        try:
            answer = await exchange(address, body_of(kind, chance, models), leave_after)
        except (OSError, TimeoutError, asyncio.TimeoutError) as error:
            tally.faults.append(f"{kind}: {error!r}")
            continue
        if answer is None:
            tally.answers[kind, "left"] += 1
        elif judge(kind, answer, tally) == 429:
            await asyncio.sleep(0.2)


async def get(address: tuple[str, int], path: str) -> str:
    """What is at a path, its head included."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    return text


async def metrics(address: tuple[str, int]) -> dict[str, float]:
    """The server's counters without labels."""
    text = await get(address, "/metrics")
    lines = [line.split(" ") for line in text.splitlines() if line.startswith("gpt3_") and "{" not in line]
    return {name: float(value) for name, value in lines}


def resident(pid: int) -> int | None:
    """Bytes a process has in memory; None where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


async def load(
    pid: int, address: tuple[str, int], clients: int, seconds: float, seed: int
) -> tuple[Tally, list[int | None]]:
    """Clients for so many seconds; what came back, and the server's memory after each quarter of the time."""
    tally, memory = Tally(), []
    models = [model["id"] for model in json.loads((await get(address, "/v1/models")).partition("\r\n\r\n")[2])["data"]]
    for quarter in range(4):
        end = time.monotonic() + seconds / 4
        everyone = (client(address, models, random.Random(f"{seed} {quarter} {k}"), end, tally) for k in range(clients))
        await asyncio.gather(*everyone)
        memory.append(resident(pid))
    for _ in range(200):  # what was left is dropped at the next step
        found = await metrics(address)
        if not (found["gpt3_texts_running"] or found["gpt3_requests_waiting"]):
            break
        await asyncio.sleep(0.05)
    else:
        tally.faults.append(f"slots are still taken: {found}")
    if memory[0] and memory[-1] and memory[-1] > GROWTH * memory[0]:
        tally.faults.append(f"memory grew from {memory[0]:,} to {memory[-1]:,} bytes")
    print(
        f"{found['gpt3_completion_tokens_total']:,.0f} tokens written, {found['gpt3_cancelled_total']:,.0f} requests dropped"
    )
    return tally, memory


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--model", nargs="+", help="model folders; default: a tiny random one")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = asked.model or [make_models(folder, "demo", seed=0)["model"]]
        options = ["--port", "0", "--queue", str(QUEUE), "--max-body", str(MAX_BODY)]
        command = [sys.executable, "-m", "gpt3", "serve", *models, *options]
        log = Path(folder) / "server.log"
        with log.open("w") as said:
            server = subprocess.Popen(command, stderr=said)
        try:
            while " ready (" not in (text := log.read_text()):
                if server.poll() is not None:
                    raise SystemExit(f"the server did not start: {text}")
                time.sleep(0.1)
            port = int(text.partition("Playground http://127.0.0.1:")[2].partition("/")[0])
            began = resident(server.pid)
            tally, memory = asyncio.run(load(server.pid, ("127.0.0.1", port), asked.clients, asked.seconds, asked.seed))
        finally:
            server.terminate()
            code = server.wait(60)
        more = log.read_text().partition("/docs")[2].strip()
    if code or more:
        tally.faults.append(f"the server ended with {code} and said: {more[-500:]}")
    print("\n| request | answers |\n|---|---|")
    for kind in dict.fromkeys(KINDS):
        counts = ", ".join(f"{n:,} × {status}" for (name, status), n in sorted(tally.answers.items()) if name == kind)
        print(f"| {kind} | {counts} |")
    sizes = " → ".join("?" if size is None else f"{size / 1e6:.1f}" for size in [began, *memory])
    print(f"\n{asked.clients} clients, {asked.seconds:g} s; resident MB before and after each quarter: {sizes}")
    print("\n".join(tally.faults[:20]) if tally.faults else "no fault")
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
