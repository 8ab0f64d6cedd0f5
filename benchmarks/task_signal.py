"""Which tasks tell small models from guessing, and from each other, by bootstrap over the questions.

    python benchmarks/task_signal.py --models 49.2k=paper/3.1/49.2k@2662400 … --data FOLDER --work FOLDER
    python benchmarks/task_signal.py --table

The first command asks every model all questions of the group `small` and the first `QUESTIONS` of each task with a file in
--data (docs/evaluation.md, Files), zero-shot, and writes task_signal.json next to this file and the report card that
`gpt3 eval` prints. If it is interrupted, the same command resumes. The second prints the tables of docs/small-models.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from gpt3.evaluation import Result
from gpt3.evaluation.comparison import LEVEL, Answers, Difference, compare, resampled
from gpt3.evaluation.results import Figure, TaskScore, centred_mean, mean
from gpt3.evaluation.tasks import GROUPS, TASKS
from gpt3.tables import markdown

Row = dict[str, Any]
FILE = Path(__file__).with_suffix(".json")
QUESTIONS, OF_SUBJECT = 500, 20
"""Of each task with a file, and of each of MMLU's 57 subjects; the tasks of `small` are asked all."""
LONGEST = 300
"""Characters: rows with a longer answer are left out, since some models have 128 positions."""
FILES = {
    "arc_easy": "arc_easy", "arc_challenge": "arc_challenge", "boolq": "boolq", "hellaswag": "hellaswag_val",
    "lambada": "lambada_openai", "piqa": "piqa", "winogrande": "winogrande",
}  # fmt: skip
"""By task, the file in --data."""
SMALL = GROUPS["small"]
SHOWN = (*SMALL, "grammar-correction", *FILES, "mmlu")


def prepare(data: Path, out: Path) -> None:
    """Copy the files to `out` without the rows whose answers are too long."""
    out.mkdir(parents=True, exist_ok=True)
    for name in (*FILES.values(), "mmlu"):
        with gzip.open(data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as source:
            lines = [line for line in source if longest(json.loads(line)) <= LONGEST]
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def longest(row: Row) -> int:
    """Characters of a row's longest option."""
    options = row.get("choices") or row.get("endings") or [row.get("continuation", "")]
    return max(map(len, options))


def ask(name: str, place: str, data: Path, work: Path) -> Row:
    """A model's answers to all tasks: a digit for each question, 1 if it was right."""
    import gpt3
    from gpt3.model_folder.locate import locate
    from gpt3.paper.models import described

    common = {"model": [place], "shots": "0", "contamination": "no", "threads": "1", "dtype": "fp32"}
    out = work / name
    parts = [
        {"tasks": ",".join(SMALL)},
        {"tasks": ",".join(["grammar-correction", *FILES]), "limit": QUESTIONS, "data_dir": str(data)},
        {"tasks": "mmlu", "style": "cloze", "limit": OF_SUBJECT, "data_dir": str(data)},
    ]
    for part in parts:
        [found] = gpt3.evaluate(**common, **part, out=str(out))
    tasks = {task: digits(out, [task], "") for task in SHOWN if task != "mmlu"}
    tasks["mmlu"] = digits(out, GROUPS["mmlu"], "-cloze")
    layers = described(locate(place)).layer_parameters
    about = {"name": name, "parameters": found.parameters, "layer_parameters": layers, "hash": found.model_hash}
    return about | {"tasks": tasks}


def digits(out: Path, tasks: Sequence[str], style: str) -> Row:
    """The questions of one or several tasks, from the files of examples that `gpt3 eval` wrote."""
    rows = []
    for task in tasks:
        lines = (out / "examples" / f"{task}-0{style}.jsonl").read_text(encoding="utf-8").split("\n")
        rows += [json.loads(line) for line in lines[1:] if line]
    golds = Counter(row["gold"] for row in rows)
    return {
        "chance": TASKS[tasks[0]].chance,
        "constant": max(golds.values()) / len(rows),
        "cut": sum(row["dropped"] > 0 for row in rows),
        "right": "".join(f"{row['metrics']['acc']:.0f}" for row in rows),
    }


# ---- what follows from the digits


def values(row: Row) -> np.ndarray:
    return np.array([float(digit) for digit in row["right"]])


def interval(row: Row) -> tuple[float, float]:
    """The 95% bootstrap interval of an accuracy."""
    low, high = np.quantile(resampled(values(row), np.random.default_rng(0)), [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def verdict(row: Row) -> str:
    """above: the interval is above guessing and above always giving the most frequent answer; below: it is below guessing."""
    low, high = interval(row)
    return "above" if low > max(row["chance"], row["constant"]) else "below" if high < row["chance"] else ""


def differences(first: Row, second: Row) -> list[Difference]:
    """Of two models on all tasks and on the group, as `gpt3 eval A B` has them."""
    known = TASKS | {"mmlu": TASKS[GROUPS["mmlu"][0]]}
    answers: list[Answers] = [
        {
            (task, 0): [Result(n, "", {"acc": value}) for n, value in enumerate(values(row))]
            for task, row in tasks.items()
        }
        for tasks in (first["tasks"], second["tasks"])
    ]
    names = (first["name"], second["name"])
    return compare(known, {"small": SMALL}, names, (answers[0], answers[1])).differences


def told_apart(pairs: Sequence[tuple[Row, Row]]) -> list[set[str]]:
    """Of each pair the tasks that differ for real, after Holm's correction for their number, with the second model better."""
    return [{one.name for one in differences(*pair) if one.real and one.second > one.first} for pair in pairs]


def centred(model: Row) -> Figure:
    """The centred mean of `small` and its standard error, as in results.json."""
    rows = [model["tasks"][task] for task in SMALL]
    scores = [
        TaskScore(task, 0, len(row["right"]), row["chance"], "acc", {"acc": mean(list(values(row)))})
        for task, row in zip(SMALL, rows, strict=True)
    ]
    return centred_mean(scores)


def card(content: Row) -> Row:
    """The report card of `gpt3 eval --tasks small`: models with their centred means."""
    rows = []
    for model in content["models"]:
        figure = centred(model)
        about = {key: model[key] for key in ("name", "parameters", "tokens")}
        rows.append(about | {"centred": {"value": round(figure.value, 6), "error": round(figure.error, 6)}})
    return {"questions": sum(len(content["models"][0]["tasks"][task]["right"]) for task in SMALL), "models": rows}


def sizes(content: Row) -> list[Row]:
    """One model of each size, smallest first: of several seeds the first."""
    found: dict[int, Row] = {}
    for model in content["models"]:
        found.setdefault(model["parameters"], model)
    return [found[size] for size in sorted(found)]


def by_size(content: Row) -> list[list[str]]:
    """Cells of a row for each task, and for the centred mean: questions, guessing, accuracy by size."""
    models, rows = sizes(content), []
    for task in SHOWN:
        mine = [model["tasks"][task] for model in models]
        guess = f"{100 * mine[0]['chance']:.0f}"
        if mine[0]["constant"] > mine[0]["chance"] + 0.05:
            guess += f" ({100 * mine[0]['constant']:.0f})"
        rows.append([task, f"{len(mine[0]['right']):,}", guess, *map(_cell, mine)])
    figures = [centred(model) for model in models]
    means = [f"{100 * figure.value:.1f} ± {100 * figure.error:.1f}" for figure in figures]
    return [*rows, ["centred mean of `small`", "all", "0", *means]]


def tables(content: Row) -> str:
    """Accuracies by task and size, and how many pairs of sizes each task tells apart; then the seeds of one size."""
    models = sizes(content)
    places = [*combinations(range(len(models)), 2)]
    apart = told_apart([(models[first], models[second]) for first, second in places])
    near = [found for (first, second), found in zip(places, apart, strict=True) if second == first + 1]
    rows = []
    for name, row in zip((*SHOWN, "small"), by_size(content), strict=True):
        rows.append([*row, *(str(sum(name in found for found in some)) for some in (near, apart))])
    pairs = [f"neighbours, of {len(near)}", f"pairs, of {len(apart)}"]
    whole = markdown(["task", "n", "guessing", *(model["name"] for model in models), *pairs], rows)
    return f"{whole}\n\n{seeds(content)}"


def _cell(row: Row) -> str:
    text = f"{100 * values(row).mean():.1f}"
    return {"above": f"**{text}**", "below": f"*{text}*"}.get(verdict(row), text)


def seeds(content: Row) -> str:
    """Models that differ in their seed alone: accuracies, and how many of their pairs a task calls different."""
    sized = Counter(model["parameters"] for model in content["models"])
    alike = [model for model in content["models"] if sized[model["parameters"]] > 1]
    real: Counter[str] = Counter()
    for first, second in combinations(alike, 2):
        real.update(one.name for one in differences(first, second) if one.real)
    rows = []
    for task in SHOWN:
        mine = [model["tasks"][task] for model in alike]
        error = mean(list(values(mine[0]))).error
        cells = [f"{100 * values(row).mean():.1f}" for row in mine]
        rows.append([task, *cells, f"{100 * error:.1f}", str(real[task])])
    figures = [centred(model) for model in alike]
    means = [f"{100 * figure.value:.1f}" for figure in figures]
    rows.append(["centred mean of `small`", *means, f"{100 * figures[0].error:.1f}", str(real["small"])])
    pairs = len(alike) * (len(alike) - 1) // 2
    return markdown(
        ["task", *(model["name"] for model in alike), "standard error", f"different pairs, of {pairs}"], rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=[], metavar="NAME=PLACE@TOKENS", help="and the tokens it read")
    parser.add_argument("--data", type=Path, help="folder of the tasks' .jsonl.gz files")
    parser.add_argument("--work", type=Path, help="folder for the answers of all models")
    parser.add_argument("--table", action="store_true", help="print the tables of task_signal.json")
    options = parser.parse_args()
    if options.models:
        from gpt3.evaluation.report_card import FILE as CARD

        folder = options.work / "data"
        if not folder.is_dir():
            prepare(options.data, folder)
        models = []
        for named in options.models:
            name, _, place = named.partition("=")
            place, _, tokens = place.rpartition("@")
            models.append(ask(name, place, folder, options.work) | {"tokens": int(tokens)})
        content = {"questions": QUESTIONS, "of_subject": OF_SUBJECT, "longest": LONGEST, "models": models}
        FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        CARD.write_text(json.dumps(card(content), indent=1) + "\n", encoding="utf-8")
    if options.table or options.models:
        print(tables(json.loads(FILE.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
