"""``gpt3 bench formats``: what weights in fp16, bf16 and int8 cost in quality, compared with fp32 of the same model."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt3.bench.harness import FORMATS, Result, common_prefix, load_model, markdown
from gpt3.errors import InputError
from gpt3.inference.options import SamplingOptions
from gpt3.inference.standard_streams import read_text
from gpt3.options import Options, option
from gpt3.progress import say

if TYPE_CHECKING:
    from gpt3.inference.generation import Generation
    from gpt3.inference.language_model import LanguageModel

HEADINGS = ("weights", "MB", "bits per byte", "compared with fp32", "same greedy completions", "widest gap in fp32")


@dataclass(frozen=True)
class BenchFormatsOptions(Options):
    """What each weight format changes on texts that the model has not seen: bits per byte, greedy completions, memory."""

    text: list[str] = option([], group="Model and texts")
    """UTF-8 text files, each a document that the model was not trained on."""
    model: str | None = None
    """Model folder, run folder, a run's name in ./runs, or a hub id. Default: the newest run in ./runs."""
    formats: list[str] = option(list(FORMATS[1:]), choices=FORMATS[1:])
    """Formats to compare with fp32."""
    prompts: int = option(100, least=1, group="Greedy completions")
    """Pieces of the texts that are completed greedily."""
    prompt_tokens: int = option(32, least=1)
    """Tokens of each prompt."""
    new_tokens: int = option(64, least=1)
    """Tokens generated after each prompt."""
    seed: int = 1337
    """Seed of the places where prompts are taken from."""
    json: bool = option(False, group="Output")
    """Print JSON instead of the table."""

    def errors(self) -> Iterator[str]:
        """What the ranges cannot express."""
        if not self.text:
            yield "no texts to measure on. Give files of held-out text"
        if not self.formats:
            yield f"--formats is empty. Choose from {', '.join(FORMATS[1:])}"


def run(options: BenchFormatsOptions) -> int:
    """Measure and print. Returns the exit code."""
    results = bench_formats(options)
    print(json.dumps(results, indent=2) if options.json else table(results))
    return 0


def bench_formats(options: BenchFormatsOptions) -> list[Result]:
    """fp32 first, then the other formats.

    Returns:
        For each format: `weights`, its name; `bytes` of all weights in memory; `bits_per_byte` over all texts; `worse`, by what
        share that is more than fp32's; `unchanged`, the number of greedy completions equal to fp32's, token for token, of
        `prompts`; `widest_gap`: where completions first differ, by how many nats fp32 preferred its token to the second
        likeliest, at most. A small gap is a near-tie; 0: no difference.

    Raises:
        InputError: texts that cannot be read or are too short for the prompts; what `gpt3.load` raises.
    """
    from gpt3.inference.generation import GenerationRequest
    from gpt3.inference.scoring import TextScore

    texts = [read_text(name) for name in options.text]
    greedy = SamplingOptions(max_new_tokens=options.new_tokens, temperature=0.0, logprobs=2, seed=0)
    results: list[Result] = []
    prompts: list[list[int]] = []
    fp32: list[Generation] = []
    for weights in ("fp32", *dict.fromkeys(options.formats)):
        model = load_model(options.model, weights)
        prompts = prompts or cut_prompts(model, texts, options)
        bits = sum((model.score(text) for text in texts), TextScore()).bits_per_byte
        completions = GenerationRequest(model, prompts, greedy).complete()
        fp32 = fp32 or completions
        gaps = [
            gap
            for ours, theirs in zip(fp32, completions, strict=True)
            if (gap := gap_between(ours, theirs)) is not None
        ]
        results.append(
            {
                "weights": weights,
                "bytes": model.engine.nbytes,
                "bits_per_byte": bits,
                "worse": bits / results[0]["bits_per_byte"] - 1 if results else 0.0,
                "unchanged": len(prompts) - len(gaps),
                "prompts": len(prompts),
                "widest_gap": max(gaps, default=0.0),
            }
        )
        say(f"{weights}: {bits:.5f} bits per byte")
    return results


def cut_prompts(model: LanguageModel, texts: Sequence[str], options: BenchFormatsOptions) -> list[list[int]]:
    """Pieces of the texts, all of one length, every place equally likely.

    Raises:
        InputError: no text is long enough, or prompt and completion exceed the context.
    """
    length = options.prompt_tokens
    if length + options.new_tokens > model.engine.context:
        raise InputError(
            f"--prompt-tokens {length} and --new-tokens {options.new_tokens} exceed the model's context of "
            f"{model.engine.context:,} tokens. Use fewer"
        )
    ids = [found for text in texts if len(found := model.encode_prompt(text)) >= length]
    if not ids:
        raise InputError(f"none of the texts has {length} tokens. Give longer ones or a smaller --prompt-tokens")
    generator = random.Random(options.seed)
    places = [len(each) - length + 1 for each in ids]
    drawn = generator.choices(range(len(ids)), places, k=options.prompts)
    starts = [(number, generator.randrange(places[number])) for number in drawn]
    return [ids[number][start : start + length] for number, start in starts]


def gap_between(ours: Generation, theirs: Generation) -> float | None:
    """How much likelier `ours` had its token than the next one where `theirs` first differs, in nats; None: nowhere."""
    place = common_prefix(ours.tokens, theirs.tokens)
    if place == len(ours.tokens):
        return None
    first, second = (ours.logprobs or [])[place].top
    return first[1] - second[1]


def table(results: Sequence[Result]) -> str:
    """The results in Markdown."""
    rows = []
    for r in results:
        gap = "" if r["unchanged"] == r["prompts"] or math.isnan(r["widest_gap"]) else f"{r['widest_gap']:.4f} nats"
        size, same = f"{r['bytes'] / 1e6:,.1f}", f"{r['unchanged']} of {r['prompts']}"
        rows.append([r["weights"], size, f"{r['bits_per_byte']:.5f}", f"{r['worse']:+.3%}", same, gap])
    return markdown(HEADINGS, rows)
