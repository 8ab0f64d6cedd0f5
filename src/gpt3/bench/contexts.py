"""``gpt3 bench contexts``: the time and memory that sliding-window layers save as the context grows, as a table and curves."""

from __future__ import annotations

import copy
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from gpt3 import durable
from gpt3.bench.harness import FORMATS, Result, alternate, markdown, spread
from gpt3.errors import InputError
from gpt3.ladder.presets import preset
from gpt3.options import Options, option
from gpt3.progress import say

MOST_STEPS = 64
"""A cache can be truncated by at least this many tokens (gpt3.inference.engine.ROLLBACK)."""
COLOURS = {"banded": "#2a63d4", "dense": "#dd6b10"}
"""Of the curves. banded: every second layer attends within its window only, as in the paper; dense: all attend to everything."""
WIDTH, HEIGHT, PANEL, TOP, BOTTOM = 860, 330, 300, 84, 270
SOFT, GRID, INK = "#5b6472", "#e2e5ea", "#171a21"


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


def run(options: BenchContextsOptions) -> int:
    """Measure, print, draw. Returns the exit code."""
    points = bench_contexts(options)
    if options.out is not None:
        durable.write_text(Path(options.out), draw(points, f"{options.model}, {options.weights} weights, batch 1"))
    print(json.dumps(points, indent=2) if options.json else table(points))
    return 0


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


def table(points: Sequence[Result]) -> str:
    """The points in Markdown."""
    headings = ["context", "banded, ms per token (fastest-slowest round)", "dense", "ratio"]
    rows = []
    for b, d in zip(points[::2], points[1::2], strict=True):
        times = [f"{p['milliseconds']:.1f} ({p['fastest']:.1f}-{p['slowest']:.1f})" for p in (b, d)]
        sizes = [f"{p['cache_bytes'] / 1e6:,.1f}" for p in (b, d)]
        ratios = [f"{b[key] / d[key]:.2f}" for key in ("milliseconds", "cache_bytes")]
        rows.append([f"{b['context']:,}", *times, ratios[0], *sizes, ratios[1]])
    return markdown([*headings, "banded, MB of cache", "dense", "ratio"], rows)


def draw(points: Sequence[Result], subtitle: str) -> str:
    """An SVG: time per token on the left, memory of its cache on the right.

    Args:
        points: both kinds at the same contexts.
        subtitle: what was measured, below the title.
    """
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    title = "Sliding-window layers and dense layers as the context grows"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(16, 26, title, INK, 'font-size="15" font-weight="600"'),
        _text(16, 45, subtitle, SOFT),
        *_panel(points, 60, "Time per token, ms", lambda point: point["milliseconds"]),
        *_panel(points, 475, "Keys and values, MB", lambda point: point["cache_bytes"] / 1e6),
    ]
    return "\n".join([*lines, "</svg>\n"])


def ticks(highest: float) -> list[float]:
    """Round numbers from 0 to at least `highest`: three to five steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** (math.floor(math.log10(highest)) - 1)
    step = next(m * power for m in (1, 2, 5, 10, 20, 50) if math.ceil(highest / (m * power) - 1e-9) <= 5)
    return [i * step for i in range(math.ceil(highest / step - 1e-9) + 1)]


def _text(x: float, y: float, text: str, colour: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" {more}>{escape(text)}</text>'


def _panel(points: Sequence[Result], left: int, title: str, value: Callable[[Result], float]) -> list[str]:
    contexts = sorted({point["context"] for point in points})
    low, high = math.log2(contexts[0]), math.log2(contexts[-1])
    marks = ticks(max(map(value, points)))

    def x(context: int) -> float:
        return left + PANEL * ((math.log2(context) - low) / (high - low) if high > low else 0.5)

    def y(number: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * number / marks[-1]

    lines = [_text(left, TOP - 14, title, INK, 'font-weight="600"')]
    for mark in marks:
        lines.append(f'<line x1="{left}" x2="{left + PANEL}" y1="{y(mark):.1f}" y2="{y(mark):.1f}" stroke="{GRID}"/>')
        lines.append(_text(left - 8, y(mark) + 4, f"{mark:g}", SOFT, 'text-anchor="end"'))
    for context in contexts:
        lines.append(_text(x(context), BOTTOM + 18, f"{context:,}", SOFT, 'text-anchor="middle"'))
    lines.append(_text(left + PANEL / 2, BOTTOM + 38, "tokens of context", SOFT, 'text-anchor="middle"'))
    for kind, own in itertools.groupby(sorted(points, key=lambda point: point["kind"]), lambda point: point["kind"]):
        places = [(x(point["context"]), y(value(point))) for point in own]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[kind]}" stroke-width="2"/>')
        lines += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{COLOURS[kind]}"/>' for a, b in places]
        lines.append(_text(places[-1][0] + 8, places[-1][1] + 4, kind, COLOURS[kind]))
    return lines
