"""Figure 3.1: the loss falls with compute as a power law; here measured on small models, and tested far beyond them.

Sizes of the ladder's shape rule are trained, each at three lengths (trunks.py), one size with three seeds. Laws are fitted to
them (scaling_fit.py). They predict a run of ten times the compute of any that was fitted; the prediction is written down, then
the run is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from gpt3.ladder.presets import PF_DAY
from gpt3.paper.experiment import Chart, Drawing, Experiment, Measured, Table, Work
from gpt3.paper.scaling_fit import LEVEL, Interval, Law, Point, fit, frontier, optimizer, power_law
from gpt3.paper.scaling_runs import (
    BATCH,
    SEEDS,
    bytes_per_gpt2_token,
    effective,
    planned,
    points_of,
    row,
    trained,
    unique_tokens,
)  # fmt: skip
from gpt3.paper.trunks import SHARES
from gpt3.report.svg import COLORS, Axes, Line, decades

PAPER_LEVEL, PAPER_POWER = 2.57, 0.048
"""L = 2.57 C^-0.048, C in PF-days (Figure 3.1)."""
SPLITS = (0.5, 0.6, 0.7, 0.8)
"""Shares of the runs, those of least compute, from which the others are predicted."""


def measure(work: Work) -> Measured:
    """Plan, train, fit, predict, and make the predicted run."""
    optimizer()  # a missing SciPy is found before the runs
    plan = work.once("plan", lambda: planned(work))
    unit = work.once("text", lambda: bytes_per_gpt2_token(work))
    rows: list[dict[str, Any]] = []
    for size in plan["sizes"]:
        for seed in range(SEEDS if size["name"] == plan["seeds_of"] else 1):
            name = size["name"] + (f"-seed-{work.seed + seed}" if seed else "")
            for score in trained(work, name, size, plan["steps"], SHARES, work.seed + seed):
                rows.append(row(size, score, work.seed + seed, unit))
    unique = unique_tokens(work.folder / plan["sizes"][0]["name"])
    points = points_of(rows, unique)
    big, steps = plan["predicted"], plan["predicted_steps"]
    worth = effective(steps * BATCH, unique)
    fitted = fit(points, work.seed)
    predicted = work.once("prediction", lambda: asdict(fitted.predict(big["layer_parameters"], worth, work.seed)))
    [score] = trained(work, f"predicted-{big['name']}", big, steps, (1.0,), work.seed)
    models = [{"name": size["name"], "place": str(work.folder / size["name"] / "model")} for size in plan["sizes"]]
    models.append({"name": f"{big['name']}-long", "place": str(work.folder / f"predicted-{big['name']}" / "model")})
    return {
        "plan": plan, "bytes_per_gpt2_token": unit, "unique_tokens": unique, "data": list(work.data), "runs": rows,
        "predicted_run": row(big, score, work.seed, unit), "prediction": predicted, "splits": splits(points, work.seed),
        "law": asdict(fitted.law), "resampled": [asdict(law) for law in fitted.others],
        "models": models,
    }  # fmt: skip


def splits(points: Sequence[Point], seed: int) -> list[dict[str, float]]:
    """The runs of the largest compute predicted from the others, for several shares of them: is the interval honest?"""
    found = []
    ordered = sorted(points, key=lambda point: point.compute)
    for share in SPLITS:
        known = ordered[: round(share * len(ordered))]
        fitted = fit(known, seed)
        for point in ordered[len(known) :]:
            said = fitted.predict(point.parameters, point.tokens, seed)
            found.append(
                {"share": share, "reached": point.loss, **asdict(said), "beyond": point.compute / known[-1].compute}
            )
    return found


def draw(measured: Measured) -> Drawing:
    """The loss over compute, with the prediction and what came of it; the laws with their intervals."""
    points = points_of(measured["runs"], measured["unique_tokens"])
    best = frontier(points)
    level, power = power_law([point.compute / PF_DAY for point in best], [point.loss for point in best])
    run, said = measured["predicted_run"], Interval(**measured["prediction"])
    compute = 6 * run["layer_parameters"] * run["tokens"]
    off = run["loss"] / said.value - 1
    times = compute / max(point.compute for point in points)
    inside = "inside" if said.low <= run["loss"] <= said.high else "outside"
    checks = measured["splits"]
    held = sum(check["low"] <= check["reached"] <= check["high"] for check in checks)
    miss = sorted(abs(check["reached"] / check["value"] - 1) for check in checks)[len(checks) // 2]
    law = Law(**measured["law"])
    epochs = run["tokens"] / measured["unique_tokens"]
    return Drawing(
        ours=[
            f"{len(points)} runs of {len({point.parameters for point in points})} sizes, "
            f"{min(point.parameters for point in points):,.0f} to {max(point.parameters for point in points):,.0f} parameters "
            f"in their layers. Loss in nats per token of GPT-2's tokenizer, on held-out text.",
            f"The best runs follow L = {level.value:.3g} C^-{power.value:.3f} ({LEVEL:.0%} interval of the power "
            f"{power.low:.3f} to {power.high:.3f}), C in PF-days.",
            f"A run of {times:.3g} times the largest compute, {run['name']} on {run['tokens']:,} tokens, was predicted to "
            f"reach {said.value:.3f} ({said.low:.3f} to {said.high:.3f}) before it was made. It reached {run['loss']:.3f}: "
            f"{off:+.2%}, {inside} the interval.",
            f"Predicting the runs of most compute from {SPLITS[0]:.0%} to {SPLITS[-1]:.0%} of the others: {held} of "
            f"{len(checks)} inside their intervals, {miss:.1%} off by the median.",
        ],
        paper=[
            f"L = {PAPER_LEVEL} C^-{PAPER_POWER}, C in PF-days without embeddings, over eight models of 125M to 175B parameters "
            "and six smaller ones (Figure 3.1).",
            "Kaplan et al. 2020 have L(N) with a power of 0.076 and L(D) with 0.095; Hoffmann et al. 2022 a floor of 1.69 with "
            "powers of 0.34 and 0.28.",
        ],
        notes=[
            f"The power is {'larger' if power.value > PAPER_POWER else 'smaller'} here than in the paper. Sizes, lengths, "
            "batches, text and tokenizer are others, so neither power nor level need agree.",
            f"The text has {measured['unique_tokens']:,} distinct tokens; the predicted run read {epochs:.2g} times as many.",
            f"Lengths of a size share one trunk: a constant rate, and a last fifth in which it falls. Batches of {BATCH:,} "
            "tokens, contexts of 128; the paper's compute-optimal batches are larger.",
        ],
        charts=[
            Chart(
                "Loss over compute", compute_axes(measured, points, level.value, power.value, said), compute_legend()
            ),
            Chart("Loss over tokens, by size", token_axes(measured, law), token_legend(measured)),
        ],
        tables=[Table("Laws, with intervals", laws(measured, level, power)), Table("Runs", runs_table(measured))],
    )


def compute_axes(measured: Measured, points: Sequence[Point], level: float, power: float, said: Interval) -> Axes:
    """Runs, the line through the best of them, the prediction with its outcome, and the paper's law at the same compute."""
    run = measured["predicted_run"]
    far = 6 * run["layer_parameters"] * run["tokens"]
    reach = [point.compute for point in points] + [far]
    span = [min(reach) * (max(reach) / min(reach)) ** (place / 20) for place in range(21)]

    def curve(level: float, power: float) -> list[tuple[float, float, float]]:
        return [(x, level * (x / PF_DAY) ** -power, 0.0) for x in span]

    runs = [(point.compute, point.loss, 0.0) for point in sorted(points, key=lambda point: point.compute)]
    lowest = min(run["loss"], said.low, curve(PAPER_LEVEL, PAPER_POWER)[-1][1])
    return Axes(
        "Loss over compute",
        [
            Line("runs", runs, COLORS[0], shows="points"),
            Line("best runs", curve(level, power), COLORS[0], shows="line"),
            Line("predicted", [(far, (said.low + said.high) / 2, (said.high - said.low) / 2)], COLORS[2], shows="points"),
            Line("reached", [(far, run["loss"], 0.0)], COLORS[3], shows="points"),
            Line("paper", curve(PAPER_LEVEL, PAPER_POWER), COLORS[1], dashed=True, shows="line"),
        ],
        "floating-point operations (6ND)", x_text="{:.0e}".format, scale=math.log10, y_text="{:.2g}".format,
        y_scale=math.log10, bottom=math.floor(lowest), x_marks=decades(span),
    )  # fmt: skip


def compute_legend() -> list[Line]:
    """Of `compute_axes`."""
    names = ("runs and the law of the best", "predicted", "reached")
    lines = [Line(name, [], color) for name, color in zip(names, (COLORS[0], COLORS[2], COLORS[3]), strict=True)]
    return [*lines, Line("the paper's law", [], COLORS[1], dashed=True)]


def token_axes(measured: Measured, law: Law) -> Axes:
    """Each size's runs over their tokens, and what the law says between them."""
    lines, unique = [], measured["unique_tokens"]
    for color, (name, rows) in zip(COLORS, by_size(measured).items(), strict=False):
        points = [(row["tokens"], row["loss"], 0.0) for row in rows]
        low, high = points[0][0], points[-1][0]
        span = [low * (high / low) ** (place / 10) for place in range(11)]
        size = rows[0]["layer_parameters"]
        lines.append(Line(name, points, color, shows="points"))
        lines.append(Line(name, [(x, law.loss(size, effective(x, unique)), 0.0) for x in span], color, shows="line"))
    places = sorted({x for line in lines for x, _, _ in line.points if line.shows == "points"})
    lowest = min(y for line in lines for _, y, _ in line.points)
    return Axes(
        "Loss over tokens, by size", lines, "tokens", x_text=lambda x: f"{x / 1e6:.2g}M", scale=math.log10,
        y_text="{:.2g}".format, bottom=math.floor(10 * lowest) / 10, x_marks=places,
    )  # fmt: skip


def token_legend(measured: Measured) -> list[Line]:
    """Of `token_axes`."""
    return [Line(name, [], color) for color, name in zip(COLORS, by_size(measured), strict=False)]


def by_size(measured: Measured) -> dict[str, list[dict[str, Any]]]:
    """The fitted runs of each size, shortest first, of the first seed."""
    found: dict[str, list[dict[str, Any]]] = {}
    first = measured["runs"][0]["seed"]
    for run in measured["runs"]:
        if run["seed"] == first:
            found.setdefault(run["name"], []).append(run)
    return found


def laws(measured: Measured, level: Interval, power: Interval) -> list[list[str]]:
    """The fitted laws in rows, with the numbers of the paper or of Hoffmann et al. 2022."""
    drawn = measured["resampled"]

    def interval(name: str) -> str:
        values = sorted(law[name] for law in drawn)
        low, high = (values[round(share * (len(values) - 1))] for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        return f"{low:.3g} to {high:.3g}"

    law = measured["law"]
    rows = [["law", "number", "here", f"{LEVEL:.0%} interval", "published"]]
    for name, number, key, published in (
        ("L(N), L(D)", "floor E", "floor", "1.69 (Hoffmann et al. 2022)"),
        (
            "L(N) = E + A / N^a, without limit of tokens",
            "power a",
            "model_power",
            "0.34; 0.076 without floor (Kaplan et al. 2020)",
        ),
        (
            "L(D) = E + B / D^b, of the largest models",
            "power b",
            "data_power",
            "0.28; 0.095 without floor (Kaplan et al. 2020)",
        ),
    ):
        rows.append([name, number, f"{law[key]:.3g}", interval(key), published])
    rows.append(
        ["L(C) = c C^-k", "power k", f"{power.value:.3f}", f"{power.low:.3f} to {power.high:.3f}", f"{PAPER_POWER}"]
    )
    rows.append(["", "level c", f"{level.value:.3g}", f"{level.low:.3g} to {level.high:.3g}", f"{PAPER_LEVEL}"])
    return rows


def runs_table(measured: Measured) -> list[list[str]]:
    """Every run."""
    rows = [["size", "layers", "width", "seed", "tokens", "6ND", "bits per byte", "nats per GPT-2 token"]]
    for run in [*measured["runs"], measured["predicted_run"]]:
        compute = 6 * run["layer_parameters"] * run["tokens"]
        numbers = [f"{run[key]:,}" for key in ("layers", "width", "seed", "tokens")]
        rows.append([run["name"], *numbers, f"{compute:.2e}", f"{run['bits_per_byte']:.4f}", f"{run['loss']:.4f}"])
    return rows


EXPERIMENT = Experiment("3.1", "Loss over compute", measure, draw, share=0.62)
