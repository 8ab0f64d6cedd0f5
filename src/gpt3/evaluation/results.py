"""An evaluation's results: figures with standard errors, next to the paper's; as a table and as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt3.evaluation import Result, Task
from gpt3.model_folder.locate import name_of
from gpt3.tables import aligned

TABLE_H1 = json.loads((Path(__file__).parent / "data" / "table_h1.json").read_text(encoding="utf-8"))
"""The paper's Table H.1: models, and rows of task, metric, K, zero, one, few."""
SHOWN = ("acc", "acc_norm", "f1", "f1a", "bleu", "ppl")
"""The figures that the table has of every task."""
CENTRED = ("small",)
"""Groups of tasks of which guessing gives different accuracies: their table has a centred mean."""
RULES = ("acc_sum", "acc_token", "acc_byte", "acc_unconditional")
"""Accuracies by other rules than the task's, which the table has with --style cloze."""
OVERLAP = ("dirty", "clean", "rel. diff.")
COLUMNS = ("task", "style", "K", "n", "metric", "score", *OVERLAP, "chance", "paper 125M", "paper 175B", "cut")


def results_folder(base: Path, place: str | Path, taken: Collection[Path] = ()) -> Path:
    """The folder in `base` for the results of the model at `place`: its name, with a numeric suffix if another has that.

    Args:
        taken: folders of other models.
    """
    name = name_of(place)
    numbered = (base / (f"{name}-{number}" if number > 1 else name) for number in itertools.count(1))
    return next(folder for folder in numbered if folder not in taken and _may_hold(folder, place))


def _may_hold(folder: Path, place: str | Path) -> bool:
    """Whether `folder` holds the results of the model at `place`, or none."""
    for path in (folder / "results.json", *sorted(folder.glob("examples/*.jsonl"))):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError), open(path, encoding="utf-8") as file:
            found = json.load(file) if path.suffix == ".json" else json.loads(file.readline())
            return os.path.abspath(found["model"]) == os.path.abspath(place)  # noqa: PTH100  # of a link its own name
    return True


@dataclass(frozen=True)
class Figure:
    """A mean with its standard error: the sample's deviation over the root of the number of questions."""

    value: float
    error: float = 0.0
    """0 for a single question."""


def mean(values: Sequence[float]) -> Figure:
    """The mean of n values; its error is sqrt(Σ(x - mean)² / (n - 1) / n)."""
    count = len(values)
    middle = math.fsum(values) / count
    spread = math.fsum((value - middle) ** 2 for value in values)
    return Figure(middle, math.sqrt(spread / (count - 1) / count) if count > 1 else 0.0)


def figures(task: Task, results: Sequence[Result]) -> dict[str, Figure]:
    """Means of all measurements; ppl is exp of the mean nats of a whole answer (its error by the delta method)."""
    found = {name: mean([result.metrics[name] for result in results]) for name in results[0].metrics}
    if "nll" in found:
        nll = found["nll"]
        perplexity = math.exp(min(nll.value, 700.0))
        found["ppl"] = Figure(perplexity, perplexity * nll.error)
    whole = {name: figure(results) for name, figure in task.whole.items()}
    return found | {name: Figure(*values) for name, values in whole.items() if values is not None}


@dataclass(frozen=True)
class TaskScore:
    """A model's results on a task with this many few-shot examples."""

    task: str
    shots: int
    """Few-shot examples before each question."""
    examples: int
    """Questions."""
    chance: float
    """Accuracy of guessing, 0 to 1."""
    main: str
    """The name of the figure that the paper reports."""
    metrics: dict[str, Figure]
    """Figures by name, 0 to 1, except perplexity."""
    truncated: int = 0
    """Questions whose context lost its oldest tokens."""
    paper: dict[str, dict[str, float]] = field(default_factory=dict)
    """What the paper's models had, in percent: by figure, by model."""
    contamination: dict[str, Any] | None = None
    """`overlap_of`; None: the training text is not known."""
    data: dict[str, Any] = field(default_factory=dict)
    """Where the questions come from."""
    style: str = "paper"
    """As in --style."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The other options that the score depends on: seed, format, limit, dtype, quantize."""
    shown: tuple[str, ...] = SHOWN
    """The figures that the table has, if there are such."""


@dataclass(frozen=True)
class GroupScore:
    """The averages of a group of tasks."""

    group: str
    shots: int | None
    """None: each task's own K."""
    tasks: int
    examples: int
    metrics: dict[str, Figure]
    """acc_macro, the mean of the tasks' accuracies, and acc_micro, that of all questions; other rules: the tasks' mean."""
    style: str = "paper"
    """As in --style."""


@dataclass(frozen=True, repr=False)
class Evaluation:
    """A model's results on several tasks, in the form of results.json. Its repr is the table."""

    model: str
    model_hash: str
    parameters: int
    gpt3_version: str
    seed: int
    format: str
    style: str
    limit: int | None
    results: list[TaskScore | GroupScore]

    def __repr__(self) -> str:
        return f"{self.model}\n{table(self.results)}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def task_score(
    task: Task, shots: int, results: Sequence[Result], clean: Sequence[bool] | None = None, origin: Any = None
) -> TaskScore:
    """The results of a task from those of its questions.

    Args:
        clean: whether each question, by number, is absent from the training text; None: not known.
        origin: where the questions come from, a mapping.
    """
    truncated = sum(result.dropped > 0 for result in results)
    paper = {metric: values for metric in task.metrics if (values := paper_values(task, shots, metric))}
    overlap = None if clean is None else overlap_of(task, results, clean)
    score = TaskScore(task.name, shots, len(results), task.chance, task.metrics[0], figures(task, results))
    score = dataclasses.replace(score, truncated=truncated, paper=paper, contamination=overlap, shown=task.metrics)
    return dataclasses.replace(score, data=dict(origin or {}))


def overlap_of(task: Task, results: Sequence[Result], clean: Sequence[bool]) -> dict[str, Any]:
    """Each figure over all questions, over the clean ones, and (clean - all) / all (Brown et al. 2020, Figure 4.2).

    Undefined values are None: a mean of no clean question, a difference from 0.
    """
    kept = [result for result in results if clean[result.number]]
    rest = figures(task, kept) if kept else {}
    metrics = {}
    for name, figure in figures(task, results).items():
        part = rest[name].value if name in rest else None
        change = (part - figure.value) / figure.value if part is not None and figure.value else None
        metrics[name] = {"all": figure.value, "clean": part, "relative_difference": change}
    return {"dirty": len(results) - len(kept), "clean": len(kept), "metrics": metrics}


def group_score(name: str, shots: int | None, scores: Sequence[TaskScore]) -> GroupScore:
    """The averages of several tasks' accuracies; with --style cloze, those of every rule."""
    counts, style = [score.examples for score in scores], scores[0].style

    def averaged(weights: Sequence[float], rule: str = "acc") -> Figure:
        pairs = [(score.metrics[rule], weight) for score, weight in zip(scores, weights, strict=True)]
        value = math.fsum(figure.value * weight for figure, weight in pairs) / sum(weights)
        error = math.sqrt(math.fsum((figure.error * weight) ** 2 for figure, weight in pairs)) / sum(weights)
        return Figure(value, error)

    metrics = {"acc_macro": averaged([1] * len(scores)), "acc_micro": averaged(counts)}
    rules = [rule for rule in RULES if style == "cloze" and all(rule in score.metrics for score in scores)]
    metrics |= {rule: averaged([1] * len(scores), rule) for rule in rules}
    if name in CENTRED:
        metrics["centred"] = centred_mean(scores)
    return GroupScore(name, shots, len(scores), sum(counts), metrics, style)


def centred_mean(scores: Sequence[TaskScore]) -> Figure:
    """The mean of (accuracy - chance) / (1 - chance): 0 for guessing, 1 for right answers, whatever the number of options."""
    rests = [1 - score.chance for score in scores]
    pairs = [(score.metrics["acc"], score.chance, rest) for score, rest in zip(scores, rests, strict=True)]
    value = math.fsum((figure.value - chance) / rest for figure, chance, rest in pairs) / len(pairs)
    return Figure(value, math.sqrt(math.fsum((figure.error / rest) ** 2 for figure, _, rest in pairs)) / len(pairs))


def seed_row(group: GroupScore, scores: Sequence[TaskScore]) -> TaskScore:
    """A group with --style seed: a row of its own name whose acc is the mean of the tasks, as GPT3-dev averages subjects."""
    figures = {"acc": group.metrics["acc_macro"]}
    first = scores[0]
    row = TaskScore(group.group, first.shots, group.examples, first.chance, "acc", figures, data=first.data)
    return dataclasses.replace(row, style=first.style, settings=first.settings)


def paper_values(task: Task, shots: int, metric: str) -> dict[str, float] | None:
    """The paper's figures, in percent (perplexity as it is), by model; None for a K that it does not report."""
    column = {task.shots: "few", 0: "zero", 1: "one"}.get(shots)
    metrics = {"acc": ("acc", "em"), "bleu": ("BLEU-sb",)}.get(metric, (metric,))
    for row in TABLE_H1["rows"]:
        if column and row["task"] == task.paper and row["metric"] in metrics:
            return dict(zip(TABLE_H1["models"], row[column], strict=True))
    return None


# ---- the table


def rows(scores: Sequence[TaskScore | GroupScore]) -> list[tuple[str, ...]]:
    """Headings, and a row per figure: ours ± its error, chance, and those of the paper's smallest and largest model.

    If the training text is known: how many questions it contains, and the score over the others.
    """
    found: list[dict[str, str]] = []
    for score in scores:
        if isinstance(score, GroupScore):
            title, lines = f"{score.group} ({score.tasks} tasks)", _group_rows(score)
        else:
            title, lines = score.task, _task_rows(score)
        lines[0] |= {"task": title, "style": score.style, "K": "K" if score.shots is None else str(score.shots)}
        lines[0]["n"] = f"{score.examples:,}"
        found += lines
    left_out = set() if any("dirty" in line for line in found) else set(OVERLAP)
    left_out |= {"style"} if all(line.get("style", "paper") == "paper" for line in found) else set()
    columns = [column for column in COLUMNS if column not in left_out]
    return [tuple(columns), *(tuple(line.get(column, "") for column in columns) for line in found)]


def _group_rows(score: GroupScore) -> list[dict[str, str]]:
    """Both means, or one if they are the same."""
    macro, micro = score.metrics["acc_macro"], score.metrics["acc_micro"]
    same = math.isclose(macro.value, micro.value)
    means = {"acc": macro} if same else {"acc, mean of tasks": macro, "acc, all questions": micro}
    means |= {"centred mean": score.metrics["centred"]} if "centred" in score.metrics else {}
    means |= {f"{rule}, mean of tasks": score.metrics[rule] for rule in RULES if rule in score.metrics}
    return [{"metric": name, "score": _shown(figure, name)} for name, figure in means.items()]


def _task_rows(score: TaskScore) -> list[dict[str, str]]:
    lines = []
    for metric in (metric for metric in score.shown if metric in score.metrics):
        line = {"metric": metric, "score": _shown(score.metrics[metric], metric)}
        if metric in ("acc", *RULES) and score.chance:
            line["chance"] = f"{100 * score.chance:.1f}"
        if paper := score.paper.get(metric):
            line |= {"paper 125M": f"{paper['Small']:g}", "paper 175B": f"{paper['175B']:g}"}
        if score.contamination:
            clean, change = (score.contamination["metrics"][metric][key] for key in ("clean", "relative_difference"))
            line["dirty"] = f"{score.contamination['dirty']:,}"
            line["clean"] = "-" if clean is None else f"{_scale(metric) * clean:,.2f}"
            line["rel. diff."] = "-" if change is None else f"{100 * change:+.1f}%"
        lines.append(line)
    if score.truncated:
        lines[0]["cut"] = f"{score.truncated:,}"
    return lines


def table(scores: Sequence[TaskScore | GroupScore]) -> str:
    """The rows as lines for a terminal."""
    cells = rows(scores)
    line = tuple("─" * max(map(len, column)) for column in zip(*cells, strict=True))
    left = [place for place, name in enumerate(cells[0]) if name in ("task", "style", "metric")]
    return "\n".join(aligned([cells[0], line, *cells[1:]], left=left))


def _shown(figure: Figure, name: str) -> str:
    return f"{_scale(name) * figure.value:,.2f} ± {_scale(name) * figure.error:,.2f}"


def _scale(name: str) -> int:
    return 1 if name in ("ppl", "log_ratio") else 100
