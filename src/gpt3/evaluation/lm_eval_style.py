"""Tasks as lm-eval asks them (`--style lm-eval`): its prompts and its two accuracies, for figures to set beside published ones.

Where they differ from the paper's format (docs/evaluation.md has the table): PIQA has "Question: … Answer:" around the goal,
HellaSwag a capital letter where the ending's sentence begins, LAMBADA no blank, and no option is trimmed. `acc` compares whole
log-probabilities, `acc_norm` divides them by the characters of the option. The definitions followed are those of lm-eval 0.4.13.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gpt3.errors import InputError
from gpt3.evaluation.choice_rows import arc, bare_question, right_place, unmarked, winogrande
from gpt3.evaluation.file_tasks import splitter
from gpt3.evaluation.items import Item, Task


def hellaswag(row: dict[str, Any]) -> Item:
    """ "{activity}: {first sentences} {The rest}"; a row without these parts has its `ctx` taken as it is."""
    context = row["ctx"]
    if "ctx_a" in row:
        context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    options = tuple(f" {unmarked(ending)}" for ending in row["endings"])
    return Item(unmarked(context), options, right_place(row["label"], options))


def piqa(row: dict[str, Any]) -> Item:
    """ "Question: {goal} Answer:", two solutions."""
    if "goal" in row:
        options: tuple[str, ...] = (f" {row['sol1']}", f" {row['sol2']}")
        return Item(f"Question: {row['goal']}\nAnswer:", options, right_place(row["label"], options))
    options = tuple(f" {choice}" for choice in row["choices"])
    return Item(f"Question: {bare_question(row['query'])}\nAnswer:", options, right_place(row["gold"], options))


def lambada(row: dict[str, Any]) -> Item:
    """The passage without its last word, with any number of examples."""
    context, _, word = row["text"].rpartition(" ")
    if not context:
        raise ValueError("the text has no last word to ask for")
    return Item(context, (f" {word}",))


MAKERS: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], Item]]] = {
    "hellaswag": (("hellaswag", "hellaswag_val"), hellaswag),
    "piqa": (("piqa",), piqa),
    "arc_easy": (("arc_easy",), arc),
    "arc_challenge": (("arc_challenge",), arc),
    "winogrande": (("winogrande",), winogrande),
    "lambada": (("lambada", "lambada_openai", "lambada_standard"), lambada),
}
"""Names of the tasks' files, and what makes an item of a row; ARC's and Winogrande's prompts are the paper's."""


def in_lm_eval_style(tasks: Sequence[Task]) -> list[Task]:
    """The same tasks as lm-eval has them.

    Raises:
        InputError: some have no such form here; all are named.
    """
    strange = [task.name for task in tasks if task.name not in MAKERS]
    if strange:
        raise InputError(
            f"--style lm-eval has no {', '.join(strange)}; it has {', '.join(MAKERS)} (lm-eval itself runs any of its "
            "tasks on our engine, see docs/evaluation.md)"
        )
    found = []
    for task in tasks:
        files, make = MAKERS[task.name]
        normed = task.kind == "choice" and task.name != "winogrande"  # whose completions are all the same
        metrics = ("acc", "acc_norm") if normed else task.metrics
        split = splitter(task.name, files, task.hub, make)
        found.append(
            replace(task, split=split, normalization="sum", answer_context="", separator="\n\n", metrics=metrics)
        )
    return found
