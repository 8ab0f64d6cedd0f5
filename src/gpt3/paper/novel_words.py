"""Section 3.9.5: a made-up word is defined and then used: by a contrast of log-probabilities, and in generated sentences."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from gpt3.evaluation import Item, Source, Split
from gpt3.evaluation.novel_words import ACTIONS, NOVEL_WORDS, THINGS, definition
from gpt3.evaluation.results import mean
from gpt3.inference.language_model import LanguageModel
from gpt3.paper.asking import accuracy_by_size, answers, continued, fewer, first_line, of_each, questions
from gpt3.paper.experiment import Drawing, Experiment, Measured, Table, Work
from gpt3.paper.proportion import shown
from gpt3.paper.texts import folded

SHOTS = (0, 5)
"""Examples before a question of the contrast."""
SENTENCE_SHOTS = (1, 5)
"""Examples before a sentence to generate: the paper began with one, and its last word had five before it."""
SAMPLES = 4
MOST_TOKENS = 48
WAYS: dict[str, tuple[int, dict[str, float]]] = {
    "greedy": (1, {"temperature": 0.0}),
    "sampled": (SAMPLES, {"temperature": 1.0, "top_p": 0.9}),
}
"""Samples of each prompt, and how tokens are chosen."""


def measure(work: Work) -> Measured:
    """The contrast's answers and the sentences of every model."""
    return of_each(work, _measured)


def _measured(model: LanguageModel, work: Work) -> dict[str, Any]:
    contrast = [answers(model, NOVEL_WORDS, shots, work) for shots in SHOTS]
    return {
        "contrast": contrast,
        "sentences": [row for shots in SENTENCE_SHOTS for row in sentences(model, shots, work)],
    }


def split(source: Source) -> Split:
    """Every word as an example is shown (Figure 3.16): its definition, and on a line of its own the sentence."""
    return Split(
        [
            Item(definition(word, meaning, words is ACTIONS), ("\n" + sentence.format(w=word),), id=word)
            for words in (THINGS, ACTIONS)
            for word, meaning, sentence in words
        ]
    )


def sentences(model: LanguageModel, shots: int, work: Work) -> list[dict[str, Any]]:
    """What the model generates for every word, each way: the first line that is not empty."""
    task = dataclasses.replace(NOVEL_WORDS, kind="greedy", max_new_tokens=MOST_TOKENS, split=split)
    given = questions(model, task, shots, work)
    prompts = [question.context + "\n" for question in given]
    rows: list[dict[str, Any]] = []
    for way, (samples, options) in WAYS.items():
        made = continued(model, prompts, samples, max_new_tokens=MOST_TOKENS, seed=work.seed, **options)
        rows += [
            {"shots": shots, "examples": given.shots, "way": way, "word": question.item.id, "prompt": prompt,
             "texts": [first_line(text) for text in texts]}
            for question, prompt, texts in zip(given, prompts, made, strict=True)
        ]  # fmt: skip
    return rows


def sentence_of(text: str) -> str:
    """The first sentence of a text, with its full stop, question or exclamation mark; "": none ends."""
    found = re.match(r"(.*?[.!?][\"'”’)]*)(?=\s|$)", text)
    return found[1] if found else ""


def uses(text: str, word: str) -> bool:
    """Whether the word, or a form of it with an English ending, occurs in the text's first sentence, which ends."""
    stem = re.escape(word)
    forms = f"{stem}(?:s|es|d|ed|ing|er|ers|'s|{re.escape(word[-1])}(?:ed|ing|er))?"
    if word.endswith("e"):
        forms += f"|{re.escape(word[:-1])}ing"
    return re.search(rf"\b(?:{forms})\b", sentence_of(text), flags=re.I) is not None


def share(rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """The share of sentences that use their word, and its standard error over words."""
    found = mean([sum(uses(text, row["word"]) for text in row["texts"]) / len(row["texts"]) for row in rows])
    return found.value, found.error


def rights(contrast: dict[str, Any]) -> list[float]:
    """Of each question, 1 if the right sentence was chosen."""
    return [result["metrics"]["acc"] for result in contrast["results"]]


def draw(measured: Measured) -> Drawing:
    """Both shares by model, and the sentences."""
    models = measured["models"]
    head = ["model", "parameters", *(f"contrast, K={shots}" for shots in SHOTS)]
    table = [[*head, *(f"uses it, {way}, K={shots}" for shots in SENTENCE_SHOTS for way in WAYS)]]
    html = []
    for model in models:
        cells = [model["name"], f"{model['parameters']:,}"]
        for shots, one in zip(SHOTS, model["contrast"], strict=True):
            cells.append(shown(rights(one)) + fewer(shots, one["shots"]))
        for shots in SENTENCE_SHOTS:
            for way in WAYS:
                some = [row for row in model["sentences"] if (row["shots"], row["way"]) == (shots, way)]
                value, error = share(some)
                cells.append(f"{100 * value:.0f}% ± {100 * error:.0f}" + fewer(shots, some[0]["examples"]))
        table.append(cells)
        texts = [["word", "K", "way", "first text", "uses it"]]
        texts += [
            [
                row["word"],
                str(row["examples"]),
                row["way"],
                row["texts"][0],
                "yes" if uses(row["texts"][0], row["word"]) else "no",
            ]
            for row in model["sentences"]
        ]
        html.append(folded(f"Sentences of {model['name']}", texts))
    best = models[-1]
    words = len(best["contrast"][0]["results"])
    return Drawing(
        ours=[
            f"{words} words, written for this project. The contrast asks which of four sentences with the word fits its "
            f"definition; guessing is right in 25%. {best['name']}: {shown(rights(best['contrast'][0]))} without examples.",
            "A generated sentence counts if it ends and has the word, or a form of it, in it: a test of form, not of meaning.",
        ],
        paper=[
            "Section 3.9.5: one human example, then five words in one session. In all cases the 175B model's sentence was a "
            "correct or at least plausible use of the word, as the authors judged it.",
        ],
        notes=[
            "Intervals: 95%, Wilson. ±: standard error over words. Greedy is one sentence per word; sampled are "
            f"{SAMPLES} (temperature 1, top p 0.9, the paper's for poems). The paper does not say how it sampled here.",
            "Examples before a question are other words with sentences written by people; in the paper, all but the first "
            "were the model's own.",
        ],
        charts=accuracy_by_size("Contrast of sentences; dashed: guessing", models, 25),
        tables=[Table("Novel words", table)],
        html="".join(html),
    )


EXPERIMENT = Experiment("3.9.5", "Novel words", measure, draw)
