"""Clients that behave badly, for minutes: ``python benchmarks/serve_load.py [--seconds 120] [--clients 64] [--model FOLDER …]``.

Many clients at once send requests to a server in a process of its own (with a tiny random model unless some are given). Each
chooses at random: a completion, a stream, leaving at a random moment, malformed JSON, a body that is too large, a prompt to
score, more tokens than the context has. It fails (exit code 1) if an answer has the wrong status (such as a 5xx), if a stream
is neither complete nor cleanly ended, if memory grows, or if a slot is still in use at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from gpt3.bench.generate import make_models
from gpt3.tables import markdown

KINDS = ["json", "stream", "stream", "leave", "leave the stream", "malformed", "too large", "score", "too long"]
EXPECTED = {
    "json": {200, 429},
    "stream": {200, 429},
    "malformed": {400},
    "too large": {413},
    "score": {200, 429},
    "too long": {400},
}
"""Statuses by kind of request; those that leave do not wait for one."""
MAX_BODY = 200_000
GROWTH = 1.1
"""Most resident memory at the end, relative to the end of the first quarter."""
Address = tuple[str, int]
Outcome = tuple[str, str, str]
"""Kind of request, status (or `left`), and what is wrong with the answer."""


def exchange(address: Address, data: bytes, leave_after: float | None) -> bytes | None:
    """Send a request and read the whole answer; or leave after some seconds (None)."""
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
    with socket.create_connection(address, timeout=120) as connection, connection.makefile("rb") as answer:
        with suppress(BrokenPipeError, ConnectionResetError):  # a body that is too large is not read to its end
            connection.sendall(f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode() + data)
        if leave_after is not None:
            time.sleep(leave_after)
            return None
        return answer.read()


def body_of(kind: str, chance: random.Random, model: str) -> bytes:
    """A request of this kind."""
    prompt, tokens, samples = "word " * chance.randint(1, 30), chance.randint(1, 40), chance.choice([1, 1, 2, 4])
    body: dict[str, object] = {"model": model, "prompt": prompt, "max_tokens": tokens, "n": samples}
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


def judge(kind: str, answer: bytes) -> Outcome:
    head, _, content = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    fault = "" if status in EXPECTED[kind] else f"{kind}: {answer[:200]!r}"
    if kind == "stream" and status == 200 and (b"data: [DONE]" not in content or b'"error"' in content):
        fault = f"a stream that ended with {content[-200:]!r}"
    return kind, str(status or "none"), fault


def client(address: Address, models: list[str], chance: random.Random, end: float) -> list[Outcome]:
    """One request after another until the time is over."""
    outcomes: list[Outcome] = []
    while time.monotonic() < end:
        kind = chance.choice(KINDS)
        leave_after = chance.random() / 2 if kind.startswith("leave") else None
        try:
            answer = exchange(address, body_of(kind, chance, chance.choice(models)), leave_after)
        except OSError as error:
            outcomes.append((kind, "none", f"{kind}: {error!r}"))
            continue
        outcomes.append((kind, "left", "") if answer is None else judge(kind, answer))
        if outcomes[-1][1] == "429":
            time.sleep(0.2)
    return outcomes


def get(address: Address, path: str) -> str:
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}{path}", timeout=120) as answer:
        return answer.read().decode()


def metrics(address: Address) -> dict[str, float]:
    """The server's counters without labels."""
    lines = [line.split(" ") for line in get(address, "/metrics").splitlines() if line.startswith("gpt3_")]
    return {name: float(value) for name, value in lines if "{" not in name}


def resident(pid: int) -> int | None:
    """Bytes of a process in memory; None where the system does not report it."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def load(pid: int, address: Address, clients: int, seconds: float, seed: int) -> tuple[list[Outcome], list[str]]:
    """Run the clients. Returns the outcomes, and what is wrong with the server afterwards."""
    outcomes: list[Outcome] = []
    faults, memory = [], [resident(pid)]
    models = [model["id"] for model in json.loads(get(address, "/v1/models"))["data"]]
    with ThreadPoolExecutor(clients) as pool:
        for quarter in range(4):
            chances = [random.Random(f"{seed} {quarter} {number}") for number in range(clients)]
            end = time.monotonic() + seconds / 4
            for found in pool.map(lambda chance, end=end: client(address, models, chance, end), chances):
                outcomes += found
            memory.append(resident(pid))
    for _ in range(200):  # requests whose clients left are dropped at the next step
        found = metrics(address)
        if not (found["gpt3_texts_running"] or found["gpt3_requests_waiting"]):
            break
        time.sleep(0.05)
    else:
        faults.append(f"slots are still in use: {found}")
    if memory[1] and memory[-1] and memory[-1] > GROWTH * memory[1]:
        faults.append(f"memory grew from {memory[1]:,} to {memory[-1]:,} bytes")
    tokens, dropped = found["gpt3_completion_tokens_total"], found["gpt3_cancelled_total"]
    print(f"{tokens:,.0f} tokens generated, {dropped:,.0f} requests dropped")
    sizes = " → ".join("?" if size is None else f"{size / 1e6:.1f}" for size in memory)
    print(f"{clients} clients, {seconds:g} s; resident MB before and after each quarter: {sizes}")
    return outcomes, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--model", nargs="+", help="model folders; default: a tiny random one")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = arguments.model or [make_models(folder, "demo", seed=0)["model"]]
        command = [sys.executable, "-m", "gpt3", "serve", *models, "--port", "0", "--queue", "40"]
        log = Path(folder) / "server.log"
        with log.open("w") as stderr:
            server = subprocess.Popen([*command, "--max-body", str(MAX_BODY)], stderr=stderr)
        try:
            while " ready (" not in (text := log.read_text()):
                if server.poll() is not None:
                    raise SystemExit(f"the server did not start: {text}")
                time.sleep(0.1)
            port = int(text.partition("Playground http://127.0.0.1:")[2].partition("/")[0])
            run = arguments.clients, arguments.seconds, arguments.seed
            outcomes, faults = load(server.pid, ("127.0.0.1", port), *run)
        finally:
            server.terminate()
            code = server.wait(60)
        more = log.read_text().partition("/docs")[2].strip()
    if code or more:
        faults.append(f"the server ended with {code} and printed: {more[-500:]}")
    counts = Counter((kind, status) for kind, status, _ in outcomes)
    rows = [
        [kind, ", ".join(f"{n:,} × {status}" for (name, status), n in sorted(counts.items()) if name == kind)]
        for kind in dict.fromkeys(KINDS)
    ]
    print(f"\n{markdown(['request', 'answers'], rows)}\n")
    faults += [fault for _, _, fault in outcomes if fault]
    print("\n".join(faults[:20]) or "no fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
