"""report.html of an evaluation: for each task the score over K, and over model size where several models were scored.

One file, no script, no network. Drawn as the paper's Figures 1.2 and 3.x: accuracy up, demonstrations or parameters to the right.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt3.durable import write_text
from gpt3.evaluation.results import overlap_cells

WIDTH, HEIGHT = 320, 200
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 12, 34
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's, told apart by all
Point = tuple[float, float, float]
"""x, score in per cent, its standard error in per cent."""

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
figure{display:inline-block;margin:.5rem 1rem 1rem 0;vertical-align:top}figcaption{font-weight:600}
svg{display:block}text{font:11px system-ui,sans-serif;fill:currentColor}table{border-collapse:collapse}
td,th{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #8884}td:first-child,th:first-child{text-align:left}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}}"""


def write_page(path: Path, models: Sequence[dict[str, Any]]) -> None:
    """Write the page of one or several models' results (contents of results.json)."""
    write_text(path, page(models))


def page(models: Sequence[dict[str, Any]]) -> str:
    """The page as text."""
    names = [str(model["model"]) for model in models]
    tasks = list(dict.fromkeys(entry["task"] for model in models for entry in model["results"] if "task" in entry))
    legend = " ".join(f'<span style="color:{_color(i)}">● {html.escape(name)}</span>' for i, name in enumerate(names))
    parts = [
        f"<p>{legend}; dashed: guessing. Bars are ± one standard error.</p>",
        "<h2>Score over solved examples</h2>",
    ]
    for task in tasks:
        curves = [_over_shots(model, task) for model in models]
        parts.append(_chart(task, curves, _chance(models, task), "K", [f"{x:g}" for x in _values(curves)]))
    sized = [model for model in models if model["parameters"]]
    if len(sized) > 1:
        parts.append("<h2>Score over parameters</h2>")
        for task in tasks:
            by_shots = _over_sizes(sized, task)
            label = "parameters; " + ", ".join(f"K={shots}" for shots in by_shots)
            points = list(by_shots.values())
            parts.append(_chart(task, points, _chance(models, task), label, [_size(10**x) for x in _values(points)]))
    parts += ["<h2>All figures</h2>", _table(models)]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>gpt3 eval</title><style>{STYLE}</style></head>\n'
        f"<body><h1>Evaluation</h1>\n{body}\n</body></html>\n"
    )


def _entries(model: dict[str, Any], task: str) -> list[dict[str, Any]]:
    found = [entry for entry in model["results"] if entry.get("task") == task]
    return sorted(found, key=lambda entry: entry["shots"])


def _main(entry: dict[str, Any]) -> str:
    """The name of a task's first figure."""
    return str(entry.get("main", "acc"))


def _point(x: float, entry: dict[str, Any]) -> Point:
    figure = entry["metrics"][_main(entry)]
    return x, 100 * figure["value"], 100 * figure["error"]


def _over_shots(model: dict[str, Any], task: str) -> list[Point]:
    return [_point(entry["shots"], entry) for entry in _entries(model, task)]


def _over_sizes(models: Sequence[dict[str, Any]], task: str) -> dict[int, list[Point]]:
    """Points by K, from the smallest model to the largest; x is the logarithm of the parameters."""
    found: dict[int, list[Point]] = {}
    for model in sorted(models, key=lambda model: model["parameters"]):
        for entry in _entries(model, task):
            found.setdefault(entry["shots"], []).append(_point(math.log10(model["parameters"]), entry))
    return found


def _chance(models: Sequence[dict[str, Any]], task: str) -> float:
    return next(100 * entry["chance"] for model in models for entry in _entries(model, task))


def _values(curves: Sequence[Sequence[Point]]) -> list[float]:
    return sorted({x for curve in curves for x, _, _ in curve})


def _chart(title: str, curves: Sequence[Sequence[Point]], chance: float, label: str, ticks: Sequence[str]) -> str:
    values = _values(curves)
    low, high = values[0], max(values[-1], values[0] + 1e-9)
    top = max([chance, 1.0, *(y + error for curve in curves for _, y, error in curve)]) * 1.05

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - low) / (high - low)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / top

    marks = [
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="currentColor" stroke-opacity=".5"/>'
    ]
    for y in (0.0, top / 1.05):
        marks.append(f'<text x="{LEFT - 4}" y="{up(y) + 4:.1f}" text-anchor="end">{y:.3g}%</text>')
    shown = -1e9
    for x, text in zip(values, ticks, strict=True):
        if across(x) - shown > 24:  # no label over another
            shown = across(x)
            marks.append(
                f'<text x="{shown:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{html.escape(text)}</text>'
            )
    marks.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle">{html.escape(label)}</text>')
    if chance:
        marks.append(
            f'<path d="M{LEFT} {up(chance):.1f}H{WIDTH - RIGHT}" stroke="currentColor" stroke-opacity=".6" '
            'stroke-dasharray="4 3"/>'
        )
    for number, curve in enumerate(curves):
        color = _color(number)
        line = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y, _ in curve)
        marks.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        for x, y, error in curve:
            bar = f"M{across(x):.1f} {up(max(0.0, y - error)):.1f}V{up(y + error):.1f}"
            marks.append(
                f'<path d="{bar}" stroke="{color}"/><circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" fill="{color}"/>'
            )
    drawing = "".join(marks)
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{html.escape(title)}">{drawing}</svg></figure>'
    )


def _table(models: Sequence[dict[str, Any]]) -> str:
    known = any(entry.get("contamination") for model in models for entry in model["results"])
    head = ["task", "K", "model", "n", "score", *(("dirty", "clean", "rel. diff.") if known else ())]
    head += ["paper 125M", "paper 175B"]
    rows = ["<tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>"]
    for model in models:
        for entry in model["results"]:
            if "task" not in entry:
                continue
            _, value, error = _point(0, entry)
            paper = entry["paper"].get(_main(entry), {})
            cells = [
                entry["task"],
                entry["shots"],
                model["model"],
                entry["examples"],
                f"{value:.2f} ± {error:.2f}" + (f" {_main(entry)}" if _main(entry) != "acc" else ""),
                *(overlap_cells(entry, _main(entry)) if known else ()),
                paper.get("Small", ""),
                paper.get("175B", ""),
            ]
            rows.append("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>")
    return "<table>" + "\n".join(rows) + "</table>"


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]


def _size(parameters: float) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if parameters >= size:
            return f"{parameters / size:.3g}{unit}"
    return f"{parameters:.0f}"
