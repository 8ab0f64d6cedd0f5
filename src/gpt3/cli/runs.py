"""``gpt3 runs``: the runs in a folder with their state, size and latest figures; rename and remove them."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gpt3.cli.report import RUNS, find_run
from gpt3.durable import TEMPORARY_SUFFIX, discard, folder_bytes, fsync_folder
from gpt3.errors import InputError
from gpt3.ladder.presets import readable_size
from gpt3.options import Options, option
from gpt3.progress import say
from gpt3.report.run_folder import FINAL_MODEL, METRICS, number, read_run
from gpt3.tables import aligned
from gpt3.work_folder import is_locked, locked_folder

REQUESTED = "asked.json"
"""The first file that a run writes (gpt3.training.run_folder)."""
COLUMNS = ("run", "state", "step", "tokens", "loss", "perplexity", "size", "last written (UTC)")


@dataclass(frozen=True)
class RunsOptions(Options):
    """List runs: state, steps, tokens, the latest validation loss and perplexity, size on disk."""

    folder: str = option(str(RUNS), common=True)
    """The folder that holds the runs."""
    json: bool = option(False, common=True)
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class RenameOptions(Options):
    """Give a run another name. A run in progress is refused; an unfinished one resumes under its new name with --out."""

    names: list[str] = option([], common=True)
    """The run (a folder, or a name in ./runs) and its new name."""


@dataclass(frozen=True)
class RemoveOptions(Options):
    """Remove runs with their checkpoints and models. A run in progress is refused."""

    names: list[str] = option([], common=True)
    """Runs: folders, or names in ./runs."""
    yes: bool = option(False, common=True)
    """Remove without asking."""


def run(options: RunsOptions) -> None:
    """Print the runs, the one written last at the top.

    Raises:
        InputError: there is no such folder.
    """
    folder = Path(options.folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of runs. Give one, or make a run with gpt3 train.")
    found = [describe(path) for path in ([folder] if is_run(folder) else folder.iterdir()) if is_run(path)]
    found.sort(key=lambda row: (row["written"], row["run"]), reverse=True)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(aligned([COLUMNS, *map(_cells, found)], left=(0, 1))) if found else f"no runs in {folder}")


def rename(options: RenameOptions) -> None:
    """Rename a run's folder.

    Raises:
        InputError: not two names, no such run, a run in progress, or a name that is taken or no name.
    """
    if len(options.names) != 2:
        raise InputError("give the run and its new name: gpt3 runs rename OLD NEW")
    folder, name = run_named(options.names[0]), options.names[1]
    if Path(name).name != name or name in ("", ".", ".."):
        raise InputError(f"{name!r} is not a name. Give one without a path, such as novels.")
    target = folder.with_name(name)
    if os.path.lexists(target):
        raise InputError(f"{target} exists. Choose another name.")
    with locked_folder(folder):
        folder.rename(target)
    fsync_folder(target.parent)
    print(target)


def remove(options: RemoveOptions) -> None:
    """Remove runs, after a question on a terminal.

    Raises:
        InputError: no name, no such run, a run in progress; or nobody can be asked and --yes is not given.
    """
    if not options.names:
        raise InputError("name the runs to remove, such as gpt3 runs remove demo")
    folders = list({folder.resolve(): folder for folder in map(run_named, options.names)}.values())
    if not options.yes:
        if not sys.stdin.isatty():
            raise InputError("asks before it removes, and there is no terminal to ask on. Add --yes to remove.")
        say("\n".join(f"{folder}: {readable_size(folder_bytes(folder))}" for folder in folders))
        if input("Remove? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing removed")
            return
    for folder in folders:
        size = folder_bytes(folder)
        gone = folder.with_name(f"{folder.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
        with locked_folder(folder):
            folder.rename(gone)  # at once: a kill leaves no run of which a part is missing
        discard(gone)
        print(f"removed {folder} ({readable_size(size)})")


def run_named(name: str) -> Path:
    """The run folder that `name` means.

    Raises:
        InputError: there is none, it holds something else, or a process is at work in it.
    """
    folder = find_run(name)
    if folder.is_symlink():
        raise InputError(f"{folder} is a link. Name the folder itself: {folder.resolve()}.")
    if not is_run(folder):
        raise InputError(f"{folder} is not a run folder: it has neither {METRICS} nor {REQUESTED}.")
    if is_locked(folder):
        raise InputError(f"{folder} is in use by another process. Wait for it, or stop it first.")
    return folder


def is_run(folder: Path) -> bool:
    """Whether a folder holds a training run, however far it came. Other folders, and links, are none."""
    return folder.is_dir() and any((folder / name).is_file() for name in (METRICS, REQUESTED))


def describe(folder: Path) -> dict[str, Any]:
    """A run's row, ready for JSON; what is not known is None."""
    row: dict[str, Any] = {
        "run": folder.name,
        "folder": str(folder),
        "state": _state(folder),
        "bytes": folder_bytes(folder),
    }
    row |= dict.fromkeys(("step", "steps", "tokens", "loss", "perplexity", "bits_per_byte"))
    written = folder.stat().st_mtime
    if (folder / METRICS).is_file():
        written = (folder / METRICS).stat().st_mtime
        try:
            read = read_run(folder)
        except InputError:
            row["state"] = f"{row['state']}, {METRICS} unreadable"
        else:
            validated = [record for record in read.records if "val/loss" in record]
            last, scored = read.records[-1] if read.records else {}, validated[-1] if validated else {}
            row |= {"steps": read.steps, **{key: last.get(key) for key in ("step", "tokens")}}
            row |= {key: number(scored.get(f"val/{key}")) for key in ("loss", "perplexity", "bits_per_byte")}
    return row | {"written": f"{datetime.fromtimestamp(written, timezone.utc):%Y-%m-%d %H:%M}"}


def _state(folder: Path) -> str:
    if is_locked(folder):
        return "running"
    return "finished" if (folder / FINAL_MODEL).is_dir() else "unfinished"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table."""
    step = "" if row["step"] is None else f"{row['step']:,}" + (f" / {row['steps']:,}" if row["steps"] else "")
    figures = (
        "" if row[key] is None else f"{row[key]:,.{digits}f}" for key, digits in (("loss", 3), ("perplexity", 1))
    )
    tokens = "" if row["tokens"] is None else f"{row['tokens']:,}"
    return (row["run"], row["state"], step, tokens, *figures, readable_size(row["bytes"]), row["written"])
