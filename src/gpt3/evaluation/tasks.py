"""All tasks by name, and groups of them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from gpt3.errors import InputError
from gpt3.evaluation.arithmetic import ARITHMETIC
from gpt3.evaluation.file_tasks import FILE_TASKS, SUPERGLUE, TRANSLATION
from gpt3.evaluation.items import Task
from gpt3.evaluation.mmlu import MMLU
from gpt3.evaluation.scrambling import SCRAMBLING
from gpt3.evaluation.wiki_topic import WIKI_TOPIC

TASKS: dict[str, Task] = {task.name: task for task in (*ARITHMETIC, *SCRAMBLING, WIKI_TOPIC, *FILE_TASKS, *MMLU)}
GROUPS: dict[str, tuple[str, ...]] = {
    "arithmetic": tuple(task.name for task in ARITHMETIC),
    "scrambling": tuple(task.name for task in SCRAMBLING),
    "generated": tuple(task.name for task in (*ARITHMETIC, *SCRAMBLING, WIKI_TOPIC)),
    "mmlu": tuple(task.name for task in MMLU),
    "anli": ("anli_r1", "anli_r2", "anli_r3"),
    "race": ("race_h", "race_m"),
    "superglue": tuple(task.name for task in SUPERGLUE),
    "translation": tuple(task.name for task in TRANSLATION),
    "paper": tuple(task.name for task in (*FILE_TASKS, *ARITHMETIC, *SCRAMBLING) if task.paper),
}


def select(names: Sequence[str]) -> list[Task]:
    """Tasks of these names and groups, each once, in the order given.

    Raises:
        InputError: unknown names, with those that are near.
    """
    found: dict[str, Task] = {}
    faults = []
    for name in names:
        if name in TASKS:
            found[name] = TASKS[name]
        elif name in GROUPS:
            found.update((member, TASKS[member]) for member in GROUPS[name])
        else:
            near = difflib.get_close_matches(name, [*TASKS, *GROUPS], n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else "`gpt3 eval --list-tasks` shows them all"
            faults.append(f"--tasks: no task {name}; {hint}")
    if faults:
        raise InputError("; ".join(faults))
    return list(found.values())
