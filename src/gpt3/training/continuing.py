"""The rule for training that continues from other weights (``--init-from``): which numbers differ from those of a fresh start.

Re-warm and re-decay the rate, to a lower peak, and replay some of the old text (Ibrahim et al. 2024, arXiv 2403.08763):
re-warming and re-decaying adapts to new text better than the old run's last rate; a lower peak forgets less of the old; 5% of
the old text prevents most of the forgetting where the two are alike, 25% where they are not (their English to German). The
optimizer starts fresh, so there is always a warm-up. Nothing here imports torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt3.errors import InputError
from gpt3.ladder.presets import PRESETS, Preset, preset
from gpt3.model_folder.known import hub_id

if TYPE_CHECKING:
    from gpt3.training.options import TrainOptions

PEAK_SHARE = 0.5
"""Of the peak rate that a fresh start would have at this size; benchmarks/init_from.py measures others (``--peaks``)."""
RULES = {
    "learning rate": "half of Table 2.1's at this size, between its sizes geometrically, times the recipe's factor: a lower "
    "peak forgets less",
    "batch": "that of the preset nearest in size, at most a thousandth of the run's tokens",
    "batch ramp": "none: the weights are past the paper's",
    "schedule": "warmed up anew, then to the end of the run a cosine to 10% of the peak, in the short recipe linear to 0 "
    "(Ibrahim et al. 2024, arXiv 2403.08763)",
    "replay": "none, unless --replay SOURCE=5%: 5% of the old text where the new is like it, 25% where it is not (ibid.)",
}
"""What differs from `gpt3.training.plan.RULES`; docs/init-from.md has the reasons."""
WITH_WEIGHTS = ("layers", "width", "heads", "window", "positions")
"""Options of a shape that comes with the weights."""


def conflicts(options: TrainOptions) -> Iterable[str]:
    """Options that contradict ``--init-from`` or ``--replay``, and shares that are none: one clause each."""
    if options.replay and options.mixture is not None:
        yield f"--replay {' '.join(options.replay)} is short for a mixture; write its source into --mixture {options.mixture}"
    try:
        parse_replay(options.replay)
    except InputError as error:
        yield str(error)
    if options.init_from is None:
        return
    what = f"--init-from {options.init_from}"
    if options.model not in (None, "demo"):
        yield f"--model {options.model} and {what} both name the model; give one"
    for name in WITH_WEIGHTS:
        if (value := getattr(options, name)) is not None:
            yield f"--{name} {value} does not apply: the shape comes with the weights of {what}. Leave it out"
    if not options.pre_layernorm:
        yield f"--no-pre-layernorm does not apply: the place of the norms comes with the weights of {what}. Leave it out"


def parse_replay(specs: Sequence[str]) -> list[tuple[str, float]]:
    """``["wiki=5%"]`` as sources and their shares of the run's tokens, each above 0, below 1 together.

    Raises:
        InputError: no SOURCE=SHARE, a share that is no number in that range, shares that leave nothing for --data.
    """
    found = []
    for spec in specs:
        source, equals, text = spec.rpartition("=")
        if not equals or not source.strip():
            raise InputError(f"--replay {spec!r} must be SOURCE=SHARE, such as wiki=5%")
        try:
            share = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
        except ValueError:
            share = math.nan
        if not 0 < share < 1:
            raise InputError(f"--replay {spec!r}: the share {text!r} must be above 0% and below 100%, such as 5%")
        found.append((source.strip(), share))
    if (total := sum(share for _, share in found)) >= 1:
        raise InputError(
            f"--replay {' '.join(specs)}: shares of {total:.0%} leave nothing for --data; give less than 100%"
        )
    return found


def size_called(model: str) -> Preset:
    """The preset that ``--model`` names.

    Raises:
        InputError: no such preset; for a trained model, the way to start from it.
    """
    try:
        return preset(model)
    except InputError:
        if hub_id(model) or Path(model).is_dir() or Path("runs", model).is_dir():
            raise InputError(
                f"--model {model} is a trained model, and train makes a new one of a size (gpt3 ladder). To start from its "
                f"weights: gpt3 train --init-from {model}"
            ) from None
        raise


def short_name(init_from: str) -> str:
    """What to call given weights: ``gpt2``; ``demo`` for runs/demo and its checkpoints."""
    parts = [part for part in Path(init_from).parts if part not in ("model", "adapter", "checkpoints", ".", "..", "/")]
    named = [part for part in parts if not part.startswith("step-")]
    return (named or parts or ["weights"])[-1]


def peak_rate(parameters: int) -> float:
    """The default peak learning rate for weights of this size: `PEAK_SHARE` of the presets', on a line in both logarithms."""
    known = [(preset.parameters, preset.learning_rate) for preset in PRESETS.values()]
    below, above = known[0], known[-1]
    for first, second in itertools.pairwise(known):
        if first[0] <= parameters <= second[0]:
            below, above = first, second
    share = math.log(parameters / below[0]) / math.log(above[0] / below[0])
    share = min(1.0, max(0.0, share))
    return PEAK_SHARE * math.exp((1 - share) * math.log(below[1]) + share * math.log(above[1]))


def batch_tokens(parameters: int) -> int:
    """Tokens of a full batch for weights of this size: the nearest preset's."""
    return min(PRESETS.values(), key=lambda preset: abs(math.log(preset.parameters / parameters))).batch_tokens
