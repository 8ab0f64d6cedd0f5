"""Where a run's numbers go: metrics.jsonl always, Weights & Biases and TensorBoard when asked."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt3.durable import write_text
from gpt3.errors import InputError, require
from gpt3.report.run_folder import read_metrics


class Tracker:
    """Something that takes a run's numbers."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Take one record; it holds ``step`` and ``tokens``."""
        raise NotImplementedError

    def flush(self) -> None:
        """Make sure that what was logged lasts: a checkpoint is about to be written."""

    def close(self) -> None:
        """Flush and let go."""


class RecordFile(Tracker):
    """A file of JSON objects, one per line, each with its ``step``: metrics.jsonl and samples.jsonl.

    A run that resumes from a checkpoint drops the records after it, so that a step is in the file once.
    """

    def __init__(self, path: Path, resume_step: int) -> None:
        kept = read_metrics(path, resume_step) if resume_step else []
        write_text(path, "".join(map(line, kept)))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the run

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line; a kill of the process does not lose it."""
        self._file.write(line(record))
        self._file.flush()

    def flush(self) -> None:
        """Onto the disk: a power cut does not lose what was logged before."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def line(record: Mapping[str, Any]) -> str:
    """A record as a line of JSON; numbers that are not finite become null."""
    finite = {k: (None if isinstance(v, float) and not math.isfinite(v) else v) for k, v in record.items()}
    return json.dumps(finite, ensure_ascii=False) + "\n"


class WandbTracker(Tracker):
    """Weights & Biases, by its own environment variables (WANDB_MODE=offline works without an account)."""

    def __init__(self, folder: Path, config: Mapping[str, Any], resume_step: int) -> None:
        wandb = require("wandb", extra="wandb", purpose="--track wandb")
        marker = folder / "wandb_id"
        run_id = marker.read_text(encoding="utf-8") if resume_step and marker.exists() else uuid.uuid4().hex[:8]
        marker.write_text(run_id, encoding="utf-8")
        try:
            self._run = wandb.init(
                project="gpt3", name=folder.name, id=run_id, resume="allow", dir=str(folder), config=dict(config)
            )
        except wandb.Error as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"--track wandb: {reason}; log in, or set WANDB_MODE=offline") from None

    def log(self, record: Mapping[str, Any]) -> None:
        """Send one record."""
        self._run.log({k: v for k, v in record.items() if k != "step"}, step=record["step"])

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class TensorboardTracker(Tracker):
    """TensorBoard event files in the run folder's tensorboard/."""

    def __init__(self, folder: Path, resume_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(folder / "tensorboard", purge_step=resume_step + 1 if resume_step else None)

    def log(self, record: Mapping[str, Any]) -> None:
        """Write each number of a record as a scalar."""
        for name, value in record.items():
            if name != "step" and isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, record["step"])

    def flush(self) -> None:
        """Onto the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


def check_trackers(names: Sequence[str]) -> None:
    """Refuse ``--track`` before the work, not after it.

    Raises:
        InputError: a tracker's package is not installed.
    """
    for name in ("wandb", "tensorboard"):
        if name in names:
            require(name, extra=name, purpose=f"--track {name}")


def open_trackers(names: Sequence[str], folder: Path, config: Mapping[str, Any], resume_step: int) -> list[Tracker]:
    """The trackers called `names`, metrics.jsonl first."""
    trackers: list[Tracker] = []
    if "wandb" in names:
        trackers.append(WandbTracker(folder, config, resume_step))
    if "tensorboard" in names:
        trackers.append(TensorboardTracker(folder, resume_step))
    return [RecordFile(folder / "metrics.jsonl", resume_step), *trackers]
