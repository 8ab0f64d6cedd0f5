"""``gpt3 bench train``: whole training steps of this package and its peers, in turn, each in a process of its own."""

from __future__ import annotations

import importlib.util
import itertools
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3.bench import harness
from gpt3.bench.harness import Case, Request, Result
from gpt3.corpus.mixture import WindowOrder
from gpt3.corpus.shards import open_shards
from gpt3.errors import InputError
from gpt3.ladder.presets import flops_per_token, preset
from gpt3.options import Options, option
from gpt3.tables import markdown

WORKER = str(Path(__file__).with_name("train_worker.py"))
SYSTEMS = {"gpt3": "gpt3", "nanogpt": "nanoGPT", "transformers": "transformers", "litgpt": "litGPT"}
"""Names in options and requests, and as printed; in order of turn."""
DTYPES = ("auto", "fp32", "bf16")
DEFAULT_CASES = {"cpu": ["17M:12x512", "125M:1x2048"], "cuda": ["125M:16x2048", "350M:16x2048"]}


@dataclass(frozen=True)
class BenchTrainOptions(Options):
    """Time whole training steps of this package and its peers: same shapes, same tokens, alternating rounds."""

    cases: list[str] = option([], group="Cases")
    """MODEL:BATCHxCONTEXT. Default: 17M:12x512 125M:1x2048; on CUDA 125M:16x2048 350M:16x2048."""
    dtype: list[str] = option(["auto"], choices=DTYPES)
    """Number formats of matrix products: auto (as `gpt3 train` chooses), fp32, bf16, or several."""
    data: str | None = None
    """Shard folder to draw tokens from. Default: random ids, which cost the same."""
    nanogpt: str | None = option(None, group="Peers")
    """Checkout of github.com/karpathy/nanoGPT to compare with."""
    transformers: bool = True
    """Compare with transformers' GPT2LMHeadModel."""
    litgpt: bool = False
    """Compare with litGPT, from the Python of --litgpt-python or this one."""
    litgpt_python: str | None = None
    """Python executable that imports litgpt; implies --litgpt."""
    compile: list[str] | None = option(None, choices=(*SYSTEMS, "none"))
    """Systems to run through torch.compile, or none. Default: on CUDA all, else litgpt only."""
    rounds: int = option(3, least=1, group="Measurement")
    """Times each system is started anew; they alternate."""
    steps: int = option(5, least=1)
    """Timed steps per round."""
    warmup: int = option(2, least=1)
    """Steps before them that are not timed: they compile and allocate."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    seed: int = 1337
    """Seed of the tokens and the weights."""
    json: bool = False
    """Print one JSON object with the time of each step instead of the table."""

    def errors(self) -> Iterator[str]:
        """What the ranges cannot express."""
        yield from harness.case_errors(self.cases)
        yield from harness.checkout_errors(self.nanogpt)
        if not self.dtype:
            yield f"--dtype is empty. Choose from {', '.join(DTYPES)}"
        if self.litgpt_python is not None and not Path(self.litgpt_python).is_file():
            yield f"--litgpt-python {self.litgpt_python} is no file. Give the Python executable of an environment with litgpt"

    def systems(self) -> list[str]:
        """What is measured, in order of turn."""
        wanted = (True, self.nanogpt, self.transformers, self.litgpt or self.litgpt_python)
        return [name for name, this in zip(SYSTEMS, wanted, strict=True) if this]

    def compiled(self, device: str) -> set[str]:
        """Which systems run through torch.compile on a device of this type."""
        if self.compile is None:
            return set(SYSTEMS) if device == "cuda" else {"litgpt"}
        return set(self.compile) - {"none"}


def run(options: BenchTrainOptions) -> None:
    """Measure every case in every dtype and print.

    Raises:
        InputError: litgpt is not installed, or the data does not fit the model.
        RunError: a system fails; with its last lines of standard error.
    """
    systems = options.systems()
    if "litgpt" in systems and options.litgpt_python is None and importlib.util.find_spec("litgpt") is None:
        how = f"Install it with {sys.executable} -m pip install litgpt, or give --litgpt-python PATH"
        raise InputError(f"--litgpt needs litgpt. {how}")
    facts = harness.machine(options.device, ["fp32", "bf16"])
    device, kind, speeds = facts["device"], facts["device"].partition(":")[0], [facts["gemm_flops"]]
    cases = [harness.parse_case(text) for text in options.cases or DEFAULT_CASES.get(kind, DEFAULT_CASES["cpu"])]
    dtypes = list(dict.fromkeys(facts["auto"] if dtype == "auto" else dtype for dtype in options.dtype))
    compiled = options.compiled(kind)

    def measure(load: tuple[Case, str], name: str) -> dict[str, Any]:
        case, dtype = load
        request = make_request(options, case, dtype, name) | {"device": device, "compile": name in compiled}
        python = options.litgpt_python if name == "litgpt" else None
        return harness.call(WORKER, request, SYSTEMS[name], python=python) | {"tokens": case.batch * case.context}

    found = harness.alternate(
        itertools.product(cases, dtypes),
        systems,
        options.rounds,
        measure,
        describe=lambda answer: f"{answer['tokens'] / statistics.median(answer['seconds']):,.0f} tokens/s",
        after_round=lambda: speeds.append(harness.machine(device, dtypes)["gemm_flops"]),
    )
    gemm = {dtype: [flops[dtype] for flops in speeds] for dtype in dtypes}
    results = []
    for ((case, dtype), name), answers in found.items():
        results.append(summary(case, dtype, name, name in compiled, answers, statistics.median(gemm[dtype])))
    machine = {key: facts[key] for key in ("device", "device_name", "threads", "torch")} | {"gemm_flops": gemm}
    where = facts["device_name"] or f"{device}, {facts['threads']} threads"
    shown = ", ".join(f"{dtype} {statistics.median(flops) / 1e9:,.0f}" for dtype, flops in gemm.items())
    line = f"{where}; torch {facts['torch']}; GEMM peak in GFLOP/s: {shown}"
    harness.print_results(options.json, machine, results, line, table(results))


def make_request(options: BenchTrainOptions, case: Case, dtype: str, name: str) -> Request:
    """What a system is asked, tokens of every step included; see gpt3.bench.train_worker."""
    return {
        "name": name, "dtype": dtype, "model": case.model, "shape": harness.gpt2_shape(case.model), "batch": case.batch,
        "context": case.context, "nanogpt": str(Path(options.nanogpt).resolve()) if options.nanogpt else None,
        "tokens": draw_tokens(options, case), "seed": options.seed, "warmup": options.warmup,
    }  # fmt: skip


def draw_tokens(options: BenchTrainOptions, case: Case) -> list[list[list[int]]]:
    """Ids of every step, (steps, B, T + 1).

    Raises:
        InputError: the data has a larger vocabulary than the model.
    """
    count, vocabulary = (options.warmup + options.steps) * case.batch, preset(case.model).vocab_size
    if options.data is None:
        windows = harness.random_ids(options.seed, vocabulary, count, case.context + 1)
    else:
        shards = open_shards(options.data)
        if shards.vocab_size > vocabulary:
            raise InputError(
                f"--data {options.data} has {shards.vocab_size:,} token ids, {case.model} only {vocabulary:,}. "
                "Prepare it with the model's tokenizer"
            )
        windows = WindowOrder(shards.split("train"), case.context, options.seed).batch(range(count)).tolist()
    return [windows[start : start + case.batch] for start in range(0, count, case.batch)]


def summary(
    case: Case, dtype: str, name: str, compiled: bool, answers: Sequence[dict[str, Any]], peak_flops: float
) -> Result:
    """All rounds of a system in a case. MFU counts the matrix products that the system's own model needs."""
    config = preset(case.model).config()
    if name != "gpt3":  # the peers have dense layers only
        config.layer_types = ["full_attention"] * config.num_hidden_layers
    seconds = [answer["seconds"] for answer in answers]
    speed = harness.rates(case.batch * case.context, seconds)
    peaks = [answer["peak_bytes"] for answer in answers]
    return {
        "case": str(case),
        "dtype": dtype,
        "who": name,
        "compiled": compiled,
        "seconds": seconds,
        "cpu_seconds": [answer["cpu_seconds"] for answer in answers],
        **speed,
        "mfu": speed["tokens_per_s"] * flops_per_token(config, case.context) / peak_flops,
        "peak_bytes": None if None in peaks else max(peaks),
        "loss": answers[-1]["losses"][-1],
        "parameters": answers[-1]["parameters"],
    }


def table(results: Sequence[Result]) -> str:
    """The results in Markdown; "gpt3 / this" is how many times as fast gpt3 is."""
    headings = ["case", "dtype", "system", "tokens/s (slowest-fastest round)", "gpt3 / this", "MFU", "CPU s per step"]
    ours = {(r["case"], r["dtype"]): r["tokens_per_s"] for r in results if r["who"] == "gpt3"}
    rows = []
    for r in results:
        system = SYSTEMS[r["who"]] + (", compiled" if r["compiled"] else "")
        ratio = ours[r["case"], r["dtype"]] / r["tokens_per_s"]
        cpu = statistics.median(itertools.chain.from_iterable(r["cpu_seconds"]))
        row = [r["case"], r["dtype"], system, harness.rate_cell(r, 0), f"{ratio:.2f}", f"{r['mfu']:.0%}", f"{cpu:.2f}"]
        rows.append([*row, harness.gigabytes(r["peak_bytes"]), f"{r['loss']:.2f}"])
    return markdown([*headings, "peak memory", "loss"], rows)
