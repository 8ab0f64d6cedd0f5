"""Appendix C and Figure 4.2: which questions the training text contains, and what the scores are without them."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from gpt3.evaluation import Source, Split, Task
from gpt3.evaluation.results import Figure, mean
from gpt3.paper.experiment import Chart, Drawing, Experiment, Measured, Table, Work
from gpt3.report.svg import COLORS, Axes, Line
from gpt3.tables import counted

# fmt: off
TABLE_C1 = {
    "QuAC": (1, 20), "SQuADv2": (6, -2), "DROP": (7, -21), "Symbol Insertion": (14, 0), "CoQA": (36, 1), "ReCoRD": (39, -1),
    "Winograd": (40, -3), "BoolQ": (40, 0), "MultiRC": (41, 1), "RACE-h": (55, 0), "LAMBADA": (57, 0),
    "LAMBADA (no blanks)": (57, -1), "WSC": (60, 3), "PIQA": (71, -4), "RACE-m": (75, 3), "De-En 16": (75, -5),
    "En-De 16": (75, -3), "En-Ro 16": (79, 1), "Ro-En 16": (79, 1), "WebQs": (79, 0), "ANLI R1": (80, -3), "ANLI R2": (82, 3),
    "ANLI R3": (84, 1), "TriviaQA": (83, 0), "En-Fr 14": (86, 1), "Fr-En 14": (86, 0), "WiC": (92, 0), "RTE": (92, 0),
    "CB": (93, -2), "Anagrams 2": (93, -7), "Reversed Words": (93, -26), "OpenBookQA": (94, 1), "ARC (Easy)": (96, 0),
    "Anagrams 1": (97, -8), "COPA": (97, 0), "ARC (Challenge)": (97, 0), "HellaSwag": (98, 0), "NQs": (99, 0),
    "Cycled Letters": (99, 0), "SAT Analogies": (99, 0), "StoryCloze": (100, 0), "Winogrande": (100, 0),
}
# fmt: on
"""Table C.1: percent of the questions that are clean, and (clean - all) / all of the scores of GPT-3 175B, in percent."""


class Change(NamedTuple):
    """Scores of a model on a task, 0 to 1."""

    whole: float
    """Over all questions."""
    dirty: Figure
    clean: Figure
    relative: float
    """(clean - all) / all."""
    error: float
    """Its standard error."""


def measure(work: Work) -> Measured:
    """Look for every question in the training text; ask the smallest and the largest model some of both kinds."""
    from gpt3.evaluation.tasks import GENERATED, in_folder
    from gpt3.paper.asking import about, answers, asked

    there = [] if work.data_dir is None else in_folder(work.data_dir)
    tasks = {task.name: task for task in (*GENERATED, *there)}
    splits = {name: task.split(Source(work.data_dir, seed=work.seed)) for name, task in tasks.items()}
    found = work.once("overlap", lambda: overlap(work, splits))
    chosen = {name: both_kinds(row["clean"], work.limit, work.seed) for name, row in found["tasks"].items()}
    ends, scores = [work.models[0], *work.models[1:][-1:]], []
    for model, loaded, label in asked(dataclasses.replace(work, models=ends)):
        for name, numbers in chosen.items():
            if numbers:
                task = picked(tasks[name], splits[name], numbers)
                results = work.once(f"answers/{label}/{name}", partial(answers, loaded, task, 0, work))["results"]
                metric = next((each for each in task.metrics if each in results[0]["metrics"]), None)
                if metric is not None:
                    values = [result["metrics"][metric] for result in results]
                    clean = "".join(found["tasks"][name]["clean"][number] for number in numbers)
                    scores.append(
                        {"model": model.name, "task": name, "metric": metric, "clean": clean, "values": values}
                    )
    names = {name: task.paper for name, task in tasks.items()}
    models = [about(model) for model in ends]
    return {**found, "data": list(work.data), "models": models, "paper_names": names, "scores": scores}


def overlap(work: Work, splits: Mapping[str, Split]) -> dict[str, Any]:
    """By task: N, and a digit for each question, 1: clean; as `gpt3 contamination` finds them."""
    from gpt3.contamination.overlap import examples_of, known_as, parts_of_data
    from gpt3.contamination.overlap import measure as search
    from gpt3.device import usable_cores

    found = search(examples_of(splits), parts_of_data(work.data), workers=usable_cores())
    tasks = {}
    for name in splits:
        verdicts = found.by_task[known_as(name)]
        clean = "".join(str(int(verdict.clean)) for verdict in verdicts)
        short = sum(not verdict.n for verdict in verdicts)
        tasks[name] = {"n": found.lengths[known_as(name)], "too_short": short, "clean": clean}
    return {"documents": found.documents, "text_bytes": found.text_bytes, "tasks": tasks}


def both_kinds(clean: str, limit: int, seed: int) -> list[int]:
    """Numbers of questions to ask: at most half the limit contaminated ones, and clean ones; none where all are clean."""
    draw = random.Random(seed)
    dirty = [number for number, digit in enumerate(clean) if digit == "0"]
    rest = [number for number, digit in enumerate(clean) if digit == "1"]
    some = draw.sample(dirty, min(len(dirty), max(1, limit // 2)))
    return sorted([*some, *draw.sample(rest, min(len(rest), limit - len(some)))]) if some else []


def picked(task: Task, split: Split, numbers: Sequence[int]) -> Task:
    """The task with these of its questions, as they are asked without examples."""
    items = split.test if split.zero_shot is None else split.zero_shot
    some = [items[number] for number in numbers]
    chosen = dataclasses.replace(split, test=some, zero_shot=None if split.zero_shot is None else some)
    return dataclasses.replace(task, split=lambda source: chosen)


def change(score: Measured, whole: str) -> Change | None:
    """What leaving out contaminated questions does to a score; None where one kind was not asked, or nothing was right.

    Args:
        score: values of the questions asked, of each kind a sample.
        whole: for every question of the task whether it is clean, as digits.
    """
    kinds = {
        digit: [value for value, each in zip(score["values"], score["clean"], strict=True) if each == digit]
        for digit in "01"
    }
    if not all(kinds.values()):
        return None
    dirty, clean = mean(kinds["0"]), mean(kinds["1"])
    share = whole.count("1") / len(whole)
    both = share * clean.value + (1 - share) * dirty.value
    if not both:
        return None
    error = (1 - share) * math.hypot(clean.error, dirty.error) / both
    return Change(both, dirty, clean, (clean.value - both) / both, error)


def draw(measured: Measured) -> Drawing:
    """Figure 4.2 for the models here and for the paper's, and the table of Appendix C."""
    tasks = measured["tasks"]
    contaminated = [name for name, row in tasks.items() if "0" in row["clean"]]
    changes = {
        (score["model"], score["task"]): change(score, tasks[score["task"]]["clean"]) for score in measured["scores"]
    }
    known = {key: value for key, value in changes.items() if value is not None}
    lines = [Line("no change", [(0.0, 0.0, 0.0), (100.0, 0.0, 0.0)], COLORS[5], dashed=True, shows="line")]
    for model, color in zip(measured["models"], (COLORS[0], COLORS[2]), strict=False):
        found = [(100 * share(tasks[task]), each) for (name, task), each in known.items() if name == model["name"]]
        points = [(clean, 100 * each.relative, 100 * each.error) for clean, each in sorted(found)]
        lines += [Line(model["name"], points, color, shows="points")] if points else []
    paper = sorted((float(clean), float(moved), 0.0) for clean, moved in TABLE_C1.values())
    lines.append(Line("GPT-3 175B (Table C.1)", paper, COLORS[1], shows="points"))
    text = (
        f"{measured['documents']:,} documents, {measured['text_bytes'] / 1e6:,.1f} MB of {' '.join(measured['data'])}"
    )
    count = sum(len(row["clean"]) for row in tasks.values())
    some = f"{counted(len(contaminated), 'task')} with some in it"
    ours = [f"{count:,} questions of {counted(len(tasks), 'task')} were looked for in {text}: {some}."]
    for model in measured["models"]:
        moved = {task: each for (name, task), each in known.items() if name == model["name"]}
        sure = [f"{task} {each.relative:+.1%}" for task, each in moved.items() if abs(each.relative) > 2 * each.error]
        what = f"those that change by two standard errors without contaminated questions: {', '.join(sure) or 'none'}"
        ours.append(
            f"{model['name']}: {counted(len(moved), 'task')} with questions of both kinds and right answers; {what}."
        )
    return Drawing(
        ours=ours,
        paper=[
            "Scores change little without contaminated questions, in both directions (Figure 4.2, Table C.1): of "
            f"{len(TABLE_C1)} rows {sum(abs(moved) <= 1 for _, moved in TABLE_C1.values())} by 1% or less.",
            "Flagged with an asterisk: PIQA (71% clean, -4%) and Winograd (40% clean, -3%). QuAC, SQuADv2 and DROP are under 10% "
            "clean: the text has their passages, not their questions.",
        ],
        notes=[
            "A question is dirty if it shares an N-gram with the text, N from 8 to 13 by task, less for generated tasks "
            "(docs/contamination.md). A task that is all dirty has no clean score.",
            "Of each task that has dirty questions some of both kinds are asked, zero-shot, and weighted by their shares; the "
            "paper asked all, few-shot. Bars are one standard error.",
        ],
        charts=[Chart("Clean questions and change of the score", axes(lines), lines)],
        tables=[Table("Appendix C", table(measured, known))],
    )  # fmt: skip


def share(row: Measured) -> float:
    """Of clean questions."""
    clean: str = row["clean"]
    return clean.count("1") / len(clean)


def axes(lines: Sequence[Line]) -> Axes:
    """Figure 4.2's."""
    lowest = min(y - error for line in lines for _, y, error in line.points)
    return Axes(
        "(clean - all) / all, %", lines, "clean questions, %", y_text="{:+.0f}".format, bottom=10.0 * math.floor(lowest / 10),
        x_marks=(0, 20, 40, 60, 80, 100),
    )  # fmt: skip


def table(measured: Measured, known: Mapping[tuple[str, str], Change]) -> list[list[str]]:
    """Every task, with the scores of each model that was asked, and the paper's row."""
    names = [model["name"] for model in measured["models"]]
    head = [cell for name in names for cell in (f"{name}: all", "dirty", "clean", "change")]
    rows = [["task", "N", "questions", "dirty", "clean", *head, "paper: clean", "change"]]
    for task, row in measured["tasks"].items():
        clean, cells = row["clean"], list[str]()
        for name in names:
            each = known.get((name, task))
            shown = None if each is None else (each.whole, each.dirty.value, each.clean.value)
            cells += (
                ["-"] * 4
                if shown is None or each is None
                else [*(f"{100 * x:.1f}" for x in shown), f"{each.relative:+.1%}"]
            )
        paper = TABLE_C1.get(measured["paper_names"][task] or "")
        numbers = [str(row["n"]), f"{len(clean):,}", f"{clean.count('0'):,}", f"{share(row):.1%}"]
        rows.append([task, *numbers, *cells, *(["", ""] if paper is None else [f"{paper[0]}%", f"{paper[1]:+d}%"])])
    return rows


EXPERIMENT = Experiment("C", "Contamination of benchmarks", measure, draw)
