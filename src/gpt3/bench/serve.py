"""``gpt3 bench serve``: clients that send requests all at once, to this server and its peers in turn, each in its own process."""

from __future__ import annotations

import json
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from gpt3.bench import harness
from gpt3.bench.generate import WORKER, make_models, make_prompts, matrix_values, require_llama_cpp
from gpt3.bench.harness import Case, Request, Result, System
from gpt3.errors import RunError, require
from gpt3.ladder.presets import Preset, preset
from gpt3.options import Options, option
from gpt3.serving.options import ServeOptions
from gpt3.tables import markdown

SHOWN = {
    "server": "gpt3 serve",
    "engine": "gpt3, engine alone",
    "one-at-a-time": "gpt3, one at a time",
    "transformers": "transformers, continuous batching",
    "llama.cpp": "llama.cpp's server",
}
PATHS = {"server": "/v1/completions", "llama.cpp": "/completion"}
"""Of the systems that speak HTTP."""
DEFAULT_CASES = ["125M:1x32", "125M:8x32", "125M:32x32", "17M:1x32", "17M:8x32", "17M:32x32"]
FORMATS = ("fp32", "int8", "int4")
WARM_UP = 4
"""Tokens of each request before the clock starts."""
ALONE = 4
"""Sequences that are generated one after another, at most; the speed does not depend on their number."""
PROBES = 7
"""First tokens that are timed one after another, on an idle server and on a busy one."""
BACKGROUND_TOKENS = 512
"""Length of the completions that keep a server busy; none ends while first tokens are timed."""


@dataclass(frozen=True)
class BenchServeOptions(Options):
    """Time a server under concurrent clients: this package's over HTTP, its engine alone, and its peers."""

    cases: list[str] = option([], group="Cases")
    """MODEL:CLIENTSxPROMPT, such as 125M:32x32; with several clients, 512 more tokens must fit the model. Default: 125M and
    17M at 1x32, 8x32 and 32x32."""
    new_tokens: int = option(64, least=2)
    """Tokens generated for each client."""
    formats: list[str] = option(["fp32", "int8"], choices=FORMATS)
    """Formats of the weights of gpt3 and llama.cpp (its int8 is q8_0, its int4 q4_0); transformers uses fp32."""
    transformers: bool = option(True, group="Peers")
    """Compare with transformers' continuous batching, without HTTP."""
    llama_cpp: bool = False
    """Compare with llama.cpp's server (package xllamacpp): same shape and weights, but dense layers and tanh GELU."""
    rounds: int = option(3, least=1, group="Measurement")
    """Times each system is started anew; they alternate."""
    threads: int | None = option(None, least=1)
    """Threads of each system; the clients share its cores. Default: as many as torch uses, the physical cores."""
    seed: int = 1337
    """Seed of the weights and the prompts."""
    json: bool = False
    """Print one JSON object with the times of each round instead of the table."""

    def errors(self) -> Iterator[str]:
        """What the ranges cannot express."""
        yield from harness.case_errors(self.cases, lambda case: longest(case, self.new_tokens))
        if not self.formats:
            yield f"--formats is empty. Choose from {', '.join(FORMATS)}"

    def systems(self) -> list[System]:
        """What is measured, in order of turn: those with one format next to each other."""
        names = ["server", "engine", "one-at-a-time", *(["llama.cpp"] if self.llama_cpp else [])]
        found = [System(name, weights) for weights in self.formats for name in names]
        return [*found, System("transformers")] if self.transformers else found


def longest(case: Case, new_tokens: int) -> int:
    """Tokens of the longest completion; a single client has none in the background."""
    return max(new_tokens, BACKGROUND_TOKENS if case.batch > 1 else 0)


def run(options: BenchServeOptions) -> None:
    """Measure every case and print.

    Raises:
        InputError: a package is not installed.
        RunError: a system fails; with its last lines of standard error.
    """
    for module in ("fastapi", "uvicorn"):
        require(module, extra="serve", purpose="the server")
    require_llama_cpp(options.llama_cpp)
    speeds = [harness.machine(threads=options.threads)]
    threads = speeds[0]["threads"]
    with tempfile.TemporaryDirectory() as folder:

        def measure_in(case: Case, system: System) -> dict[str, Any]:
            models = make_models(folder, case.model, options.seed, options.formats if options.llama_cpp else [])
            request = {"name": system.name, "weights": system.weights, "threads": threads, "seed": options.seed}
            return measure(models | request | make_request(case, options.seed, options.new_tokens))

        found = harness.alternate(
            [harness.parse_case(text) for text in options.cases or DEFAULT_CASES],
            options.systems(),
            options.rounds,
            measure_in,
            describe=lambda answer: f"{sum(answer['tokens']) / answer['total']:,.1f} tokens/s",
            after_round=lambda: speeds.append(harness.machine(threads=threads)),
        )
    flops = [one["gemm_flops"]["fp32"] for one in speeds]
    peak = statistics.median(flops)
    results = [summary(case, system, answers, options.new_tokens, peak) for (case, system), answers in found.items()]
    machine = {"threads": threads, "torch": speeds[0]["torch"], "gemm_flops": flops}
    line = f"cpu, {threads} threads (the clients' process shares their cores); torch {machine['torch']}; "
    line += f"fp32 GEMM at {peak / 1e9:,.0f} GFLOP/s; greedy, {options.new_tokens} new tokens per client"
    harness.print_results(options.json, machine, results, line, table(results))


def make_request(case: Case, seed: int, new_tokens: int) -> Request:
    """What systems and clients are asked in a case; all prompts begin differently."""
    count, half = case.batch, case.batch // 2
    probes = PROBES if half else 0
    prompts = iter(make_prompts(seed, case._replace(batch=2 * count + half + 2 * probes)))
    sizes = {"prompts": count, "warm": count, "background": half, "idle": probes, "busy": probes}
    parts = {part: [next(prompts) for _ in range(size)] for part, size in sizes.items()}
    return {"slots": count, "new_tokens": new_tokens, "longest": case.context + longest(case, new_tokens), **parts}


def measure(request: Request) -> dict[str, Any]:
    """One system once: a server with clients in a process of their own, or a system without HTTP.

    Raises:
        RunError: it fails, or a completion has the wrong length.
    """
    name = request["name"]
    asked = request | {"task": "generate", "name": "continuous-batching" if name == "transformers" else "gpt3"}
    if name in PATHS:
        asked |= {"task": "serve", "name": name, "clients": {"path": PATHS[name], **bodies(request)}}
    elif name != "transformers":
        asked["prompt_tokens"] = ServeOptions().prompt_tokens
    if name == "one-at-a-time":
        asked |= {"slots": 1, "prompts": request["prompts"][:ALONE]}
    answer = {"idle": [], "busy": []} | harness.call(WORKER, asked, SHOWN[name], threads=request["threads"])
    if name not in PATHS:
        answer["tokens"] = list(map(len, answer["tokens"]))
    if set(answer["tokens"]) != {request["new_tokens"]}:
        lengths = sorted(set(answer["tokens"]))
        raise RunError(f"{SHOWN[name]} generated {lengths} tokens per client instead of {request['new_tokens']}")
    return answer


def bodies(request: Request) -> dict[str, list[Request]]:
    """The clients' requests: streamed, greedy, each part with its number of new tokens."""
    counts = {"warm": WARM_UP, "prompts": request["new_tokens"], "background": BACKGROUND_TOKENS, "idle": 1, "busy": 1}
    limit, how = "max_tokens", {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    if request["name"] == "llama.cpp":
        limit = "n_predict"
        how = {"temperature": -1.0, "ignore_eos": True, "cache_prompt": False, "repeat_penalty": 1.0, "stream": True}
    return {part: [{"prompt": ids, limit: count, **how} for ids in request[part]] for part, count in counts.items()}


def needed_flops(shape: Preset, prompt: int, new_tokens: int) -> int:
    """Operations in products with weights for one sequence: blocks for each token but the last, the head for each new one."""
    head = shape.vocab_size * shape.d_model
    return 2 * (matrix_values(shape) - head) * (prompt + new_tokens - 1) + 2 * head * new_tokens


def per_cpu_second(answers: Sequence[dict[str, Any]]) -> float | None:
    """Tokens of a round over the median of the rounds' processor seconds; None where a round has none."""
    spent = [answer["cpu_seconds"] for answer in answers]
    return sum(answers[0]["tokens"]) / statistics.median(spent) if all(spent) else None


def summary(case: Case, system: System, answers: Sequence[dict[str, Any]], new_tokens: int, peak: float) -> Result:
    """All rounds of a system in a case; `peak` is the measured GEMM speed, FLOP/s."""
    clients, totals = len(answers[0]["tokens"]), [answer["total"] for answer in answers]
    every = {key: [value for answer in answers for value in answer[key]] for key in ("firsts", "idle", "busy")}
    needed = clients * needed_flops(preset(case.model), case.context, new_tokens)
    return {
        "case": str(case),
        "who": system.name,
        "weights": system.weights,
        "totals": totals,
        **harness.rates(clients * new_tokens, [[total] for total in totals]),
        "per_cpu_second": per_cpu_second(answers),
        "first": statistics.median(every["firsts"]),
        "last_first": statistics.median(max(answer["firsts"]) for answer in answers),
        "flops_share": needed / statistics.median(totals) / peak,
        "idle_first": statistics.median(every["idle"]) if every["idle"] else None,
        "busy_first": statistics.median(every["busy"]) if every["busy"] else None,
    }


def table(results: Sequence[Result]) -> str:
    """The results in Markdown. Ratios are gpt3's, in the same format; transformers is always in fp32."""
    headings = ["case", "system", "weights", "tokens/s (slowest-fastest round)", "of GEMM", "tokens per CPU s"]
    headings += ["first token, median (all)", "idle → half load", "× one client", "× engine", "× one at a time"]
    rows = []
    for r in results:
        case, alone, ratios = harness.parse_case(r["case"]), "", [""] * 4
        if case.batch > 1:
            alone = harness.times(r, results, r["who"], case=str(case._replace(batch=1)))
        if r["who"] == "server":
            ratios = [harness.times(r, results, name) for name in ("engine", "one-at-a-time")]
            ratios += [
                harness.times(r, results, "transformers", weights="fp32"),
                harness.times(r, results, "llama.cpp"),
            ]
        system = [r["case"], SHOWN[r["who"]], System(r["who"], r["weights"]).format, harness.rate_cell(r)]
        cpu = "" if r["per_cpu_second"] is None else f"{r['per_cpu_second']:,.1f}"
        first = f"{r['first'] * 1000:,.0f} ms ({r['last_first'] * 1000:,.0f})"
        idle, busy = r["idle_first"], r["busy_first"]
        loaded = f"{idle * 1000:,.0f} → {busy * 1000:,.0f} ms ({busy / idle:.2f})" if idle and busy else ""
        rows.append([*system, f"{r['flops_share']:.0%}", cpu, first, loaded, alone, *ratios])
    return markdown([*headings, "× transformers", "× llama.cpp"], rows)


def stream(address: str, path: str, body: Request, started: threading.Event) -> tuple[float, float, bytes]:
    """Send a request for server-sent events and read the whole answer, over a plain socket, since the clients use the same cores.

    Args:
        started: set with the first event, or when there is none.

    Returns:
        When the first and the last event arrived, by `time.perf_counter`, and the last event other than the end mark.

    Raises:
        RuntimeError: the answer is no stream.
    """
    host, _, port = address.removeprefix("http://").rpartition(":")
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    first = last = 0.0
    event = b""
    try:
        with socket.create_connection((host, int(port))) as connection, connection.makefile("rb") as lines:
            connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
            if b" 200 " not in (status := lines.readline()):
                raise RuntimeError((status + lines.read()).decode("utf-8", "replace"))
            for line in lines:
                if line.startswith(b"data: "):
                    last = time.perf_counter()
                    first = first or last
                    started.set()
                    event = line if not line.startswith(b"data: [DONE]") else event
    finally:
        started.set()  # also after an error, for those who wait
    return first, last, event


def token_count(event: bytes) -> int:
    """Tokens generated, as the server counts them in the last event of a stream."""
    found = json.loads(event.removeprefix(b"data: "))
    return int(found["tokens_predicted"] if "tokens_predicted" in found else found["usage"]["completion_tokens"])


def run_clients(request: Request) -> dict[str, Any]:
    """Warm the server up, send all requests at once, then time first tokens on the idle and the half-loaded server.

    Args:
        request: `address`, `path`, `process` (the server's id); lists of bodies: `warm`, `prompts`, `idle`, `busy`, and
            `background`, those completed while `busy` are timed.

    Returns:
        firsts, seconds to the first token of each prompt; total, seconds to the last of all; tokens of each; cpu_seconds of the
        server during it, or None; idle, busy: seconds to the first token of each.

    Raises:
        RuntimeError: a background completion ended before the last first token.
    """

    def send(body: Request, started: threading.Event | None = None) -> tuple[float, float, bytes]:
        return stream(request["address"], request["path"], body, started or threading.Event())

    def first_token(body: Request) -> float:
        began = time.perf_counter()
        return send(body)[0] - began

    with ThreadPoolExecutor(len(request["prompts"])) as pool:
        list(pool.map(send, request["warm"]))
        before, began = harness.cpu_seconds(request["process"]), time.perf_counter()
        firsts, lasts, events = zip(*pool.map(send, request["prompts"]), strict=True)
        after = harness.cpu_seconds(request["process"])
    idle = [first_token(body) for body in request["idle"]]
    others = []
    for body in request["background"]:
        started = threading.Event()
        others.append(threading.Thread(target=send, args=(body, started), daemon=True))
        others[-1].start()
        started.wait()
    busy = [first_token(body) for body in request["busy"]]
    if not all(thread.is_alive() for thread in others):
        raise RuntimeError("a background completion ended before the last first token was timed")
    return {
        "firsts": [first - began for first in firsts],
        "total": max(lasts) - began,
        "tokens": [token_count(event) for event in events],
        "cpu_seconds": None if after is None or before is None else after - before,
        "idle": idle,
        "busy": busy,
    }


if __name__ == "__main__":  # the clients' process
    harness.answer_request(run_clients)
