"""Threads of each step of a run: fixed, or adapted to what else the machine does and repeated by a resume."""

from __future__ import annotations

from pathlib import Path

import torch

from gpt3.adaptive_threads import AdaptiveThreads
from gpt3.device import usable_cores
from gpt3.durable import write_text
from gpt3.progress import say
from gpt3.report.run_folder import METRICS, THREADS, read_metrics
from gpt3.training.tracking import line


class StepThreads:
    """Sets, records and repeats the number of threads of each step.

    threads.jsonl has a line for each change: ``{"step": 1, "threads": 2}``, the first step computed so. A run that adapts and
    resumes repeats the steps that it lost with the numbers they had, so that they end in the same bits, and adapts again after
    them.

    Args:
        folder: the run folder, before this session writes to its metrics.jsonl.
        done: steps that the checkpoint has; 0 for a new run.
        adaptive: chooses the number; None: it stays as it is.
    """

    def __init__(self, folder: Path, done: int, adaptive: AdaptiveThreads | None) -> None:
        self.adaptive = adaptive
        self._last: tuple[float, int] | None = None
        changes = {record["step"]: record["threads"] for record in read_metrics(folder / THREADS)}
        kept = {step: threads for step, threads in changes.items() if adaptive is not None or step <= done}
        write_text(folder / THREADS, "".join(line({"step": s, "threads": n}) for s, n in kept.items()))
        self._repeated, self._repeats_until = kept, 0
        if adaptive is not None and kept:
            self._repeats_until = max([*kept, *(record["step"] for record in read_metrics(folder / METRICS)[-1:])])
        self._recorded = list(kept.values())[-1] if kept else 0
        self._file = open(folder / THREADS, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - open as long as the run
        if self._repeats_until > done:
            self._warn(done)
        elif adaptive is not None:
            adaptive.begin()

    def _warn(self, done: int) -> None:
        """Say which recorded numbers this machine does not have."""
        cores = usable_cores()
        most = max(self._recorded_at(step) for step in range(done + 1, self._repeats_until + 1))
        if most > cores:
            say(
                f"Steps {done + 1:,} to {self._repeats_until:,} were computed with up to {most} threads. This machine allows "
                f"{cores}, so their results agree to rounding, not bit for bit."
            )

    def _recorded_at(self, step: int) -> int:
        """The number of threads that a step (from 1) was computed with."""
        known = [threads for first, threads in self._repeated.items() if first <= step]
        return known[-1] if known else next(iter(self._repeated.values()))

    def before(self, step: int) -> None:
        """Set the number for a step (from 1), and write it down where it changes."""
        if self.adaptive is not None and step <= self._repeats_until:
            threads = min(self._recorded_at(step), usable_cores())
            if threads != self.adaptive.threads:
                self.adaptive.switch(threads)
            return
        if self.adaptive is not None and self._last is not None:
            self.adaptive.after(*self._last)
        if (threads := torch.get_num_threads()) != self._recorded:
            self._file.write(line({"step": step, "threads": threads}))
            self._recorded = threads

    def after(self, step: int, seconds: float, tokens: int) -> None:
        """A step has taken this long. What follows from it begins with the next step: validation belongs to this one."""
        self._last = (seconds, tokens) if step > self._repeats_until else None

    def close(self) -> None:
        """Close the file."""
        self._file.close()
