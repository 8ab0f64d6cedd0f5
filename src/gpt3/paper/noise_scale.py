"""Section 2.3: the gradient noise scale, by which the paper guided its batches, measured while two sizes are trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt3.ladder.presets import PRESETS
from gpt3.paper.experiment import Chart, Drawing, Experiment, Measured, Table, Work
from gpt3.report.page import compact
from gpt3.report.run_folder import METRICS, number, read_metrics
from gpt3.report.svg import COLORS, Axes, Line, decades

SHAPES = ((2, 64), (4, 256))
"""Layers and widths."""
BATCH, ROWS = 4096, 4
"""Tokens of a step, and sequences of a micro-batch: 8 of them at the context of experiment 3.1."""
LEAST, PARTS = 16, 6
"""Steps of the first part of a run, and the number of parts, each longer than the one before by the same factor."""
SURE = 2.0
"""A part is shown if its mean |G|² is above 0 by this many standard errors."""
OURS = (COLORS[0], COLORS[2])
"""Of the sizes: orange is the paper's."""
CRITICAL, POWER = 2e8, 1 / 0.21
"""B_crit = 2e8 / L^(1/0.21) tokens, L in nats per token (Kaplan et al. 2020)."""
ROUNDED = {
    "125M": 0.5e6, "350M": 0.5e6, "760M": 0.5e6, "1.3B": 1e6, "2.7B": 1e6, "6.7B": 2e6, "13B": 2e6, "175B": 3.2e6,
}  # fmt: skip
"""Batches of Table 2.1, in tokens."""


@dataclass(frozen=True)
class Part:
    """Some steps of a run in a row."""

    tokens: float
    """Seen by their middle."""
    loss: float
    """Their mean, nats per token."""
    scale: float
    """The noise scale: mean tr Σ over mean |G|², in tokens."""
    error: float
    """Its standard error."""


def measure(work: Work) -> Measured:
    """Train each size for its part of the time; every step's loss and its two estimates."""
    from gpt3.paper.scaling_runs import bytes_per_gpt2_token

    minutes = work.once("minutes", lambda: work.minutes / len(SHAPES))  # a run that resumes keeps its own
    sizes = [trained(work, layers, width, minutes) for layers, width in SHAPES]
    return {"sizes": sizes, "bytes_per_gpt2_token": work.once("text", lambda: bytes_per_gpt2_token(work))}


def trained(work: Work, layers: int, width: int, minutes: float) -> dict[str, Any]:
    """A size with the records of its run: tokens, loss, |G|² and tr Σ of each step."""
    from gpt3.paper.scaling_runs import CONTEXT, VOCABULARY, options_of, size_of
    from gpt3.training.options import TrainOptions
    from gpt3.training.plan import batch_shape, shape_of

    size = size_of(layers, width)
    options = options_of(size)
    run = work.train(
        size["name"], **options, data=list(work.data), tokenizer=f"own:{VOCABULARY}", minutes=minutes, noise_scale=True,
        batch_tokens=BATCH, micro_batch=ROWS, min_lr_ratio=1.0, log_every=1,
    )  # fmt: skip
    steps, ratio = records(run)
    rule = batch_shape(TrainOptions(**options), shape_of(TrainOptions(**options)), int(steps[-1][0]))[0]
    return {
        **size, "batch_tokens": BATCH, "micro_batch_tokens": ROWS * CONTEXT, "rule_batch": rule, "bytes_per_token": ratio,
        "steps": steps,
    }  # fmt: skip


def records(run: Path) -> tuple[list[list[float]], float]:
    """Tokens, loss, |G|² and tr Σ of every measured step of a run; and the bytes of its tokens."""
    steps, ratio = [], math.nan
    for record in read_metrics(run / METRICS):
        found = [number(record.get(name)) for name in ("tokens", "loss", "noise_square", "noise_trace")]
        if None not in found:
            steps.append([float(value or 0.0) for value in found])
        if number(record.get("val/loss")) is not None:
            ratio = record["val/loss"] / math.log(2) / record["val/bits_per_byte"]
    return steps, ratio


def parts(steps: Sequence[Sequence[float]]) -> list[Part]:
    """Noise scales of the run's parts; those that are too noisy to be told from no gradient are left out."""
    tokens, losses, squares, traces = np.asarray(steps, dtype=float).T
    ends = np.unique(np.geomspace(min(LEAST, len(steps)), len(steps), PARTS).round().astype(int))
    found = []
    for first, last in zip([0, *ends[:-1]], ends, strict=True):
        square, trace, count = squares[first:last], traces[first:last], last - first
        mean = square.mean()
        if count > 1 and mean > SURE * square.std(ddof=1) / math.sqrt(count):
            scale = trace.mean() / mean
            error = (trace - scale * square).std(ddof=1) / math.sqrt(count) / mean  # of a quotient of means
            found.append(
                Part(float(tokens[first:last].mean()), float(losses[first:last].mean()), float(scale), float(error))
            )
    return found


def draw(measured: Measured) -> Drawing:
    """The noise scale over tokens, over loss next to Kaplan's law, and the batches over model size next to Table 2.1."""
    unit, sizes = measured["bytes_per_gpt2_token"], measured["sizes"]
    found = [(size, parts(size["steps"])) for size in sizes]
    seen = [(size, known) for size, known in found if known]
    hidden = [size["name"] for size, known in found if not known]
    ours = [
        f"{size['name']}: from {known[0].scale:,.0f} tokens (loss {known[0].loss:.2f}) to {known[-1].scale:,.0f} ± "
        f"{known[-1].error:,.0f} (loss {known[-1].loss:.2f}) after {size['steps'][-1][0]:,.0f} tokens; gpt3's batch for this run "
        f"would be {size['rule_batch']:,}."
        for size, known in seen
    ]  # fmt: skip
    smallest, largest = min(ROUNDED.values()), max(ROUNDED.values())
    return Drawing(
        ours=ours or ["Nothing: the runs were too short to tell the gradient from its noise."],
        paper=[
            f"The measured gradient noise scale guided the batches (section 2.3): {smallest / 1e6:g}M tokens for 125M to "
            f"{largest / 1e6:g}M for 175B (Table 2.1). Larger models take larger batches. The measurements are not printed.",
            f"Kaplan et al. 2020 have B_crit = {compact(CRITICAL)} / L^{POWER:.2f} tokens: the loss decides, not the size.",
        ],
        notes=[
            f"Both sizes take steps of {BATCH:,} tokens. The noise scale compares their micro-batches of "
            f"{ROWS} sequences with the whole step (docs/training.md). Error bars are one standard error.",
            "Losses and tokens are converted to those of GPT-2's tokenizer where Kaplan's law is drawn. It was fitted to batches "
            "that trained best for their time, far below the losses here, and the noise scale only approximates them.",
            "The learning rate is constant after its warm-up: one that falls makes the noise scale larger.",
            "Batches of the paper's size cannot be tested here: a run of a thousand such steps would read 0.5B tokens.",
            *(
                [f"Too noisy to show: {', '.join(hidden)}. Longer runs (--minutes) or larger steps show it."]
                if hidden
                else []
            ),
        ],
        charts=charts(seen, unit) if seen else [],
        tables=[Table("The noise scale over training", table(seen, unit))] if seen else [],
    )


def charts(seen: Sequence[tuple[Mapping[str, Any], Sequence[Part]]], unit: float) -> list[Chart]:
    """Of the sizes that were measured.

    Args:
        unit: bytes per token of GPT-2's tokenizer.
    """
    over_tokens = [
        Line(size["name"], [(part.tokens, part.scale, part.error) for part in known], color)
        for (size, known), color in zip(seen, OURS, strict=False)
    ]
    over_loss = []
    for (size, known), color in zip(seen, OURS, strict=False):
        ratio = unit / size["bytes_per_token"]
        places = sorted((part.loss * ratio, math.log10(part.scale / ratio), 0.0) for part in known)
        over_loss.append(Line(size["name"], places, color))
    losses = [x for line in over_loss for x, _, _ in line.points]
    span = np.linspace(min(losses), max(losses), 20).tolist()
    law = [(x, math.log10(CRITICAL / x**POWER), 0.0) for x in span]
    over_loss.append(Line("Kaplan et al. 2020", law, COLORS[3], dashed=True, shows="line"))
    here = [(size["layer_parameters"], math.log10(known[-1].scale), 0.0) for size, known in seen]
    rule = [(size["layer_parameters"], math.log10(size["rule_batch"]), 0.0) for size, _ in seen]
    paper = [
        (12 * each.n_layers * each.d_model**2, math.log10(ROUNDED[name]), 0.0)
        for name in ROUNDED
        for each in [PRESETS[name]]
    ]
    by_size = [
        Line("noise scale here", sorted(here), COLORS[0]),
        Line("gpt3's batch for these runs", sorted(rule), COLORS[5], dashed=True),
        Line("batch of Table 2.1", paper, COLORS[1]),
    ]
    ends = [x for line in over_tokens for x, _, _ in line.points]
    return [
        Chart("Noise scale over training", Axes(
            "Noise scale, tokens", over_tokens, "tokens trained on", x_text=compact, y_text=compact, scale=math.log10,
            x_marks=sorted({min(ends), *decades(ends), max(ends)}),
        ), over_tokens),
        Chart("Noise scale over loss", logarithmic(over_loss, "nats per token of GPT-2", "{:.2g}".format), over_loss),
        Chart("Batch over size", logarithmic(by_size, "parameters without embeddings", compact, math.log10), by_size),
    ]  # fmt: skip


def logarithmic(lines: Sequence[Line], label: str, text: Any, scale: Any = float) -> Axes:
    """Axes whose heights are powers of ten."""
    places = [x for line in lines for x, _, _ in line.points]
    lowest = min(y for line in lines for _, y, _ in line.points)
    marks = (
        sorted({min(places), *decades(places), max(places)})
        if scale is math.log10
        else np.linspace(min(places), max(places), 5).tolist()
    )
    return Axes(
        "tokens", lines, label, x_text=text, scale=scale, y_text=lambda power: compact(10**power),
        bottom=math.floor(lowest), x_marks=marks,
    )  # fmt: skip


def table(seen: Sequence[tuple[Mapping[str, Any], Sequence[Part]]], unit: float) -> list[list[str]]:
    """Every part of every run."""
    rows = [["size", "tokens trained on", "loss", "noise scale", "standard error", "Kaplan's B_crit"]]
    for size, known in seen:
        ratio = unit / size["bytes_per_token"]
        for part in known:
            critical = CRITICAL / (part.loss * ratio) ** POWER * ratio
            numbers = [f"{value:,.0f}" for value in (part.scale, part.error, critical)]
            rows.append([size["name"], f"{part.tokens:,.0f}", f"{part.loss:.3f}", *numbers])
    return rows


EXPERIMENT = Experiment("2.3", "Gradient noise scale", measure, draw, share=0.08)
