"""results.json of several commands: each replaces the rows that it scores again, and keeps the others.

A row is a task, a number of few-shot examples and a style, or a group of tasks. It states the settings it was scored with. All
rows of a file are of one model, by the hash of its probabilities.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt3.errors import InputError
from gpt3.evaluation.results import Evaluation, Figure, GroupScore, TaskScore
from gpt3.evaluation.tasks import GROUPS
from gpt3.work_folder import OVERWRITE

Score = TaskScore | GroupScore


def read_results(folder: Path) -> Evaluation | None:
    """The evaluation in `folder`; None where there is no results.json of ours. Rows of earlier versions get its settings."""
    try:
        content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        rows = [_row(row, content) for row in content["results"]]
        return Evaluation(**_known(Evaluation, content | {"results": rows}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _row(row: Mapping[str, Any], content: Mapping[str, Any]) -> Score:
    kind = GroupScore if "group" in row else TaskScore
    settings = {name: content[name] for name in ("seed", "format", "limit")}
    row = {"style": content["style"], **({} if kind is GroupScore else {"settings": settings}), **row}
    metrics = {name: Figure(**figure) for name, figure in row["metrics"].items()}
    return kind(**_known(kind, row | {"metrics": metrics}))


def _known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def check_model(earlier: Evaluation | None, model_hash: str, out: Path, *, overwrite: bool) -> Evaluation | None:
    """The earlier results to keep rows of: those of the same model. None: there are none, or they are to be replaced.

    Raises:
        InputError: `out` has results of another model, and `overwrite` is False.
    """
    if earlier is None or earlier.model_hash == model_hash:
        return earlier
    if overwrite:
        return None
    raise InputError(
        f"--out {out} has results of another model: of {earlier.model} with other weights, --dtype, --quantize or "
        f"--device. Name a new folder, or replace them with {OVERWRITE}."
    )


def merged(earlier: Evaluation | None, found: Evaluation) -> Evaluation:
    """`found` with the rows of `earlier` that it does not have: tasks first, then groups, in the order of their first command.

    A group of `earlier` goes if one of its tasks was scored again without it, for its mean would be of other results.
    """
    if earlier is None:
        return found
    rows = {_key(row): row for row in earlier.results} | {_key(row): row for row in found.results}
    again = {(row.task, row.style, row.shots) for row in found.results if isinstance(row, TaskScore)}
    new = {_key(row) for row in found.results}

    def stale(row: Score) -> bool:
        members = GROUPS.get(row.group if isinstance(row, GroupScore) else row.task, ())
        return _key(row) not in new and any(
            task in members and style == row.style and row.shots in (None, shots) for task, style, shots in again
        )

    kept = [row for row in rows.values() if not stale(row)]
    return dataclasses.replace(found, results=sorted(kept, key=lambda row: isinstance(row, GroupScore)))


def _key(row: Score) -> tuple[str, str, str]:
    if isinstance(row, TaskScore):
        return row.task, str(row.shots), row.style
    return f"group {row.group}", str(row.shots), row.style
