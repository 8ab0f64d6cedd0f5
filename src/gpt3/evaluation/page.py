"""report.html of an evaluation: for each task the score over K, and over model size if several models were scored.

One file, no script, no network. Drawn as the paper's Figures 1.2 and 3.x: accuracy over few-shot examples or parameters.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from gpt3.evaluation.results import Evaluation, TaskScore, rows
from gpt3.report.page import compact

WIDTH, HEIGHT = 320, 200
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 12, 34
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's, distinct to all eyes
Curve = list[tuple[float, float, float]]
"""Points: x, score in percent, its standard error in percent."""

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
figure{display:inline-block;margin:.5rem 1rem 1rem 0;vertical-align:top}figcaption{font-weight:600}
svg{display:block}text{font:11px system-ui,sans-serif;fill:currentColor}table{border-collapse:collapse}
td,th{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #8884}td:first-child,th:first-child{text-align:left}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}}"""


def page(models: Sequence[Evaluation]) -> str:
    """The page of one or several models' results."""
    by_task: dict[str, list[tuple[int, TaskScore]]] = {}
    for number, model in enumerate(models):
        for score in model.results:
            if isinstance(score, TaskScore):
                by_task.setdefault(score.task, []).append((number, score))
    legend = " ".join(
        f'<span style="color:{_color(number)}">● {html.escape(model.model)}</span>'
        for number, model in enumerate(models)
    )
    parts = [
        f"<p>{legend}; dashed: guessing. Bars are ± one standard error.</p>",
        "<h2>Score over few-shot examples</h2>",
    ]
    for task, scores in by_task.items():
        curves = _curves((number, score.shots, score) for number, score in scores)
        parts.append(_chart(task, curves, scores[0][1].chance, "K", "{:g}".format))
    if len(models) > 1:
        parts.append("<h2>Score over parameters</h2>")
        sizes = [math.log10(model.parameters) for model in models]
        for task, scores in by_task.items():
            curves = _curves((score.shots, sizes[number], score) for number, score in scores)
            label = "parameters; " + ", ".join(f"K={shots}" for shots in curves)
            parts.append(_chart(task, curves, scores[0][1].chance, label, lambda x: compact(10**x)))
    parts.append("<h2>All figures</h2>")
    for model in models:
        parts += [f"<h3>{html.escape(model.model)}</h3>"] if len(models) > 1 else []
        lines = [[f"<td>{html.escape(cell)}</td>" for cell in row] for row in rows(model.results)]
        head = [cell.replace("td>", "th>") for cell in lines[0]]
        parts.append("<table>" + "\n".join(f"<tr>{''.join(line)}</tr>" for line in (head, *lines[1:])) + "</table>")
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>gpt3 eval</title><style>{STYLE}</style></head>\n'
        f"<body><h1>Evaluation</h1>\n{body}\n</body></html>\n"
    )


def _curves(points: Iterable[tuple[int, float, TaskScore]]) -> dict[int, Curve]:
    """The curves of (curve, x, score), by their numbers; each from left to right."""
    curves: dict[int, Curve] = {}
    for number, x, score in points:
        figure = score.metrics[score.main]
        curves.setdefault(number, []).append((x, 100 * figure.value, 100 * figure.error))
    return {number: sorted(curves[number]) for number in sorted(curves)}


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]


def _chart(title: str, curves: Mapping[int, Curve], chance: float, label: str, tick: Callable[[float], str]) -> str:
    """A figure: curves with error bars, a dashed line for guessing.

    Args:
        chance: accuracy of guessing, 0 to 1.
        label: below the horizontal axis.
        tick: the text below a value of x.
    """
    values = sorted({x for curve in curves.values() for x, _, _ in curve})
    width = max(values[-1] - values[0], 1e-9)
    top = max([100 * chance, 1.0, *(y + error for curve in curves.values() for _, y, error in curve)])

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - values[0]) / width

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / (1.05 * top)

    def text(x: float, y: float, anchor: str, content: str) -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(content)}</text>'

    def path(shape: str, look: str) -> str:
        return f'<path d="{shape}" fill="none" {look}/>'

    marks = [path(f"M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}", 'stroke="currentColor" stroke-opacity=".5"')]
    marks += [text(LEFT - 4, up(y) + 4, "end", f"{y:.3g}%") for y in (0.0, top)]
    shown = -1e9
    for x in values:
        if across(x) - shown > 24:  # no label over another
            shown = across(x)
            marks.append(text(shown, HEIGHT - BOTTOM + 14, "middle", tick(x)))
    marks.append(text(WIDTH / 2, HEIGHT - 4, "middle", label))
    if chance:
        dashes = 'stroke="currentColor" stroke-opacity=".6" stroke-dasharray="4 3"'
        marks.append(path(f"M{LEFT} {up(100 * chance):.1f}H{WIDTH - RIGHT}", dashes))
    for number, curve in enumerate(curves.values()):
        stroke = f'stroke="{_color(number)}"'
        marks.append(
            path("M" + "L".join(f"{across(x):.1f},{up(y):.1f}" for x, y, _ in curve), f'{stroke} stroke-width="2"')
        )
        for x, y, error in curve:
            marks.append(path(f"M{across(x):.1f} {up(max(0.0, y - error)):.1f}V{up(y + error):.1f}", stroke))
            marks.append(f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" fill="{_color(number)}"/>')
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{html.escape(title)}">{"".join(marks)}</svg></figure>'
    )
