"""The page of ``gpt3 paper``: every experiment's result next to the paper's, one HTML file without script or network."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from gpt3.paper.experiment import Chart, Drawing, Measured, Table
from gpt3.paper.experiments import experiment
from gpt3.report.svg import svg

MARK = b'<meta name="generator" content="gpt3 paper">'
"""What tells a page of ours from other files."""
MOST_ROWS = 12
"""A longer table is folded."""
STYLE = """:root{--ink:#1d2430;--soft:#5b6472;--line:#d9dde3;--ground:#fff;--card:#f6f7f9;--ours:#0072b2;--paper:#d55e00}
@media(prefers-color-scheme:dark){:root{--ink:#e4e7ec;--soft:#a3abb8;--line:#3a414d;--ground:#14171c;--card:#1d2128;
--ours:#56b4e9;--paper:#e69f00}}
*{box-sizing:border-box}body{font:16px/1.55 system-ui,sans-serif;color:var(--ink);background:var(--ground);margin:0 auto;
max-width:64rem;padding:1.5rem 1rem 4rem}h1{font-size:1.7rem;margin:.2rem 0}h2{font-size:1.25rem;margin:3rem 0 .6rem;
padding-top:1rem;border-top:1px solid var(--line)}nav a{display:inline-block;margin:.1rem .9rem .1rem 0;color:var(--ours)}
.both{display:grid;grid-template-columns:1fr 1fr;gap:1rem}@media(max-width:40rem){.both{grid-template-columns:1fr}}
.both>div{background:var(--card);border-top:3px solid var(--ours);padding:.6rem .9rem;border-radius:.3rem}
.both>div:last-child{border-color:var(--paper)}.both h3{margin:.1rem 0 .3rem;font-size:.95rem}p,li{margin:.3rem 0}
ul{padding-left:1.1rem}.notes{color:var(--soft)}figure{display:inline-block;margin:1rem 1rem 0 0;vertical-align:top;
width:27.5rem;max-width:100%}summary{font-weight:600;margin-top:1rem;cursor:pointer}figcaption{font-weight:600;font-size:.92rem}
svg{max-width:100%;height:auto;display:block}
.legend span{margin-right:1rem;font-size:.88rem;display:inline-block}
.scroll{overflow-x:auto;margin-top:1rem}table{border-collapse:collapse;font-size:.9rem;
font-variant-numeric:tabular-nums}caption{text-align:left;font-weight:600;padding:.2rem 0}td,th{padding:.2rem .7rem;
text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}td:first-child,th:first-child{text-align:left}
code{font-size:.92em}.soft{color:var(--soft)}"""


def page(results: Mapping[str, Measured]) -> str:
    """The HTML file.

    Args:
        results: what each experiment measured, by figure.
    """
    sections, links = [], []
    for figure, measured in results.items():
        one = experiment(figure)
        title = html.escape(f"{figure} · {one.title}")
        links.append(f'<a href="#f{figure}">{title}</a>')
        sections.append(f'<h2 id="f{figure}">{title}</h2>\n{section(one.draw(measured))}')
    body = "\n".join(sections)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">{MARK.decode()}
<meta name="viewport" content="width=device-width,initial-scale=1"><title>gpt3 paper</title><style>{STYLE}</style></head>
<body><h1>Language Models are Few-Shot Learners, on this machine</h1>
<p class="soft">Experiments of Brown et al. 2020 (arXiv 2005.14165) repeated by <code>gpt3 paper</code>. Below a blue
line: measured here; below an orange one: what the paper says. Each figure's data is in FIGURE.json next to this page.</p>
<nav>{" ".join(links)}</nav>
{body}
</body></html>
"""


def pictures(figure: str, measured: Measured) -> dict[str, str]:
    """An experiment's charts as files of their own: SVG by name, such as ``3.1-1.svg``."""
    charts = experiment(figure).draw(measured).charts
    return {
        f"{figure}-{number}.svg": svg([chart.axes], chart.caption, chart.legend, width=640, height=400)
        for number, chart in enumerate(charts, 1)
    }


def section(drawing: Drawing) -> str:
    """One experiment."""
    parts = [
        f'<div class="both"><div><h3>Here</h3>{_list(drawing.ours)}</div>'
        f"<div><h3>In the paper</h3>{_list(drawing.paper)}</div></div>"
    ]
    parts += [_chart(chart) for chart in drawing.charts]
    parts += [_table(table) for table in drawing.tables]
    if drawing.notes:
        parts.append(f'<div class="notes">{_list(drawing.notes)}</div>')
    return "\n".join([*parts, drawing.html])


def _list(sentences: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(each)}</li>" for each in sentences) + "</ul>"


def _chart(chart: Chart) -> str:
    labels = " ".join(
        f'<span style="color:{line.color}">{"╌" if line.dashed else "●"} {html.escape(line.label)}</span>'
        for line in chart.legend
    )
    legend = f'<div class="legend">{labels}</div>' if labels else ""
    drawn = svg([chart.axes], width=440, height=300)
    return f"<figure><figcaption>{html.escape(chart.caption)}</figcaption>{legend}{drawn}</figure>"


def _table(table: Table) -> str:
    head, *rows = table.rows
    lines = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    heads = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    caption = html.escape(table.caption)
    if len(rows) <= MOST_ROWS:
        return f'<div class="scroll"><table><caption>{caption}</caption><tr>{heads}</tr>{lines}</table></div>'
    inner = f'<div class="scroll"><table><tr>{heads}</tr>{lines}</table></div>'
    return f"<details><summary>{caption} ({len(rows)} rows)</summary>{inner}</details>"
