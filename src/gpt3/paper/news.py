"""Section 3.9.4 and Appendix E: articles generated from titles, and how well readers tell them from human ones."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpt3.corpus import records, wiki
from gpt3.errors import InputError
from gpt3.inference.language_model import LanguageModel
from gpt3.paper import quiz
from gpt3.paper.asking import about, asked, continued
from gpt3.paper.detection import accuracies, margin, power_law, t_test, unsure
from gpt3.paper.experiment import Chart, Drawing, Experiment, Measured, Table, Work
from gpt3.paper.sizes import PARAMETERS
from gpt3.paper.texts import folded
from gpt3.progress import Progress
from gpt3.report.page import compact
from gpt3.report.svg import COLORS, Axes, Line
from gpt3.tables import counted

OUTPUTS = 5
"""The paper's: outputs of which the one nearest to the human length is taken."""
WORDS = (150, 250)
"""Of an article of the embedded Wikipedia to ask about."""
EXAMPLE_WORDS = (90, 110)
"""Of an article before a title; shorter, so that more of them fit."""
SAMPLING = {"temperature": 1.0, "top_p": 0.9}
CONTROL = "control"
CONTROL_SAMPLING = {"temperature": 1.3, "top_p": 1.0}
"""The control is the smallest model without any prompt."""
FILE = "news.jsonl"
"""Your own articles in --data-dir: title, subtitle, article in each row; the first ones are the examples."""
PAPER_T = {
    "Small": 3.9,
    "Medium": 10.3,
    "Large": 7.3,
    "XL": 10.7,
    "2.7B": 10.4,
    "6.7B": 11.2,
    "13B": 15.3,
    "175B": 16.9,
}
"""t compared to the control, Table 3.11: positive if the control's accuracy is higher."""
Row = dict[str, str]
"""``id``, ``title``, ``subtitle`` and ``article``."""


@dataclass(frozen=True)
class Length:
    """One of the paper's two lengths of articles."""

    titles: int
    examples: int
    """Human articles before a title."""
    least: int
    """Words that human articles of your own have on average, at least."""
    accuracies: dict[str, int]
    """The paper's mean accuracies in percent."""


LENGTHS = {
    200: Length(
        25, 3, 0,
        {"Control": 86, "Small": 76, "Medium": 61, "Large": 68, "XL": 62, "2.7B": 62, "6.7B": 60, "13B": 55, "175B": 52},
    ),
    500: Length(12, 1, 350, {"Control": 88, "175B": 52}),
}  # fmt: skip
"""By words: of Table 3.11, newser.com's, and of Table 3.12, Reuters'."""


def measure(work: Work) -> Measured:
    """Articles of every model, the quiz about them, and what readers have answered."""
    examples, titles = rows(work)
    place = work.folder.parent / "quiz.html"
    quiz.check(place)
    models, control = [], None
    for model, loaded, name in asked(work):
        if control is None:  # the smallest
            control = work.once(f"{name}/{CONTROL}", partial(_control, loaded, titles, work.seed))
        models.append(about(model) | _articles(loaded, examples, titles, work, name))
    assert control is not None
    shown = [
        {"name": model["name"], "parameters": model["parameters"], "articles": chosen(model["articles"], titles)}
        for model in models
    ]
    shown.append({"name": CONTROL, "parameters": None, "articles": chosen(control, titles)})
    made = quiz.content(titles, shown)
    quiz.write(place, made)
    sessions = quiz.read(work.folder, made)
    return {"words": work.article_words, "quiz": made["quiz"], "page": str(place), "folder": str(work.folder),
            "titles": titles, "models": models, "control": control, "sessions": sessions}  # fmt: skip


def rows(work: Work) -> tuple[list[Row], list[Row]]:
    """Articles to show before a title, and those to ask about: of `FILE` in --data-dir, or of the embedded Wikipedia.

    Raises:
        InputError: the file has too few rows, one without the three fields, or articles too short for --article-words 500;
            or it is missing where that needs it.
    """
    length = LENGTHS[work.article_words]
    count = min(length.titles, work.limit)
    path = Path(work.data_dir or "", FILE)
    if work.data_dir is not None and path.is_file():
        found: list[Row] = []
        for place, row in records.read_rows(path):
            texts = [row.get(key) for key in ("title", "subtitle", "article")]
            if not all(isinstance(text, str) and text.strip() for text in texts):
                raise InputError(f"{place}: title, subtitle and article must be texts. Give all three.")
            found.append(
                dict(zip(("id", "title", "subtitle", "article"), (str(len(found)), *map(str, texts)), strict=True))
            )
        if len(found) <= length.examples:
            least = length.examples + 1
            raise InputError(
                f"{path} has {len(found)} articles. Give at least {least}: the first {length.examples} are examples."
            )
        words = np.mean([len(row["article"].split()) for row in found])
        if words < length.least:
            fix = "Leave the option out, or give longer articles."
            raise InputError(f"--article-words 500: the articles of {path} have {words:.0f} words on average. {fix}")
        return found[: length.examples], found[length.examples :][:count]
    if length.least:
        raise InputError(f"--article-words 500 needs articles of your own, and {path} is missing. Add it, or use 200.")
    drawn = [article for article in wiki.articles() if article.description]
    random.Random(f"{work.seed}/news").shuffle(drawn)
    picked: list[list[Row]] = []
    for (least, most), number in ((EXAMPLE_WORDS, length.examples), (WORDS, count)):
        fitting = [one for one in drawn if least <= len(one.text.split()) <= most][:number]
        picked.append(
            [{"id": one.title, "title": one.title, "subtitle": one.description, "article": one.text} for one in fitting]
        )
    return picked[0], picked[1]


def prompt(examples: Sequence[Row], row: Row) -> str:
    """The paper's form (Figure 3.14): whole articles, then the title and subtitle of the one to write."""
    told = [f"Title: {one['title']}\nSubtitle: {one['subtitle']}\nArticle: {one['article']}\n\n" for one in examples]
    return "".join(told) + f"Title: {row['title']}\nSubtitle: {row['subtitle']}\nArticle:"


def _length(model: LanguageModel, titles: Sequence[Row]) -> int:
    """Tokens for an article: a fifth more than the mean of the human ones."""
    return math.ceil(1.2 * sum(len(model.encode_word(row["article"])) for row in titles) / len(titles))


def _articles(
    model: LanguageModel, examples: Sequence[Row], titles: Sequence[Row], work: Work, name: str
) -> dict[str, Any]:
    """Outputs for every title, after as many examples as fit the model's positions with an article."""
    length = _length(model, titles)
    longest = max(titles, key=lambda row: len(row["title"]) + len(row["subtitle"]))
    room = model.engine.context - length
    fits = max(
        k for k in range(len(examples) + 1) if not k or len(model.encode_prompt(prompt(examples[:k], longest))) <= room
    )
    articles = {}
    with Progress("articles", len(titles), "titles") as progress:
        for number, row in enumerate(titles):
            asked_for = prompt(examples[:fits], row)
            make = partial(_outputs, model, asked_for, length, 1000 * work.seed + number, SAMPLING)
            articles[row["id"]] = work.once(f"{name}/{number}", make)
            progress.advance(1, row["title"])
    return {"examples": fits, "articles": articles}


def _control(model: LanguageModel, titles: Sequence[Row], seed: int) -> dict[str, list[str]]:
    """Outputs without any prompt and with more randomness."""
    length = _length(model, titles)
    return {
        row["id"]: _outputs(model, "", length, 1000 * seed + number, CONTROL_SAMPLING)
        for number, row in enumerate(titles)
    }


def _outputs(model: LanguageModel, asked_for: str, length: int, seed: int, sampling: Mapping[str, float]) -> list[str]:
    made = continued(model, [asked_for], OUTPUTS, max_new_tokens=length, stop=["\nTitle:"], seed=seed, **sampling)[0]
    return [finished(text) for text in made]


def finished(text: str) -> str:
    """A text up to the end of its last sentence; all of it, if none ends."""
    found = re.match(r".*[.!?][\"'”’)]*(?=\s|$)", text.strip(), flags=re.S)
    return found[0] if found else text.strip()


def chosen(articles: Mapping[str, Sequence[str]], titles: Sequence[Row]) -> dict[str, str]:
    """Of the outputs for each title the one whose number of words is nearest to the human article's."""
    return {
        row["id"]: min(articles[row["id"]], key=lambda text: abs(len(text.split()) - len(row["article"].split())))
        for row in titles
    }


# ---- what is shown


def draw(measured: Measured) -> Drawing:
    """The articles; and accuracy over size as soon as there are answers."""
    models, titles, sessions = measured["models"], measured["titles"], measured["sessions"]
    length = _length_of(measured)
    words = [len(row["article"].split()) for row in titles]
    link = '<p><a href="quiz.html" style="color:var(--ours)">Take the quiz</a></p>'
    sizes = [["model", "parameters", "articles before the title", "words, mean"]]
    html = []
    for model in models:
        texts = chosen(model["articles"], titles)
        mean = np.mean([len(text.split()) for text in texts.values()])
        sizes.append([model["name"], f"{model['parameters']:,}", str(model["examples"]), f"{mean:.0f}"])
        shown = [["title", "generated article"], *([row["title"], texts[row["id"]]] for row in titles)]
        html.append(folded(f"Articles of {model['name']}", shown))
    human = f"{len(titles)} titles; the human articles have {np.mean(words):.0f} words on average."
    return Drawing(
        ours=[human, *(_answered(measured) if sessions else _quiz(measured))],
        paper=[
            "Section 3.9.4: about 80 readers per model, 25 news titles, articles of about 200 words. Mean accuracy fell from "
            "86% for a deliberately bad control and 76% for Small to 52% (49 to 54) for 175B; guessing is 50% (Table 3.11).",
            "With 12 Reuters articles of about 500 words, one before each title: control 88%, 175B 52% (Table 3.12).",
        ],
        notes=[
            f"As in the paper, {counted(length.examples, 'human article')} or as many as fit the model's context precede a "
            f"title; of {OUTPUTS} outputs the one nearest to the human length is taken, up to its last full sentence. The "
            "control is the smallest model without a prompt at temperature 1.3 (the paper: 160M parameters, no context, more "
            "randomness).",
            "Human articles are the embedded Wikipedia's, unless --data-dir has a news.jsonl. Models trained on that "
            "Wikipedia have read them; the paper's models had not read theirs.",
            "A session is one reader's answers about one model. In the paper every reader took one.",
        ],
        charts=_charts(measured),
        tables=[*([_accuracy_table(measured)] if sessions else []), Table("Generated articles", sizes)],
        html="".join([link, *html]),
    )


def _length_of(measured: Measured) -> Length:
    """The paper's length of these articles; what was measured before it could be chosen has the shorter one."""
    return LENGTHS[measured.get("words", 200)]


def _quiz(measured: Measured) -> list[str]:
    return [
        f"No reader has answered yet. Open {measured['page']} in a browser, take the quiz, download the answers into "
        f"{measured['folder']}, and run gpt3 paper 3.9.4 again."
    ]


def _answered(measured: Measured) -> list[str]:
    sessions = measured["sessions"]
    count = sum(len(session["answers"]) for session in sessions)
    law = power_law(_points(measured))
    fitted = [f"Power law: accuracy = {law.factor:.3g} × parameters^{law.exponent:.3g}."] if law else []
    return [f"{len(sessions)} sessions with {count} answers.", *fitted]


def _points(measured: Measured) -> list[tuple[float, float]]:
    """(parameters, mean accuracy) of each model with answers."""
    found = [(model["parameters"], accuracies(measured["sessions"], model["name"])) for model in measured["models"]]
    return [(float(size), float(np.mean(values))) for size, values in found if values]


def _accuracy_table(measured: Measured) -> Table:
    sessions = measured["sessions"]
    control = accuracies(sessions, CONTROL)
    rows = [["model", "sessions", "accuracy", "t against control (p)", "I don't know"]]
    for name in [*(model["name"] for model in measured["models"]), CONTROL]:
        values = accuracies(sessions, name)
        if values:
            half, test = margin(values), None if name == CONTROL else t_test(control, values)
            shown = f"{100 * np.mean(values):.0f}%" + (f" ± {100 * half:.0f}" if half is not None else "")
            told = f"{test.t:.1f} ({test.p:.1g})" if test else "–"
            rows.append([name, str(len(values)), shown, told, f"{100 * unsure(sessions, name):.1f}%"])
    length = _length_of(measured)
    for name, value in length.accuracies.items():
        told = f"{PAPER_T[name]}" if name in PAPER_T and length is LENGTHS[200] else "–"
        rows.append([f"paper, {name}", "about 80", f"{value}%", told, ""])
    return Table("Accuracy of readers (± half the 95% interval; 50% is guessing)", rows)


def _charts(measured: Measured) -> list[Chart]:
    """Figure 3.13: accuracy over size, and the paper's, if there are answers."""
    points = _points(measured)
    if not points:
        return []
    law, sessions = power_law(points), measured["sessions"]
    halves = [margin(accuracies(sessions, model["name"])) for model in measured["models"]]
    errors = [
        half or 0.0
        for model, half in zip(measured["models"], halves, strict=True)
        if accuracies(sessions, model["name"])
    ]
    ours = [(size, 100 * value, 100 * error) for (size, value), error in zip(points, errors, strict=True)]
    paper = _length_of(measured).accuracies
    sizes = zip(PAPER_T, PARAMETERS, strict=True)
    theirs = [(size, float(paper[name]), 0.0) for name, size in sizes if name in paper]
    lines = [Line("here", ours, COLORS[0], shows="points"), Line("paper", theirs, COLORS[1], shows="points")]
    if law:
        fitted = [(size, 100 * law.factor * size**law.exponent, 0.0) for size, _ in points]
        lines.append(Line("power law", fitted, COLORS[0], dashed=True, shows="line"))
    axes = Axes("accuracy, %", lines, "parameters", compact, scale=math.log10, top=100, level=50)
    return [Chart("Accuracy of readers; dashed: guessing", axes, lines)]


EXPERIMENT = Experiment("3.9.4", "News articles and readers", measure, draw, again=True)
