"""``gpt3 bench serve``: clients ask this server and its peers all at once; the same weights, taking turns, a process each."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3.bench import clients, generators, servers
from gpt3.bench.generate import make_models, make_prompts, matrix_values
from gpt3.bench.generate_options import Contender
from gpt3.bench.options import Case, parse_case
from gpt3.bench.process import call
from gpt3.bench.serve_options import BACKGROUND_TOKENS, BenchServeOptions
from gpt3.errors import InputError, RunError
from gpt3.ladder.presets import Preset, preset
from gpt3.progress import say

SHOWN = {
    "server": "gpt3 serve",
    "engine": "gpt3, engine alone",
    "one-at-a-time": "gpt3, one at a time",
    "transformers": "transformers, continuous batching",
    "llama.cpp": "llama.cpp's server",
}
DEFAULT_CASES = ["125M:1x32", "125M:8x32", "125M:32x32", "17M:1x32", "17M:8x32", "17M:32x32"]
PATHS = {"server": "/v1/completions", "llama.cpp": "/completion"}


@dataclass(frozen=True)
class Result:
    """One contender in one case, over all rounds."""

    case: str
    who: str
    weights: str
    """Their format."""
    totals: list[float]
    """Seconds from the requests to the last token of all, a number a round."""
    tokens_per_s: float
    """Written to all clients together, reading the prompts included, at the median round."""
    slowest: float
    """Tokens/s of the slowest round."""
    fastest: float
    """Tokens/s of the fastest round."""
    per_cpu_second: float | None
    """Tokens of the median round's processor seconds, the clients' left out: tells what a server costs on a busy machine, too, if
    it has one thread. None if the system does not say."""
    first: float
    """Seconds to the first token: the median of all clients and rounds."""
    last_first: float
    """Seconds until every client had its first token, at the median round."""
    flops_share: float
    """Products with weights that prompts and texts need, over a plain fp32 matrix product's speed in this run."""
    idle_first: float | None
    """Seconds to the first token of a request that is alone: median. None: not a server, or one client."""
    busy_first: float | None
    """The same while half of the slots write other texts."""


def run(options: BenchServeOptions) -> int:
    """Measure and print. Returns the exit code."""
    machine, results = bench_serve(options)
    if options.json:
        rows = [dataclasses.asdict(result) for result in results]
        print(json.dumps({"machine": machine, "results": rows}, indent=2))
        return 0
    speed = f"fp32 GEMM at {statistics.median(machine['gemm_flops']) / 1e9:,.0f} GFLOP/s"
    shared = "the clients' process shares their cores"
    print(f"\ncpu, {machine['threads']} threads ({shared}); torch {machine['torch']}; {speed}; greedy, ", end="")
    print(f"{options.new_tokens} new tokens a client\n\n{table(results)}")
    return 0


def bench_serve(options: BenchServeOptions) -> tuple[dict[str, Any], list[Result]]:
    """Every case.

    Returns:
        the machine (threads, speed of matrix products before each case and after the last), and the results.

    Raises:
        InputError: a contender that is not here.
        RunError: a contender fails; with the last lines it said.
    """
    needs = [("fastapi", "serve"), ("uvicorn", "serve")]
    needs += [("xllamacpp", "llama-cpp"), ("gguf", "export")] if options.llama_cpp else []
    for module, extra in needs:
        if importlib.util.find_spec(module) is None:
            raise InputError(f"gpt3 bench serve needs {module}; install it with: pip install 'gpt3[{extra}]'")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ask = {"name": "machine", "threads": options.threads}
        first = call(generators.__file__, ask, folder, "the machine", threads=options.threads)
        threads, flops = first["threads"], [first["gemm_flops"]]
        answers: dict[tuple[Case, Contender], list[dict[str, Any]]] = {}
        for case in [parse_case(text) for text in options.cases or DEFAULT_CASES]:
            models = make_models(folder, case.model, options.seed, options.formats if options.llama_cpp else [])
            for turn in range(options.rounds):
                for one in options.contenders():
                    request = models | make_request(case, one, options.seed, options.new_tokens) | {"threads": threads}
                    answer = measure(request, folder)
                    answers.setdefault((case, one), []).append(answer)
                    pace = sum(answer["tokens"]) / answer["total"]
                    about = f"{case}, round {turn + 1} of {options.rounds}: {SHOWN[one.who]} {one.weights}"
                    spent = per_cpu_second([answer])
                    told = "" if spent is None else f", {spent:,.1f} per CPU s"
                    say(f"{about} {pace:,.1f} tokens/s{told}")
            flops.append(call(generators.__file__, ask, folder, "the machine", threads=threads)["gemm_flops"])
    peak = statistics.median(flops)
    results = [summary(case, one, found, options.new_tokens, peak) for (case, one), found in answers.items()]
    return {"threads": threads, "torch": first["torch"], "gemm_flops": flops}, results


def make_request(case: Case, one: Contender, seed: int, new_tokens: int) -> dict[str, Any]:
    """What a contender and its clients are told; no two prompts begin alike."""
    count, half = case.batch, case.batch // 2
    probes = clients.PROBES if half else 0
    prompts = make_prompts(seed, dataclasses.replace(case, batch=2 * count + half + 2 * probes))
    parts = {"prompts": count, "warm": count, "background": half, "idle": probes, "busy": probes}
    found: dict[str, list[list[int]]] = {}
    for name, size in parts.items():
        found[name], prompts = prompts[:size], prompts[size:]
    return {
        "name": one.who, "weights": one.weights, "clients": count, "prompt": case.context, "new_tokens": new_tokens,
        "longest": case.context + max(new_tokens, BACKGROUND_TOKENS if half else 0), **found,
    }  # fmt: skip


def measure(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One contender once: a server and its clients in two processes, or all in one.

    Raises:
        RunError: it fails, or a text has another length than was asked for.
    """
    name, threads = request["name"], request["threads"]
    if name in PATHS:
        counts = {"prompts": request["new_tokens"], "background": BACKGROUND_TOKENS, "idle": 1, "busy": 1}
        counts["warm"] = generators.WARM_UP
        bodies = {part: [body_of(name, ids, count) for ids in request[part]] for part, count in counts.items()}
        bodies["bodies"] = bodies.pop("prompts")
        with serving(request, folder) as (address, process):
            asked = {"address": address, "path": PATHS[name], "process": process, **bodies}
            answer = call(clients.__file__, asked, folder, f"asking {SHOWN[name]}", threads=1)
    else:
        answer = call(servers.__file__, request, folder, SHOWN[name], threads=threads)
    if set(answer["tokens"]) != {request["new_tokens"]}:
        found = sorted(set(answer["tokens"]))
        raise RunError(f"{SHOWN[name]} wrote {found} tokens, {request['new_tokens']} were asked for")
    return answer


def body_of(name: str, ids: list[int], count: int) -> dict[str, Any]:
    """A streamed request for `count` greedy tokens."""
    if name == "llama.cpp":
        how = {"temperature": -1.0, "ignore_eos": True, "cache_prompt": False, "repeat_penalty": 1.0}
        return {"prompt": ids, "n_predict": count, "stream": True, **how}
    wishes = {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    return {"prompt": ids, "max_tokens": count, **wishes}


@contextmanager
def serving(request: dict[str, Any], folder: Path) -> Iterator[tuple[str, int]]:
    """Address and process number of a contender's server, which runs meanwhile.

    Raises:
        RunError: it does not start; with the last lines it said.
    """
    path, log = folder / "server.json", folder / "server.log"
    path.write_text(json.dumps(request), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": str(request["threads"])}
    with log.open("w", encoding="utf-8") as said:
        process = subprocess.Popen(
            [sys.executable, servers.__file__, str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True, env=environment,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdout, process.stdin:
            try:
                address = process.stdout.readline().strip()
                if not address:
                    process.wait()
                    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
                    raise RunError(f"{SHOWN[request['name']]} failed: {' | '.join(last)}")
                yield address, process.pid
            finally:
                process.stdin.close()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def needed_flops(shape: Preset, prompt: int, new_tokens: int) -> int:
    """Operations in products with weights for one text: blocks for each token but the last, the head for each new one."""
    head = shape.vocab_size * shape.d_model
    return 2 * (matrix_values(shape) - head) * (prompt + new_tokens - 1) + 2 * head * new_tokens


def per_cpu_second(answers: Sequence[dict[str, Any]]) -> float | None:
    """Tokens of a round over the median of the rounds' processor seconds; None where a round has none."""
    spent = [answer["cpu_seconds"] for answer in answers]
    return sum(answers[0]["tokens"]) / statistics.median(spent) if all(spent) else None


def summary(case: Case, one: Contender, answers: Sequence[dict[str, Any]], new_tokens: int, peak: float) -> Result:
    """A contender's rounds as one result; `peak` is the measured GEMM speed, FLOP/s."""
    texts, totals = len(answers[0]["tokens"]), [answer["total"] for answer in answers]
    paces = [sum(answer["tokens"]) / answer["total"] for answer in answers]
    seconds = statistics.median(totals)
    every = {key: [value for answer in answers for value in answer[key]] for key in ("firsts", "idle", "busy")}
    return Result(
        case=str(case),
        who=one.who,
        weights=one.weights,
        totals=totals,
        tokens_per_s=texts * new_tokens / seconds,
        slowest=min(paces),
        fastest=max(paces),
        per_cpu_second=per_cpu_second(answers),
        first=statistics.median(every["firsts"]),
        last_first=statistics.median(max(answer["firsts"]) for answer in answers),
        flops_share=texts * needed_flops(preset(case.model), case.context, new_tokens) / seconds / peak,
        idle_first=statistics.median(every["idle"]) if every["idle"] else None,
        busy_first=statistics.median(every["busy"]) if every["busy"] else None,
    )


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table. Ratios are this package's, in the same format; transformers is in fp32 always."""
    pace = {(r.case, r.who, r.weights): r.tokens_per_s for r in results}
    lines = [
        "| case | who | weights | tokens/s (slowest-fastest round) | of GEMM | tokens per CPU s "
        "| first token, median (all) | idle → half load | × one client | × engine | × one at a time | × transformers "
        "| × llama.cpp |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        alone = next(
            (
                other.tokens_per_s
                for other in results
                if (other.who, other.weights) == (r.who, r.weights)
                and parse_case(other.case) == dataclasses.replace(parse_case(r.case), batch=1)
            ),
            None,
        )
        against = [alone if alone != r.tokens_per_s else None]
        if r.who == "server":
            others = [
                ("engine", r.weights),
                ("one-at-a-time", r.weights),
                ("transformers", "fp32"),
                ("llama.cpp", r.weights),
            ]
            against += [pace.get((r.case, *other)) for other in others]
        ratios = [f"{r.tokens_per_s / other:.2f}" if other else "" for other in against]
        cells = [
            r.case,
            SHOWN[r.who],
            "q8_0" if (r.who, r.weights) == ("llama.cpp", "int8") else r.weights,
            f"{r.tokens_per_s:,.1f} ({r.slowest:,.1f}-{r.fastest:,.1f})",
            f"{r.flops_share:.0%}",
            "" if r.per_cpu_second is None else f"{r.per_cpu_second:,.1f}",
            f"{r.first * 1000:,.0f} ms ({r.last_first * 1000:,.0f})",
            f"{r.idle_first * 1000:,.0f} → {r.busy_first * 1000:,.0f} ms ({r.busy_first / r.idle_first:.2f})"
            if r.idle_first and r.busy_first
            else "",
            *ratios,
            *[""] * (5 - len(ratios)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
