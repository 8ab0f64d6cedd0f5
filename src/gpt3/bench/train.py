"""``gpt3 bench train``: whole training steps of this package and of its peers, taking turns, each in a process of its own."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt3.bench import contenders as worker
from gpt3.bench.options import BenchTrainOptions, Case, parse_case
from gpt3.bench.process import call
from gpt3.errors import InputError
from gpt3.ladder.presets import flops_per_token, preset
from gpt3.progress import say

SHOWN = {"gpt3": "gpt3", "nanogpt": "nanoGPT", "transformers": "transformers", "litgpt": "litGPT"}
DEFAULT_CASES = {"cpu": ["17M:12x512", "125M:1x2048"], "cuda": ["125M:16x2048", "350M:16x2048"]}


@dataclass(frozen=True)
class Result:
    """One contender in one case and dtype, over all rounds."""

    case: str
    dtype: str
    who: str
    compiled: bool
    seconds: list[list[float]]
    """Of every timed step, a list a round."""
    cpu_seconds: list[list[float]]
    """Processor seconds of the same steps, all threads together."""
    tokens_per_s: float
    """At the median step of all rounds."""
    slowest: float
    """Tokens/s of the round whose median step is the slowest."""
    fastest: float
    """Tokens/s of the round whose median step is the fastest."""
    mfu: float
    """The matrix products that this contender's model needs, per second, over the GEMM peak of this run."""
    peak_bytes: int | None
    """Most memory of any round: the process's resident set, or the device's."""
    loss: float
    """After the last step, in nats: a check that everybody trains."""
    parameters: int
    """Exact count."""


def run(options: BenchTrainOptions) -> int:
    """Measure and print. Returns the exit code."""
    machine, results = bench_train(options)
    if options.json:
        print(json.dumps({"machine": machine, "results": [dataclasses.asdict(result) for result in results]}, indent=2))
        return 0
    rates = ", ".join(f"{name} {np.median(flops) / 1e9:,.0f}" for name, flops in machine["gemm_flops"].items())
    where = machine["device_name"] or f"{machine['device']}, {machine['threads']} threads"
    print(f"\n{where}; torch {machine['torch']}; GEMM peak in GFLOP/s: {rates}\n")
    print(table(results))
    return 0


def bench_train(options: BenchTrainOptions) -> tuple[dict[str, Any], list[Result]]:
    """Every case in every dtype.

    Returns:
        the machine (device, threads, GEMM speeds measured before each case and after the last), and the results.

    Raises:
        InputError: a contender that is not here, data that does not fit.
        RunError: a contender fails; with the last lines it said.
    """
    names = options.contenders()
    if "litgpt" in names and options.litgpt_python is None and importlib.util.find_spec("litgpt") is None:
        raise InputError("--litgpt: litgpt is not installed here; pip install litgpt, or give --litgpt-python PATH")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ask = {"name": "gemm", "device": options.device, "dtypes": ["fp32", "bf16"]}
        first = _call(ask, folder)
        asked = [first["auto"] if dtype == "auto" else dtype for dtype in options.dtype]
        ask["dtypes"] = dtypes = list(dict.fromkeys(asked))
        device = first["device"].partition(":")[0]
        cases = [parse_case(text) for text in options.cases or DEFAULT_CASES.get(device, DEFAULT_CASES["cpu"])]
        compiled = options.compiled(device)
        gemm: dict[str, list[float]] = {dtype: [first["flops"][dtype]] for dtype in dtypes}
        answers: dict[tuple[Case, str, str], list[dict[str, Any]]] = {}
        for case in cases:
            tokens = _write_tokens(options, case, folder / "tokens.bin")
            for dtype, turn in itertools.product(dtypes, range(options.rounds)):
                for who in names:
                    request = _request(options, case, who, dtype) | {
                        "device": first["device"], "compile": who in compiled, "tokens": str(tokens),
                    }  # fmt: skip
                    python = options.litgpt_python if who == "litgpt" else None
                    answer = _call(request, folder, python)
                    answers.setdefault((case, dtype, who), []).append(answer)
                    pace = case.batch * case.context / statistics.median(answer["seconds"])
                    say(f"{case} {dtype}, round {turn + 1} of {options.rounds}: {SHOWN[who]} {pace:,.0f} tokens/s")
                for kind, flops in _call(ask, folder)["flops"].items():
                    gemm[kind].append(flops)
    peaks = {dtype: statistics.median(found) for dtype, found in gemm.items()}
    results = [
        _result(case, dtype, who, who in compiled, found, peaks[dtype]) for (case, dtype, who), found in answers.items()
    ]
    machine = {key: first[key] for key in ("device", "device_name", "threads", "torch")} | {"gemm_flops": gemm}
    return machine, results


def _write_tokens(options: BenchTrainOptions, case: Case, path: Path) -> Path:
    """The windows of every step, (steps, B, T + 1) int64 one after the other: the same for all contenders."""
    count = (options.warmup + options.steps) * case.batch
    vocabulary = preset(case.model).vocab_size
    if options.data is None:
        generator = np.random.default_rng(options.seed)
        windows = generator.integers(0, vocabulary, (count, case.context + 1), dtype=np.int64)
    else:
        from gpt3.corpus.order import WindowOrder
        from gpt3.corpus.shards import open_shards

        shards = open_shards(options.data)
        if shards.vocab_size > vocabulary:
            raise InputError(
                f"--data {options.data} has a vocabulary of {shards.vocab_size:,}, {case.model} one of {vocabulary:,}; "
                "prepare it with the model's tokenizer"
            )
        windows = WindowOrder(shards.split("train"), case.context, options.seed).batch(range(count))
    path.write_bytes(windows.tobytes())
    return path


def _request(options: BenchTrainOptions, case: Case, who: str, dtype: str) -> dict[str, Any]:
    """What a contender is told; see gpt3.bench.contenders."""
    shape = preset(case.model)
    return {
        "name": who, "model": case.model, "batch": case.batch, "context": case.context, "dtype": dtype,
        "seed": options.seed, "warmup": options.warmup,
        "n_layers": shape.n_layers, "n_heads": shape.n_heads, "d_model": shape.d_model, "vocab_size": shape.vocab_size,
        "nanogpt": str(Path(options.nanogpt).resolve()) if options.nanogpt else None,
    }  # fmt: skip


def _call(request: dict[str, Any], folder: Path, python: str | None = None) -> dict[str, Any]:
    """One process of `contenders.py`, from start to end."""
    return call(worker.__file__, request, folder, SHOWN.get(request["name"], request["name"]), python)


def _result(
    case: Case, dtype: str, who: str, compiled: bool, answers: Sequence[dict[str, Any]], peak_flops: float
) -> Result:
    tokens = case.batch * case.context
    config = preset(case.model).config()
    if who != "gpt3":  # the peers' layers are all dense
        config.layer_types = ["full_attention"] * config.num_hidden_layers
    medians = [statistics.median(answer["seconds"]) for answer in answers]
    speed = tokens / statistics.median([second for answer in answers for second in answer["seconds"]])
    peaks = [answer["peak_bytes"] for answer in answers]
    return Result(
        case=str(case),
        dtype=dtype,
        who=who,
        compiled=compiled,
        seconds=[answer["seconds"] for answer in answers],
        cpu_seconds=[answer["cpu_seconds"] for answer in answers],
        tokens_per_s=speed,
        slowest=tokens / max(medians),
        fastest=tokens / min(medians),
        mfu=speed * flops_per_token(config, case.context) / peak_flops,
        peak_bytes=None if None in peaks else max(peaks),
        loss=answers[-1]["losses"][-1],
        parameters=answers[-1]["parameters"],
    )


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table; "ours /" is how many times as fast gpt3 is."""
    ours = {(result.case, result.dtype): result.tokens_per_s for result in results if result.who == "gpt3"}
    lines = [
        "| case | dtype | who | tokens/s (slowest-fastest round) | ours / | MFU | CPU s a step | peak memory | loss |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        ratio = f"{ours[r.case, r.dtype] / r.tokens_per_s:.2f}" if (r.case, r.dtype) in ours else ""
        memory = "" if r.peak_bytes is None else f"{r.peak_bytes / 1e9:.2f} GB"
        cpu = statistics.median([second for turn in r.cpu_seconds for second in turn])
        lines.append(
            f"| {r.case} | {r.dtype} | {SHOWN[r.who]}{', compiled' if r.compiled else ''} | {r.tokens_per_s:,.0f} "
            f"({r.slowest:,.0f}-{r.fastest:,.0f}) | {ratio} | {r.mfu:.0%} | {cpu:.2f} | {memory} | {r.loss:.2f} |"
        )
    return "\n".join(lines)
