"""Everything a run reads: training sequences, held-out documents, further validation sets, the tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt3.corpus.order import WindowOrder
from gpt3.corpus.shards import ShardFolder, TokenSplit
from gpt3.errors import InputError
from gpt3.ladder.presets import Preset
from gpt3.training.data import open_data, open_mixture
from gpt3.training.options import TrainOptions
from gpt3.training.validation_sets import parse_val, val_sets

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from gpt3.training.loop import Sequences


@dataclass(frozen=True)
class RunData:
    """The data of a run, opened."""

    tokenizer: PreTrainedTokenizerFast
    vocab_size: int
    end_of_text: int
    tokens: int
    """Of the training splits of all sources."""
    sampler: Callable[[int, int], Sequences]
    """Of a context and a seed."""
    held_out: TokenSplit
    """The run's own held-out documents; may be empty."""
    validation: Mapping[str, TokenSplit]
    """Validation sets by name; the run's own is ``""``."""
    given: Mapping[str, TokenSplit]
    """Those of ``--val`` among them."""
    training: tuple[TokenSplit, ...]
    """The training splits of all sources."""
    sources: Callable[[int, int], list[dict[str, Any]]]
    """Of a number of sequences and a context: each source's name, tokens, documents, weight, share of the run, epochs,
    and its licence where it is known."""


def open_run_data(options: TrainOptions, preset: Preset) -> RunData:
    """Open a run's data, prepared first where it is not yet.

    Raises:
        InputError: see gpt3.training.data, gpt3.training.validation_sets and gpt3.corpus.
    """
    if options.mixture is not None:
        return _open_mixture(options, preset)
    shards = open_data(options, preset)
    split, held_out = shards.split("train"), shards.split("validation")
    given = val_sets(options.val, shards, options.workers)
    return RunData(
        tokenizer=shards.tokenizer(),
        vocab_size=shards.vocab_size,
        end_of_text=shards.end_of_text,
        tokens=len(split),
        sampler=lambda context, seed: WindowOrder(split, context, seed),
        held_out=held_out,
        validation={"": held_out, **given},
        given=given,
        training=(split,),
        sources=lambda sequences, context: source_rows(shards, sequences, context),
    )


def _open_mixture(options: TrainOptions, preset: Preset) -> RunData:
    assert options.mixture is not None
    mixture = open_mixture(options.mixture, options, preset)
    first = mixture.first
    if taken := set(mixture.named()) & set(parse_val(options.val)):
        name = min(taken)
        raise InputError(f"--val {name}=…: the mixture has a source called {name}; choose another name")
    held_out = mixture.held_out()
    given = val_sets(options.val, first, options.workers)
    return RunData(
        tokenizer=first.tokenizer(),
        vocab_size=first.vocab_size,
        end_of_text=first.end_of_text,
        tokens=mixture.tokens,
        sampler=mixture.sampler,
        held_out=held_out,
        validation={"": held_out, **mixture.named(), **given},
        given=given,
        training=tuple(folder.split("train") for folder in mixture.shards),
        sources=lambda sequences, context: mixture.describe(mixture.sampler(context, options.seed), sequences)[
            "sources"
        ],
    )


def source_rows(shards: ShardFolder, sequences: int, context: int) -> list[dict[str, Any]]:
    """The sources of one shard folder; they are drawn from evenly, so each one's share is its share of the tokens."""
    split = shards.split("train")
    epochs = sequences / max(1, len(split) // context)
    rows = []
    for source in shards.manifest.sources:
        counts = source["splits"]["train"]
        share = counts["tokens"] / len(split)
        rows.append(
            {"name": str(source["name"]), "tokens": counts["tokens"], "documents": counts["documents"]}
            | {"weight": share, "share": share, "epochs": epochs, "licence": source.get("licence")}
        )
    return rows
