"""What a user should hear before a run begins: a model too large for its data, too long a context, too little held out.

These are warnings, with the numbers and the better choice: the run begins all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gpt3.corpus.manifest import is_shard_folder
from gpt3.corpus.shards import INDEX_DTYPE, TokenSplit
from gpt3.ladder.presets import PRESETS, Preset
from gpt3.training.data import TrainingData
from gpt3.training.options import AUTO, TrainOptions
from gpt3.training.plan import Plan

LEAST_TOKENS_PER_PARAMETER = 1.0
"""The paper's largest model saw 1.7 tokens per parameter, its smallest 2,400."""
MOST_EPOCHS = 16
"""Text read this often teaches little more (Muennighoff et al. 2023, arXiv 2305.16264: up to four times it is nearly as good as
new, past 16 its worth falls fast)."""
LONG_DOCUMENT = 0.99
"""The share of the documents that are no longer than a "long" one."""
LEAST_HELD_OUT, GOOD_HELD_OUT, MOST_HELD_OUT = 10, 30, 0.2
"""Documents held out: with fewer than the first an interval says little; the second is proposed, up to this share of all."""


def warnings(plan: Plan, options: TrainOptions, shape: Preset, data: TrainingData) -> list[str]:
    """A line for each thing about a run that a user would want to change before it starts.

    Args:
        shape: with the data's vocabulary.
    """
    found = [*of_size(plan, options, shape, data), *of_context(plan, data)]
    found += [*of_shards(options, data), *of_held_out(options, data)]
    return [f"warning: {text}" for text in found]


def of_size(plan: Plan, options: TrainOptions, shape: Preset, data: TrainingData) -> Iterator[str]:
    """Too few tokens for the parameters, or the same ones too often."""
    each, epochs = plan.tokens / shape.parameters, plan.tokens / (data.known_tokens or plan.tokens)
    smaller = [preset for preset in PRESETS.values() if preset.parameters < shape.parameters]
    chosen = options.init_from is not None or options.size == AUTO
    if each < LEAST_TOKENS_PER_PARAMETER and smaller and not chosen:
        enough = [preset for preset in smaller if plan.tokens >= LEAST_TOKENS_PER_PARAMETER * preset.parameters]
        better = max(enough or smaller[:1], key=lambda preset: preset.parameters)
        yield (
            f"{each:.2g} tokens per parameter ({plan.tokens:,} tokens, {shape.parameters:,} parameters) are too few to learn "
            f"much; try --model {better.name}, more data or a longer run"
        )
    if epochs > MOST_EPOCHS:
        yield (
            f"the run reads its {data.tokens:,} tokens {epochs:,.0f} times; past {MOST_EPOCHS} times it mostly memorizes them: "
            "give it more data, or stop it earlier with --early-stop 3"
        )


def of_context(plan: Plan, data: TrainingData) -> Iterator[str]:
    """A context much longer than the documents."""
    lengths = np.concatenate([first_lengths(split) for split in data.training])
    if not len(lengths):
        return
    long = int(np.quantile(lengths, LONG_DOCUMENT, method="higher"))
    enough = 1 << (long - 1).bit_length()
    if enough < plan.context:
        yield (
            f"--context {plan.context} is longer than the documents ({LONG_DOCUMENT:.0%} have at most {long:,} tokens): what "
            f"lies further back is other documents; --context {enough} is enough"
        )


def first_lengths(split: TokenSplit) -> np.ndarray:
    """Tokens of the documents of a split's first shard, end-of-text included: (documents,) int64."""
    if not split.shards:
        return np.zeros(0, np.int64)
    folder, shard = split.shards[0]
    return np.diff(np.fromfile(folder / shard.index, dtype=INDEX_DTYPE).astype(np.int64), prepend=0)


def of_shards(options: TrainOptions, data: TrainingData) -> Iterator[str]:
    """A share to hold out, of shards that were split when they were prepared."""
    wanted = options.validation_fraction
    if options.mixture is not None or options.fold is not None or wanted == TrainOptions.validation_fraction:
        return
    if len(options.data) == 1 and is_shard_folder(options.data[0]):
        split = data.shards[0].manifest.validation_fraction
        if split != wanted:
            yield (
                f"--validation-fraction {wanted:g} is ignored: {options.data[0]} was split at {split:g} when it was prepared; "
                f"gpt3 prepare --validation-fraction {wanted:g} makes shards with that split"
            )


def of_held_out(options: TrainOptions, data: TrainingData) -> Iterator[str]:
    """Too few held-out documents for an interval, where some are wanted."""
    held_out = data.held_out.documents
    if held_out >= LEAST_HELD_OUT or (held_out == 0 and (options.validation_fraction == 0 or data.given)):
        return
    if data.known_tokens is None:  # the head of a large source, of which enough is held out
        return
    documents = held_out + sum(split.documents for split in data.training)
    lacks = ("cannot be measured", "has no 95% interval")[held_out] if held_out < 2 else "has a wide 95% interval"
    better = math.ceil(100 * GOOD_HELD_OUT / documents) / 100
    remedy = "--val NAME=SOURCE scores further text"
    if better <= MOST_HELD_OUT and options.fold is None:
        prepare = "gpt3 prepare " if any(map(is_shard_folder, options.data)) else ""
        remedy = f"{prepare}--validation-fraction {better:g} holds out about {round(better * documents)}"
    numbers = f"{held_out:,} of {documents:,} documents held out ({len(data.held_out):,} tokens)"
    yield f"{numbers}: the validation loss {lacks}; {remedy}"
