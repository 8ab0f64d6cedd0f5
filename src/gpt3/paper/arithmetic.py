"""Figure 3.10: sums by operation and size, for models trained on text and sums; and the paper's search for memorized ones.

None of the asked sums is in the training text. The same models are also asked sums that may be: the examples' pool of each task.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from gpt3.evaluation import Source, Split, Task
from gpt3.evaluation.generated_tasks import ARITHMETIC
from gpt3.evaluation.results import TABLE_H1
from gpt3.paper.accuracies import FEW, accuracies, accuracy, percent
from gpt3.paper.budget import affordable_steps
from gpt3.paper.experiment import Chart, Drawing, Experiment, Measured, Table, Work
from gpt3.paper.mixture import write_mixture
from gpt3.paper.models import described
from gpt3.paper.sizes import MARKED, PARAMETERS
from gpt3.paper.sums import Document, Sum, documents, held_out, search, sum_of
from gpt3.report.page import compact
from gpt3.report.svg import COLORS, Axes, Line

WIDTHS = {"0.04M": 32, "0.13M": 64, "0.45M": 128}
"""Width by number of parameters."""
VOCABULARY, BATCH_TOKENS = 300, 1024
TRAINING = {
    "model": "17M", "layers": 2, "heads": 4, "context": 128, "tokenizer": f"own:{VOCABULARY}", "optimizer": "muon", "lr": 1e-2,
    "batch_tokens": BATCH_TOKENS, "validation_tokens": 20_000,
}  # fmt: skip
"""The preset with other layers and another width. The few entries of the tokenizer are words of the questions, and single
digits, with and without a space before them; GPT-2's has whole numbers."""
MOST_STEPS = 50_000
SHARE = 0.9
"""Of the sums among the tokens."""
BYTES_PER_TOKEN = 1.8
"""Of the sums, about: so that each is read about once."""
DRAWN = ("2D+", "2D-", "3D+", "3D-", "2Dx", "1DC")
LABEL = {"0": "zero-shot", "1": "one-shot", "few": "few-shot"}


def measure(work: Work) -> Measured:
    """Train the sizes, ask each all operations, ask the other models the same, and search the training text."""
    trainings = {size: TRAINING | {"width": width} for size, width in WIDTHS.items()}
    steps = affordable_steps(work, list(trainings.values()), VOCABULARY, MOST_STEPS)
    solved = partial(_documents, work.seed, int(steps * BATCH_TOKENS * SHARE * BYTES_PER_TOKEN))
    mixture = write_mixture(work.folder, "sums", lambda: (each.text for each in solved()), work.data, SHARE)
    models: list[Measured] = []
    for name, options in trainings.items():
        run = work.train(f"run-{name}", mixture=str(mixture), steps=steps, **options)
        rows = _asked(work, name, run / "model", (0, 1, FEW), ARITHMETIC)
        rows += _asked(work, f"{name}-pool", run / "model", (0,), [_swapped(task) for task in ARITHMETIC], pool=True)
        models.append({"name": name, "trained": True, "parameters": described(run / "model").parameters, "rows": rows})
    for model in work.models:
        rows = _asked(work, model.name, model.place, (0, 1, FEW), ARITHMETIC)
        models.append({"name": model.name, "trained": False, "parameters": model.parameters, "rows": rows})
    about = {"steps": steps, "batch_tokens": BATCH_TOKENS, "share": SHARE, "questions": work.limit}
    return about | {"search": work.once("search", partial(_searched, work, solved)), "models": models}


def _documents(seed: int, size: int) -> Iterator[Document]:
    return documents(held_out(seed), size, seed)


def _swapped(task: Task) -> Task:
    """The task with the pool of its few-shot examples as questions."""

    def split(source: Source) -> Split:
        items = task.split(source)
        assert items.shots is not None
        return dataclasses.replace(items, test=items.shots, shots=items.test)

    return dataclasses.replace(task, split=split)


def _asked(
    work: Work, name: str, place: Path | str, shots: Sequence[int | None], tasks: Sequence[Task], pool: bool = False
) -> list[Measured]:
    kept = ("task", "k", "shots", "right")
    return [{key: row[key] for key in kept} | {"pool": pool} for row in accuracies(work, name, place, tasks, shots)]


def _searched(work: Work, solved: Callable[[], Iterator[Document]]) -> Measured:
    """For each task the sums that are asked and those of the pool; of each a digit: whether the training text has it in a form
    that the paper searched for, and whether it has it in any form (of the made sums; other text is only searched).
    """
    from gpt3.corpus.sources import open_sources

    sides: dict[str, dict[str, list[str]]] = {}
    for task in ARITHMETIC:
        split = task.split(Source(seed=work.seed))
        both = {"asked": split.test, "pool": split.shots or []}
        if task.paper != "1DC":
            sides[task.name] = {side: [item.id for item in items[: work.limit]] for side, items in both.items()}
    wanted = {one for both in sides.values() for some in both.values() for asked in some if (one := sum_of(asked))}
    text = (document for source in open_sources(work.data) for part in source.parts() for document in part.read())
    found, there = search(text, wanted), set[Sum]()
    in_text = len(found)
    for document in solved():
        found |= search([document.text], wanted)
        there |= wanted.intersection(document.sums)
    tasks = {
        task: {
            side: {
                "sums": some, "found": _digits(sum_of(asked) in found for asked in some),
                "there": _digits(sum_of(asked) in there for asked in some),
            }
            for side, some in both.items()
        }
        for task, both in sides.items()
    }  # fmt: skip
    return {"in_text": in_text, "tasks": tasks}


def _digits(flags: Iterable[bool]) -> str:
    return "".join("01"[flag] for flag in flags)


def draw(measured: Measured) -> Drawing:
    """Few-shot accuracy by size, a line for each operation, as Figure 3.10 has it; all figures; and the search."""
    trained = [model for model in measured["models"] if model["trained"]]
    largest = trained[-1]
    addition = ", ".join(f"{model['name']} {_score(model, '2D+', 'few')}" for model in measured["models"])
    asked, found = _counts(measured, "asked")
    pool, pool_found = _counts(measured, "pool")
    there = sum(both["pool"]["there"].count("1") for both in measured["search"]["tasks"].values())
    return Drawing(
        ours=[
            f"Three models of {', '.join(model['name'] for model in trained)} parameters, {measured['steps']:,} steps of "
            f"{measured['batch_tokens']:,} tokens each, {100 * measured['share']:.0f}% of them sums. No asked sum is among them.",
            f"Sums of two-digit numbers, few-shot, percent: {addition}.",
            f"The paper's search finds {found:,} of the {asked:,} asked sums in the training text. Of {pool:,} other sums, which "
            f"were not held out, {there:,} are in it, and the search finds {pool_found:,}.",
        ],
        paper=[
            "Section 3.9.1, Figure 3.10: 175B few-shot solves 100% of two-digit additions, 98.9% of subtractions, 80.4% and "
            "94.2% with three digits, 25.5% and 26.8% with four, 29.2% of two-digit products. 13B solves 55.5% of two-digit "
            "additions, 6.7B 11.9%: it falls off steeply with size.",
            "Of 2,000 additions of three digits 17 (0.8%) were found in the training text, of subtractions 2 (0.1%): GPT-3 does "
            "not recall them.",
        ],
        notes=[
            "GPT-3 was not trained on a generator of sums; these models were, and they read digit by digit. Models trained on "
            "text alone, in the table, are the control.",
            f"{largest['name']}, zero-shot, all operations of two numbers, percent: of asked sums that the search does not find "
            f"{_split_score(measured, largest, False)}; of other sums that are in the training text "
            f"{_split_score(measured, largest, True)}.",
            "Few is as many examples as fit the model, 50 in the paper.",
        ],
        charts=[_chart(trained), _paper_chart()],
        tables=[_table(measured), _search_table(measured)],
    )  # fmt: skip


def _name(operation: str) -> str:
    return f"arithmetic-{operation.lower()}"


def _row(model: Measured, operation: str, k: str, pool: bool = False) -> Measured | None:
    rows = (row for row in model["rows"] if row["task"] == _name(operation) and row["k"] == k and row["pool"] == pool)
    return next(rows, None)


def _score(model: Measured, operation: str, k: str) -> str:
    row = _row(model, operation, k)
    return percent(accuracy(row["right"])) if row else ""


def _counts(measured: Measured, side: str) -> tuple[int, int]:
    """Sums, and those that the search found."""
    found = [both[side]["found"] for both in measured["search"]["tasks"].values()]
    return sum(map(len, found)), sum(digits.count("1") for digits in found)


def _split_score(measured: Measured, model: Measured, pool: bool) -> str:
    """Accuracy over all operations: of the asked sums that the search did not find, or of the pool's that were trained on."""
    digits = ""
    for task, both in measured["search"]["tasks"].items():
        row = _row(model, task.removeprefix("arithmetic-"), "0", pool)
        flags = both["pool"]["there"] if pool else both["asked"]["found"]
        if row is not None:
            digits += "".join(digit for digit, flag in zip(row["right"], flags, strict=True) if (flag == "1") == pool)
    return f"{percent(accuracy(digits))} of {len(digits):,}" if digits else "none"


def _chart(trained: Sequence[Measured]) -> Chart:
    curves = []
    for operation, color in zip(DRAWN, COLORS, strict=True):
        found = [
            (model["parameters"], accuracy(row["right"])) for model in trained if (row := _row(model, operation, "few"))
        ]
        points = [(float(size), 100 * figure.value, 100 * figure.error) for size, figure in found]
        curves += [Line(operation, points, color)] if points else []
    title = "Here: few-shot accuracy by size"
    return Chart(title, Axes(title, curves, "parameters", compact, "{:g}%".format, math.log10, top=100.0), curves)


def _paper_chart() -> Chart:
    rows = {row["task"]: row["few"] for row in TABLE_H1["rows"]}
    curves = []
    for operation, color in zip(DRAWN, COLORS, strict=True):
        points = [(size, value, 0.0) for size, value in zip(PARAMETERS, rows[operation], strict=True)]
        curves.append(Line(operation, points, color))
    title = "The paper: few-shot accuracy by size"
    axes = Axes(title, curves, "parameters", compact, "{:g}%".format, math.log10, top=100.0, x_marks=MARKED)
    return Chart(title, axes, curves)


def _table(measured: Measured) -> Table:
    paper = {row["task"]: row for row in TABLE_H1["rows"]}
    rows = [
        [
            "operation",
            "model",
            *(LABEL[k] for k in LABEL),
            "examples",
            "paper 125M, few",
            "paper 13B, few",
            "paper 175B, few",
        ]
    ]
    for task in ARITHMETIC:
        operation = str(task.paper)
        theirs = [f"{paper[operation]['few'][place]:g}" for place in (0, 6, 7)]
        for model in measured["models"]:
            few = _row(model, operation, "few")
            scores = [_score(model, operation, k) for k in LABEL]
            rows.append([operation, _called(model), *scores, str(few["shots"]) if few else "", *theirs])
    return Table(f"Accuracy in percent, ± one standard error, {measured['questions']:,} questions each", rows)


def _called(model: Measured) -> str:
    return model["name"] if model["trained"] else f"{model['name']}, text alone"


def _search_table(measured: Measured) -> Table:
    rows = [
        [
            "operation",
            "asked",
            "found in the training text",
            "other sums",
            "in the training text",
            "of these found by the search",
        ]
    ]
    for task, both in measured["search"]["tasks"].items():
        counts = [both["asked"]["found"], both["pool"]["there"], both["pool"]["found"]]
        asked, there, found = (f"{digits.count('1'):,}" for digits in counts)
        operation = next(str(each.paper) for each in ARITHMETIC if each.name == task)
        rows.append([operation, f"{len(counts[0]):,}", asked, f"{len(counts[1]):,}", there, found])
    return Table('The paper\'s search, "NUM1 + NUM2 =" and "NUM1 plus NUM2", on our training text', rows)


EXPERIMENT = Experiment("3.10", "Arithmetic", measure, draw, share=0.15)
