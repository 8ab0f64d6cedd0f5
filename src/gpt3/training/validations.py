"""The validations of a run: every set scored, the best one remembered, the moment to stop early."""

from __future__ import annotations

from typing import Any

from gpt3.errors import InputError
from gpt3.training.loop import Trainer
from gpt3.training.options import TrainOptions
from gpt3.training.run_data import RunData
from gpt3.training.validation import EarlyStopping, Score, records, validate


class Validations:
    """Scores a run's held-out documents, on all ranks together.

    Attributes:
        early: which validation was the best, and whether to stop.
        scores: the latest, by the set's name; the run's own is ``""``.

    Raises:
        InputError: ``--early-stop`` goes by a set that is not there.
    """

    def __init__(self, options: TrainOptions, data: RunData) -> None:
        self.options, self.data = options, data
        self.sets = {name: split for name, split in data.validation.items() if len(split) > 1}
        self.early = EarlyStopping(options.early_stop, on=options.early_stop_on or "")
        self.scores: dict[str, Score] = {}
        watched = options.early_stop is not None or options.early_stop_on is not None
        if watched and self.early.on not in self.sets:
            named = ", ".join(name for name in data.validation if name) or "none"
            what = (
                f"--early-stop-on {options.early_stop_on}: no such validation set"
                if options.early_stop_on
                else f"--early-stop {options.early_stop}: the run holds out no text of its own"
            )
            raise InputError(f"{what}; named sets here: {named}")

    @property
    def own(self) -> Score | None:
        """The latest of the run's own held-out documents."""
        return self.scores.get("")

    def score(self, trainer: Trainer, step: int, final: bool) -> dict[str, Any] | None:
        """Score every set with the weights of `step`: the record of metrics.jsonl, None where there is no set.

        Args:
            final: read all; else about ``--validation-tokens`` of each set.
        """
        most = None if final else self.options.validation_tokens
        plan = trainer.plan
        with trainer.averaged():
            self.scores = {
                name: validate(
                    trainer.model, split, trainer.compute, plan.context, plan.micro_batch, most, trainer.world,
                    self.options.mask_documents,
                )
                for name, split in self.sets.items()
            }  # fmt: skip
        if not self.scores:
            return None
        record = records(step, plan.tokens_after(step), self.scores)
        if self.options.mixture is not None:
            for row in self.data.sources(plan.sequences(step - 1).stop, plan.context):
                record |= {f"share/{row['name']}": row["share"], f"epochs/{row['name']}": row["epochs"]}
        watched = self.scores.get(self.early.on)
        if watched is not None and (not final or watched.tokens <= self.options.validation_tokens):
            self.early.update(step, self.scores)  # else it would compare unlike
        return record
