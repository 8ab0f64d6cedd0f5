"""What a user may ask of ``gpt3 contamination``. Nothing heavy is imported here."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from gpt3.errors import InputError


@dataclass(frozen=True)
class ContaminationOptions:
    """Which benchmark examples stand in the training text, by N-grams (Brown et al. 2020, App. C)."""

    tasks: list[str] = field(default_factory=list)
    """Task files: names in --data-dir (lambada means every lambada_….jsonl, too) or paths. Default: all of --data-dir."""
    data_dir: str | None = None
    """The folder of task files, JSON lines, also compressed."""
    model: str | None = None
    """A run: the text it was trained on is read. Default: the newest run in ./runs, unless --data is given."""
    data: list[str] = field(default_factory=list)
    """The training text in place of a run's: shard folders (their training split), wiki, hf:owner/name, files, folders, globs."""
    scores: str | None = None
    """JSON lines with task, id and score of each example: the table then compares all, dirty and clean."""
    out: str | None = None
    """A folder for contamination.json (the table) and examples.jsonl (each example's verdict and collisions)."""
    json: bool = False
    """Print the table as one JSON object."""
    workers: int | None = None
    """Processes that read. Default: one a core."""

    def __post_init__(self) -> None:
        problems = []
        if self.model is not None and self.data:
            problems.append("--model and --data are both given; give the one whose text is meant")
        if not self.tasks and self.data_dir is None:
            problems.append("no --tasks are given; name some, or give --data-dir, a folder of task files (.jsonl)")
        if self.workers is not None and self.workers < 1:
            problems.append(f"--workers {self.workers} must be above 0")
        if problems:
            raise InputError("; ".join(problems))

    def worker_count(self) -> int:
        """`workers`, or the cores this process may use."""
        return self.workers if self.workers is not None else usable_cores()


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
