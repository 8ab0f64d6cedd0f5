"""Rows of short questions whose answer is written, and the paper's prompts for them (App. G)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpt3.evaluation.choice_rows import bare_question
from gpt3.evaluation.items import Item

Row = dict[str, Any]
BLANK = "____"


def lambada_plain(row: Row) -> Item:
    """The passage without its last word."""
    text = row["text"].strip()
    context, _, word = text.rpartition(" ")
    if not context:
        raise ValueError("the text has no last word to ask for")
    return Item(context, (f" {word}",))


def lambada_blank(row: Row) -> Item:
    """Section 3.1.2 and Fig. G.21: "… ____. -> word"."""
    plain = lambada_plain(row)
    return Item(f"{plain.context} {BLANK}. ->", plain.completions)


def triviaqa(row: Row) -> Item:
    """Fig. G.34: "Q: … A:"; every alias is right."""
    answer = row["answer"]
    if isinstance(answer, dict):
        main, aliases = answer["value"], answer.get("aliases", [])
    else:
        main, aliases = answer, row.get("aliases", [])
    question = bare_question(row["question"] if "question" in row else row["context"])
    accepted = dict.fromkeys([f" {one}" for one in (main, *aliases) if one.strip()])
    if not accepted:
        raise ValueError("no answer")
    return Item(f"Q: {question}\n\nA:", tuple(accepted))


def open_question(row: Row) -> Item:
    """Figs. G.24, G.35: "Q: … A:"; any of the answers is right."""
    answers = row["answers"] if "answers" in row else row["answer"]
    answers = [one for one in ([answers] if isinstance(answers, str) else answers) if one.strip()]
    if not answers:
        raise ValueError("no answer")
    question = row["question"].strip()
    return Item(f"Q: {question + ('' if question.endswith('?') else '?')}\n\nA:", tuple(f" {one}" for one in answers))


WSC_INSTRUCTION = (
    "Final Exam with Answer Key\nInstructions: Please carefully read the following passages. For each passage, you must "
    "identify which noun the pronoun marked in *bold* refers to.\n=====\n"
)


def wsc(row: Row) -> Item:
    """Fig. G.33: the noun that a pronoun between stars means; label 1 says that it is the row's own."""
    words, pronoun, place = row["text"].split(), row["span2_text"].strip(), int(row["span2_index"])
    end = place + len(pronoun.split())
    marked = " ".join(words[place:end]).replace(pronoun, f"*{pronoun}*", 1)
    if f"*{pronoun}*" not in marked:
        raise ValueError(f"span2_index {place} is not where {pronoun!r} stands")
    passage = " ".join([*words[:place], marked, *words[end:]])
    question = (
        f'Passage: {passage}\nQuestion: In the passage above, what does the pronoun "*{pronoun}*" refer to?\nAnswer:'
    )
    return Item(question, (f" {row['span1_text'].strip().lower()}",), right=(0,) if int(row["label"]) else ())


LANGUAGES = {"de": "German", "en": "English", "fr": "French", "ro": "Romanian"}


def translation(source: str, target: str) -> Callable[[Row], Item]:
    """Figs. G.36 to G.41, with demonstrations: "{sentence} = {translation}"."""

    def make(row: Row) -> Item:
        pair = row["translation"]
        return Item(f"{_line(pair[source])} =", (f" {_line(pair[target])}",))

    return make


def translation_asked(source: str, target: str) -> Callable[[Row], Item]:
    """The same without demonstrations: "Q: What is the {language} translation of {sentence} A:"."""

    def make(row: Row) -> Item:
        pair = row["translation"]
        asked = f"Q: What is the {LANGUAGES[target]} translation of {_line(pair[source])} A:"
        return Item(asked, (f" {_line(pair[target])}",))

    return make


def _line(text: str) -> str:
    line = " ".join(text.split())
    if not line:
        raise ValueError("an empty sentence")
    return line
