"""How probable a model finds given tokens: whole texts over sliding windows (continuations.py: endings of given contexts).

    score_tokens(engine, ids, start=eos)               every token of a text, given those before it

A text longer than the model's positions is read in windows. Each reads `context` tokens and begins `stride` after the one
before; it scores the tokens that no window before it did. The smaller the stride, the more every token has seen, and the
more there is to compute:

    context 4, stride 2      the text, after end-of-text:   <eot> a b c d e f g h
    window 1 reads <eot> a b c, scores a b c d
    window 2 reads b c d e, scores e f                      (at least context - stride + 1 = 3 tokens before each)
    window 3 reads d e f g, scores g h

These are the windows of transformers' strided perplexity and, with stride = context, those of lm-eval's rolling likelihood.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from gpt3.errors import InputError, RunError
from gpt3.inference.engine import Cache, Engine, Run

CHUNK = 256
"""Rows of logits held at a time on a CPU: 51 MB of GPT-2's vocabulary."""
DEVICE_CHUNK = 2048
"""The same on a GPU, which needs more rows to be busy."""


@dataclass(frozen=True)
class Scores:
    """What a model made of each of T tokens in a row. Tensors are on the CPU; logarithms are natural."""

    ids: Tensor
    """(T,) int64: the tokens."""
    logprobs: Tensor
    """(T,) float32: log-probability of each, given what its window holds before it."""
    ranks: Tensor
    """(T,) int64: its place among all tokens by probability; 1 is what greedy decoding says (equals: the lower id first)."""
    entropies: Tensor
    """(T,) float32, nats: of the distribution it was drawn from."""
    top_ids: Tensor
    """(T, n) int64: the likeliest tokens there, likeliest first."""
    top_logprobs: Tensor
    """(T, n) float32: their log-probabilities."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def total(self) -> float:
        """Log-probability of all of it: the sum, in float64."""
        return float(self.logprobs.double().sum())

    def __getitem__(self, part: slice) -> Scores:
        return Scores(*(getattr(self, field.name)[part] for field in fields(Scores)))

    @staticmethod
    def joined(parts: Sequence[Scores]) -> Scores:
        """Several in a row as one."""
        return Scores(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Scores)))


@dataclass(frozen=True)
class Window:
    """Tokens `begin` to `end` of a text are read at once; the logits of the last `scored` of them count."""

    begin: int
    end: int
    scored: int


def windows(tokens: int, context: int, stride: int) -> Iterator[Window]:
    """The windows over `tokens` inputs, each of which predicts the one after it; every input's logits count once."""
    begin = done = 0
    while done < tokens:
        end = min(begin + context, tokens)
        yield Window(begin, end, end - done)
        begin, done = begin + stride, end


def score_tokens(
    engine: Engine,
    ids: Sequence[int],
    context: int | None = None,
    stride: int | None = None,
    *,
    start: int | None = None,
    top: int = 0,
    chunk: int | None = None,
) -> Scores:
    """Score each token of a text, given those before it.

    Args:
        ids: the text.
        context: tokens read at a time; 1 up to the engine's, the default.
        stride: tokens from one window's begin to the next; 1 up to `context`, default half of it.
        start: read before the text: the id that begins a document (end-of-text, as in training). With None the first
            token has nothing before it and is not scored.
        top: as many of the likeliest tokens at each place; 0 is none.
        chunk: rows of logits held at a time; more need more memory. Default: CHUNK on a CPU, else DEVICE_CHUNK.

    Returns:
        Scores of len(ids) tokens; without `start` of one less.

    Raises:
        InputError: a context or a stride out of its range.
        ValueError: an id the model does not have; no token to score.
        RunError: the model gives numbers that are none (NaN).
    """
    return Scores.joined(list(score_chunks(engine, ids, context, stride, start=start, top=top, chunk=chunk)))


def score_chunks(
    engine: Engine,
    ids: Sequence[int],
    context: int | None = None,
    stride: int | None = None,
    *,
    start: int | None = None,
    top: int = 0,
    chunk: int | None = None,
) -> Iterator[Scores]:
    """As `score_tokens`, in pieces of at most `chunk` tokens, each as soon as it is known: for texts of any length."""
    context, stride = check_windows(engine, context, stride)
    text = list(ids) if start is None else [start, *ids]
    if len(text) < 2:
        raise ValueError("no token to score")
    if not 0 <= min(text) <= max(text) < engine.vocabulary:
        raise ValueError(f"an id of the text is not among the {engine.vocabulary} the model has")
    rows = chunk or (CHUNK if engine.device.type == "cpu" else DEVICE_CHUNK)
    cache = engine.new_cache(1, min(context, len(text) - 1))
    return _score_windows(engine, cache, text, windows(len(text) - 1, context, stride), top, rows)


def check_windows(engine: Engine, context: int | None, stride: int | None) -> tuple[int, int]:
    """Context and stride with their defaults.

    Raises:
        InputError: out of range; one line names each.
    """
    found = []
    size = engine.context if context is None else context
    if not 1 <= size <= engine.context:
        found.append(f"--context {size} is outside 1 to {engine.context}, the positions of the model")
        size = engine.context
    step = max(1, size // 2) if stride is None else stride
    if not 1 <= step <= size:
        found.append(f"--stride {step} is outside 1 to {size}, the context; leave it out for half the context")
    if found:
        raise InputError("; ".join(found))
    return size, step


def _score_windows(
    engine: Engine, cache: Cache, text: list[int], parts: Iterator[Window], top: int, rows: int
) -> Iterator[Scores]:
    for window in parts:
        cache.truncate(0, 0)
        read = window.begin
        first = window.end - window.scored  # logits count from this input on
        for begin in range(first, window.end, rows):
            end = min(begin + rows, window.end)
            logits = engine.forward(cache, [Run(0, text[read:end], end - begin)])
            yield judge(logits, torch.tensor(text[begin + 1 : end + 1]), top)
            read = end


def judge(logits: Tensor, ids: Tensor, top: int = 0) -> Scores:
    """Scores of `ids` under the distributions that `logits` give.

    Args:
        logits: (T, V) float32, any device; not changed.
        ids: (T,) int64.

    Raises:
        RunError: a distribution that is none.
    """
    with torch.no_grad():
        targets = ids.to(logits.device)[:, None]  # (T, 1)
        chosen = logits.gather(1, targets)
        highest = logits.max(dim=1, keepdim=True).values
        shifted = logits - highest
        weights = shifted.exp()
        sums = weights.sum(dim=1)
        normalizer = sums.log()  # log-probability = shifted logit - normalizer
        entropies = normalizer - torch.linalg.vecdot(weights, shifted) / sums
        if not torch.isfinite(entropies).all():
            raise RunError("the model gives logits that are no numbers (NaN or infinite); its weights are damaged")
        places = torch.arange(logits.shape[1], device=logits.device)
        ahead = (logits > chosen) | ((logits == chosen) & (places < targets))
        best = logits.topk(min(top, logits.shape[1]), dim=1)
        return Scores(
            ids=ids,
            logprobs=((chosen - highest)[:, 0] - normalizer).cpu(),
            ranks=(ahead.sum(dim=1) + 1).cpu(),
            entropies=entropies.cpu(),
            top_ids=best.indices.cpu(),
            top_logprobs=(best.values - highest - normalizer[:, None]).cpu(),
        )
