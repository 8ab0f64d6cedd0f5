"""``--model auto``: the shape, vocabulary and batch with the least predicted bits per byte, in the given time on this machine.

Candidates follow one rule, that of GPT-3 Small (Table 2.1): a layer and a head for each 64 of width. How many tokens a candidate
reads in the time follows from the machine's speed (step_speed.py), what it reaches then from the law (law.py).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from gpt3.corpus.manifest import is_shard_folder
from gpt3.corpus.shards import open_shards
from gpt3.corpus.sources import open_sources
from gpt3.ladder.presets import Preset
from gpt3.progress import say
from gpt3.tokenizer.loading import load_tokenizer
from gpt3.training.data import OWN, run_tokenizer
from gpt3.training.distributed import Compute, World
from gpt3.training.law import Amount, Law, fitted_law
from gpt3.training.options import AUTO, TrainOptions, count
from gpt3.training.plan import DEMO_MINUTES, HEAD, LEAST_STEPS, auto_preset, shape_of
from gpt3.training.replay import run_sources
from gpt3.training.step_speed import StepSpeed, measure_speed

WIDTHS = tuple(HEAD * heads for heads in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32))
VOCABULARIES = (1024, 2048, 4096, 8192)
BYTES_PER_ENTRY = 100
"""Text that a tokenizer's entry needs at least."""
MEASURED_WIDTHS = (128, 384)
"""Of the two shapes that are measured."""
BATCH_TOKENS, BATCH_UNTIL = 2048, 4_000_000
"""The batch is a thousandth of the run's tokens, up to this many; beyond that run it grows with the root of the tokens (Zhang et
al. 2024, arXiv 2410.21676), which leads to the paper's 0.5M at its 300B."""
ROUNDS = 30
"""Of the search for a batch and a number of tokens that fit each other, and for a time that fits a number of tokens."""
LONGEST_MINUTES = 1e7


@dataclass(frozen=True)
class Candidate:
    """A shape with what it reads, and what it is predicted to reach on text of the law's hardness."""

    shape: Preset
    """Its batch is the run's."""
    tokens: int
    bits: float

    def __str__(self) -> str:
        layers, entries = self.shape.n_layers, self.shape.vocab_size
        return f"{layers} layers of {self.shape.d_model}, {entries:,} entries, {self.tokens:,} tokens"


@dataclass(frozen=True)
class Choice:
    """The best candidate, and the best two of other widths."""

    best: Candidate
    next: tuple[Candidate, ...]


@dataclass(frozen=True)
class Text:
    """What is known of the training text before it is prepared."""

    unique_bytes: float
    token_bytes: Mapping[int, float]
    """Bytes per token for each vocabulary that may be chosen."""
    own: bool = False
    """Whether a tokenizer is trained on it."""


def batch_for(tokens: float, context: int) -> int:
    """Tokens of a step in a run of `tokens`: whole sequences, and from 16 on a multiple of 16."""
    wanted = min(tokens / LEAST_STEPS, BATCH_TOKENS * max(1.0, math.sqrt(tokens / BATCH_UNTIL)))
    sequences = max(1, int(wanted / context))
    return (sequences if sequences < 16 else sequences // 16 * 16) * context


def tokens_in(seconds: float, speed: StepSpeed, shape: Preset, batch_tokens: int | None) -> tuple[int, int]:
    """Tokens that a shape reads in the time, and its batch.

    Args:
        batch_tokens: the given one; None: `batch_for`.
    """
    batch = batch_tokens or BATCH_TOKENS
    tokens = 0.0
    for _ in range(ROUNDS):
        tokens = seconds / speed.step_seconds(shape, batch) * batch
        better = batch_tokens or batch_for(tokens, shape.context)
        if better == batch:
            break
        batch = better
    return max(1, round(tokens)), batch


def candidates(
    seconds: float, speed: StepSpeed, text: Text, law: Law, context: int, batch_tokens: int | None = None
) -> Iterator[Candidate]:
    """Every shape with every vocabulary, and what it reaches in `seconds` of training."""
    for width in WIDTHS:
        for vocabulary, token_bytes in text.token_bytes.items():
            shape = auto_preset(width, vocabulary, context)
            tokens, batch = tokens_in(seconds, speed, shape, batch_tokens)
            bits = law.bits(shape, Amount(tokens * token_bytes, text.unique_bytes))
            yield Candidate(dataclasses.replace(shape, batch_tokens=batch), tokens, bits)


def choose(
    seconds: float, speed: StepSpeed, text: Text, law: Law, context: int, batch_tokens: int | None = None
) -> Choice:
    """The candidates with the least predicted bits per byte, each of another width."""
    found: dict[int, Candidate] = {}
    for each in sorted(candidates(seconds, speed, text, law, context, batch_tokens), key=lambda each: each.bits):
        found.setdefault(each.shape.d_model, each)
    best, *rest = found.values()
    return Choice(best, tuple(rest[:2]))


def choose_for_tokens(tokens: int, at: Callable[[float], Choice]) -> Choice:
    """The choice of the time in which the chosen shape reads this many tokens.

    Args:
        at: the choice for a number of minutes.
    """
    low, high = 1e-3, LONGEST_MINUTES
    for _ in range(ROUNDS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if at(middle).best.tokens > tokens else (middle, high)
    return at(high)


def text_of(options: TrainOptions, law: Law) -> Text:
    """The training text's size, and the vocabularies to choose among: one where a tokenizer is given.

    Raises:
        InputError: see gpt3.corpus and `run_tokenizer`.
    """
    data = [name for spec in run_sources(options) for name in spec.data]
    shards = [open_shards(name).split("train") for name in data if is_shard_folder(name)]
    rest = [name for name in data if not is_shard_folder(name)]
    sizes = [source.size_bytes() for source in open_sources(rest)] if rest else []
    known = [float(split.text_bytes) for split in shards] + [math.inf if size is None else size for size in sizes]
    size = sum(known)
    tokenizer = run_tokenizer(options, shape_of(options), data)
    if shards and shards[0]:
        return Text(size, {shards[0].vocab_size: shards[0].text_bytes / len(shards[0])})
    if not tokenizer.startswith(OWN):
        fixed = len(load_tokenizer(tokenizer))
        return Text(size, {fixed: law.token_bytes(fixed)})
    wanted = [v for v in VOCABULARIES if v * BYTES_PER_ENTRY <= size] or [VOCABULARIES[0]]
    if options.tokenizer is not None:
        wanted = [int(tokenizer.removeprefix(OWN))]
    return Text(size, {vocabulary: law.token_bytes(vocabulary) for vocabulary in wanted}, own=True)


def choose_size(options: TrainOptions, compute: Compute, world: World) -> tuple[TrainOptions, Choice | None]:
    """`options` with the chosen shape, tokenizer and batch where ``--model auto`` leaves them open; else as they are.

    Raises:
        InputError: see `text_of`.
    """
    if options.size != AUTO or options.width is not None:
        return options, None
    law, given = fitted_law(), options.batch_tokens
    context = shape_of(options).context
    text = world.agree(lambda: text_of(options, law))
    vocabulary = sorted(text.token_bytes)[len(text.token_bytes) // 2]
    if world.first:
        say("Choosing the model: measuring steps of two shapes.")
    shapes = [auto_preset(width, vocabulary, context) for width in MEASURED_WIDTHS]
    speed = measure_speed(options, shapes, compute, world)
    batch = given if given is None or isinstance(given, int) else max(1, round(count(given) / context)) * context

    def at(minutes: float) -> Choice:
        return choose(60 * minutes, speed, text, law, context, batch)

    tokens = None if options.tokens is None else count(options.tokens)
    choice = world.agree(
        lambda: at(options.minutes or DEMO_MINUTES) if tokens is None else choose_for_tokens(tokens, at)
    )
    shape: Preset = choice.best.shape
    return (
        dataclasses.replace(
            options, model=AUTO, layers=shape.n_layers, width=shape.d_model, heads=shape.n_heads,
            tokenizer=f"{OWN}{shape.vocab_size}" if text.own else options.tokenizer, batch_tokens=given or shape.batch_tokens,
        ),
        choice,
    )  # fmt: skip
