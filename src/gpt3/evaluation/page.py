"""The HTML page of one or several models' results: for each task the score over K, and over model size for several models."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

from gpt3.evaluation import report_card
from gpt3.evaluation.results import Evaluation, TaskScore, rows
from gpt3.model_folder.locate import name_of
from gpt3.report.page import compact
from gpt3.report.svg import COLORS, Axes, Line, svg

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
figure{display:inline-block;margin:.5rem 1rem 1rem 0;vertical-align:top}figcaption{font-weight:600}
svg{display:block}table{border-collapse:collapse}
td,th{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #8884}td:first-child,th:first-child{text-align:left}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}}"""


def page(models: Sequence[Evaluation]) -> str:
    """The HTML page of one or several models' results: one file, no script, no network.

    Drawn as the paper's Figures 1.2 and 3.x: accuracy over few-shot examples or parameters.
    """
    by_task: dict[str, list[tuple[int, TaskScore]]] = {}
    for number, model in enumerate(models):
        for score in model.results:
            if isinstance(score, TaskScore):
                title = score.task if score.style == "paper" else f"{score.task} ({score.style})"
                by_task.setdefault(title, []).append((number, score))
    names = [html.escape(model.model) for model in models]
    legend = " ".join(f'<span style="color:{_color(number)}">● {name}</span>' for number, name in enumerate(names))
    parts = [f"<p>{legend}; dashed: guessing. Bars are ± one standard error.</p>"]
    parts.append("<h2>Score over few-shot examples</h2>")
    for task, scores in by_task.items():
        parts.append(_chart(task, [(number, score.shots, score) for number, score in scores], "K"))
    if len(models) > 1:
        parts.append("<h2>Score over parameters</h2>")
        for task, scores in by_task.items():
            points = [(score.shots, float(models[number].parameters), score) for number, score in scores]
            label = "parameters; " + ", ".join(f"K={shots}" for shots in sorted({shots for shots, *_ in points}))
            parts.append(_chart(task, points, label, x_text=compact, scale=math.log))
    parts.append("<h2>All figures</h2>")
    for name, model in zip(names, models, strict=True):
        parts += [f"<h3>{name}</h3>"] if len(models) > 1 else []
        parts.append(_table(rows(model.results)))
        if card := report_card.rows(name_of(model.model), model.parameters, model.results):
            parts.append("<h3>Next to other small models, zero-shot</h3>" + _table(card))
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>gpt3 eval</title><style>{STYLE}</style></head>\n'
        f"<body><h1>Evaluation</h1>\n{body}\n</body></html>\n"
    )


def _table(cells: Sequence[Sequence[str]]) -> str:
    """Headings first."""
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in cells]
    lines[0] = lines[0].replace("td>", "th>")
    return "<table>" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _chart(title: str, points: Iterable[tuple[int, float, TaskScore]], label: str, **axis: Any) -> str:
    """A figure of the points (number of the curve, x, score): scores in percent; guessing dashed; `axis` is of `Axes`."""
    curves: dict[int, list[tuple[float, float, float]]] = {}
    chance = 0.0
    for number, x, score in points:
        figure, chance = score.metrics[score.main], 100 * score.chance
        curves.setdefault(number, []).append((x, 100 * figure.value, 100 * figure.error))
    drawn = [Line(str(number), sorted(curves[number]), _color(number)) for number in sorted(curves)]
    panel = Axes(title, drawn, label, y_text="{:g}%".format, level=chance, **axis)
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{svg([panel])}</figure>"


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]
