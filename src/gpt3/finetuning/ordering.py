"""In which order samples are trained: shuffled, those of like length together, so that batches need little padding."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

BATCHES_SORTED = 64
"""Samples are sorted by length among so many batches only: then which ones meet in a batch stays as good as random."""


class GroupedByLength(Sampler[int]):
    """An order of samples that follows from (seed, epoch) alone, so that a run that goes on finds its place.

    All samples are shuffled, cut into stretches of `BATCHES_SORTED` batches, each stretch is sorted by length and cut into
    batches, and a stretch's batches are shuffled. (Trainer's own ``group_by_length`` leaves the batches in the order of
    their lengths, so that the loss goes up and down with them.)

    Args:
        lengths: of the samples, in tokens.
        batch: samples in an optimizer step.
        seed: of the order.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.lengths, self.batch, self.seed, self.epoch = lengths, batch, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        draw = random.Random(f"{self.seed} {self.epoch}")
        order = list(range(len(self.lengths)))
        draw.shuffle(order)
        stretch = BATCHES_SORTED * self.batch
        for start in range(0, len(order), stretch):
            ordered = sorted(order[start : start + stretch], key=self.lengths.__getitem__)
            batches = [ordered[place : place + self.batch] for place in range(0, len(ordered), self.batch)]
            rest = batches.pop() if len(batches[-1]) < self.batch else []  # last, so that no other batch is torn
            draw.shuffle(batches)
            for batch in (*batches, rest):
                yield from batch
