"""The report card of small models: a centred mean of the group `small` next to those of models that were measured alike.

The models and figures are in data/small_models.json, which benchmarks/task_signal.py writes: those that experiment 3.1 of
`gpt3 paper` trained, named by the parameters in their layers, and the starter model, all questions, zero-shot.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt3.evaluation.results import CENTRED, Figure, GroupScore, TaskScore
from gpt3.tables import aligned

FILE = Path(__file__).parent / "data" / "small_models.json"
HALF = 1.96
"""Standard errors on each side of a 95% interval."""


def rows(name: str, parameters: int, scores: Sequence[TaskScore | GroupScore]) -> list[tuple[str, ...]]:
    """Headings, and a row per model, the largest last: name, parameters, tokens read, centred mean in percent, 95% interval.

    Args:
        name: of the model to compare with the others.
        parameters: its number.
        scores: its results. Without the group, zero-shot and in the paper's style, there are no rows.
    """
    mine = next((score for score in scores if _is_small(score)), None)
    if not isinstance(mine, GroupScore):
        return []
    content = known()
    told = f"{mine.examples:,} of {content['questions']:,} questions"
    found = [
        (one["parameters"], one["name"], f"{one['tokens']:,}", Figure(**one["centred"])) for one in content["models"]
    ]
    here = name if mine.examples == content["questions"] else f"{name} ({told})"
    found.append((parameters, f"→ {here}", "", mine.metrics["centred"]))
    cells: list[tuple[str, ...]] = [("model", "parameters", "tokens read", "centred mean", "95% interval")]
    for size, label, tokens, figure in sorted(found, key=lambda row: row[0]):
        low, high = (100 * (figure.value + side * HALF * figure.error) for side in (-1, 1))
        cells.append((label, f"{size:,}", tokens, f"{100 * figure.value:.1f}", f"{low:.1f} to {high:.1f}"))
    return cells


def _is_small(score: TaskScore | GroupScore) -> bool:
    return isinstance(score, GroupScore) and score.group in CENTRED and score.shots == 0 and score.style == "paper"


def known() -> dict[str, Any]:
    """``questions``, and ``models``: each with name, parameters, tokens, and its centred mean with its standard error."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def card(name: str, parameters: int, scores: Sequence[TaskScore | GroupScore]) -> str:
    """The rows as lines for a terminal; "" without the group."""
    cells = rows(name, parameters, scores)
    if not cells:
        return ""
    line = tuple("─" * max(map(len, column)) for column in zip(*cells, strict=True))
    return "\n".join(["Small models (docs/small-models.md):", *aligned([cells[0], line, *cells[1:]])])
