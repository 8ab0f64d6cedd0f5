"""What a GPU run does beside its steps: the next batches are read before the loss is waited for, no garbage is looked through."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from gpt3.corpus.mixture import Mixture
from gpt3.report.run_folder import read_metrics
from gpt3.training.run import train
from gpt3.training.trainer import Trainer


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(folder / "metrics.jsonl") if "lr" in record]


def test_a_run_that_reads_ahead_is_the_same_run(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"steps": 6, "ramp_tokens": 600, "log_every": 1}
    train(tiny(out=str(tmp_path / "plain"), **options))
    make, take, read = Trainer.__init__, Trainer.one_step, Mixture.batch
    sequences, after, frozen = [0], list[int](), list[int]()

    def ahead(self: Trainer, *args: Any, **given: Any) -> None:
        make(self, *args, **given)
        self.ahead = True

    def counted(self: Mixture, numbers: Any) -> Any:
        sequences[0] += len(numbers)
        return read(self, numbers)

    def one_step(self: Trainer, *args: Any) -> Any:
        record = take(self, *args)
        after.append(sequences[0] - self.plan.sequences(self.step - 1).stop)
        frozen.append(gc.get_freeze_count())
        return record

    monkeypatch.setattr(Trainer, "__init__", ahead)
    monkeypatch.setattr(Trainer, "one_step", one_step)
    monkeypatch.setattr(Mixture, "batch", counted)
    train(tiny(out=str(tmp_path / "ahead"), **options))
    assert losses(tmp_path / "ahead") == losses(tmp_path / "plain")
    assert all(count > 0 for count in after[:-1])  # the next step's are there
    assert after[-1] == 0  # and none was read twice, nor beyond the run
    assert min(frozen) > 1000
    assert gc.get_freeze_count() == 0
