"""One size trained once and scored at several lengths: a trunk at a constant rate, and short branches in which the rate falls.

A run of a warmup-stable-decay schedule (`gpt3.training.recipes.SCHEDULES`) is, until its rate falls, the same for every length.
So a branch starts from the trunk's checkpoint, and is bit by bit the run that would have been planned with its length.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3.durable import replacing
from gpt3.paper.experiment import Work
from gpt3.report.run_folder import ENERGY, METRICS, read_metrics
from gpt3.work_folder import LOCK

SHARES = (0.25, 0.5, 1.0)
"""Lengths, as parts of the trunk's."""
UNIT = 20
"""A trunk's steps are a multiple of this, so that every branch starts at a checkpoint."""
CHECKPOINTS = 5
"""Of a trunk: after each fifth; the rate of a length falls in its last fifth."""
WARMUP = 40
"""The warm-up is the trunk's steps over this."""


@dataclass(frozen=True)
class Score:
    """What a run reached."""

    steps: int
    tokens: int
    loss: float
    """Nats per token of held-out text."""
    bits_per_byte: float


def train_lengths(
    work: Work, name: str, steps: int, batch_tokens: int, shares: Sequence[float] = SHARES, **options: Any
) -> list[Score]:
    """Train the trunk and its branches, as far as they are not finished; the scores, shortest first.

    Args:
        name: of the trunk's run; a branch is NAME-STEPS.
        steps: of the trunk, a multiple of `UNIT`.
        shares: lengths, each a multiple of a quarter of the trunk's.
        options: further ones of `gpt3 train`.
    """
    every = steps // CHECKPOINTS
    common = {"warmup_tokens": steps * batch_tokens // WARMUP, "validate_every": 10**6, "sample_every": 10**6}
    trunk = work.train(
        name, steps=steps, batch_tokens=batch_tokens, schedule="wsd", checkpoint_every=every, keep_every=every,
        sample_prompt=["The"], **common, **options,
    )  # fmt: skip
    scores = []
    for share in sorted(shares):
        length = round(steps * share)
        folder = trunk
        if share < 1:
            folder = branch(trunk, round(0.8 * length), work.folder / f"{name}-{length}")
            length_options = {"steps": length, "decay_tokens": length * batch_tokens}
            work.train(folder.name, resume=str(folder), seed=options.get("seed", work.seed), **length_options)
        scores.append(score(folder))
    return scores


def branch(trunk: Path, step: int, out: Path) -> Path:
    """The run `trunk` as it was at its checkpoint of `step`, copied to `out` unless that is there."""
    if not out.exists():
        with replacing(out) as copy:
            copy.mkdir()
            for path in trunk.iterdir():
                if path.is_file() and path.name not in (LOCK, ENERGY):  # the trunk's energy is not the branch's
                    shutil.copy2(path, copy)
            shutil.copytree(trunk / "checkpoints" / f"step-{step}", copy / "checkpoints" / f"step-{step}")
    return out


def score(run: Path) -> Score:
    """The last validation of a finished run."""
    last: dict[str, Any] = {}
    for record in read_metrics(run / METRICS):
        last |= record
    return Score(last["step"], last["tokens"], last["val/loss"], last["val/bits_per_byte"])
