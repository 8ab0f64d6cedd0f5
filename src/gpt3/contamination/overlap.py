"""Contamination of `gpt3 eval`'s questions (Brown et al. 2020, App. C): which of them the training text contains.

The text is known if the model is a run's, from the run's own record of its data, or if `--contamination` names it. The questions
looked for are the items themselves, with their right answers and without few-shot examples; N is that of all items of the task,
also under `--limit`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gpt3.contamination.scan import measure
from gpt3.contamination.training_text import find_run, parts_of_data, parts_of_run
from gpt3.corpus.documents import Part
from gpt3.corpus.task_texts import TaskExample
from gpt3.device import usable_cores
from gpt3.errors import InputError
from gpt3.evaluation import Split
from gpt3.progress import say


def training_text(place: str, option: str) -> tuple[str, list[Part]] | None:
    """A model's training text: its name and its parts; None if it is not known, or not wanted.

    Args:
        place: the model's folder.
        option: auto, no, or the text itself, as in `gpt3 contamination --data`.

    Raises:
        InputError: the text that the option names cannot be read.
    """
    if option == "no":
        return None
    if option != "auto":
        return option, parts_of_data([option])
    try:
        run = find_run(place)
    except InputError:  # not one of our runs
        return None
    try:
        return str(run), parts_of_run(run)
    except InputError as error:
        say(f"contamination is not measured: {error}")
        return None


def measure_overlap(place: str, option: str, asked: Mapping[str, Split], out: Path) -> Mapping[str, Sequence[bool]]:
    """Look for all items of these tasks in the model's training text; write the findings to `out`.

    Returns:
        By task, whether each item is clean; nothing if the text is not known.
    """
    known = training_text(place, option)
    if known is None:
        return {}
    what, parts = known
    size = sum(part.size or 0 for part in parts) / 1e6
    say(f"contamination: reading {size:,.1f} MB of {what} (--contamination no skips this)")
    names = {name: name.replace("-", "_") for name in asked}  # generated tasks are known by these names there
    examples = [
        TaskExample(names[name], str(number), (item.context, item.completions[item.gold]))
        for name, split in asked.items()
        for number, item in enumerate(split.test if split.zero_shot is None else split.zero_shot)
    ]
    found = measure(examples, parts, workers=usable_cores())
    found.write(out, what, found.shares())
    return {name: [verdict.clean for verdict in found.by_task[names[name]]] for name in asked}
