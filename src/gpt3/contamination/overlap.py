"""Contamination beside the scores (Brown et al. 2020, App. C): which questions of `gpt3 eval` the training text holds.

The text is known where the model is a run's, from the run's own record of its data, or where `--contamination` names it. The
questions looked for are the items themselves, with their right answers and without demonstrations; N is that of all items of the
task, whatever `--limit` leaves of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt3.errors import InputError
from gpt3.evaluation.items import Split, Task
from gpt3.progress import say

if TYPE_CHECKING:
    from gpt3.corpus.documents import Part
    from gpt3.corpus.task_texts import TaskExample

Verdicts = Mapping[str, Sequence[bool]]
"""By task: whether each item is clean."""


def training_text(place: str, option: str) -> tuple[str, list[Part]] | None:
    """What a model was trained on: its name and its parts; None where that is not known, or not asked for.

    Args:
        place: the model's folder.
        option: auto, no, or the text itself, as `gpt3 contamination --data` takes it.

    Raises:
        InputError: the text that the option names cannot be read.
    """
    from gpt3.contamination.training_text import find_run, parts_of_data, parts_of_run

    if option == "no":
        return None
    if option != "auto":
        return option, parts_of_data([option])
    try:
        run = find_run(place)
    except InputError:  # no run of ours
        return None
    try:
        return str(run), parts_of_run(run)
    except InputError as error:
        say(f"contamination is not measured: {error}")
        return None


def examples_of(task: Task, split: Split) -> list[TaskExample]:
    """The items as texts to look for: as they are asked without demonstrations, the right answer last."""
    from gpt3.corpus.task_texts import TaskExample

    items = split.test if split.zero_shot is None else split.zero_shot
    name = task.name.replace("-", "_")  # generated tasks are known by these names there
    return [
        TaskExample(name, str(number), (item.context, item.completions[item.gold])) for number, item in enumerate(items)
    ]


def measure_overlap(place: str, option: str, asked: Mapping[str, tuple[Task, Split]], out: Path) -> Verdicts:
    """Look for all items of these tasks in the model's training text; write what was found to `out`.

    Returns:
        Nothing where the text is not known.
    """
    known = training_text(place, option)
    if known is None:
        return {}
    from gpt3.cli.contamination import write
    from gpt3.cli.contamination_options import usable_cores
    from gpt3.contamination.scan import measure

    what, parts = known
    size = sum(part.size or 0 for part in parts) / 1e6
    say(f"contamination: reading {size:,.1f} MB of {what} (--contamination no leaves it out)")
    examples = [example for task, split in asked.values() for example in examples_of(task, split)]
    found = measure(examples, parts, workers=usable_cores())
    write(out, found, found.shares(), what)
    return {
        name: [verdict.clean for verdict in found.by_task[task.name.replace("-", "_")]]
        for name, (task, _) in asked.items()
    }
