"""Where a run's numbers go: metrics.jsonl always; Weights & Biases, TensorBoard and a profile of its steps when asked."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule, supported_activities

from gpt3.durable import replacing, write_text
from gpt3.errors import InputError, require
from gpt3.progress import say
from gpt3.report.run_folder import METRICS, read_metrics

PROFILE_WARMUP = 2
"""Steps before the profiled ones: the first pays for allocations and compilation, the second for the profiler's own start."""
PROFILE_ROWS = 25


@dataclass(frozen=True)
class Tracker:
    """Something that takes a run's numbers, as functions."""

    log: Callable[[Mapping[str, Any]], object]
    """Takes one record; it holds ``step`` and ``tokens``."""
    close: Callable[[], object]
    """Flushes and lets go."""
    flush: Callable[[], object] = lambda: None
    """Makes sure that what was logged lasts: a checkpoint is about to be written."""


def record_file(path: Path, resume_step: int) -> Tracker:
    """A file of JSON objects, one per line, each with its ``step``: metrics.jsonl and samples.jsonl.

    A run that resumes from a checkpoint drops the records after it, so that a step is in the file once. A kill of the process
    does not lose a line; after `flush` a power cut does not lose one either.
    """
    kept = read_metrics(path, resume_step) if resume_step else []
    write_text(path, "".join(map(line, kept)))
    file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - open as long as the run
    return Tracker(lambda record: file.write(line(record)), file.close, lambda: os.fsync(file.fileno()))


def line(record: Mapping[str, Any]) -> str:
    """A record as a line of JSON; numbers that are not finite become null."""
    finite = {k: (None if isinstance(v, float) and not math.isfinite(v) else v) for k, v in record.items()}
    return json.dumps(finite, ensure_ascii=False) + "\n"


def wandb_tracker(folder: Path, config: Mapping[str, Any], resume_step: int) -> Tracker:
    """Weights & Biases, by its own environment variables (WANDB_MODE=offline works without an account)."""
    wandb = require("wandb", extra="wandb", purpose="--track wandb")
    marker = folder / "wandb_id"
    run_id = marker.read_text(encoding="utf-8") if resume_step and marker.exists() else uuid.uuid4().hex[:8]
    marker.write_text(run_id, encoding="utf-8")
    try:
        run = wandb.init(
            project="gpt3", name=folder.name, id=run_id, resume="allow", dir=str(folder), config=dict(config)
        )
    except wandb.Error as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--track wandb: {reason}; log in, or set WANDB_MODE=offline") from None

    def log(record: Mapping[str, Any]) -> None:
        run.log({name: value for name, value in record.items() if name != "step"}, step=record["step"])

    return Tracker(log, run.finish)


def tensorboard_tracker(folder: Path, config: Mapping[str, Any], resume_step: int) -> Tracker:
    """TensorBoard event files in the run folder's tensorboard/; each number of a record is a scalar."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder / "tensorboard", purge_step=resume_step + 1 if resume_step else None)

    def log(record: Mapping[str, Any]) -> None:
        for name, value in record.items():
            if name != "step" and isinstance(value, (int, float)):
                writer.add_scalar(name, value, record["step"])

    return Tracker(log, writer.close, writer.flush)


TRACKERS = {"wandb": wandb_tracker, "tensorboard": tensorboard_tracker}
"""Those of ``--track``; each needs the package of its name, which the extra of its name installs."""


def check_trackers(names: Sequence[str]) -> None:
    """Refuse ``--track`` before the work, not after it.

    Raises:
        InputError: a tracker's package is not installed.
    """
    for name in TRACKERS.keys() & names:
        require(name, extra=name, purpose=f"--track {name}")


def open_trackers(names: Sequence[str], folder: Path, config: Mapping[str, Any], resume_step: int) -> list[Tracker]:
    """The trackers called `names`, metrics.jsonl first."""
    trackers = [tracker(folder, config, resume_step) for name, tracker in TRACKERS.items() if name in names]
    return [record_file(folder / METRICS, resume_step), *trackers]


@contextmanager
def step_profiler(folder: Path, steps: int) -> Iterator[Callable[[], None]]:
    """Record `steps` training steps (``--profile``) inside; gives a function to call after each step.

    Writes FOLDER/profile/trace.json, for https://ui.perfetto.dev or chrome://tracing, and FOLDER/profile/summary.txt, the
    operators that took most of the time themselves, as soon as the last recorded step has ended. A run that ends sooner leaves
    the trace of the steps there were. Recording costs time, so the speed of those steps is not the run's. With several processes
    one alone records.

    Args:
        folder: the run folder.
        steps: steps to record, at least 1, after 2 of warm-up.
    """
    folder = folder / "profile"

    def write(recorded: profile) -> None:
        if recorded.step_num <= PROFILE_WARMUP:  # no recorded step has ended
            return
        with replacing(folder / "trace.json") as temporary:
            recorded.export_chrome_trace(str(temporary))
        device = ProfilerActivity.CUDA in supported_activities() and torch.cuda.is_available()
        order = "self_device_time_total" if device else "self_cpu_time_total"
        rows = recorded.key_averages(group_by_input_shape=True).table(sort_by=order, row_limit=PROFILE_ROWS)
        write_text(folder / "summary.txt", rows)

    stages = schedule(wait=0, warmup=PROFILE_WARMUP, active=steps, repeat=1)
    with profile(schedule=stages, on_trace_ready=write, record_shapes=True) as recorder:
        yield recorder.step
    if recorder.step_num <= PROFILE_WARMUP:
        say(f"--profile: no trace, the run ended within its {PROFILE_WARMUP} warm-up steps")
