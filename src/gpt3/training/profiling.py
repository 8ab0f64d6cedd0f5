"""Where the time of a step goes: a torch.profiler trace of a few steps (``--profile N``)."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import torch
from torch.profiler import ProfilerActivity, profile, schedule, supported_activities

from gpt3.durable import replacing, write_text
from gpt3.errors import InputError
from gpt3.progress import say

WARMUP_STEPS = 2
"""Steps before the recorded ones: the first pays for allocations and compilation, the profiler's own start for the second."""
TABLE_ROWS = 25


class StepProfiler:
    """A context manager round the training loop that records `steps` steps; call `step()` after each.

    Writes FOLDER/profile/trace.json, for https://ui.perfetto.dev or chrome://tracing, and FOLDER/profile/summary.txt, the
    operators that took most of the time themselves. A run that ends sooner leaves the trace of the steps there were. Recording
    costs time, so the speed of those steps is not the run's. On several devices give a number to one rank alone.

    Args:
        folder: the run folder.
        steps: steps to record, after 2 of warm-up; None makes everything here do nothing.

    Raises:
        InputError: `steps` is below 1.
    """

    def __init__(self, folder: Path, steps: int | None) -> None:
        if steps is not None and steps < 1:
            raise InputError(f"--profile {steps} must be at least 1 step; leave it out for no profile")
        self.folder = folder / "profile"
        self.written = False
        self._profile: profile | None = None
        if steps is not None:
            self._profile = profile(
                schedule=schedule(wait=0, warmup=WARMUP_STEPS, active=steps, repeat=1),
                on_trace_ready=self._write,
                record_shapes=True,
            )

    def __enter__(self) -> StepProfiler:
        if self._profile is not None:
            self._profile.start()
        return self

    def step(self) -> None:
        """A training step has ended. After the last recorded one the files are written, and this costs nothing any more."""
        if self._profile is None:
            return
        self._profile.step()
        if self.written:
            self._close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._profile is None:
            return
        self._close()
        if not self.written:
            say(f"--profile: no trace, the run ended within its {WARMUP_STEPS} warm-up steps")

    def _close(self) -> None:
        assert self._profile is not None
        self._profile.stop()
        self._profile = None

    def _write(self, recorded: profile) -> None:
        """Both files, each whole or not at all; nothing when no recorded step has ended."""
        if recorded.step_num <= WARMUP_STEPS:
            return
        with replacing(self.folder / "trace.json") as temporary:
            recorded.export_chrome_trace(str(temporary))
        device = ProfilerActivity.CUDA in supported_activities() and torch.cuda.is_available()
        order = "self_device_time_total" if device else "self_cpu_time_total"
        table = recorded.key_averages(group_by_input_shape=True).table(sort_by=order, row_limit=TABLE_ROWS)
        write_text(self.folder / "summary.txt", table)
        self.written = True
