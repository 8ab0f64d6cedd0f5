"""``gpt3 bench generate``: this package and its peers write texts from the same weights, taking turns, a process each."""

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

from gpt3.bench import generators as worker
from gpt3.bench.generate_options import BenchGenerateOptions, Contender
from gpt3.bench.options import Case, parse_case
from gpt3.bench.process import call
from gpt3.errors import InputError
from gpt3.ladder.presets import Preset, preset
from gpt3.progress import say

SHOWN = {
    "gpt3": "gpt3",
    "transformers": "transformers",
    "transformers-static": "transformers, static cache",
    "llama.cpp": "llama.cpp",
    "nanogpt": "nanoGPT",
}
DEFAULT_CASES = ["125M:1x64", "125M:8x64", "125M:32x64", "125M:1x1536", "17M:1x64", "17M:8x64", "17M:32x64"]
VALUE_BYTES = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.0}
Q8_0_BYTES = 34 / 32  # 32 values of 8 bits and a 16-bit scale


@dataclass(frozen=True)
class Result:
    """One contender in one case, over all rounds."""

    case: str
    decode: str
    """greedy or sampled."""
    who: str
    weights: str
    """Their format."""
    first: list[float]
    """Seconds to the first token, a number a round; of all texts."""
    decoding: list[float]
    """Seconds from the first token to the last, a number a round."""
    cpu_seconds: list[float]
    """Processor seconds, prompt and decoding, all threads together."""
    tokens_per_s: float
    """Of all texts together after the first token, at the median round."""
    slowest: float
    """Tokens/s of the slowest round."""
    fastest: float
    """Tokens/s of the fastest round."""
    bytes_per_step: int
    """Of weights that are read to write one token to every text."""
    memory_share: float
    """Bytes of weights read a second over the memory's own speed in this run; keys and values are not counted."""
    flops: float
    """Floating-point operations a second in products with weights."""
    flops_share: float
    """Of a plain fp32 matrix product's speed in this run."""
    peak_bytes: int | None
    """Most memory resident in any round, loading included."""
    same_tokens: float
    """Greedy: share of the tokens before the first one that differs from gpt3's in fp32, over all texts. nan if nobody says."""


def run(options: BenchGenerateOptions) -> int:
    """Measure and print. Returns the exit code."""
    machine, results = bench_generate(options)
    if options.json:
        rows = [dataclasses.asdict(result) for result in results]
        print(json.dumps({"machine": machine, "results": rows}, indent=2))
        return 0
    speeds = f"memory read at {statistics.median(machine['read_bytes_per_s']) / 1e9:.1f} GB/s, "
    speeds += f"fp32 GEMM at {statistics.median(machine['gemm_flops']) / 1e9:,.0f} GFLOP/s"
    print(f"\ncpu, {machine['threads']} threads; torch {machine['torch']}; {speeds}; {options.new_tokens} new tokens\n")
    print(table(results))
    return 0


def bench_generate(options: BenchGenerateOptions) -> tuple[dict[str, Any], list[Result]]:
    """Every case, greedy and sampled.

    Returns:
        the machine (threads, speeds of memory and matrix products before each case and after the last), and the results.

    Raises:
        InputError: a contender that is not here.
        RunError: a contender fails; with the last lines it said.
    """
    contenders = options.contenders()
    for module, extra in (("xllamacpp", "llama-cpp"), ("gguf", "export")):
        if options.llama_cpp and importlib.util.find_spec(module) is None:
            raise InputError(f"--llama-cpp needs {module}; install it with: pip install 'gpt3[{extra}]'")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ask = {"name": "machine", "threads": options.threads}
        first = call(worker.__file__, ask, folder, "the machine", threads=options.threads)
        threads = first["threads"]
        speeds = {key: [first[key]] for key in ("read_bytes_per_s", "gemm_flops")}
        answers: dict[tuple[Case, str, Contender], list[dict[str, Any]]] = {}
        for case in [parse_case(text) for text in options.cases or DEFAULT_CASES]:
            models = make_models(folder, case.model, options.seed, options.formats if options.llama_cpp else [])
            prompts = make_prompts(options.seed, case)
            for decode, turn in itertools.product(options.decode, range(options.rounds)):
                for one in contenders:
                    request = models | {
                        "name": one.who, "weights": one.weights, "prompts": prompts, "new_tokens": options.new_tokens,
                        "sampled": decode == "sampled", "seed": options.seed, "threads": threads,
                        "nanogpt": str(Path(options.nanogpt).resolve()) if options.nanogpt else None,
                    }  # fmt: skip
                    answer = call(worker.__file__, request, folder, SHOWN[one.who], threads=threads)
                    answers.setdefault((case, decode, one), []).append(answer)
                    pace = case.batch * (options.new_tokens - 1) / (answer["total"] - answer["first"])
                    about = f"{case} {decode}, round {turn + 1} of {options.rounds}"
                    say(f"{about}: {SHOWN[one.who]} {one.weights} {pace:,.1f} tokens/s")
            again = call(worker.__file__, ask, folder, "the machine", threads=threads)
            for key, found in speeds.items():
                found.append(again[key])
    medians = {key: statistics.median(found) for key, found in speeds.items()}
    results = []
    for (case, decode, one), found in answers.items():
        ours = answers.get((case, decode, Contender("gpt3", "fp32")))
        texts = ours[0]["tokens"] if ours and decode == "greedy" else None
        results.append(_result(case, decode, one, found, texts, medians["read_bytes_per_s"], medians["gemm_flops"]))
    return {"threads": threads, "torch": first["torch"], **speeds}, results


def make_prompts(seed: int, case: Case) -> list[list[int]]:
    """Random ids, a list a text, the same for all contenders."""
    generator = np.random.default_rng(seed)
    ids: list[list[int]] = generator.integers(0, preset(case.model).vocab_size - 1, (case.batch, case.context)).tolist()
    return ids


def make_models(folder: Path, model: str, seed: int, gguf_formats: Sequence[str]) -> dict[str, str]:
    """Folders of a preset's random weights, made when first asked for.

    Returns:
        `model`, a model folder, and `ggufs`, a folder of GGUF files in these formats.
    """
    places = {"model": folder / model, "ggufs": folder / f"{model}-gguf"}
    if not places["model"].exists():
        places["ggufs"].mkdir()
        request = {key: str(path) for key, path in places.items()} | {
            "name": "make", "preset": model, "seed": seed, "gguf_formats": list(gguf_formats),
        }  # fmt: skip
        call(worker.__file__, request, folder, f"making {model}")
    return {key: str(path) for key, path in places.items()}


def matrix_values(shape: Preset) -> int:
    """Weights in the matrices that every token meets: the blocks' and the head's."""
    attention = shape.n_heads * shape.d_head
    return shape.n_layers * (4 * shape.d_model * attention + 8 * shape.d_model**2) + shape.vocab_size * shape.d_model


def step_bytes(shape: Preset, one: Contender) -> int:
    """Bytes of weights that one step reads, whatever the batch: matrices in their format, vectors in fp32."""
    each = Q8_0_BYTES if one == ("llama.cpp", "int8") else VALUE_BYTES[one.weights]
    vectors = shape.parameters - matrix_values(shape) - shape.context * shape.d_model
    return int(matrix_values(shape) * each) + 4 * vectors


def common_share(texts: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> float:
    """Share of tokens before the first difference of each pair of texts."""
    same = sum(
        next((i for i, (a, b) in enumerate(zip(text, other, strict=True)) if a != b), len(text))
        for text, other in zip(texts, others, strict=True)
    )
    return same / sum(map(len, texts))


def _result(
    case: Case,
    decode: str,
    one: Contender,
    answers: Sequence[dict[str, Any]],
    texts: Sequence[Sequence[int]] | None,
    read_bytes_per_s: float,
    gemm_flops: float,
) -> Result:
    shape = preset(case.model)
    decoding = [answer["total"] - answer["first"] for answer in answers]
    steps = len(answers[0]["tokens"][0]) - 1
    paces = [case.batch * steps / seconds for seconds in decoding]
    median = case.batch * steps / statistics.median(decoding)
    peaks = [answer["peak_bytes"] for answer in answers if answer["peak_bytes"] is not None]
    read = step_bytes(shape, one)
    flops = 2 * matrix_values(shape) * median
    return Result(
        case=str(case),
        decode=decode,
        who=one.who,
        weights=one.weights,
        first=[answer["first"] for answer in answers],
        decoding=decoding,
        cpu_seconds=[answer["cpu_seconds"] for answer in answers],
        tokens_per_s=median,
        slowest=min(paces),
        fastest=max(paces),
        bytes_per_step=read,
        memory_share=read * median / case.batch / read_bytes_per_s,
        flops=flops,
        flops_share=flops / gemm_flops,
        peak_bytes=max(peaks, default=None),
        same_tokens=common_share(texts, answers[0]["tokens"]) if texts is not None else float("nan"),
    )


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table; ratios are to the faster transformers, and to llama.cpp in the same format."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.case, result.decode), []).append(result)
    lines = [
        "| case | decode | who | weights | tokens/s (slowest-fastest round) | × transformers | × llama.cpp | first token "
        "| memory's roof | GFLOP/s (of GEMM) | peak memory | same tokens |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (case, decode), group in groups.items():
        theirs = max((r.tokens_per_s for r in group if r.who.startswith("transformers")), default=None)
        llama = {r.weights: r.tokens_per_s for r in group if r.who == "llama.cpp"}
        for r in group:
            against = llama.get(r.weights) if r.who == "gpt3" else None
            cells = [
                case,
                decode,
                SHOWN[r.who],
                "q8_0" if (r.who, r.weights) == ("llama.cpp", "int8") else r.weights,
                f"{r.tokens_per_s:,.1f} ({r.slowest:,.1f}-{r.fastest:,.1f})",
                f"{r.tokens_per_s / theirs:.2f}" if theirs else "",
                f"{r.tokens_per_s / against:.2f}" if against else "",
                f"{statistics.median(r.first) * 1000:,.0f} ms",
                f"{r.memory_share:.0%}",
                f"{r.flops / 1e9:,.0f} ({r.flops_share:.0%})",
                "" if r.peak_bytes is None else f"{r.peak_bytes / 1e9:.2f} GB",
                "" if r.same_tokens != r.same_tokens else f"{r.same_tokens:.0%}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
