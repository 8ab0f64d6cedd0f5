"""Our tasks' definitions for lm-eval: a folder of small YAML files that name `lm_eval_task.PaperTask`, and of groups.

    lm_eval run --include_path $(gpt3 eval --lm-eval-tasks) --tasks gpt3_piqa,gpt3_arithmetic_2da --num_fewshot 5 …

lm-eval wants a file for each name. `python -m gpt3.evaluation.lm_eval_definitions` writes them anew, after a change of the tasks.
"""

from __future__ import annotations

import re
from pathlib import Path

from gpt3.evaluation.tasks import GROUPS, TASKS

FOLDER = Path(__file__).parent / "lm_eval_tasks"
"""For lm-eval's --include_path."""
SIGNS = {"+": "a", "-": "s", "x": "m"}
"""Addition, subtraction and multiplication, as lm-eval's own arithmetic tasks are called."""
AVERAGES = {"translation": "bleu"} | dict.fromkeys(
    ("arithmetic", "scrambling", "mmlu", "anli", "race", "superglue"), "acc"
)
"""The figure that is averaged over a group's tasks; the other groups are lists. MMLU's mean is that of all its questions."""


def name_of(name: str) -> str:
    """A task's or group's name among lm-eval's: arithmetic-2d+ is gpt3_arithmetic_2da."""
    name = re.sub(r"(?<=\dd)[-+x]$", lambda sign: SIGNS[sign[0]], name)
    return f"gpt3_{name.replace('-', '_')}"


def definitions() -> dict[str, str]:
    """Each file's path below `FOLDER`, and its text."""
    files = {}
    for name in TASKS:
        folder = "mmlu/" if name in GROUPS["mmlu"] else ""
        files[f"{folder}{name_of(name)}.yaml"] = (
            f"task: {name_of(name)}\ngpt3_task: {name}\nclass: !function gpt3.evaluation.lm_eval_task.PaperTask\n"
        )
    for name, members in GROUPS.items():
        text = f"group: {name_of(name)}\ntask:\n" + "".join(f"  - {name_of(member)}\n" for member in members)
        if name in AVERAGES:
            weighted = str(name == "mmlu").lower()
            text += f"aggregate_metric_list:\n  - metric: {AVERAGES[name]}\n    weight_by_size: {weighted}\n"
        files[f"groups/{name_of(name)}.yaml"] = text
    return files


def write() -> None:
    """Make the folder what `definitions` says."""
    files = definitions()
    for path in FOLDER.rglob("*.yaml"):
        if path.relative_to(FOLDER).as_posix() not in files:
            path.unlink()
    for name, text in files.items():
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write()
