"""The styles of --style: how the same questions are asked and scored.

paper     the prompts of Appendix G and each task's rule (`gpt3.evaluation.tasks`)
lm-eval   the prompts of lm-eval 0.4.13; `acc` compares whole log-probabilities, `acc_norm` divides them by characters
cloze     the option's text is the answer, also for MMLU; every rule is shown
seed      MMLU as GPT3-dev scores it, from whose README its 27.31% are
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from gpt3.errors import InputError
from gpt3.evaluation import Task
from gpt3.evaluation.results import RULES

ANSWER_CONTEXT = "Answer:"
"""Before an option in the denominator of `acc_unconditional`, for tasks without a text of their own (section 2.4)."""
WINDOW = 64
"""Tokens of each text with --style seed."""
PLAIN: dict[str, Any] = {
    "kind": "choice",
    "normalization": "sum",
    "answer_context": "",
    "metrics": ("acc",),
    "measure": None,
    "whole": {},
    "fixed_draw": False,
    "separator": "\n\n",
}
"""The rule of lm-eval and of the seed style: the largest sum."""


def in_style(tasks: Sequence[Task], style: str) -> list[Task]:
    """The same tasks in a style.

    Raises:
        InputError: naming all that the style does not have.
    """
    if style == "paper":
        return list(tasks)
    if others := [task.name for task in tasks if not has_style(task, style)]:
        shown = ", ".join(others[:6]) + (f" and {len(others) - 6} more" if len(others) > 6 else "")
        raise InputError(f"--style {style} has no {shown}. {REMEDIES[style]}")
    return [dataclasses.replace(task, **_changes(task, style)) for task in tasks]


def has_style(task: Task, style: str) -> bool:
    """Whether the task exists in a style."""
    return style == "paper" or style in task.styles or (style == "cloze" and task.kind == "choice")


REMEDIES = {
    "lm-eval": "lm-eval itself runs any of its tasks on our engine, see docs/evaluation.md.",
    "cloze": "It needs options to choose from. Leave these tasks out, or use --style paper.",
    "seed": "It is a way to score MMLU: use --tasks mmlu, or another --style.",
}


def _changes(task: Task, style: str) -> dict[str, Any]:
    own = dict(task.styles.get(style, {}))
    if style == "lm-eval":
        return PLAIN | {"kind": "word" if task.kind == "word" else "choice"} | own
    if style == "seed":
        return PLAIN | {"window": WINDOW, "shots": 0} | own
    return {
        "answer_context": task.answer_context or ANSWER_CONTEXT * bool(task.shots),
        "metrics": (*task.metrics, *RULES),
    } | own
