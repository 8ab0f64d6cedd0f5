"""Figure 1.2: accuracy rises with the number of examples in the context, faster in larger models; three are trained here.

They read episodes (gpt3.paper.episodes) and other text, and are asked words that are in no episode. docs/few-shot.md has results.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gpt3.evaluation import Source
from gpt3.paper.accuracies import accuracies, accuracy, percent
from gpt3.paper.budget import affordable_steps
from gpt3.paper.episodes import FORMATS, SCORED, episodes, held_out, scored_tasks, training_words
from gpt3.paper.experiment import Chart, Drawing, Experiment, Measured, Table, Work
from gpt3.paper.mixture import write_mixture
from gpt3.report.svg import COLORS, Axes, Line

SHOTS = {"released": (0, 1, 2, 4, 6), "paper": (0, 1, 2, 4)}
"""By format; six examples after the instruction exceed the training's windows."""
EPISODES, SHARE = 40_000, 0.8
"""Documents, and their share of the tokens."""
WIDTHS = {"0.09M": 32, "0.28M": 64, "0.96M": 128}
"""Width by number of parameters."""
TRAINING = {
    "model": "17M", "layers": 4, "heads": 2, "context": 256, "tokenizer": "own:257", "optimizer": "muon", "lr": 6e-3,
    "batch_tokens": 2048, "validation_tokens": 20_000,
}  # fmt: skip
"""The preset with other layers and another width. Tokens are bytes, so that letters can be moved."""
VOCABULARY = 257
MOST_STEPS, PARTS = 2000, 5
"""Steps of the full recipe; and checkpoints of a run."""
EARLIER = ("0.28M", (2, 3))
"""A size that is also asked earlier in its training, after these parts of it."""
ARTICLE_BYTES = 100
COLOR = dict(zip(WIDTHS, ("#9aa1ad", COLORS[1], COLORS[0]), strict=True))
PAPER_ROWS = ("Symbol Insertion", "Reversed Words", "Cycled Letters")
"""Table H.1's names of `SCORED`."""


def measure(work: Work) -> Measured:
    """Train the sizes for the steps that fit into the minutes, and ask each with every number of examples."""
    held = partial(held_out, work.limit, work.seed)
    mixture = write_mixture(work.folder, "episodes", partial(_documents, held, work.seed), work.data, SHARE)
    trainings = {size: TRAINING | {"width": width} for size, width in WIDTHS.items()}
    steps = affordable_steps(work, list(trainings.values()), VOCABULARY, MOST_STEPS) // PARTS * PARTS or PARTS
    every = dict.fromkeys(("checkpoint_every", "keep_every", "validate_every"), steps // PARTS)
    stages = []
    for size, options in trainings.items():
        run = work.train(f"run-{size}", mixture=str(mixture), steps=steps, **options, **every)
        parts = (*(EARLIER[1] if size == EARLIER[0] else ()), PARTS)
        done = [part * steps // PARTS for part in parts]
        stages += [(size, step, run / "checkpoints" / f"step-{step}") for step in done]
    rows = []
    for size, step, place in stages:
        about = {"size": size, "steps": step}
        for format in FORMATS:
            source = Source(format=format, seed=work.seed)
            asked = accuracies(work, f"{size}-{step}-{format}", place, scored_tasks(), SHOTS[format], source)
            kept = ("task", "shots", "right")
            rows += [about | {"instruction": format == "paper"} | {key: row[key] for key in kept} for row in asked]
        rows += work.once(f"answers/{size}-{step}-after-an-article", partial(_after_an_article, work, about, place))
    trained = {"steps": steps, "full_steps": MOST_STEPS, "batch_tokens": TRAINING["batch_tokens"]}
    return trained | {"questions": work.limit, "rows": rows}


def _documents(held: Any, seed: int) -> Iterator[str]:
    return episodes(training_words(held()), EPISODES, seed)


def _after_an_article(work: Work, about: Measured, place: Path) -> list[Measured]:
    """A control for K = 0 without the instruction: the question after the beginning of an article and EOS, as in training, where
    hardly any document begins at the first position. Rows as the others, with ``shots`` of None.
    """
    from gpt3.corpus.wiki import articles
    from gpt3.inference.generation import GenerationRequest
    from gpt3.inference.language_model import load
    from gpt3.inference.options import SamplingOptions

    model, rows = load(place, threads=work.threads), []
    texts = [
        article.text.encode()[:ARTICLE_BYTES].decode(errors="ignore")
        for article in itertools.islice(articles(), work.limit)
    ]
    options = SamplingOptions(temperature=0, max_new_tokens=20, stop=["\n"])
    for task in scored_tasks():
        items = task.split(Source(format="released", seed=work.seed)).test[: work.limit]
        before = ([*model.encode_prompt(text), model.tokenizer.eos_token_id] for text in itertools.cycle(texts))
        prompts = [[*ids, *model.encode_prompt(item.context)] for ids, item in zip(before, items, strict=False)]
        made = GenerationRequest(model, prompts, options, slots=32).complete()
        right = (each.text.strip() == item.completions[0].strip() for each, item in zip(made, items, strict=True))
        digits = "".join("01"[one] for one in right)
        rows.append(about | {"instruction": False, "task": task.name, "shots": None, "right": digits})
    return rows


def draw(measured: Measured) -> Drawing:
    """Accuracy over K, a panel for each task; dashed without the instruction, as in Figure 1.2."""
    rows, steps = measured["rows"], measured["steps"]
    last = [row for row in rows if row["steps"] == steps and row["shots"] is not None]
    charts = []
    for task in SCORED:
        curves = [
            Line(f"{size} parameters", _points(last, task, size, instruction), COLOR[size], dashed=not instruction)
            for size in WIDTHS
            for instruction in (False, True)
        ]
        legend = [*curves[1::2], Line("instruction", [], "currentColor"), Line("none", [], "currentColor", dashed=True)]
        charts.append(Chart(task, Axes(task, curves, "examples K", y_text="{:g}%".format, top=100.0), legend))
    small, large = min(WIDTHS, key=WIDTHS.__getitem__), max(WIDTHS, key=WIDTHS.__getitem__)
    return Drawing(
        ours=[
            f"Three models of {', '.join(WIDTHS)} parameters, {steps:,} steps of {measured['batch_tokens']:,} tokens each, four "
            "fifths of them episodes: examples of one hidden task. The words that are asked are in no episode.",
            *(f"{task}, without instruction: {_rise(last, task, small)}; {_rise(last, task, large)}." for task in SCORED[:2]),
        ],
        paper=[
            "Figure 1.2: models of 1.3B, 13B and 175B parameters remove random symbols from a word. Accuracy rises with the "
            "number of examples and with the instruction, and it rises faster in larger models.",
            "Table H.1, Symbol Insertion, with none, one and 100 examples: 0, 1.18 and 4.18% at 1.3B; 0.89, 6.62 and 27.3% at "
            "13B; 8.26, 45.4 and 67.2% at 175B.",
        ],
        notes=[
            *_shortened(measured),
            "These models have to find in the context which of twelve tasks it is; all twelve were trained, and so was the "
            "instruction. GPT-3 was not trained on such documents, and the paper leaves open whether it learns a task from the "
            "context or recognizes one (section 5).",
            "Rotated letters do not show where a word begins, so cycle-letters needs a model that knows many words.",
            "K is at most six, as windows of 256 bytes allow; the paper's 2,048 tokens hold a hundred examples.",
        ],
        charts=charts,
        tables=[_table(measured), _paper_table()],
    )  # fmt: skip


def _points(rows: Sequence[Measured], task: str, size: str, instruction: bool) -> list[tuple[float, float, float]]:
    found = []
    for row in rows:
        if (row["task"], row["size"], row["instruction"]) == (task, size, instruction):
            figure = accuracy(row["right"])
            found.append((float(row["shots"]), 100 * figure.value, 100 * figure.error))
    return sorted(found)


def _rise(rows: Sequence[Measured], task: str, size: str) -> str:
    points = _points(rows, task, size, False)
    return f"{size} from {points[0][1]:.1f}% with none to {points[-1][1]:.1f}% with {points[-1][0]:.0f} examples"


def _shortened(measured: Measured) -> list[str]:
    if measured["steps"] >= measured["full_steps"]:
        return []
    return [
        f"The full recipe is {measured['full_steps']:,} steps; --minutes allowed {measured['steps']:,}. After few steps no size "
        "uses its examples yet (docs/few-shot.md)."
    ]


def _table(measured: Measured) -> Table:
    cells: dict[tuple[str, ...], dict[int | None, str]] = {}
    for row in measured["rows"]:
        key = (row["task"], row["size"], f"{row['steps']:,}", "yes" if row["instruction"] else "no")
        cells.setdefault(key, {})[row["shots"]] = percent(accuracy(row["right"]))
    counts = (*SHOTS["released"], None)
    lines = [[*key, *(found.get(count, "") for count in counts)] for key, found in sorted(cells.items(), key=_order)]
    heads = ["task", "model", "steps", "instruction", *(f"K = {count}" for count in SHOTS["released"])]
    heads += ["K = 0, after an article"]
    return Table(f"Accuracy in percent, ± one standard error, {measured['questions']} questions each", [heads, *lines])


def _order(entry: tuple[tuple[str, ...], Any]) -> tuple[int, str, int, int]:
    task, size, steps, instruction = entry[0]
    return SCORED.index(task), instruction, list(WIDTHS).index(size), int(steps.replace(",", ""))


def _paper_table() -> Table:
    from gpt3.evaluation.results import TABLE_H1

    rows = {row["task"]: row for row in TABLE_H1["rows"]}
    lines = [
        [name, label, *(f"{value:g}" for value in rows[name][column])]
        for name in PAPER_ROWS
        for column, label in (("zero", "0"), ("one", "1"), ("few", "100"))
    ]
    return Table("The paper's Table H.1, percent", [["task", "K", *TABLE_H1["models"]], *lines])


EXPERIMENT = Experiment("1.2", "In-context learning", measure, draw, share=0.15)
