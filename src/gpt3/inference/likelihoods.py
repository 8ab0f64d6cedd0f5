"""Log-probabilities of tokens by logits, and whether they are the likeliest: all that continuations need (continuations.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpt3.errors import RunError
from gpt3.inference.arrays import Array
from gpt3.inference.engine import Logits
from gpt3.inference.scoring import ROWS_AT_ONCE


class Likelihoods(NamedTuple):
    """What a model says of tokens, in NumPy: the part of `gpt3.inference.scoring.Scores` that continuations need."""

    logprobs: Array
    """(T,) float32: natural log-probability of each, as in `Scores`."""
    greedy: Array
    """(T,) bool: whether it is the likeliest (of equals, the lowest id)."""


def likelihoods(logits: Logits, ids: Sequence[int]) -> Likelihoods:
    """Log-probabilities of `ids` under the distributions that `logits` give, without ranks and entropies.

    Args:
        logits: (T, V) float32, in NumPy or in torch on any device, left unchanged; (1, V): one distribution for all ids.
        ids: T of them.

    Raises:
        RunError: logits that are NaN or infinite.
    """
    targets = np.asarray(ids, dtype=np.int64)
    rows = np.arange(len(targets)) if len(logits) > 1 else np.zeros(len(targets), np.int64)
    if isinstance(logits, np.ndarray):
        groups = [logits[begin : begin + ROWS_AT_ONCE] for begin in range(0, len(logits), ROWS_AT_ONCE)]
        tops = [group.max(1) for group in groups]
        sums = [np.exp(group - top[:, None]).sum(1) for group, top in zip(groups, tops, strict=True)]
        highest = np.concatenate(tops)
        normalizer, chosen = np.log(np.concatenate(sums)), logits[rows, targets]
    else:
        import torch

        with torch.no_grad():
            most = logits.max(dim=1, keepdim=True).values
            total = (logits - most).exp_().sum(dim=1).log()
            taken = logits[torch.from_numpy(rows).to(logits.device), torch.from_numpy(targets).to(logits.device)]
            highest, normalizer, chosen = (part.cpu().numpy() for part in (most[:, 0], total, taken))
    greedy = chosen == highest[rows]
    for place in np.flatnonzero(greedy):
        greedy[place] = not bool((logits[int(rows[place]), : int(targets[place])] == float(chosen[place])).any())
    logprobs = chosen - highest[rows] - normalizer[rows]
    if not np.isfinite(logprobs).all():  # a NaN or infinity of any token makes them so
        raise RunError("the model's logits are NaN or infinite; its weights are damaged")
    return Likelihoods(logprobs, greedy)
