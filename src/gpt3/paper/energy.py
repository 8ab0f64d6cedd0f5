"""Section 6.3: the energy of training and of generating text, measured here as far as the machine allows, next to the paper's."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from gpt3.energy import KWH, Energy, Meter, amount
from gpt3.ladder.presets import PAPER_TOKENS, PF_DAY, PRESETS, training_flops
from gpt3.paper.asking import asked
from gpt3.paper.experiment import Chart, Drawing, Experiment, Measured, Table, Work
from gpt3.paper.origins import origin
from gpt3.report.page import compact
from gpt3.report.svg import COLORS, Axes, Line, decades

if TYPE_CHECKING:
    from gpt3.inference.language_model import LanguageModel

PAGE_WORDS = 500
"""Words of a page; the paper does not say what a page is."""
PAPER_KWH, PAPER_SIZE = 0.4, 175e9
"""Energy of 100 pages from the full model, and its size (section 6.3)."""
SECONDS = 6.0
"""Each model generates for this long."""
SAMPLES, TOKENS = 8, 200
"""Samples generated in parallel, and the tokens that each has at most."""


def measure(work: Work) -> Measured:
    """What the models' runs took, and what it takes each of them to write."""
    models = [
        origin(model) | {"generation": work.once(name, partial(generation, loaded, work.seed))}
        for model, loaded, name in asked(work)
    ]
    return {"page_words": PAGE_WORDS, "models": models}


def generation(model: LanguageModel, seed: int) -> dict[str, Any]:
    """Generate for a while: words and tokens of each batch of samples, seconds, and joules by source."""
    longest = max(1, min(TOKENS, model.engine.context - 1))
    model.complete("", n=SAMPLES, max_new_tokens=min(8, longest), seed=seed)  # compiles
    meter, began, words, tokens = Meter(str(model.engine.device)), time.monotonic(), list[int](), list[int]()
    while time.monotonic() - began < SECONDS:
        made = model.complete("", n=SAMPLES, max_new_tokens=longest, seed=seed + len(words))
        words.append(sum(len(one.text.split()) for one in made))
        tokens.append(sum(one.token_count for one in made))
        meter.look()
    joules = dict(meter.energy().joules)
    return {"words": words, "tokens": tokens, "seconds": time.monotonic() - began, "joules": joules}


def pages_kwh(found: dict[str, Any], page_words: int) -> float | None:
    """Kilowatt-hours of 100 pages; None if no word was written, or nothing was measured."""
    words, joules = sum(found["words"]), sum(found["joules"].values())
    return 100 * page_words * joules / words / KWH if words and joules else None


def draw(measured: Measured) -> Drawing:
    """A table of both, and the energy of 100 pages over model size."""
    page_words, models = measured["page_words"], measured["models"]
    sources = dict.fromkeys(name for row in models for name in (*row["generation"]["joules"], *row["joules"]))
    trained = [row for row in models if row["joules"] and row["tokens"]]
    written = [(row, kwh) for row in models if (kwh := pages_kwh(row["generation"], page_words)) is not None]
    ours = [f"Where the numbers are from: {'; '.join(sources) or 'nothing could be measured'}."]
    if trained:
        total = Energy({"all": sum(sum(row["joules"].values()) for row in trained)})
        ours.insert(0, f"Training {', '.join(row['name'] for row in trained)} took {amount(total.kwh)} in all.")
    if written:
        parts = ", ".join(f"{row['name']} {amount(kwh)}" for row, kwh in written)
        ours.insert(1 if trained else 0, f"100 pages of {page_words} words: {parts}.")
    lines = [
        Line("here", [(row["parameters"], math.log10(kwh), 0.0) for row, kwh in written], COLORS[0]),
        Line("GPT-3 175B, as the paper says", [(PAPER_SIZE, math.log10(PAPER_KWH), 0.0)], COLORS[1], shows="points"),
    ]
    return Drawing(
        ours=ours,
        paper=[
            "Training GPT-3 175B took several thousand petaflop/s-days of compute, a 1.5B GPT-2 tens of them (section 6.3).",
            "100 pages of text from the trained model can cost on the order of 0.4 kWh.",
        ],
        notes=[
            *notes(trained),
            f"A page is {page_words} words here; the paper does not define one. {SAMPLES} samples are generated in parallel: a "
            "single one takes more per word, a full GPU less.",
            "The rest of the machine, its cooling and the preparation of data are not counted (docs/training.md).",
        ],
        charts=[Chart("Energy of 100 pages over model size", axes(lines), lines)] if written else [],
        tables=[Table("Energy", table(measured))],
    )  # fmt: skip


def notes(trained: list[dict[str, Any]]) -> list[str]:
    """What the paper's model would take at this machine's energy per operation."""
    if not trained:
        return [
            "No model here comes from a run that recorded its energy: train one with this version, and name it in --model."
        ]
    most = max(trained, key=lambda row: row["parameters"])
    spent = sum(most["joules"].values()) / training_flops(most["parameters"], most["tokens"])
    flops = training_flops(PRESETS["175B"].parameters, PAPER_TOKENS)
    return [
        f"At the energy per operation of {most['name']} here, {spent * PF_DAY / KWH:,.0f} kWh per PF-day, the 3,640 PF-days of "
        f"GPT-3 175B would take {amount(spent * flops / KWH)}. The paper does not give its own energy."
    ]


def table(measured: Measured) -> list[list[str]]:
    """Every model in a row."""
    rows = [["model", "parameters", "tokens trained on", "training", "words/s", "100 pages", "Wh per 1,000 tokens"]]
    for row in measured["models"]:
        found, joules = row["generation"], sum(row["joules"].values())
        kwh = pages_kwh(found, measured["page_words"])
        each = sum(found["joules"].values()) / sum(found["tokens"]) * 1000 / 3600
        rows.append([
            row["name"], f"{row['parameters']:,}", f"{row['tokens']:,}" if row["tokens"] else "not known",
            amount(joules / KWH) if joules else "not recorded", f"{sum(found['words']) / found['seconds']:,.0f}",
            "-" if kwh is None else amount(kwh), f"{each:.3g}",
        ])  # fmt: skip
    return rows


def axes(lines: list[Line]) -> Axes:
    """Both axes in decades."""
    sizes = [x for line in lines for x, _, _ in line.points]
    return Axes(
        "Energy of 100 pages", lines, "parameters", x_text=compact, scale=math.log10,
        y_text=lambda power: f"{amount(10**power)}", bottom=math.floor(min(y for line in lines for _, y, _ in line.points)),
        x_marks=decades(sizes),
    )  # fmt: skip


EXPERIMENT = Experiment("6.3", "Energy of training and of generating", measure, draw)
