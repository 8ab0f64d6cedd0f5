"""``gpt3 bench contexts`` and ``gpt3 bench formats``: what sliding-window layers and coarser weights save and cost. No peers."""

from __future__ import annotations

import copy
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt3.bench.harness import FORMATS, Result, alternate, common_prefix, load_model, spread
from gpt3.corpus.records import read_text
from gpt3.durable import write_text
from gpt3.errors import InputError
from gpt3.inference.options import SamplingOptions
from gpt3.ladder.presets import preset
from gpt3.options import Options, option
from gpt3.progress import say
from gpt3.report.svg import Axes, Line, svg
from gpt3.tables import markdown
from gpt3.work_folder import check_file

if TYPE_CHECKING:
    from gpt3.inference.generation import Generation
    from gpt3.inference.language_model import LanguageModel

MOST_STEPS = 64
"""A cache can be truncated by at least this many tokens (gpt3.inference.engine.ROLLBACK)."""
COLORS = {"banded": "#2a63d4", "dense": "#dd6b10"}
"""Of the curves. banded: every second layer attends within its window only, as in the paper; dense: all attend to everything."""


@dataclass(frozen=True)
class BenchContextsOptions(Options):
    """Time per token and memory of its cache as the context grows: the paper's sliding-window layers and dense layers only."""

    model: str = option("125M", group="Model")
    """A preset of `gpt3 ladder`, with random weights and positions for the longest context."""
    weights: str = option("fp32", choices=FORMATS)
    """Format of the weights."""
    contexts: list[int] = option([256, 512, 1024, 2048, 4096, 8192], group="Measurement")
    """Tokens in the context at which to measure."""
    steps: int = option(16, least=1, most=MOST_STEPS)
    """Timed tokens per round at each context."""
    rounds: int = option(3, least=1)
    """Rounds; both kinds of layers alternate in each."""
    threads: int | None = option(None, least=1)
    """Threads. Default: as many as torch uses, the physical cores."""
    seed: int = 1337
    """Seed of the weights and the tokens."""
    out: str | None = option(None, group="Output")
    """SVG file for the curves."""
    overwrite: bool = False
    """Replace a file at --out that is no drawing."""
    json: bool = False
    """Print JSON instead of the table."""

    def errors(self) -> Iterator[str]:
        """What the ranges cannot express."""
        try:
            preset(self.model)
        except InputError as error:
            yield f"--model: {error}"
        for context in self.contexts or [0]:
            if context <= self.steps:
                yield f"--contexts {context} must be more than --steps {self.steps}"


def run_contexts(options: BenchContextsOptions) -> None:
    """Measure, print, draw.

    Raises:
        InputError: --out is something else than a drawing.
    """
    if options.out is not None:
        check_file("--out", Path(options.out), b"<svg", overwrite=options.overwrite)
    points = bench_contexts(options)
    if options.out is not None:
        write_text(Path(options.out), draw(points, f"{options.model}, {options.weights} weights, batch 1"))
    print(json.dumps(points, indent=2) if options.json else contexts_table(points))


def bench_contexts(options: BenchContextsOptions) -> list[Result]:
    """Both kinds of layers at every context, shortest first.

    Returns:
        For each: `kind` (banded or dense); `context`, tokens held; `milliseconds` per further token, the median over all rounds;
        `slowest` and `fastest` of the rounds' medians; `cache_bytes` of keys and values of one sequence, in float32.
    """
    import torch

    from gpt3.inference.cpu_engine import CpuEngine
    from gpt3.inference.engine import Run
    from gpt3.model import GPT3ForCausalLM

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    shape, contexts = preset(options.model), sorted(set(options.contexts))
    torch.manual_seed(options.seed)
    config = shape.config(max_position_embeddings=max(contexts[-1], shape.context))
    banded = CpuEngine(GPT3ForCausalLM(config).eval(), options.weights)
    # The dense engine has the very same weights in memory: their addresses matter more than a short context does.
    dense = copy.copy(banded)
    dense.config = copy.copy(config)
    dense.config.layer_types = ["full_attention"] * shape.n_layers
    engines = {"banded": banded, "dense": dense}
    ids = torch.randint(shape.vocab_size - 1, (contexts[-1],)).tolist()
    caches = {kind: engine.new_cache(1, contexts[-1]) for kind, engine in engines.items()}

    def measure(context: int, kind: str) -> list[float]:
        """Milliseconds of each of the last tokens before `context`."""
        engine, cache, start = engines[kind], caches[kind], context - options.steps
        if cache.lengths[0] < start:
            engine.forward(cache, [Run(0, ids[cache.lengths[0] : start], logits=0)])
            engine.forward(cache, [Run(0, ids[start : start + 1])])  # not timed, since it may allocate
        cache.truncate(0, start)
        milliseconds = []
        for place in range(start, context):
            began = time.perf_counter()
            engine.forward(cache, [Run(0, ids[place : place + 1])])
            milliseconds.append(1000 * (time.perf_counter() - began))
        return milliseconds

    points = []
    for (context, kind), rounds in alternate(contexts, list(engines), options.rounds, measure).items():
        median, fastest, slowest = spread(rounds)
        times = {"milliseconds": median, "slowest": slowest, "fastest": fastest}
        size = engines[kind].new_cache(1, context).nbytes
        points.append({"kind": kind, "context": context, **times, "cache_bytes": size})
        say(f"{context:,} tokens, {kind}: {median:.2f} ms per token")
    return points


def contexts_table(points: Sequence[Result]) -> str:
    """The points in Markdown, both kinds of a context in one row."""
    columns = ["context", "banded, ms per token (fastest-slowest round)", "dense", "ratio"]
    rows = []
    for b, d in zip(points[::2], points[1::2], strict=True):
        times = [f"{p['milliseconds']:.1f} ({p['fastest']:.1f}-{p['slowest']:.1f})" for p in (b, d)]
        sizes = [f"{p['cache_bytes'] / 1e6:,.1f}" for p in (b, d)]
        ratios = [f"{b[key] / d[key]:.2f}" for key in ("milliseconds", "cache_bytes")]
        rows.append([f"{b['context']:,}", *times, ratios[0], *sizes, ratios[1]])
    return markdown([*columns, "banded, MB of cache", "dense", "ratio"], rows)


def draw(points: Sequence[Result], subtitle: str) -> str:
    """An SVG: time per token on the left, memory of its cache on the right.

    Args:
        points: both kinds at the same contexts.
        subtitle: what was measured, in the title.
    """

    def panel(title: str, value: Callable[[Result], float]) -> Axes:
        curves = [
            Line(kind, [(float(p["context"]), value(p), 0.0) for p in points if p["kind"] == kind], color)
            for kind, color in COLORS.items()
        ]
        return Axes(title, curves, "tokens of context", "{:,.0f}".format, scale=math.log2, labelled=True)

    panels = [
        panel("Time per token, ms", lambda point: float(point["milliseconds"])),
        panel("Keys and values, MB", lambda point: point["cache_bytes"] / 1e6),
    ]
    return svg(panels, f"Sliding-window and dense layers as the context grows: {subtitle}", width=430, height=300)


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


def run_formats(options: BenchFormatsOptions) -> None:
    """Measure and print."""
    results = bench_formats(options)
    print(json.dumps(results, indent=2) if options.json else formats_table(results))


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
        gaps = [gap_between(*pair) for pair in zip(fp32, completions, strict=True) if pair[0].tokens != pair[1].tokens]
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


def gap_between(ours: Generation, theirs: Generation) -> float:
    """How much likelier `ours` had its token than the next one where `theirs` first differs, in nats."""
    first, second = (ours.logprobs or [])[common_prefix(ours.tokens, theirs.tokens)].top
    return first[1] - second[1]


def formats_table(results: Sequence[Result]) -> str:
    """The results in Markdown."""
    headings = ["weights", "MB", "bits per byte", "compared with fp32", "same greedy completions", "widest gap in fp32"]
    rows = []
    for r in results:
        gap = "" if r["unchanged"] == r["prompts"] else f"{r['widest_gap']:.4f} nats"
        size, same = f"{r['bytes'] / 1e6:,.1f}", f"{r['unchanged']} of {r['prompts']}"
        rows.append([r["weights"], size, f"{r['bits_per_byte']:.5f}", f"{r['worse']:+.3%}", same, gap])
    return markdown(headings, rows)
