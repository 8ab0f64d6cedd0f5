"""How probable a model finds continuations of contexts: which of several endings is likelier, for one question or for many.

    continuation_logprobs(engine, context, [yes, no])     one context, read once
    score_requests(engine, requests, batch=8)             many; what they share is read once, too

The context of a request is read in one run, or in two: what it may share with others (the instruction and the solved examples
of a few-shot question) and the rest. The tokens with which all its continuations begin are read with it, once. Where it is cut
depends on the request alone, and an engine's numbers for a run do not depend on the runs beside it; so no score depends on
what else is asked, or on how much of it at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gpt3.errors import InputError
from gpt3.inference.decoding import common
from gpt3.inference.engine import Cache, Engine, Run
from gpt3.inference.reference_engine import ReferenceEngine
from gpt3.inference.scoring import CHUNK, DEVICE_CHUNK, Scores, judge

SPARE = 15
"""Slots for continuations, whose keys and values are a copy of their context's and a few more."""
WORTH_SHARING = 16
"""Tokens that a shared beginning must have to be read apart from the rest."""
PACK_TOKENS = 512
"""Tokens of short contexts and their continuations that a transformers model reads in one forward."""
BATCH_TOKENS = 2048
"""Tokens of contexts that are held at a time, at most, but for one context: long ones keep the machine busy by themselves."""


@dataclass(frozen=True)
class Request:
    """A context and its continuations."""

    context: Sequence[int]
    """At least one token; a document that begins has end-of-text here."""
    continuations: Sequence[Sequence[int]]
    """Each at least one token."""
    shared: int = 0
    """Tokens at the context's beginning that other requests may have in common with it."""
    scored: Sequence[int] | None = None
    """Of each continuation, how many of its last tokens are scored; None: all of them. The rest only stand before these."""


@dataclass(frozen=True)
class ContinuationScore:
    """How probable a continuation is after its context."""

    logprobs: tuple[float, ...]
    """Natural log-probability of each of its (scored) tokens."""
    is_greedy: bool
    """Whether greedy decoding would have said it, token for token."""
    dropped: int
    """Tokens of the context, the oldest, that did not fit the model's positions beside it."""

    @property
    def total(self) -> float:
        """Log-probability of the continuation: the sum."""
        return sum(self.logprobs)


@dataclass(eq=False)
class _Asked:
    """A continuation of a request."""

    request: int
    tokens: list[int]
    """Without those that its stem has."""
    scored: int
    dropped: int
    parts: list[Scores] = field(default_factory=list)

    def score(self) -> ContinuationScore:
        scores = Scores.joined(self.parts)[-self.scored :]
        return ContinuationScore(tuple(scores.logprobs.tolist()), bool((scores.ranks == 1).all()), self.dropped)


@dataclass(eq=False)
class _Stem:
    """A context, as much of it as fits, with what all that is asked after it begins with."""

    ids: tuple[int, ...]
    cut: int
    """Where its shared beginning ends; 0: it is read in one."""
    alike: int
    """How many of the last ids are not the context's but the first of each continuation."""
    asked: list[_Asked] = field(default_factory=list)

    def judge_firsts(self, logits: Tensor, rows: int) -> None:
        """Score the continuations' first tokens, those alike and one more, by the logits before these: (alike + 1, V)."""
        if self.alike:
            same = judge(logits[:-1], torch.tensor(self.ids[-self.alike :]))
            for asked in self.asked:
                asked.parts.append(same)
        for begin in range(0, len(self.asked), rows):
            some = self.asked[begin : begin + rows]
            scores = judge(logits[-1].expand(len(some), -1), torch.tensor([asked.tokens[0] for asked in some]))
            for place, asked in enumerate(some):
                asked.parts.append(scores[place : place + 1])


def continuation_logprobs(
    engine: Engine, context_ids: Sequence[int], continuations: Sequence[Sequence[int]], *, chunk: int | None = None
) -> list[ContinuationScore]:
    """Score several continuations of one context, which is read once; see `score_requests`.

    Returns:
        One score a continuation, in order.
    """
    return score_requests(engine, [Request(context_ids, continuations)], chunk=chunk)[0]


def score_requests(
    engine: Engine, requests: Sequence[Request], *, batch: int = 8, chunk: int | None = None
) -> list[list[ContinuationScore]]:
    """Score the continuations of many contexts. Equal contexts, and equal beginnings of them, are read once, but
    for contexts of requests whose continuations begin with other tokens alike.

    A context too long for the model's positions loses its oldest tokens, as many as each continuation needs; a continuation
    is never cut. The last token of a continuation predicts nothing that is asked for, so it needs no position.

    Args:
        batch: contexts held side by side, where the engine gathers runs; no score depends on it.
        chunk: rows of logits held at a time; more need more memory. Default: as `score_tokens`.

    Returns:
        For each request one score a continuation, in order.

    Raises:
        InputError: a continuation with more tokens than the model has positions.
        ValueError: an empty context or continuation, or an id the model does not have.
    """
    rows = chunk or (CHUNK if engine.device.type == "cpu" else DEVICE_CHUNK)
    stems: dict[tuple[int, int, tuple[int, ...]], _Stem] = {}
    found: list[list[_Asked]] = [[] for _ in requests]
    for number, request in enumerate(requests):
        _check(engine, request)
        alike = _alike(request)[: rows - 1]
        for place, continuation in enumerate(request.continuations):
            dropped = max(0, len(request.context) + len(continuation) - 1 - engine.context)
            ids = tuple(request.context[dropped:])
            cut = min(request.shared - dropped, len(ids) - 1)
            cut = cut if cut >= WORTH_SHARING else 0
            scored = len(continuation) if request.scored is None else request.scored[place]
            asked = _Asked(number, list(continuation[len(alike) :]), scored, dropped)
            stem = _Stem((*ids, *alike), cut, len(alike))
            stems.setdefault((cut, stem.alike, stem.ids), stem).asked.append(asked)
            found[number].append(asked)
    if stems:
        ordered = sorted(stems.values(), key=lambda stem: (stem.ids[: stem.cut], len(stem.ids)))
        if isinstance(engine, ReferenceEngine) and engine.packs:
            ordered = _read_packed(engine, ordered, rows)
        if ordered:
            _read(engine, ordered, batch, rows)
    return [[asked.score() for asked in some] for some in found]


def _read_packed(engine: ReferenceEngine, stems: list[_Stem], rows: int) -> list[_Stem]:
    """Score what is asked after short stems, many in one forward whatever the batch; return those that are not short."""
    rest: list[_Stem] = []
    packs: list[list[_Stem]] = []
    tokens = filled = 0
    for stem in stems:
        heads = 1 + stem.alike + sum(len(asked.tokens) - 1 for asked in stem.asked)
        size = len(stem.ids) - 1 - stem.alike + heads
        if stem.cut or size > PACK_TOKENS or heads > rows:
            rest.append(stem)
            continue
        if not packs or tokens + size > PACK_TOKENS or filled + heads > rows:
            packs.append([])
            tokens = filled = 0
        packs[-1].append(stem)
        tokens, filled = tokens + size, filled + heads
    for pack in packs:
        trees = [(stem.ids, 1 + stem.alike, [asked.tokens[:-1] for asked in stem.asked]) for stem in pack]
        logits = engine.tree_logits(trees)
        row = 0
        for stem in pack:
            stem.judge_firsts(logits[row : row + 1 + stem.alike], rows)
            row += 1 + stem.alike
            for asked in stem.asked:
                if len(asked.tokens) > 1:
                    end = row + len(asked.tokens) - 1
                    asked.parts.append(judge(logits[row:end], torch.tensor(asked.tokens[1:])))
                    row = end
    return rest


def _alike(request: Request) -> Sequence[int]:
    """The tokens with which several continuations all begin, but the last of the shortest."""
    some = sorted(request.continuations, key=len)
    if len(some) < 2:
        return []
    return some[0][: min(common(some[0][:-1], other) for other in some[1:])]


def _check(engine: Engine, request: Request) -> None:
    if not request.context or not all(len(continuation) for continuation in request.continuations):
        raise ValueError("context and continuations need at least one token each")
    longest = max(map(len, request.continuations), default=0)
    if longest > engine.context:
        raise InputError(
            f"a continuation has {longest} tokens, the model {engine.context} positions; it would be cut, give a shorter one"
        )


def _read(engine: Engine, stems: list[_Stem], batch: int, rows: int) -> None:
    """Score all that is asked after the stems; those with an equal beginning are neighbours, and of these equal lengths."""
    beside = min(batch, len(stems)) if engine.gathers else 1
    room = max(len(stem.ids) + len(asked.tokens) - 1 for stem in stems for asked in stem.asked)
    cache = engine.new_cache(beside + 1 + SPARE, room)
    beginning, spare = beside, range(beside + 1, beside + 1 + SPARE)
    held: tuple[int, ...] = ()  # in the slot `beginning`
    for group in _groups(stems, beside, rows):
        runs = []
        for slot, stem in enumerate(group):
            if stem.cut and stem.ids[: stem.cut] != held:
                held = stem.ids[: stem.cut]
                cache.truncate(beginning, 0)
                engine.forward(cache, [Run(beginning, held, 0)])
            if stem.cut:
                cache.copy(beginning, slot)
            else:
                cache.truncate(slot, 0)
            runs.append(Run(slot, stem.ids[stem.cut :], 1 + stem.alike))
        logits = engine.forward(cache, runs)
        for stem, lines in zip(group, logits.split([run.logits for run in runs]), strict=True):
            stem.judge_firsts(lines, rows)
        del logits, lines  # before the next ones
        longer = [(slot, asked) for slot, stem in enumerate(group) for asked in stem.asked if len(asked.tokens) > 1]
        for pack in _packs(longer, rows, apart=not engine.gathers):
            _score_pack(engine, cache, pack, spare, rows)


def _groups(stems: list[_Stem], beside: int, rows: int) -> Iterator[list[_Stem]]:
    """Stems whose contexts are held side by side; what their continuations have alike needs rows of logits, too."""
    group: list[_Stem] = []
    tokens = filled = 0
    for stem in stems:
        full = len(group) == beside or tokens + len(stem.ids) > BATCH_TOKENS or filled + 1 + stem.alike > rows
        if group and full:
            yield group
            group, tokens, filled = [], 0, 0
        group.append(stem)
        tokens, filled = tokens + len(stem.ids), filled + 1 + stem.alike
    yield group


def _packs(longer: list[tuple[int, _Asked]], rows: int, apart: bool) -> Iterator[list[tuple[int, _Asked]]]:
    """Continuations that go through one forward: as many as there are spare slots and rows of logits, at least one.

    Args:
        apart: only those of one request, on engines whose numbers depend on what is computed together.
    """
    pack: list[tuple[int, _Asked]] = []
    free = rows
    for slot, asked in longer:
        other = apart and pack and (pack[-1][0], pack[-1][1].request) != (slot, asked.request)
        if pack and (other or len(pack) == SPARE or len(asked.tokens) - 1 > free):
            yield pack
            pack, free = [], rows
        pack.append((slot, asked))
        free -= len(asked.tokens) - 1
    if pack:
        yield pack


def _score_pack(engine: Engine, cache: Cache, pack: list[tuple[int, _Asked]], spare: Sequence[int], rows: int) -> None:
    """The tokens of continuations from the second on: each token read predicts the one after it."""
    [(slot, first), *rest] = pack
    if not rest and len(first.tokens) - 1 > rows:  # in pieces
        cache.copy(slot, spare[0])
        for begin in range(0, len(first.tokens) - 1, rows):
            tokens = first.tokens[begin : begin + rows + 1]
            logits = engine.forward(cache, [Run(spare[0], tokens[:-1], len(tokens) - 1)])
            first.parts.append(judge(logits, torch.tensor(tokens[1:])))
        return
    logits = engine.look_ahead(cache, [(slot, asked.tokens[:-1]) for slot, asked in pack], spare)
    scores = judge(logits, torch.tensor([token for _, asked in pack for token in asked.tokens[1:]]))
    done = 0
    for _, asked in pack:
        asked.parts.append(scores[done : done + len(asked.tokens) - 1])
        done += len(asked.tokens) - 1
