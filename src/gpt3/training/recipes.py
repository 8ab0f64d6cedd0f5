"""Default numbers of a run: the recipe of the paper, and one for runs of minutes to hours on one machine.

The paper's (Brown et al. 2020, App. B) is written for 300B tokens in batches of 0.5M and more; a shorter run keeps its shape by
the rules below. In batches below the smallest of the paper, 32k tokens, other numbers learn more from the same minutes: the
short recipe, found by experiment (docs/LOG.md). The architecture is the same in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpt3.training.options import TrainOptions

PAPER_WARMUP_TOKENS = 375_000_000
PAPER_DECAY_SHARE = 260 / 300
PAPER_RAMP_START_TOKENS = 32_768
"""Where the batch ramp begins: "32k tokens", 16 sequences of 2,048."""
PAPER_BETA2 = 0.95
SMALL_BATCH_BETA2 = 0.99
"""For batches below the paper's smallest, whose squared gradients are noisier (docs/LOG.md: 5% in bits per byte of the demo)."""
WSD_DECAY = 0.2
"""Last part of a warmup-stable-decay schedule, in which its rate falls (Hu et al. 2024, arXiv 2404.06395): a run can be branched
before it into runs of several lengths, each the same as one planned with that length."""
SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
    "wsd": lambda done: min(1.0, (1 - done) / WSD_DECAY),
}
"""How the rate falls after its warm-up: from 1, the peak, to 0, --min-lr-ratio, over the share of the decay that is done."""


@dataclass(frozen=True)
class Recipe:
    """What the options of a run default to."""

    optimizer: str
    schedule: str
    """One of `SCHEDULES`."""
    min_lr_ratio: float
    """The rate at the end, as a share of its peak."""
    decay_share: float
    """Part of the run after which the rate has fallen."""
    warmup_share: float
    """Largest part of the run that warms up."""
    rate: float
    """Peak rate as a multiple of Table 2.1's, with the recipe's own optimizer."""
    muon_rate: float
    """Peak rate of Muon's matrices as a multiple of --lr."""
    rules: Mapping[str, str]
    """In words, by the names of `gpt3.training.plan.RULES`."""


RECIPES = {
    "paper": Recipe("adamw", "cosine", 0.1, PAPER_DECAY_SHARE, 0.1, 1.0, 1.0, {
        "optimizer": "AdamW",
        "learning rate": "the preset's (Table 2.1)",
        "beta2": "the paper's 0.95; 0.99 for batches below 32k tokens",
        "warm-up": "the paper's 375M tokens, at most a tenth of the run",
        "schedule": "cosine to 10% of the peak after 260/300 of the run, its clock from the end of the warm-up; then constant",
    }),
    "short": Recipe("muon", "linear", 0.0, 1.0, 0.05, 5.0, 2 / 3, {
        "optimizer": "Muon for the layers' matrices, AdamW for the rest",
        "learning rate": "5 times the preset's (Table 2.1); for Muon's matrices two thirds of that",
        "beta2": "0.99 for batches below 32k tokens, else the paper's 0.95",
        "warm-up": "a twentieth of the run",
        "schedule": "linear to 0 at the end of the run",
    }),
}  # fmt: skip
"""Every recipe by its name; docs/training.md has the reasons."""


def recipe_for(options: TrainOptions, batch_tokens: int) -> str:
    """The name of the recipe of a run whose steps see `batch_tokens` tokens.

    ``auto`` is the paper's from its smallest batch up, and for weights that exist: their rule is relative to it
    (gpt3.training.continuing).
    """
    if options.recipe != "auto":
        return options.recipe
    return "paper" if options.init_from or batch_tokens >= PAPER_RAMP_START_TOKENS else "short"
