"""``gpt3 bench generate``: generation by this package and its peers from the same weights, in turn, each in its own process."""

from __future__ import annotations

import functools
import itertools
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3.bench import harness
from gpt3.bench.harness import FORMATS, Case, Result, System
from gpt3.errors import require
from gpt3.ladder.presets import Preset, preset
from gpt3.options import Options, option
from gpt3.tables import markdown
from gpt3.tokenizer.gpt2 import build, gpt2_merges, wrap

WORKER = str(Path(__file__).with_name("generate_worker.py"))
SHOWN = {
    "gpt3": "gpt3",
    "transformers": "transformers",
    "transformers-static": "transformers, static cache",
    "llama.cpp": "llama.cpp",
    "nanogpt": "nanoGPT",
}
DEFAULT_CASES = ["125M:1x64", "125M:8x64", "125M:32x64", "125M:1x1536", "17M:1x64", "17M:8x64", "17M:32x64"]
GGUF_FORMATS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "q8_0", "int4": "q4_0"}
VALUE_BYTES = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.0, "q8_0": 34 / 32, "int4": 18 / 32, "q4_0": 18 / 32}
"""Of a weight. q8_0 stores 32 values of 8 bits and a 16-bit scale, int4 and q4_0 such of 4 bits."""
HEAD_BYTES = VALUE_BYTES | {"int4": VALUE_BYTES["int8"], "q4_0": VALUE_BYTES["q8_0"]}
"""Of a weight in the head."""


@dataclass(frozen=True)
class BenchGenerateOptions(Options):
    """Time generation by this package and its peers: same weights, same prompts, alternating rounds."""

    cases: list[str] = option([], group="Cases")
    """MODEL:SEQUENCESxPROMPT. Default: 125M and 17M at 1x64, 8x64 and 32x64, 125M at 1x1536."""
    decode: list[str] = option(["greedy", "sampled"], choices=("greedy", "sampled"))
    """greedy, sampled (temperature 0.8, top-k 50), or both."""
    new_tokens: int = option(256, least=2)
    """Tokens generated per sequence."""
    formats: list[str] = option(list(FORMATS), choices=FORMATS)
    """Formats of the weights of gpt3 and llama.cpp (its int8 is q8_0, its int4 q4_0); the other peers use fp32, on a GPU bf16."""
    transformers: bool = option(True, group="Peers")
    """Compare with transformers' generate, with a dynamic and with a static cache."""
    llama_cpp: bool = False
    """Compare with llama.cpp (package xllamacpp): same shape and weights, but dense layers and tanh GELU."""
    nanogpt: str | None = None
    """Checkout of github.com/karpathy/nanoGPT to compare with: dense layers, no cache."""
    device: str = option("cpu", group="Measurement")
    """cpu, cuda or cuda:N. There is no int4 and no llama.cpp on a GPU."""
    rounds: int = option(3, least=1)
    """Times each system is started anew; they alternate."""
    threads: int | None = option(None, least=1)
    """Threads of each system. Default: as many as torch uses, the physical cores."""
    seed: int = 1337
    """Seed of the weights, the prompts and the sampling."""
    json: bool = False
    """Print one JSON object with the times of each round instead of the table."""

    def errors(self) -> Iterator[str]:
        """What the ranges cannot express."""
        yield from harness.case_errors(self.cases, lambda case: self.new_tokens)
        yield from harness.checkout_errors(self.nanogpt)
        for name in ("decode", "formats"):
            if not getattr(self, name):
                yield f"--{name} is empty. Leave it out for all"

        if self.llama_cpp and self.device != "cpu":
            yield f"--llama-cpp is for --device cpu, not {self.device}. Leave one of them out"

    def systems(self) -> list[System]:
        """What is measured, in order of turn: those with one format next to each other."""
        names, cpu = ["gpt3", *(["llama.cpp"] if self.llama_cpp else [])], self.device == "cpu"
        found = [System(name, weights) for weights in self.formats if cpu or weights != "int4" for name in names]
        peers = ["transformers", "transformers-static"] if self.transformers else []
        peers += ["nanogpt"] if self.nanogpt is not None else []
        return found + [System(name, "fp32" if cpu else "bf16") for name in peers]


def run(options: BenchGenerateOptions) -> None:
    """Measure every case, greedy and sampled, and print.

    Raises:
        InputError: a peer is not installed.
        RunError: a system fails; with its last lines of standard error.
    """
    require_llama_cpp(options.llama_cpp)
    products = "fp32" if options.device == "cpu" else "bf16"
    look = functools.partial(harness.machine, options.device, [products], memory=True)
    speeds = [look(threads=options.threads)]
    threads = speeds[0]["threads"]
    with tempfile.TemporaryDirectory() as folder:

        def measure(load: tuple[Case, str], system: System) -> dict[str, Any]:
            case, decode = load
            request = make_models(folder, case.model, options.seed, options.formats if options.llama_cpp else [])
            request |= {
                "task": "generate", "name": system.name, "weights": system.weights, "sampled": decode == "sampled",
                "prompts": make_prompts(options.seed, case), "new_tokens": options.new_tokens, "seed": options.seed,
                "threads": threads, "device": options.device,
                "nanogpt": str(Path(options.nanogpt).resolve()) if options.nanogpt else None,
                "shape": harness.gpt2_shape(case.model) | {"block_size": preset(case.model).context},
            }  # fmt: skip
            answer = harness.call(WORKER, request, SHOWN[system.name], threads=threads)
            first = max(answer["firsts"])
            return answer | {"first": first, "decoding": answer["total"] - first}

        found = harness.alternate(
            itertools.product(map(harness.parse_case, options.cases or DEFAULT_CASES), options.decode),
            options.systems(),
            options.rounds,
            measure,
            describe=lambda answer: f"{later_tokens(answer) / answer['decoding']:,.1f} tokens/s",
            after_round=lambda: speeds.append(look(threads=threads)),
        )
    reads, flops = ([one["read_bytes_per_s"] for one in speeds], [one["gemm_flops"][products] for one in speeds])
    peaks = statistics.median(reads), statistics.median(flops)
    results = []
    for ((case, decode), system), answers in found.items():
        ours = found.get(((case, decode), System("gpt3"))) if decode == "greedy" else None
        results.append(summary(case, decode, system, answers, ours, peaks))
    machine = {"threads": threads, "torch": speeds[0]["torch"], "read_bytes_per_s": reads, "gemm_flops": flops}
    where = speeds[0]["device_name"] or f"{speeds[0]['device']}, {threads} threads"
    line = f"{where}; torch {machine['torch']}; memory read at {peaks[0] / 1e9:.1f} GB/s, "
    line += f"{products} GEMM at {peaks[1] / 1e9:,.0f} GFLOP/s; {options.new_tokens} new tokens"
    harness.print_results(options.json, machine, results, line, table(results))


def later_tokens(answer: dict[str, Any]) -> int:
    """Tokens that an answer has after the first of each sequence."""
    return sum(len(tokens) - 1 for tokens in answer["tokens"])


def require_llama_cpp(wanted: bool) -> None:
    """Raise InputError if llama.cpp is wanted and a package for it is not installed."""
    if wanted:
        require("xllamacpp", extra="llama-cpp", purpose="--llama-cpp")
        require("gguf", extra="export", purpose="--llama-cpp")


def make_prompts(seed: int, case: Case) -> list[list[int]]:
    """Random ids, one list per sequence, the same for all systems. EOS is not among them."""
    return harness.random_ids(seed, preset(case.model).vocab_size - 1, case.batch, case.context)


def make_models(folder: str, model: str, seed: int, gguf_formats: Sequence[str] = ()) -> dict[str, Any]:
    """A preset with random weights, the same for all systems, made when first needed.

    Returns:
        `model`, its folder, and `ggufs`, a folder of GGUF files with the same weights, but dense layers and tanh GELU.
    """
    places = {"model": Path(folder, model), "ggufs": Path(folder, f"{model}-gguf")}
    if not places["model"].exists():
        import torch
        from transformers.utils import logging

        from gpt3.export.gguf import write_gguf
        from gpt3.model import GPT3ForCausalLM

        shape = preset(model)
        logging.disable_progress_bar()
        torch.manual_seed(seed)
        ours = GPT3ForCausalLM(shape.config())
        tokenizer = wrap(build(gpt2_merges()[: shape.vocab_size - 257]))  # ids: the bytes, the merges, EOS
        ours.save_pretrained(places["model"])
        tokenizer.save_pretrained(places["model"])
        places["ggufs"].mkdir()
        dense = shape.config(layer_types=["full_attention"] * shape.n_layers, activation_function="gelu_new")
        for kind in (GGUF_FORMATS[weights] for weights in gguf_formats):
            twin = GPT3ForCausalLM(dense)
            twin.load_state_dict(ours.state_dict())
            write_gguf(twin, tokenizer, places["ggufs"] / f"{kind}.gguf", dtype=kind)
    return {key: str(path) for key, path in places.items()}


def matrix_values(shape: Preset) -> int:
    """Weights in the matrices that each token is multiplied with: those of the blocks and the head."""
    attention = shape.n_heads * shape.d_head
    return shape.n_layers * (4 * shape.d_model * attention + 8 * shape.d_model**2) + shape.vocab_size * shape.d_model


def step_bytes(shape: Preset, system: System) -> int:
    """Bytes of weights that one step reads, whatever the batch: matrices in their format, vectors in fp32."""
    vectors = shape.parameters - matrix_values(shape) - shape.context * shape.d_model
    head = shape.vocab_size * shape.d_model
    matrices = (matrix_values(shape) - head) * VALUE_BYTES[system.format] + head * HEAD_BYTES[system.format]
    return int(matrices) + 4 * vectors


def summary(
    case: Case, decode: str, system: System, answers: list[Any], ours: list[Any] | None, peaks: tuple[float, float]
) -> Result:
    """All rounds of a system in a case.

    Args:
        ours: gpt3's greedy answers in fp32, for comparison.
        peaks: measured bytes/s of memory, and FLOP/s of matrix products.
    """
    shape = preset(case.model)
    speed = harness.rates(later_tokens(answers[0]), [[answer["decoding"]] for answer in answers])
    flops = 2 * matrix_values(shape) * speed["tokens_per_s"]
    return {
        "case": str(case),
        "decode": decode,
        "who": system.name,
        "weights": system.weights,
        **{key: [answer[key] for answer in answers] for key in ("first", "decoding", "cpu_seconds")},
        **speed,
        "bytes_per_step": step_bytes(shape, system),
        "memory_share": step_bytes(shape, system) * speed["tokens_per_s"] / case.batch / peaks[0],
        "flops": flops,
        "flops_share": flops / peaks[1],
        **{key: harness.most(answer[key] for answer in answers) for key in ("peak_bytes", "anonymous_bytes")},
        "same_tokens": same_share(ours[0]["tokens"], answers[0]["tokens"]) if ours else None,
    }


def same_share(sequences: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> float:
    """Share of tokens before the first difference of each pair of sequences."""
    return sum(map(harness.common_prefix, sequences, others)) / sum(map(len, sequences))


def table(results: Sequence[Result]) -> str:
    """The results in Markdown; ratios are to the faster transformers, and to llama.cpp in the same format."""
    first_of_peer: dict[str, float] = {}
    for r in results:
        if r["who"].startswith("transformers"):
            first = statistics.median(r["first"])
            first_of_peer[r["case"]] = min(first, first_of_peer.get(r["case"], first))
    headings = ["case", "decode", "system", "weights", "tokens/s (slowest-fastest round)", "× transformers"]
    headings += ["× llama.cpp", "prompts read (× transformers)", "of memory bandwidth", "GFLOP/s (of GEMM)"]
    headings += ["peak memory (anonymous)", "same tokens"]
    rows = []
    peers = next((r["weights"] for r in results if r["who"].startswith("transformers")), "fp32")
    for r in results:
        ratios = [harness.times(r, results, "transformers", weights=peers), harness.times(r, results, "llama.cpp")]
        ratios = ratios if r["who"] == "gpt3" else [ratios[0], ""]
        seconds = statistics.median(r["first"])
        first = f"{seconds * 1000:,.0f} ms"
        if r["who"] == "gpt3" and r["case"] in first_of_peer:
            first += f" ({first_of_peer[r['case']] / seconds:.2f})"
        products = f"{r['flops'] / 1e9:,.0f} ({r['flops_share']:.0%})"
        same = "" if r["same_tokens"] is None else f"{r['same_tokens']:.0%}"
        system = [SHOWN[r["who"]], System(r["who"], r["weights"]).format, harness.rate_cell(r)]
        row = [r["case"], r["decode"], *system, *ratios, first, f"{r['memory_share']:.0%}", products]
        memory = harness.gigabytes(r["peak_bytes"])
        memory += f" ({harness.gigabytes(r['anonymous_bytes'])})" if r["anonymous_bytes"] is not None else ""
        rows.append([*row, memory, same])
    return markdown(headings, rows)
