"""Rows of every task that has data, as its dataset has them: three for each, of the few words of the recorder's own texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.recorder.corpus import COLOURS, THINGS, sentences
from benchmarks.recorder.workshop import Workshop

ROWS = 3
CANNOT = "CANNOTANSWER"


def thing(n: int) -> str:
    """The n-th thing."""
    return THINGS[n % len(THINGS)]


def colour(n: int) -> str:
    """The n-th thing's colour."""
    return COLOURS[n % len(COLOURS)]


def passage(n: int) -> str:
    """A short passage that says what colour the n-th thing has."""
    return f"The {thing(n)} is {colour(n)}. {sentences(2, n)}"


def nobody(n: int) -> dict[str, Any]:
    """Al and Bo, of whom one is asked about."""
    return {
        "text": f"The {thing(n)} did not fit the {thing(n + 1)} because it is big.",
        "pronoun": "it",
        "pronoun_loc": len(f"The {thing(n)} did not fit the {thing(n + 1)} because "),
        "quote": "it is big",
        "options": [f"The {thing(n)}", f"The {thing(n + 1)}"],
        "label": n % 2,
    }


def arc(n: int) -> dict[str, Any]:
    """A question of three options."""
    return {
        "id": str(n),
        "question": f"What colour has the {thing(n)}?",
        "choices": {"text": [colour(n), colour(n + 3), colour(n + 6)], "label": ["A", "B", "C"]},
        "answerKey": "A",
    }


def race(n: int) -> dict[str, Any]:
    """A question on an article; two of them share one."""
    return {
        "example_id": f"{n // 2}.txt",
        "article": passage(n // 2),
        "question": f"The {thing(n)} is _ ." if n % 2 else f"What is the {thing(n)}?",
        "options": [colour(n), colour(n + 5)],
        "answer": "AB"[n % 2],
    }


def superglue(n: int) -> dict[str, dict[str, Any]]:
    """SuperGLUE's tasks."""
    text = passage(n)
    words = f"The {thing(n)} hides the {thing(n + 1)} so it waits."
    return {
        "boolq": {"passage": text, "question": f"is the {thing(n)} {colour(n)}", "answer": n % 2 == 0},
        "copa": {
            "premise": f"The {thing(n)} cools.", "choice1": "It waits.", "choice2": "It warms.",
            "question": ("effect", "cause")[n % 2], "label": n % 2, "idx": n,
        },
        "rte": {"premise": text, "hypothesis": f"The {thing(n)} waits.", "label": n % 2, "idx": n},
        "cb": {"premise": text, "hypothesis": f"the {thing(n)} waits", "label": n % 3, "idx": n},
        "wic": {
            "word": thing(n), "sentence1": f"A {thing(n)}.", "sentence2": f"The {thing(n)} waits.", "start1": 2,
            "label": n % 2, "idx": n,
        },
        "wsc": {
            "text": words, "span1_index": 1, "span2_index": words.split().index("it"), "span1_text": thing(n),
            "span2_text": "it", "label": 1 - n % 2, "idx": n,
        },
        "multirc": {
            "paragraph": text, "question": "What colour?", "answer": colour(n), "label": n % 2,
            "idx": {"paragraph": 0, "question": n // 2, "answer": n},
        },
        "record": {
            "passage": f"{text}\n@highlight\nThe {thing(n)} waits", "query": "There @placeholder waits.",
            "entities": [thing(n), thing(n + 1), thing(n + 2)], "answers": [thing(n)], "idx": {"passage": n, "query": n},
            "entity_spans": {"text": [thing(n)], "start": [4], "end": [4 + len(thing(n))]},
        },
    }  # fmt: skip


def written(n: int) -> dict[str, dict[str, Any]]:
    """Tasks whose answers are written."""
    text, found = passage(n), colour(n)
    day = {"day": "", "month": "", "year": ""}
    return {
        "triviaqa": {"question": f"Which colour has the {thing(n)}?", "answer": {"value": found, "aliases": [found, "none"]}},
        "nq": {"question": f"what colour is the {thing(n)}", "answer": [found, "any"]},
        "webqs": {"question": f"what colour is the {thing(n)}?", "answers": [found], "url": "u"},
        "squad2": {
            "id": str(n), "title": thing(n // 2), "context": passage(n // 2), "question": f"What is the {thing(n)}?",
            "answers": {"text": [] if n % 3 == 2 else [found, f"the {found}"], "answer_start": [] if n % 3 == 2 else [0, 0]},
        },
        "coqa": {
            "id": str(n), "source": "w", "story": text,
            "questions": {"input_text": ["What is it?", "And then?"], "turn_id": [1, 2]},
            "answers": {"input_text": [found, "it waits"], "span_start": [0, 13], "turn_id": [1, 2]},
            "additional_answers": {k: {"input_text": [f"{found} it is", "waits"], "turn_id": [1, 2]} for k in "012"},
        },
        "drop": {
            "section_id": "s", "query_id": str(n), "passage": text, "question": "How many wait?",
            "answer": {"number": str(n + 2), "date": day, "spans": [], "hit_id": "h"},
            "validated_answers": {
                "number": ["2", ""], "date": [day, {**day, "day": "1", "month": "May"}], "spans": [[], [found]],
                "hit_id": ["h", "h"],
            },
        },
        "quac": {
            "dialogue_id": str(n), "wikipedia_page_title": thing(n), "section_title": "Life", "context": f"{text} {CANNOT}",
            "questions": ["What?", "Why?"], "orig_answers": {"texts": [found, CANNOT], "answer_starts": [4, 9]},
            "answers": {"texts": [[found, f"the {found}"], [CANNOT]], "answer_starts": [[4, 0], [9]]},
        },
    }  # fmt: skip


def chosen(n: int) -> dict[str, dict[str, Any]]:
    """Tasks whose answers are chosen, and words that end a passage."""
    listed = ["A", "B", "C", "D"]
    return {
        "hellaswag": {
            "activity_label": "Seeing", "ctx_a": f"The {thing(n)} waits.", "ctx_b": "it", "ctx": f"The {thing(n)} waits. it",
            "endings": [f"is {colour(n + k)}." for k in range(4)], "label": str(n % 4),
        },
        "storycloze": {
            **{f"input_sentence_{k}": f"The {thing(n + k)} waits." for k in range(1, 5)}, "sentence_quiz1": "It ends.",
            "sentence_quiz2": "It warms.", "answer_right_ending": 1 + n % 2,
        },
        "lambada": {"text": f"{passage(n)} So they wait for the {thing(n)}"},
        "lambada_standard": {"text": f"{passage(n).lower()} so they wait for the {thing(n)}"},
        "winograd": nobody(n),
        "winogrande": {
            "sentence": f"The {thing(n)} hides the {thing(n + 1)} so the _ waits.", "option1": thing(n),
            "option2": thing(n + 1), "answer": str(1 + n % 2),
        },
        "piqa": {"goal": f"How to warm the {thing(n)}?", "sol1": "Hide it.", "sol2": "Feed the fire.", "label": n % 2},
        "arc_easy": arc(n),
        "arc_challenge": arc(n + 1),
        "openbookqa": {
            "id": str(n), "question_stem": f"The {thing(n)} is", "answerKey": listed[n % 4],
            "choices": {"text": [colour(n + k) for k in range(4)], "label": listed},
        },
        "race_h": race(n),
        "race_m": race(n + 1),
        **{
            f"anli_r{k}": {"uid": "u", "premise": passage(n), "hypothesis": f"The {thing(n)} waits.", "label": (n + k) % 3}
            for k in (1, 2, 3)
        },
        "mmlu": {
            "subject": "anatomy", "question": f"What is the {thing(n)}?", "choices": [colour(n + k) for k in range(4)],
            "answer": n % 4, "split": "test",
        },
    }  # fmt: skip


def translated(n: int) -> dict[str, dict[str, Any]]:
    """A sentence in two languages."""
    en, fr = f"The {thing(n)} waits.", f"Le {thing(n)} attend."
    de, ro = f"Das {thing(n)} wartet.", f"Un {thing(n)} așteaptă."
    texts = {"en": en, "fr": fr, "de": de, "ro": ro}
    return {
        f"wmt{year}_{one}_{two}": {"translation": {one: texts[one], two: texts[two]}}
        for year, other in ((14, "fr"), (16, "de"), (16, "ro"))
        for one, two in (("en", other), (other, "en"))
    }


KINDS: tuple[Callable[[int], dict[str, dict[str, Any]]], ...] = (chosen, superglue, written, translated)


def task_files(w: Workshop) -> Path:
    """A folder with a file of test rows and one of rows for examples, for each task."""

    def make(folder: Path) -> None:
        folder.mkdir()
        for number in range(2 * ROWS):
            for name, row in (item for kind in KINDS for item in kind(number).items()):
                train = number >= ROWS
                if name == "mmlu" and train:
                    row = {**row, "split": "dev"}
                target = f"{name}_train" if train and name != "mmlu" else name
                with open(folder / f"{target}.jsonl", "a", encoding="utf-8") as file:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")

    return w.once("tasks", make)


def tasks() -> list[str]:
    """The names of the tasks that have rows."""
    return ["mmlu_anatomy" if name == "mmlu" else name for kind in KINDS for name in kind(0)]
