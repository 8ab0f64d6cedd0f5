"""``gpt3 bench formats``: what weights in fp16, bf16 and int8 cost in quality, against fp32 of the same model."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpt3.bench.formats_options import BenchFormatsOptions
from gpt3.errors import InputError
from gpt3.progress import say

if TYPE_CHECKING:
    from gpt3.inference.language_model import LanguageModel


@dataclass(frozen=True)
class FormatResult:
    """One format of the weights."""

    weights: str
    bytes: int
    """Of all weights in memory."""
    bits_per_byte: float
    """Over all texts together."""
    worse: float
    """By what share the bits per byte are more than fp32's; below 0: they are fewer."""
    unchanged: int
    """Prompts whose greedy continuation is fp32's, token for token."""
    prompts: int
    """Of so many."""
    widest_gap: float
    """At the places where a continuation first differs: the most, in nats, by which fp32 preferred its token to the next one.
    0 where none differs; a small number is a near-tie."""


def run(options: BenchFormatsOptions) -> int:
    """Measure and print. Returns the exit code."""
    results = bench_formats(options)
    if options.json:
        print(json.dumps([dataclasses.asdict(result) for result in results], indent=2))
    else:
        print(table(results))
    return 0


def bench_formats(options: BenchFormatsOptions) -> list[FormatResult]:
    """fp32 first, then the formats asked for.

    Raises:
        InputError: texts that cannot be read or are too short to cut prompts from; what `gpt3.load` raises.
    """
    from gpt3.inference.standard_streams import read_text

    texts = [read_text(name) for name in options.text]
    results: list[FormatResult] = []
    prompts: list[list[int]] = []
    plain: list[list[int]] = []
    gaps: list[list[float]] = []
    for weights in ("fp32", *dict.fromkeys(options.formats)):
        model = load_format(options.model, weights)
        if not prompts:
            prompts = cut_prompts(model, texts, options)
        bits = bits_per_byte(model, texts)
        written, found_gaps = continue_greedily(model, prompts, options.new_tokens)
        if weights == "fp32":
            plain, gaps = written, found_gaps
        places = [first_difference(a, b) for a, b in zip(plain, written, strict=True)]
        results.append(
            FormatResult(
                weights=weights,
                bytes=model.engine.nbytes,
                bits_per_byte=bits,
                worse=bits / results[0].bits_per_byte - 1 if results else 0.0,
                unchanged=places.count(None),
                prompts=len(prompts),
                widest_gap=max(
                    (gap[place] for gap, place in zip(gaps, places, strict=True) if place is not None), default=0.0
                ),
            )
        )
        say(f"{weights}: {bits:.5f} bits per byte")
    return results


def load_format(path: str | None, weights: str) -> LanguageModel:
    """A model on the CPU with its weights in a format; no text of it ends early."""
    from gpt3.inference.language_model import load

    quantize = weights == "int8"
    model = load(path, device="cpu", dtype="fp32" if quantize else weights, quantize="int8" if quantize else "none")
    model.ends = set()
    return model


def bits_per_byte(model: LanguageModel, texts: Sequence[str]) -> float:
    """Bits of all texts over their bytes in UTF-8; each begins a document, as in `LanguageModel.score`."""
    from gpt3.inference.scoring import score_tokens

    start = model.tokenizer.eos_token_id
    nats = -sum(score_tokens(model.engine, model.encode_prompt(text), start=start).total for text in texts)
    return nats / math.log(2) / sum(len(text.encode("utf-8")) for text in texts)


def cut_prompts(model: LanguageModel, texts: Sequence[str], options: BenchFormatsOptions) -> list[list[int]]:
    """Pieces of the texts, all of one length, from places drawn with the seed.

    Raises:
        InputError: no text is long enough, or prompt and continuation are more than the context.
    """
    length = options.prompt_tokens
    if length + options.new_tokens > model.engine.context:
        raise InputError(
            f"--prompt-tokens {length} and --new-tokens {options.new_tokens} are more than the model's context of "
            f"{model.engine.context:,}; give less"
        )
    ids = [found for text in texts if len(found := model.encode_prompt(text)) >= length]
    if not ids:
        raise InputError(f"none of the texts has {length} tokens; give longer ones, or less --prompt-tokens")
    starts = np.array([len(each) - length + 1 for each in ids])  # places in each text
    drawn = np.random.default_rng(options.seed).integers(0, starts.sum(), options.prompts)
    ends = np.cumsum(starts)
    prompts = []
    for place in drawn:
        number = int(np.searchsorted(ends, place, side="right"))
        start = int(place - (ends[number] - starts[number]))
        prompts.append(ids[number][start : start + length])
    return prompts


def continue_greedily(
    model: LanguageModel, prompts: Sequence[list[int]], count: int
) -> tuple[list[list[int]], list[list[float]]]:
    """The likeliest continuations, and at each token how much likelier it was than the next one, in nats."""
    from gpt3.inference.generation import GenerationRequest
    from gpt3.inference.options import SamplingOptions

    options = SamplingOptions(max_new_tokens=count, temperature=0.0, logprobs=2, seed=0)
    done = GenerationRequest(model, list(prompts), options).complete()
    gaps = [[token.top[0][1] - token.top[1][1] for token in one.logprobs or []] for one in done]
    return [one.tokens for one in done], gaps


def first_difference(text: Sequence[int], other: Sequence[int]) -> int | None:
    """Where two texts of one length first differ; None: nowhere."""
    return next((i for i, (a, b) in enumerate(zip(text, other, strict=True)) if a != b), None)


def table(results: Sequence[FormatResult]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| weights | MB | bits per byte | against fp32 | greedy texts unchanged | widest gap where they part |",
        "|---|---|---|---|---|---|",
    ]
    for r in results:
        gap = f"{r.widest_gap:.4f} nats" if r.unchanged < r.prompts and not math.isnan(r.widest_gap) else ""
        lines.append(
            f"| {r.weights} | {r.bytes / 1e6:,.1f} | {r.bits_per_byte:.5f} | {r.worse:+.3%} "
            f"| {r.unchanged} of {r.prompts} | {gap} |"
        )
    return "\n".join(lines)
