"""Going on with a run: from which checkpoint, with the same data, and what may differ from before."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt3.durable import discard
from gpt3.errors import InputError
from gpt3.progress import say
from gpt3.training.checkpoint import checkpoints, damage, newest_whole, read_state, step_of
from gpt3.training.distributed import World
from gpt3.training.options import TrainOptions

SAME_DATA = ("name", "tokens", "documents", "weight")


def find_checkpoint(folder: Path, options: TrainOptions, world: World) -> Path | None:
    """The checkpoint in `folder` to go on from: the one ``--resume`` names, else the newest whole one.

    Damaged ones are named and passed over. Later ones than a named one are set aside, so that it is the newest.

    Raises:
        InputError: the named one is no checkpoint, or damaged.
    """

    def newest() -> str | None:
        path, damaged = newest_whole(folder)
        for bad, reason in damaged:
            say(f"passed over {bad}: {reason}")
        return str(path) if path else None

    def named() -> str:
        path = Path(options.resume)
        read_state(path)
        if reason := damage(path):
            raise InputError(f"--resume {path} is damaged: {reason}; use --resume auto for the newest whole one")
        for later in () if options.plan else checkpoints(folder):
            if step_of(later) > step_of(path):
                aside = later.with_name(f"aside-{later.name}")
                discard(aside)
                os.replace(later, aside)
                say(f"{later} is set aside as {aside.name}: the run goes on from {path.name}")
        return str(path)

    found = world.agree(newest if options.resume in ("auto", "never") else named)
    return Path(found) if found else None


def check_same_data(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Refuse to go on with other data than the run began with: its order would be another.

    Args:
        folder: the run folder.
        rows: the sources now, as data.json has them.

    Raises:
        InputError: the sources of data.json differ.
    """
    path = folder / "data.json"
    if not path.exists():
        return
    before = json.loads(path.read_text(encoding="utf-8"))["sources"]
    if [[row[key] for key in SAME_DATA] for row in before] != [[row[key] for key in SAME_DATA] for row in rows]:
        raise InputError(f"the data of {folder} is not what the run began with; choose another --out")


def say_what_changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Tell what is computed otherwise than before the interruption, and what stays exact all the same."""
    changed = [f"{name} {before.get(name)} -> {value}" for name, value in now.items() if before.get(name) != value]
    if changed:
        say(
            f"going on with {', '.join(changed)}: schedule, data order and states are exactly the run's; "
            "sums are taken in another order, so weights agree to rounding, not bit for bit"
        )
