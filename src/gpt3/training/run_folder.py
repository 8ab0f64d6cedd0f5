"""The run folder: which one a run uses, whether it resumes the run in it, and the options it resumes with."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import subprocess
from pathlib import Path
from typing import Any

import yaml

from gpt3 import work_folder
from gpt3.errors import InputError
from gpt3.training.options import TrainOptions

CONFIG = "config.yaml"
ASKED = "asked.json"
FINAL_MODEL = "model"
CHECKPOINTS = "checkpoints"
EARLY = frozenset({ASKED, "data.json", "environment.json"})
"""What is written before config.yaml; a folder that holds no more has no run in it yet."""
FREE_TO_CHANGE = frozenset(
    {
        "resume", "out", "track", "keep_checkpoints", "keep_every", "checkpoint_every", "workers", "device", "nproc",
        "parallel", "micro_batch", "profile", "plan", "gradient_checkpointing", "compile",
    }
)  # fmt: skip
"""Options that may differ when an interrupted run goes on: they do not change what is computed, but for the order of sums."""


def choose_folder(options: TrainOptions, name: str) -> tuple[Path, bool]:
    """The run folder, and whether it holds a run to resume; without ``--out``, runs/NAME[-N] (`work_folder.choose_folder`).

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
    return work_folder.choose_folder(
        options.out,
        Path("runs") / name,
        asked(options),
        before=lambda folder: work_folder.stored(folder / ASKED) if (folder / CONFIG).exists() else None,
        finished=lambda folder: (folder / FINAL_MODEL).exists(),
        early=EARLY,
        resume=options.resume == "auto",
    )


def asked(options: TrainOptions) -> dict[str, Any]:
    """The options that decide what is computed: a run resumes only when they are the same."""
    return work_folder.requested(options, FREE_TO_CHANGE)


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
