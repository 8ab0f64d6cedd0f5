"""From results of single questions to figures with standard errors, beside the paper's, and to a table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from gpt3.evaluation.items import Task
from gpt3.evaluation.scores import Result
from gpt3.evaluation.whole import WHOLE

TABLE_H1 = Path(__file__).parent / "data" / "table_h1.json"
SHOT_COLUMNS = {0: "zero", 1: "one"}


@dataclass(frozen=True)
class Figure:
    """A mean with its standard error: of the sample's deviation over the root of the number of questions."""

    value: float
    error: float
    """0 for a single question."""


def mean(values: Sequence[float]) -> Figure:
    """The mean of n values; its error is sqrt(Σ(x - mean)² / (n - 1) / n)."""
    count = len(values)
    middle = math.fsum(values) / count
    spread = math.fsum((value - middle) ** 2 for value in values)
    return Figure(middle, math.sqrt(spread / (count - 1) / count) if count > 1 else 0.0)


def figures(task: Task, results: Sequence[Result]) -> dict[str, Figure]:
    """Means of all that was measured; ppl is exp of the mean nats of a whole answer (its error by the delta method)."""
    found = {name: mean([result.metrics[name] for result in results]) for name in results[0].metrics}
    if "nll" in found:
        nll = found["nll"]
        perplexity = math.exp(min(nll.value, 700.0))
        found["ppl"] = Figure(perplexity, perplexity * nll.error)
    if task.whole is not None:
        found |= {name: Figure(*pair) for name, pair in WHOLE[task.whole](results).items()}
    return found


def record(task: Task, shots: int, results: Sequence[Result], clean: Sequence[bool] | None = None) -> dict[str, Any]:
    """What results.json holds of a task with so many demonstrations.

    Args:
        clean: whether each question, by number, is not in the training text; None: that is not known.
    """
    return {
        "task": task.name,
        "shots": shots,
        "examples": len(results),
        "chance": task.chance,
        "main": task.metrics[0],
        "metrics": {
            name: {"value": figure.value, "error": figure.error} for name, figure in figures(task, results).items()
        },
        "truncated": sum(result.dropped > 0 for result in results),
        "paper": {metric: value for metric in task.metrics if (value := paper_values(task, shots, metric)) is not None},
        "contamination": None if clean is None else contamination_record(task, results, clean),
    }


def contamination_record(task: Task, results: Sequence[Result], clean: Sequence[bool]) -> dict[str, Any]:
    """Each figure over all questions, over the clean ones, and (clean - all) / all (Brown et al. 2020, Figure 4.2).

    What is not defined is None: a mean of no clean question, a difference from 0.
    """
    kept = [result for result in results if clean[result.number]]
    every = {name: figure.value for name, figure in figures(task, results).items()}
    some = {name: figure.value for name, figure in figures(task, kept).items()} if kept else dict.fromkeys(every)
    return {
        "dirty": len(results) - len(kept),
        "clean": len(kept),
        "metrics": {
            name: {
                "all": value,
                "clean": rest,
                "relative_difference": (rest - value) / value if rest is not None and value else None,
            }
            for (name, value), rest in zip(every.items(), some.values(), strict=True)
        },
    }


def group_record(name: str, shots: int | None, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The same of a group: the mean of its tasks' accuracies, and that of all its questions."""
    values = [record["metrics"]["acc"]["value"] for record in records]
    errors = [record["metrics"]["acc"]["error"] for record in records]
    counts = [record["examples"] for record in records]
    total = sum(counts)
    return {
        "group": name,
        "shots": shots,
        "tasks": len(records),
        "examples": total,
        "metrics": {
            "acc_macro": {
                "value": math.fsum(values) / len(values),
                "error": math.sqrt(math.fsum(error**2 for error in errors)) / len(errors),
            },
            "acc_micro": {
                "value": math.fsum(value * count for value, count in zip(values, counts, strict=True)) / total,
                "error": math.sqrt(math.fsum((error * count) ** 2 for error, count in zip(errors, counts, strict=True)))
                / total,
            },
        },
    }


@lru_cache(maxsize=1)
def table_h1() -> dict[str, Any]:
    """The paper's Table H.1: models, and rows of task, metric, K, zero, one, few."""
    table: dict[str, Any] = json.loads(TABLE_H1.read_text(encoding="utf-8"))
    return table


def paper_values(task: Task, shots: int, metric: str) -> dict[str, float] | None:
    """What the paper measured, in per cent (perplexity as it is), by model; none for a K that it does not report."""
    column = SHOT_COLUMNS.get(shots) or ("few" if shots == task.shots else None)
    metrics = {"acc": ("acc", "em"), "bleu": ("BLEU-sb",)}.get(metric, (metric,))
    for row in table_h1()["rows"]:
        if column and row["task"] == task.paper and row["metric"] in metrics:
            return dict(zip(table_h1()["models"], row[column], strict=True))
    return None


def table(records: Sequence[dict[str, Any]]) -> str:
    """Lines for a terminal: our figure ± its error, chance, and the paper's for its smallest and largest model.

    Where the training text is known: how many questions it holds, and the score over the others.
    """
    known = any(entry.get("contamination") for entry in records)
    overlap_columns = ("dirty", "clean", "rel. diff.") if known else ()
    header = ("task", "K", "n", "metric", "score", *overlap_columns, "chance", "paper 125M", "paper 175B", "cut")
    lines: list[tuple[str, ...]] = [header]
    for entry in records:
        if "group" in entry:
            tasks, all_questions = entry["metrics"]["acc_macro"], entry["metrics"]["acc_micro"]
            means = {"acc, mean of tasks": tasks, "acc, all questions": all_questions}
            if math.isclose(tasks["value"], all_questions["value"]):
                means = {"acc": tasks}
            shots = "K" if entry["shots"] is None else str(entry["shots"])
            title = (f"{entry['group']} ({entry['tasks']} tasks)", shots, f"{entry['examples']:,}")
            for name, found in means.items():
                lines.append((*title, name, _percent(found), *("" for _ in header[5:])))
                title = ("", "", "")
            continue
        shown = [name for name in ("acc", "acc_norm", "f1", "f1a", "bleu", "ppl") if name in entry["metrics"]]
        for place, name in enumerate(shown):
            found = entry["metrics"][name]
            paper = entry["paper"].get(name, {})
            score = f"{found['value']:,.2f} ± {found['error']:,.2f}" if name == "ppl" else _percent(found)
            lines.append(
                (
                    entry["task"] if place == 0 else "",
                    str(entry["shots"]) if place == 0 else "",
                    f"{entry['examples']:,}" if place == 0 else "",
                    name,
                    score,
                    *(overlap_cells(entry, name) if known else ()),
                    f"{100 * entry['chance']:.1f}" if name == "acc" and entry["chance"] else "",
                    *(f"{paper[size]:g}" if paper else "" for size in ("Small", "175B")),
                    f"{entry['truncated']:,}" if entry["truncated"] and place == 0 else "",
                )
            )
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    left = {0, 3}

    def row(line: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join([row(header), "  ".join("─" * width for width in widths), *map(row, lines[1:])])


def overlap_cells(entry: dict[str, Any], metric: str) -> tuple[str, str, str]:
    """Dirty questions, the score over the clean ones, and the relative difference; empty where it is not known."""
    overlap = entry.get("contamination")
    if not overlap:
        return "", "", ""
    figure = overlap["metrics"][metric]
    clean, change = figure["clean"], figure["relative_difference"]
    shown = "-" if clean is None else f"{clean:,.2f}" if metric == "ppl" else f"{100 * clean:.2f}"
    return f"{overlap['dirty']:,}", shown, "-" if change is None else f"{100 * change:+.1f}%"


def _percent(figure: dict[str, float]) -> str:
    return f"{100 * figure['value']:.2f} ± {100 * figure['error']:.2f}"
