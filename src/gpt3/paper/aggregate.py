"""Figure 1.3: the mean accuracy over many tasks with no, one and several examples, by model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gpt3.evaluation import Task
from gpt3.evaluation.results import TABLE_H1, Figure
from gpt3.paper.accuracies import FEW, accuracies, percent
from gpt3.paper.asking import about
from gpt3.paper.experiment import Chart, Drawing, Experiment, Measured, Table, Work
from gpt3.paper.sizes import MARKED, PARAMETERS
from gpt3.report.page import compact
from gpt3.report.svg import COLORS, Axes, Line

COLUMNS = {"0": "zero", "1": "one", "few": "few"}
"""Numbers of examples, and what Table H.1 calls them."""
COLOR = dict(zip(COLUMNS, (COLORS[0], COLORS[2], COLORS[1]), strict=True))
LABEL = {"0": "zero-shot", "1": "one-shot", "few": "few-shot"}
ACCURACIES = ("acc", "em")
"""Metrics of the 42 accuracy-denominated benchmarks of Figure 1.3."""


def tasks_of(data_dir: str | None) -> list[Task]:
    """The tasks to average over: those whose first figure is accuracy and that have examples; generated, or with a file there.

    MMLU and BLiMP, which the paper does not have, are left out: a hundred parts of two tasks.

    Raises:
        InputError: the folder is none.
    """
    from gpt3.evaluation.tasks import GENERATED, in_folder

    there = [] if data_dir is None else in_folder(data_dir)
    return [task for task in (*GENERATED, *there) if task.shots and task.metrics[0] == "acc"]


def measure(work: Work) -> Measured:
    """Ask every model all tasks with no, one and as many examples as the paper gave, or as fit."""
    tasks = tasks_of(work.data_dir)
    models = [
        about(model) | {"rows": accuracies(work, model.name, model.place, tasks, (0, 1, FEW))} for model in work.models
    ]
    names = {task.name: task.paper for task in tasks}
    return {"questions": work.limit, "files": work.data_dir is not None, "paper_names": names, "models": models}


def common_tasks(measured: Measured) -> list[str]:
    """The tasks that every model was asked with each number of examples, so that all means are over the same ones."""
    asked = [{(row["task"], row["k"]) for row in model["rows"]} for model in measured["models"]]
    return [task for task in measured["paper_names"] if all((task, k) in each for each in asked for k in COLUMNS)]


def average(rows: Sequence[Measured], k: str, centred: bool = False) -> Figure:
    """The mean of tasks' accuracies, or of (accuracy - chance) / (1 - chance); its error is that of the questions asked."""
    some = [row for row in rows if row["k"] == k]
    rests = [1 - row["chance"] if centred else 1.0 for row in some]
    pairs = [(row, row["chance"] if centred else 0.0, rest) for row, rest in zip(some, rests, strict=True)]
    value = math.fsum((row["acc"] - base) / rest for row, base, rest in pairs) / len(pairs)
    return Figure(value, math.sqrt(math.fsum((row["error"] / rest) ** 2 for row, _, rest in pairs)) / len(pairs))


def paper_average(names: Sequence[str] | None = None) -> dict[str, list[float]]:
    """The mean of Table H.1's accuracies of these tasks, None: of all 42, in percent: for each column the eight sizes."""
    rows = [row for row in TABLE_H1["rows"] if row["metric"] in ACCURACIES and (names is None or row["task"] in names)]
    return {column: [math.fsum(values) / len(rows) for values in zip(*(row[column] for row in rows), strict=True)]
            for column in COLUMNS.values()}  # fmt: skip


def draw(measured: Measured) -> Drawing:
    """Means by size, ours and the paper's, and every task."""
    tasks = common_tasks(measured)
    left_out = [task for task in measured["paper_names"] if task not in tasks]
    shared = [task for task in tasks if measured["paper_names"][task]]
    models = measured["models"]
    of = {model["name"]: [row for row in model["rows"] if row["task"] in tasks] for model in models}
    alike = {name: [row for row in rows if row["task"] in shared] for name, rows in of.items()}
    choices = {name: [row for row in rows if row["chance"]] for name, rows in of.items()}
    whole, ours, charts = paper_average(), [], []
    paper = [
        "Figure 1.3: over 42 benchmarks whose figure is accuracy, the mean rises with size, and faster few-shot. Averaged here "
        f"from Table H.1, 125M to 175B: {_ranges(whole)}."
    ]
    if tasks:
        largest = models[-1]["name"]
        centred = {k: percent(average(of[largest], k, centred=True)) for k in COLUMNS}
        ours.append(
            f"{largest}, the largest model asked, has a centred mean, 0 for guessing and 100 for right answers, of "
            f"{centred['0']} zero-shot, {centred['1']} one-shot and {centred['few']} few-shot."
        )
        charts.append(_chart("Here: centred mean of all tasks", of, models, centred=True))
    if shared:
        same = paper_average([measured["paper_names"][task] for task in shared])
        paper.append(f"Over the {len(shared)} of them that were asked here, too: {_ranges(same)}.")
        charts.append(_chart(f"Here: mean of the {len(shared)} tasks that the paper has, too", alike, models))
        charts.append(_paper_chart(f"The paper: the same {len(shared)} tasks", same))
    charts.append(_paper_chart("The paper: all 42, as in Figure 1.3", whole))
    where = "generated or with a file in --data-dir" if measured["files"] else "all generated: they need no files"
    kinds = (
        ("all", of, False),
        ("all, centred", of, True),
        ("of options, centred", choices, True),
        ("the paper's", alike, False),
    )
    return Drawing(
        ours=[f"{len(tasks)} tasks, {measured['questions']} questions of each at most, {where}.", *ours],
        paper=paper,
        notes=[
            "Means of plain accuracy mix tasks of 2, 4 and 11 options with answers that have to be written; the centred mean "
            "subtracts what guessing gives. The paper's tasks are compared over other questions than ours, and few is as many "
            "examples as fit the model.",
            *([f"Left out, as an example does not fit some model: {', '.join(left_out)}."] if left_out else []),
        ],
        charts=charts,
        tables=[_means(models, kinds), _tasks(measured, tasks)],
    )  # fmt: skip


def _ranges(means: Mapping[str, Sequence[float]]) -> str:
    return ", ".join(f"{means[column][0]:.1f} to {means[column][-1]:.1f}% {LABEL[k]}" for k, column in COLUMNS.items())


def _chart(
    caption: str, rows: Mapping[str, Sequence[Measured]], models: Sequence[Measured], centred: bool = False
) -> Chart:
    curves = []
    for k in COLUMNS:
        means = [(model["parameters"], average(rows[model["name"]], k, centred)) for model in models]
        points = [(float(size), 100 * mean.value, 100 * mean.error) for size, mean in means]
        curves.append(Line(LABEL[k], points, COLOR[k]))
    lowest = min(y for curve in curves for _, y, _ in curve.points)
    axes = Axes(
        caption,
        curves,
        "parameters",
        compact,
        "{:g}%".format,
        math.log10,
        bottom=min(0, 5 * math.floor(lowest / 5)),
        top=5.0,
    )
    return Chart(caption, axes, curves)


def _paper_chart(caption: str, means: Mapping[str, Sequence[float]]) -> Chart:
    curves = []
    for k, column in COLUMNS.items():
        points = [(size, mean, 0.0) for size, mean in zip(PARAMETERS, means[column], strict=True)]
        curves.append(Line(LABEL[k], points, COLOR[k]))
    axes = Axes(caption, curves, "parameters", compact, "{:g}%".format, math.log10, x_marks=MARKED)
    return Chart(caption, axes, curves)


def _means(models: Sequence[Measured], kinds: Sequence[tuple[str, Mapping[str, Sequence[Measured]], bool]]) -> Table:
    rows = [["model", "parameters", "tasks", "mean", *LABEL.values()]]
    for model in models:
        for title, some, centred in kinds:
            if mine := some[model["name"]]:
                count = len({row["task"] for row in mine})
                means = [percent(average(mine, k, centred)) for k in COLUMNS]
                rows.append([model["name"], f"{model['parameters']:,}", str(count), title, *means])
    return Table("Mean accuracy in percent, ± the standard error of the questions asked", rows)


def _tasks(measured: Measured, tasks: Sequence[str]) -> Table:
    paper = {row["task"]: row for row in TABLE_H1["rows"] if row["metric"] in ACCURACIES}
    rows = [["task", "chance", "model", *(f"{LABEL[k]} (K)" for k in COLUMNS), "paper 125M, few", "paper 175B, few"]]
    for task in tasks:
        theirs = paper.get(measured["paper_names"][task])
        ends = [f"{theirs['few'][place]:g}" for place in (0, -1)] if theirs else ["", ""]
        for model in measured["models"]:
            found = {row["k"]: row for row in model["rows"] if row["task"] == task}
            cells = [f"{percent(Figure(found[k]['acc'], found[k]['error']))} ({found[k]['shots']})" for k in COLUMNS]
            rows.append([task, f"{100 * found['0']['chance']:.0f}", model["name"], *cells, *ends])
    return Table("Every task, accuracy in percent", rows)


EXPERIMENT = Experiment("1.3", "Mean accuracy over tasks", measure, draw)
