"""``gpt3 bench contexts``: what the banded layers save as a text grows, in time and in memory."""

from __future__ import annotations

import copy
import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt3.bench.contexts_options import BenchContextsOptions
from gpt3.progress import say

KINDS = ("banded", "dense")


@dataclass(frozen=True)
class Point:
    """One kind of model with a context of so many tokens."""

    kind: str
    """banded: every second layer sees its window only, as in the paper; dense: all see everything."""
    context: int
    """Tokens held."""
    milliseconds: float
    """To write one more; the median over all rounds."""
    slowest: float
    """Of the rounds' medians."""
    fastest: float
    """Of the rounds' medians."""
    cache_bytes: int
    """Of keys and values of one text of so many tokens, in float32."""


def run(options: BenchContextsOptions) -> int:
    """Measure, print, draw. Returns the exit code."""
    from gpt3 import durable
    from gpt3.bench.contexts_chart import draw

    points = bench_contexts(options)
    if options.out is not None:
        durable.write_text(Path(options.out), draw(points, f"{options.model}, {options.weights} weights, batch 1"))
    if options.json:
        print(json.dumps([dataclasses.asdict(point) for point in points], indent=2))
    else:
        print(table(points))
    return 0


def bench_contexts(options: BenchContextsOptions) -> list[Point]:
    """Both kinds at every context, shortest first."""
    import torch

    from gpt3.inference.cpu_engine import CpuEngine
    from gpt3.inference.engine import Run
    from gpt3.ladder.presets import preset
    from gpt3.model import GPT3ForCausalLM

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    shape, contexts = preset(options.model), sorted(set(options.contexts))
    torch.manual_seed(options.seed)
    config = shape.config(max_position_embeddings=max(contexts[-1], shape.context))
    banded = CpuEngine(GPT3ForCausalLM(config).eval(), options.weights)
    # The dense one has the very same weights in memory: where they lie decides more than a short context does.
    dense = copy.copy(banded)
    dense.config = copy.copy(config)
    dense.config.layer_types = ["full_attention"] * shape.n_layers
    engines = (banded, dense)
    ids = np.random.default_rng(options.seed).integers(0, shape.vocab_size - 1, contexts[-1]).tolist()
    caches = [engine.new_cache(1, contexts[-1]) for engine in engines]
    points = []
    for context in contexts:
        start = context - options.steps
        for engine, cache in zip(engines, caches, strict=True):
            engine.forward(cache, [Run(0, ids[cache.lengths[0] : start], logits=0)])
        seconds: list[list[list[float]]] = [[], []]  # by kind, round, step
        for _ in range(options.rounds):
            for engine, cache, rounds in zip(engines, caches, seconds, strict=True):
                engine.forward(cache, [Run(0, ids[start : start + 1])])  # not counted: it may allocate
                cache.truncate(0, start)
                times = []
                for place in range(start, context):
                    began = time.perf_counter()
                    engine.forward(cache, [Run(0, ids[place : place + 1])])
                    times.append(time.perf_counter() - began)
                cache.truncate(0, start)
                rounds.append(times)
        for kind, engine, rounds in zip(KINDS, engines, seconds, strict=True):
            medians = [1000 * statistics.median(times) for times in rounds]
            middle = 1000 * statistics.median([second for times in rounds for second in times])
            held = engine.new_cache(1, context).nbytes
            points.append(Point(kind, context, middle, max(medians), min(medians), held))
            say(f"{context:,} tokens, {kind}: {middle:.2f} ms a token")
    return points


def table(points: Sequence[Point]) -> str:
    """The points as a Markdown table."""
    lines = [
        "| context | banded, ms a token (fastest-slowest round) | dense | ratio | banded, MB of cache | dense | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    banded, dense = ([point for point in points if point.kind == kind] for kind in KINDS)
    for b, d in zip(banded, dense, strict=True):
        times = [f"{p.milliseconds:.1f} ({p.fastest:.1f}-{p.slowest:.1f})" for p in (b, d)]
        lines.append(
            f"| {b.context:,} | {times[0]} | {times[1]} | {b.milliseconds / d.milliseconds:.2f} "
            f"| {b.cache_bytes / 1e6:,.1f} | {d.cache_bytes / 1e6:,.1f} | {b.cache_bytes / d.cache_bytes:.2f} |"
        )
    return "\n".join(lines)
