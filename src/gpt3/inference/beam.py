"""Beam search: the likeliest whole continuations, for evaluation (Brown et al. 2020, section 2.4: width 4, α = 0.6 "as in T5").

A hypothesis' score is its log-probability, the end's included, over a penalty of its length L (tokens, the end counted):

    "wu"     ((5 + L) / 6)^α   Wu et al. 2016, equation 14; what T5's mesh-tensorflow computes, so what the paper's α means
    "power"  L^α               transformers' `length_penalty`

The search is transformers' with early_stopping="never": a hypothesis counts when it is among the `width` best continuations of
its step, and the search ends when no open beam can beat the worst of `width` finished ones.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpt3.inference.engine import Cache, Engine, Logits, Run
from gpt3.inference.sampling import NotNumbersError, to_numpy
from gpt3.inference.selection import largest

Penalty = Literal["wu", "power"]


@dataclass(frozen=True)
class _Beam:
    """A continuation that is still open."""

    ids: tuple[int, ...]
    logprob: float
    slot: int
    """Where its keys and values are, all but the last token's."""


def beam_search(
    engine: Engine,
    prompt: Sequence[int],
    *,
    width: int = 4,
    length_penalty: float = 0.6,
    max_new_tokens: int = 64,
    ends: Set[int] = frozenset(),
    stop: Callable[[Sequence[int]], bool] | None = None,
    penalty: Penalty = "wu",
) -> list[tuple[list[int], float]]:
    """The best continuations of a prompt.

    Args:
        prompt: ids, at least one.
        width: beams, from 1.
        length_penalty: α, 0 and up; 0: plain log-probability; the larger, the longer the text.
        max_new_tokens: where every beam ends; fewer where the context leaves no room.
        ends: tokens that end a text.
        stop: whether these ids (without the prompt), the last of them new, end a text: a line end, for instance.
        penalty: which function of the length.

    Returns:
        (ids, score), best first, at most `width` and at least one. A token of `ends` is left out of the ids (its probability is
        in the score), what made `stop` true is in them.

    Raises:
        ValueError: an argument out of its bounds, or a prompt that fills the context.
        NotNumbersError: logits are NaN or +inf.
    """
    if width < 1 or length_penalty < 0 or max_new_tokens < 1:
        raise ValueError(
            f"width {width}, length penalty {length_penalty}, max_new_tokens {max_new_tokens} are out of bounds"
        )
    if not 1 <= len(prompt) <= engine.context:
        raise ValueError(f"the prompt has {len(prompt)} tokens, but must have 1 to {engine.context}")
    most = min(max_new_tokens, engine.context - len(prompt) + 1)  # the last token is not read any more
    capacity = min(engine.context, len(prompt) + most)
    cache = engine.new_cache(width, capacity)
    logprobs = _log_softmax(engine.forward(cache, [Run(0, prompt)]))
    beams = [_Beam((), 0.0, 0)]
    finished: list[tuple[float, list[int]]] = []  # at most `width`, the best
    for length in range(1, most + 1):
        scale = _penalty(length, length_penalty, penalty)
        going_on: list[_Beam] = []
        for rank, beam in enumerate(_continuations(beams, logprobs, width * (1 + max(1, len(ends))))):
            ended = beam.ids[-1] in ends
            if ended or length == most or (stop is not None and stop(beam.ids)):
                if rank < width:
                    finished.append((beam.logprob / scale, list(beam.ids[:-1] if ended else beam.ids)))
            elif len(going_on) < width:
                going_on.append(beam)
        finished = heapq.nlargest(width, finished, key=lambda pair: pair[0])
        if not going_on:
            break
        best_possible = going_on[0].logprob / _penalty(most, length_penalty, penalty)
        if len(finished) == width and best_possible <= finished[-1][0]:
            break
        beams = _place(cache, going_on)
        logprobs = _log_softmax(engine.forward(cache, [Run(beam.slot, beam.ids[-1:]) for beam in beams]))
    return [(ids, score) for score, ids in finished]


def _penalty(length: int, alpha: float, kind: Penalty) -> float:
    base = (5 + length) / 6 if kind == "wu" else length
    return float(base**alpha)


def _log_softmax(logits: Logits) -> NDArray[np.float32]:
    """(B, V) → the same on the host, in log-probabilities."""
    lines = to_numpy(logits)
    largest = lines.max(-1, keepdims=True)
    if wrong := np.flatnonzero(~(largest < np.inf)).tolist():
        raise NotNumbersError(wrong)
    shifted = lines - largest
    found: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found


def _continuations(beams: Sequence[_Beam], logprobs: NDArray[np.float32], count: int) -> list[_Beam]:
    """The `count` likeliest continuations by one token, likeliest first, each still in the slot of what it continues."""
    found = []
    for beam, row in zip(beams, logprobs, strict=True):
        for token in largest(row, min(count, len(row))).tolist():
            found.append(_Beam((*beam.ids, token), beam.logprob + float(row[token]), beam.slot))
    return heapq.nlargest(count, found, key=lambda beam: beam.logprob)


def _place(cache: Cache, beams: Sequence[_Beam]) -> list[_Beam]:
    """Give each beam a slot: the first that continues a slot keeps it, the others copy it to slots that nobody continues.

    A slot that is copied from is never copied to, so the order of the copies does not matter.
    """
    free = [*set(range(cache.slots)).difference(beam.slot for beam in beams)]
    taken: set[int] = set()
    result = []
    for beam in beams:
        slot = free.pop() if beam.slot in taken else beam.slot
        cache.copy(beam.slot, slot)
        taken.add(beam.slot)
        result.append(dataclasses.replace(beam, slot=slot))
    return result
