"""The run folder: which one a run uses, whether it goes on with what lies there, and that only one process writes to it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from gpt3.durable import TEMPORARY_SUFFIX, discard
from gpt3.errors import InputError
from gpt3.training.options import TrainOptions

CONFIG = "config.yaml"
ASKED = "asked.json"
FINAL_MODEL = "model"
CHECKPOINTS = "checkpoints"
LOCK = ".lock"
EARLY = frozenset({LOCK, ASKED, "data.json", "environment.json"})
"""What is written before config.yaml; a folder that holds no more has no run in it yet."""
FREE_TO_CHANGE = frozenset(
    {
        "resume", "out", "track", "keep_checkpoints", "keep_every", "checkpoint_every", "workers", "device", "nproc",
        "parallel", "micro_batch", "profile", "plan", "gradient_checkpointing", "compile",
    }
)  # fmt: skip
"""Options that may differ when an interrupted run goes on: they do not change what is computed, but for the order of sums."""


def choose_folder(options: TrainOptions, name: str) -> tuple[Path, bool]:
    """The run folder, and whether a run that lies there goes on.

    Without --out: the newest runs/NAME[-N] when it is an unfinished run of these options, else the next free name.

    Raises:
        InputError: --out holds another run, or a finished one, or something else.
    """
    if options.resume not in ("auto", "never"):
        checkpoint = Path(options.resume)
        if not (checkpoint / "state.json").is_file():
            raise InputError(
                f"--resume {options.resume} is neither auto, never nor a checkpoint; name a runs/NAME/checkpoints/step-N"
            )
        return Path(options.out) if options.out else checkpoint.parent.parent, True
    if options.out is None:
        number, newest = 1, None
        while (candidate := Path("runs") / (name + (f"-{number}" if number > 1 else ""))).exists():
            newest, number = candidate, number + 1
        if newest is None or options.resume == "never" or not is_unfinished(newest, options) or is_locked(newest):
            return candidate, False
        return newest, True
    folder = Path(options.out)
    if not folder.exists() or (folder.is_dir() and all(is_early(inner) for inner in folder.iterdir())):
        return folder, False
    if options.resume == "auto" and is_unfinished(folder, options):
        return folder, True
    what = "a finished run" if (folder / FINAL_MODEL).exists() else "another run or other files"
    raise InputError(f"--out {folder} holds {what}; choose another --out or remove it")


def is_early(path: Path) -> bool:
    """Whether `path` is what a run killed in its first moment leaves."""
    return path.name in EARLY or path.name.endswith(TEMPORARY_SUFFIX)


def is_unfinished(folder: Path, options: TrainOptions) -> bool:
    """Whether `folder` is a run of these options that has not ended."""
    if (folder / FINAL_MODEL).exists() or not (folder / CONFIG).exists():
        return False
    return asked_of(folder) == asked(options)


def asked(options: TrainOptions) -> dict[str, Any]:
    """What was asked for, as far as it decides what is computed."""
    return {name: value for name, value in dataclasses.asdict(options).items() if name not in FREE_TO_CHANGE}


def asked_of(folder: Path) -> dict[str, Any] | None:
    """What was asked of the run in `folder`, from its asked.json."""
    path = folder / ASKED
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def settled_options(folder: Path, options: TrainOptions) -> TrainOptions:
    """The options that the run in `folder` settled on, with today's choice where it is free to change.

    Going on from a named checkpoint (``--resume PATH``), every option that is given now counts.
    """
    try:
        saved = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
        today = {name for name in FREE_TO_CHANGE if getattr(options, name) is not None}
        if options.resume not in ("auto", "never"):
            defaults = TrainOptions()
            today |= {name for name in saved if getattr(options, name) != getattr(defaults, name)}
        lengths = {"tokens", "minutes", "steps"}
        dropped = today | {"resume", "out", "plan"} | (lengths if lengths & today else set())
        kept = {name: value for name, value in saved.items() if name not in dropped}
        return dataclasses.replace(options, **dict.fromkeys(lengths - today) | kept)
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise InputError(
            f"cannot go on with {folder}: its {CONFIG} is unreadable ({error}); use --resume never"
        ) from None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from training in `folder`, which is made. It goes away again if nothing was put into it.

    Raises:
        InputError: another process has it.
    """
    import filelock

    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise InputError(
            f"--out {folder} is in use by another process that trains there; wait for it or choose another --out"
        ) from None
    try:
        for left in folder.glob(f"*{TEMPORARY_SUFFIX}"):  # of a killed process: this one is alone here
            discard(left)
        yield
    finally:
        lock.release()
        if made and all(inner.name == LOCK for inner in folder.iterdir()):
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()


def is_locked(folder: Path) -> bool:
    """Whether a living process trains in `folder`."""
    import filelock

    if not (folder / LOCK).exists():
        return False
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return True
    lock.release()
    return False


def environment(device: str) -> dict[str, Any]:
    """What the run runs on: versions, machine, and the commit where the package is a git checkout."""
    import importlib.metadata
    import os

    import torch

    found: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("gpt3", "torch", "transformers", "tokenizers", "numpy", "safetensors"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    found |= {"device": device, "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if device.startswith("cuda"):
        found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        here = Path(__file__).parent
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5)
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", __file__], cwd=here, capture_output=True, timeout=5
        )
        if commit.returncode == 0 and tracked.returncode == 0:
            found["commit"] = commit.stdout.strip()
    return found


def say(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)
