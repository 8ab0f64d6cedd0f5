"""Log-probabilities of continuations of contexts: which of several endings is likelier, for one question or for many.

    continuation_logprobs(engine, context, [yes, no])     several continuations of one context
    score_requests(engine, requests, batch=8)             continuations of many contexts

The engine reads a context in one run, or in two: the prefix that it may share with other requests (the instruction and the
few-shot examples), and the rest. It reads the tokens with which all continuations begin together with the context, once. The
split depends on the request alone, and an engine's numbers for a run do not depend on the runs computed with it. So no score
depends on the other requests or on the batch size.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from gpt3.errors import InputError
from gpt3.inference.decoding import common
from gpt3.inference.engine import Cache, Engine, Logits, Run
from gpt3.inference.likelihoods import Likelihoods, likelihoods

SPARE = 15
"""Slots for continuations; each holds a copy of its context's keys and values."""
WORTH_SHARING = 16
"""A shared prefix of fewer tokens is not read separately."""
PACK_TOKENS = 512
"""Tokens of short contexts and their continuations that a transformers model reads in one forward."""
BATCH_TOKENS = 2048
"""Tokens of contexts held at a time, if there is more than one: long contexts fill the machine by themselves."""
T = TypeVar("T")

if TYPE_CHECKING:
    from gpt3.inference.torch_engine import ReferenceEngine


@dataclass(frozen=True)
class Request:
    """A context and its continuations."""

    context: Sequence[int]
    """At least one token; at the beginning of a document, the EOS token."""
    continuations: Sequence[Sequence[int]]
    """Each at least one token."""
    shared: int = 0
    """Tokens at the context's beginning that other requests may have in common with it."""
    scored: Sequence[int] | None = None
    """How many of each continuation's last tokens are scored; the others only precede them. None: all."""


@dataclass(frozen=True)
class ContinuationScore:
    """How probable a continuation is after its context."""

    logprobs: tuple[float, ...]
    """Natural log-probability of each of its (scored) tokens."""
    is_greedy: bool
    """Whether greedy decoding would produce it, token for token."""
    dropped: int
    """The oldest tokens of the context, left out because they do not fit the model's positions with the continuation."""

    @property
    def total(self) -> float:
        """Log-probability of the continuation: the sum."""
        return sum(self.logprobs)


@dataclass(eq=False)
class _Continuation:
    request: int
    tokens: list[int]
    """Without those that its stem has."""
    scored: int
    dropped: int
    parts: list[Likelihoods] = field(default_factory=list)

    def score(self) -> ContinuationScore:
        logprobs, greedy = (np.concatenate(some)[-self.scored :] for some in zip(*self.parts, strict=True))
        return ContinuationScore(tuple(logprobs.tolist()), bool(greedy.all()), self.dropped)


@dataclass(eq=False)
class _Stem:
    """A context, as much of it as fits, with the tokens with which all its continuations begin."""

    ids: tuple[int, ...]
    cut: int
    """Length of the shared prefix, which is read separately; 0: the stem is read at once."""
    alike: int
    """How many of the last ids are the first of each continuation rather than the context's."""
    continuations: list[_Continuation] = field(default_factory=list)

    def judge_firsts(self, logits: Logits) -> None:
        """Score the continuations' first tokens, those alike and one more, by the logits before these: (alike + 1, V)."""
        if self.alike:
            same = likelihoods(logits[:-1], self.ids[-self.alike :])
            for continuation in self.continuations:
                continuation.parts.append(same)
        firsts = likelihoods(logits[-1:], [one.tokens[0] for one in self.continuations])
        for place, continuation in enumerate(self.continuations):
            continuation.parts.append(Likelihoods(*(part[place : place + 1] for part in firsts)))


def continuation_logprobs(
    engine: Engine, context_ids: Sequence[int], continuations: Sequence[Sequence[int]]
) -> list[ContinuationScore]:
    """Score several continuations of one context, which is read once; see `score_requests`.

    Returns:
        One score per continuation, in order.
    """
    return score_requests(engine, [Request(context_ids, continuations)])[0]


def score_requests(engine: Engine, requests: Sequence[Request], *, batch: int = 8) -> list[list[ContinuationScore]]:
    """Score the continuations of many contexts. Equal contexts and equal shared prefixes are read once, except for contexts
    of requests whose continuations begin with different common tokens.

    A context too long for the model's positions loses its oldest tokens, as many as each continuation needs; a continuation
    is never cut. The last token of a continuation predicts nothing that is asked for, so it needs no position.

    Args:
        batch: contexts held in parallel, where the engine gathers runs; no score depends on it.

    Returns:
        For each request, one score per continuation, in order.

    Raises:
        InputError: a continuation with more tokens than the model has positions.
        ValueError: an empty context or continuation, or an id the model does not have.
    """
    rows = engine.logit_rows
    stems: dict[tuple[int, int, tuple[int, ...]], _Stem] = {}
    found: list[list[_Continuation]] = [[] for _ in requests]
    for number, request in enumerate(requests):
        if not request.context or not all(map(len, request.continuations)):
            raise ValueError("context and continuations need at least one token each")
        alike = _common_beginning(request.continuations)[: rows - 1]
        for place, tokens in enumerate(request.continuations):
            if len(tokens) > engine.context:
                raise InputError(
                    f"a continuation of {len(tokens)} tokens exceeds the model's {engine.context} positions"
                )
            dropped = max(0, len(request.context) + len(tokens) - 1 - engine.context)
            ids = tuple(request.context[dropped:])
            cut = min(request.shared - dropped, len(ids) - 1)
            stem = _Stem((*ids, *alike), cut if cut >= WORTH_SHARING else 0, len(alike))
            scored = len(tokens) if request.scored is None else request.scored[place]
            continuation = _Continuation(number, list(tokens[len(alike) :]), scored, dropped)
            stems.setdefault((stem.cut, stem.alike, stem.ids), stem).continuations.append(continuation)
            found[number].append(continuation)
    ordered = sorted(stems.values(), key=lambda stem: (stem.ids[: stem.cut], len(stem.ids)))
    if engine.packs:
        ordered = _read_packed(cast("ReferenceEngine", engine), ordered, rows)
    if ordered:
        _read(engine, ordered, batch, rows)
    return [[continuation.score() for continuation in some] for some in found]


def _common_beginning(continuations: Sequence[Sequence[int]]) -> Sequence[int]:
    """The tokens with which several continuations all begin, but the last of the shortest."""
    some = sorted(continuations, key=len)
    if len(some) < 2:
        return []
    return some[0][: min(common(some[0][:-1], other) for other in some[1:])]


def _filled(
    items: Sequence[T],
    sizes: Callable[[T], Sequence[int]],
    limits: Sequence[int],
    key: Callable[[T], Any] = lambda _: None,
) -> Iterator[list[T]]:
    """Consecutive items in groups as large as the limits allow, at least one; with `key`, only items of equal keys."""
    group: list[T] = []
    total = [0] * len(limits)
    for item in items:
        total = [before + more for before, more in zip(total, sizes(item), strict=True)]
        full = any(count > limit for count, limit in zip(total, limits, strict=True))
        if group and (full or key(item) != key(group[-1])):
            yield group
            group, total = [], [*sizes(item)]
        group.append(item)
    if group:
        yield group


def _read_packed(engine: ReferenceEngine, stems: list[_Stem], rows: int) -> list[_Stem]:
    """Score the continuations of short stems, many in one forward whatever the batch; return the other stems."""

    def sizes(stem: _Stem) -> tuple[int, int]:
        """Tokens, and rows of logits."""
        heads = 1 + stem.alike + sum(len(one.tokens) - 1 for one in stem.continuations)
        return len(stem.ids) - 1 - stem.alike + heads, heads

    def short(stem: _Stem) -> bool:
        tokens, heads = sizes(stem)
        return not stem.cut and tokens <= PACK_TOKENS and heads <= rows

    for pack in _filled([stem for stem in stems if short(stem)], sizes, (PACK_TOKENS, rows)):
        trees = [(stem.ids, 1 + stem.alike, [one.tokens[:-1] for one in stem.continuations]) for stem in pack]
        logits = engine.tree_logits(trees)
        row = 0
        for stem in pack:
            stem.judge_firsts(logits[row : row + 1 + stem.alike])
            row += 1 + stem.alike
            for one in stem.continuations:
                if len(one.tokens) > 1:
                    end = row + len(one.tokens) - 1
                    one.parts.append(likelihoods(logits[row:end], one.tokens[1:]))
                    row = end
    return [stem for stem in stems if not short(stem)]


def _read(engine: Engine, stems: list[_Stem], batch: int, rows: int) -> None:
    """Score all continuations of the stems; those with an equal shared prefix are neighbors, ordered by length."""
    parallel = min(batch, len(stems)) if engine.gathers else 1
    longest = max(len(stem.ids) + len(one.tokens) - 1 for stem in stems for one in stem.continuations)
    cache = engine.new_cache(parallel + 1 + SPARE, longest)
    prefix_slot, spare = parallel, range(parallel + 1, parallel + 1 + SPARE)
    for group in _filled(stems, lambda s: (1, len(s.ids), 1 + s.alike), (parallel, BATCH_TOKENS, rows)):
        runs = []
        for slot, stem in enumerate(group):
            prefix = list(stem.ids[: stem.cut])
            if prefix and prefix != cache.ids[prefix_slot]:
                cache.truncate(prefix_slot, 0)
                engine.forward(cache, [Run(prefix_slot, prefix, 0)])
            if prefix:
                cache.copy(prefix_slot, slot)
            else:
                cache.truncate(slot, 0)
            runs.append(Run(slot, stem.ids[stem.cut :], 1 + stem.alike))
        logits = engine.forward(cache, runs)
        for stem, run, end in zip(group, runs, itertools.accumulate(run.logits for run in runs), strict=True):
            stem.judge_firsts(logits[end - run.logits : end])
        del logits  # before the next ones
        longer = [(slot, one) for slot, stem in enumerate(group) for one in stem.continuations if len(one.tokens) > 1]
        # where an engine's numbers depend on what is computed together, only continuations of one request are
        key = (lambda _: None) if engine.gathers else (lambda pair: (pair[0], pair[1].request))
        for pack in _filled(longer, lambda pair: (1, len(pair[1].tokens) - 1), (SPARE, rows), key):
            _score_pack(engine, cache, pack, spare, rows)


def _score_pack(
    engine: Engine, cache: Cache, pack: list[tuple[int, _Continuation]], spare: Sequence[int], rows: int
) -> None:
    """The tokens of continuations from the second on: each token read predicts the one after it."""
    [(slot, first), *rest] = pack
    if not rest and len(first.tokens) - 1 > rows:  # in pieces
        cache.copy(slot, spare[0])
        for begin in range(0, len(first.tokens) - 1, rows):
            tokens = first.tokens[begin : begin + rows + 1]
            logits = engine.forward(cache, [Run(spare[0], tokens[:-1], len(tokens) - 1)])
            first.parts.append(likelihoods(logits, tokens[1:]))
        return
    logits = engine.look_ahead(cache, [(slot, one.tokens[:-1]) for slot, one in pack], spare)
    scores = likelihoods(logits, [token for _, one in pack for token in one.tokens[1:]])
    done = 0
    for _, one in pack:
        one.parts.append(Likelihoods(*(part[done : done + len(one.tokens) - 1] for part in scores)))
        done += len(one.tokens) - 1
