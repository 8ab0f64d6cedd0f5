"""How a run keeps to its machine: the threads of each step, and with ``--minutes`` the number of steps that the speed allows."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from pathlib import Path

from gpt3.durable import write_text
from gpt3.progress import say
from gpt3.report.run_folder import read_metrics
from gpt3.training.layouts import Layout
from gpt3.training.panel import Panel
from gpt3.training.plan import Plan
from gpt3.training.step_threads import StepThreads
from gpt3.training.tracking import line
from gpt3.training.trainer import Trainer

FILE_NAME = "schedule.jsonl"
WINDOWS = 20
"""Speeds are measured over this part of the requested time ..."""
LEAST_WINDOW = 2.0
"""... and at least this many seconds."""
LASTING = 2
"""A change is lasting if this many windows in a row would end the run too early or too late ..."""
TOLERANCE = 0.05
"""... by more than this share of the requested time."""


class Pace:
    """Called before and after each step of a run.

    Args:
        folder: the run folder, before this session writes to its metrics.jsonl.
        seconds: of training so far.
        minutes: requested for the whole run; None: its length stays. Among several processes it stays, too.

    Attributes:
        panel: told when the length changes.
    """

    def __init__(self, folder: Path, trainer: Trainer, seconds: float, minutes: float | None) -> None:
        self.trainer = trainer
        self.panel: Panel | None = None
        self.threads: StepThreads | None = None
        self.budget: TimeBudget | None = None
        if trainer.world.first:
            self.threads = StepThreads(folder, trainer.step, trainer.compute.adaptive)
        if minutes is not None and trainer.world.size == 1:
            self.budget = TimeBudget(folder, minutes * 60, trainer.plan, seconds, trainer.step)

    def before(self, seconds: float) -> Plan:
        """The plan of the next step, after `seconds` of training."""
        trainer = self.trainer
        if self.budget is not None and (plan := self.budget.look(trainer.step, seconds)):
            # the trainer's micro-batch may be another
            trainer.plan = replace(trainer.plan, steps=plan.steps, layouts=plan.layouts)
            trainer.mixture.want(plan.total_sequences)
            if self.panel is not None:
                self.panel.change_total(plan.steps)
        if self.threads is not None:
            self.threads.before(trainer.step + 1)
        return trainer.plan

    def after(self, seconds: float, tokens: int) -> None:
        """The step has taken `seconds`."""
        if self.threads is not None:
            self.threads.after(self.trainer.step, seconds, tokens)

    def close(self) -> None:
        """Close what it writes."""
        if self.threads is not None:
            self.threads.close()


def recorded_layouts(folder: Path, plan: Plan) -> Plan:
    """`plan` with what schedule.jsonl records of it; a run that was given another length since begins a new record."""
    layouts = tuple(Layout(record["step"], record["steps"]) for record in read_metrics(folder / FILE_NAME))
    if not layouts or layouts[0] != Layout(0, plan.steps):
        return plan
    for layout in layouts[1:]:
        plan = plan.laid_out(*layout)
    return plan


class TimeBudget:
    """Compares a run's speed with the time that is left.

    schedule.jsonl holds ``{"step": 0, "steps": 5000}`` and a line for each time that the rest was laid out again: after how many
    steps, and the run's number of steps from then on. A run that resumes keeps to it.

    Args:
        folder: the run folder.
        seconds: of training that were requested.
        plan: with the recorded layouts.
        done: seconds of training so far.
        step: steps so far.
    """

    def __init__(self, folder: Path, seconds: float, plan: Plan, done: float, step: int) -> None:
        self.path, self.seconds, self.plan = folder / FILE_NAME, seconds, plan
        self.window = max(LEAST_WINDOW, seconds / WINDOWS)
        self._wrong = 0
        self._marks = deque([(done, plan.tokens_after(step))], LASTING + 1)  # seconds and tokens at the ends of windows

    def look(self, step: int, seconds: float) -> Plan | None:
        """The new plan where the rest is laid out again after `step` steps and `seconds` of training, else None."""
        plan, (before, tokens_before) = self.plan, self._marks[-1]
        if seconds - before < self.window or step < self._repeats_until:
            return None
        tokens, left = plan.tokens_after(step), self.seconds - seconds
        self._marks.append((seconds, tokens))
        needed = (plan.tokens - tokens) / (tokens - tokens_before) * (seconds - before)
        self._wrong = self._wrong + 1 if abs(needed - left) > TOLERANCE * self.seconds else 0
        if self._wrong < LASTING:
            return None
        self._wrong = 0
        first, first_tokens = self._marks[0]
        speed = (tokens - first_tokens) / (seconds - first)
        steps = max(step + 1, plan.steps_for(tokens + round(speed * max(0.0, left))))
        if steps == plan.steps:
            return None
        self.plan = plan.laid_out(step, steps)
        write_text(self.path, "".join(line(layout._asdict()) for layout in self.plan.layouts))
        say(
            f"The speed is now {speed:,.0f} tokens/s. To end in time, the rest of the schedule is laid out again: "
            f"{steps:,} steps in all instead of {plan.steps:,}."
        )
        return self.plan

    @property
    def _repeats_until(self) -> int:
        """The last step at which the rest was laid out again: a resume may have to get there first."""
        return self.plan.layouts[-1].step if self.plan.layouts else 0
