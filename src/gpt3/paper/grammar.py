"""Section 3.9.6: sentences with an error are corrected: by a contrast of log-probabilities, and in generated sentences."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

from gpt3.evaluation.grammar_correction import GRAMMAR_CORRECTION, PAIRS, prompt
from gpt3.inference.language_model import LanguageModel
from gpt3.paper.asking import accuracy_by_size, answers, continued, fewer, first_line, of_each, questions
from gpt3.paper.experiment import Drawing, Experiment, Measured, Table, Work
from gpt3.paper.proportion import shown
from gpt3.paper.texts import folded

SHOTS = (1, 5)
"""Examples before a question: the paper began with one, and its last sentence had five before it."""
MOST_TOKENS = 40
GOOD = {prompt(poor): good for _, poor, good in PAIRS}
POOR = {prompt(poor): poor for _, poor, _ in PAIRS}
VERDICTS = ("corrected", "repeated", "another sentence")


def measure(work: Work) -> Measured:
    """The contrast's answers and the generated corrections of every model."""
    return of_each(work, _measured)


def _measured(model: LanguageModel, work: Work) -> dict[str, Any]:
    contrast = [answers(model, GRAMMAR_CORRECTION, shots, work) for shots in SHOTS]
    return {"contrast": contrast, "corrections": [row for shots in SHOTS for row in corrections(model, shots, work)]}


def corrections(model: LanguageModel, shots: int, work: Work) -> list[dict[str, Any]]:
    """For every sentence the line that the model generates after the prompt, greedily."""
    task = dataclasses.replace(GRAMMAR_CORRECTION, kind="greedy", max_new_tokens=MOST_TOKENS)
    given = questions(model, task, shots, work)
    made = continued(model, [question.context for question in given], max_new_tokens=MOST_TOKENS, temperature=0.0)
    return [
        {
            "shots": shots, "examples": given.shots, "kind": question.item.id.split(":")[0], "prompt": question.context,
            "poor": POOR[question.item.context], "good": GOOD[question.item.context], "text": first_line(text),
        }
        for question, (text,) in zip(given, made, strict=True)
    ]  # fmt: skip


def verdict(row: dict[str, Any]) -> str:
    """One of `VERDICTS`: the text is exactly the correction, or the input, or neither."""
    return {row["good"]: VERDICTS[0], row["poor"]: VERDICTS[1]}.get(row["text"], VERDICTS[2])


def draw(measured: Measured) -> Drawing:
    """Both measures by model, and the sentences."""
    models = measured["models"]
    table = [
        [
            "model",
            "parameters",
            *(f"{what}, K={shots}" for shots in SHOTS for what in ("contrast", "likelier", *VERDICTS[:2])),
        ]
    ]
    html = []
    for model in models:
        cells = [model["name"], f"{model['parameters']:,}"]
        for shots, contrast in zip(SHOTS, model["contrast"], strict=True):
            rows = [row for row in model["corrections"] if row["shots"] == shots]
            counts = Counter(map(verdict, rows))
            less = fewer(shots, contrast["shots"])
            cells += [shown([r["metrics"][rule] for r in contrast["results"]]) + less for rule in ("acc", "acc_sum")]
            less = fewer(shots, rows[0]["examples"])
            cells += [f"{counts[name]} of {len(rows)}{less}" for name in VERDICTS[:2]]
        table.append(cells)
        texts = [["input", "K", "generated", "", "expected"]]
        texts += [
            [row["poor"], str(row["examples"]), row["text"], verdict(row), row["good"]] for row in model["corrections"]
        ]
        html.append(folded(f"Corrections of {model['name']}", texts))
    return Drawing(
        ours=[
            f"{len(models[0]['contrast'][0]['results'])} sentences with an error, written for this project. The contrast asks "
            "whether the prompt makes the correction likelier than the same sentence again; guessing is right in 50%, "
            "repeating the input in 0%.",
            "“Likelier” compares the two after the prompt as they are, so that a preference for good English counts, too.",
            "A generated sentence counts as corrected only if it is exactly the expected one.",
        ],
        paper=[
            "Section 3.9.6: one human correction in the prompt, then five more sentences. Figure 3.17 shows the 175B model's "
            "corrections; none is counted or scored.",
            "The paper notes that the distinction between poor and good English is complex, contextual, and contested.",
        ],
        notes=["Intervals: 95%, Wilson. Generated greedily, one line. Examples are other pairs of ours."],
        charts=accuracy_by_size("Contrast; dashed: guessing", models, 50),
        tables=[Table("Grammar correction", table)],
        html="".join(html),
    )


EXPERIMENT = Experiment("3.9.6", "Correcting English grammar", measure, draw)
