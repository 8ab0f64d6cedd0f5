"""A row's own sampler: its options, its history, its seed; and the next token of each of many rows.

    samplers = [Sampler(options, prompt, seed=1, row=i, ends={50256}, vocabulary=50257) for i in range(2)]
    choices = sample_rows(logits, samplers)           (2, V) float32 → a Choice each; each sampler has taken its token

Rows of different options and lengths may stand in one batch. A row's token is a function of its logits, its options, its history
and (seed, row, step): of no other row. Histories are counted as they grow, so that a step costs the same at any length.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gpt3.errors import InputError
from gpt3.inference import drawing, sampling
from gpt3.inference.drawing import Row
from gpt3.inference.options import SamplingOptions
from gpt3.inference.sampling import NOTHING_LEFT


class NotNumbersError(ArithmeticError):
    """Logits that are NaN or +inf: weights that are no numbers, or an overflow.

    Attributes:
        places: the rows of the batch that have them.
    """

    def __init__(self, places: Sequence[int]) -> None:
        super().__init__(f"the logits of rows {list(places)} are not numbers")
        self.places = list(places)


@dataclass(frozen=True)
class Choice:
    """The next token of one row."""

    token: int
    """Its id; NOTHING_LEFT where every token is ruled out."""
    logprob: float | None = None
    """Natural logarithm of its probability by the model itself: before bias, penalties, temperature and cuts, as OpenAI's API
    gives it. None unless `options.logprobs` is set, or where no token is left."""
    top: list[tuple[int, float]] = field(default_factory=list)
    """The `options.logprobs` likeliest tokens by the same measure, likeliest first."""


class Sampler:
    """Chooses one text's tokens.

    Args:
        options: how.
        prompt_ids: tokens the text continues; they count for the repetition penalty, n-grams and bad words.
        seed, row: of the draws.
        ends: tokens that end a text, held back until `options.min_new_tokens` are written.
        vocabulary: ids from here on are never chosen.
        bad_words_ids: `options.bad_words` as `bad_word_ids` gives them.

    Attributes:
        history: prompt and text.
        written: tokens of the text.

    Raises:
        InputError: a biased token is outside the vocabulary.
    """

    def __init__(
        self,
        options: SamplingOptions,
        prompt_ids: Sequence[int],
        seed: int,
        row: int,
        ends: Set[int],
        vocabulary: int,
        bad_words_ids: Iterable[Sequence[int]] = (),
    ) -> None:
        if outside := [token for token in options.logit_bias if token >= vocabulary]:
            raise InputError(
                f"--logit-bias names token {outside[0]}, but the tokenizer has {vocabulary:,}; give ids below that"
            )
        self.options, self.seed, self.row, self.vocabulary = options, seed, row, vocabulary
        self.history: list[int] = []
        self.written = 0
        self._biased = np.array(list(options.logit_bias), dtype=np.int64)
        self._bias = np.array(list(options.logit_bias.values()), dtype=np.float32)
        self._ends = np.array(sorted(end for end in ends if end < vocabulary), dtype=np.int64)
        self._bad_words = [tuple(word) for word in bad_words_ids]
        if not all(self._bad_words):
            raise ValueError("a bad word must have at least one token")
        self._seen = _Counts() if options.repetition_penalty != 1 else None
        counted = options.presence_penalty != 0 or options.frequency_penalty != 0
        self._text = _Counts() if counted else None
        self._followers: defaultdict[tuple[int, ...], list[int]] = defaultdict(
            list
        )  # of each n-gram's first n - 1 tokens
        for token in prompt_ids:
            self._count(token)

    @property
    def edits(self) -> bool:
        """Whether bias, history or a minimum change this step's logits."""
        options = self.options
        return bool(
            len(self._biased)
            or self._seen is not None
            or self._text is not None
            or options.no_repeat_ngram
            or self._bad_words
            or self.written < options.min_new_tokens
        )

    def push(self, token: int) -> None:
        """Take a token into the text (`sample_rows` has done so for the tokens it chose)."""
        self._count(token)
        self.written += 1
        if self._text is not None:
            self._text.add(token, 1)

    def take_back(self, count: int) -> None:
        """Forget the last `count` tokens of the text: drafts that were not accepted.

        Raises:
            ValueError: more than were written.
        """
        if count > self.written:
            raise ValueError(f"{count} tokens cannot be taken back, {self.written} were written")
        for _ in range(count):
            if (size := self.options.no_repeat_ngram) and len(self.history) >= size:
                self._followers[tuple(self.history[-size:-1])].pop()
            token = self.history.pop()
            self.written -= 1
            for counts in (self._seen, self._text):
                if counts is not None:
                    counts.add(token, -1)

    def uniform(self, purpose: str = "") -> float:
        """This step's number in [0, 1); another one for each purpose ("accept", "draft", …)."""
        return sampling.uniform(self.seed, self.row, self.written, purpose)

    def edit(self, logits: Row) -> Row:
        """The chain up to the temperature, on a copy: (V,) float32 → (vocabulary,) float32."""
        options = self.options
        logits = logits[: self.vocabulary]
        if not self.edits:
            return logits
        logits = logits.copy()
        logits[self._biased] += self._bias
        if self._seen is not None:
            ids, _ = self._seen.present()
            seen = logits[ids]
            penalty = np.float32(options.repetition_penalty)
            logits[ids] = np.where(seen < 0, seen * penalty, seen / penalty)
        if self._text is not None:
            ids, counts = self._text.present()
            logits[ids] -= counts * np.float32(options.frequency_penalty) + np.float32(options.presence_penalty)
        if (size := options.no_repeat_ngram) and len(self.history) >= size:
            tail = tuple(self.history[len(self.history) - size + 1 :])
            logits[self._followers.get(tail, [])] = -np.inf
        for *before, last in self._bad_words:
            if len(before) <= len(self.history) and self.history[len(self.history) - len(before) :] == before:
                logits[last] = -np.inf
        if self.written < options.min_new_tokens:
            logits[self._ends] = -np.inf
        return logits

    def choose(self, logits: Row) -> int:
        """The next token from (V,) float32 logits of its own, none of them NaN; NOTHING_LEFT. The history stays as it is."""
        logits = self.edit(logits)
        best = int(logits.argmax())
        if logits[best] == -np.inf:
            return NOTHING_LEFT
        if self.options.temperature == 0:
            return best
        ids, weights = drawing.distribution(logits, self.options)
        place = drawing.draw(weights, self.uniform())
        return place if ids is None else int(ids[place])

    def _count(self, token: int) -> None:
        self.history.append(token)
        if self._seen is not None:
            self._seen.add(token, 1)
        if (size := self.options.no_repeat_ngram) and len(self.history) >= size:
            self._followers[tuple(self.history[len(self.history) - size : -1])].append(token)


class _Counts:
    """How often each token came, as arrays that grow."""

    def __init__(self) -> None:
        self._place: dict[int, int] = {}
        self._ids = np.zeros(64, dtype=np.int64)
        self._numbers = np.zeros(64, dtype=np.float32)

    def add(self, token: int, number: int) -> None:
        place = self._place.setdefault(token, len(self._place))
        if place == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._numbers = np.concatenate([self._numbers, np.zeros_like(self._numbers)])
        self._ids[place] = token
        self._numbers[place] += number

    def present(self) -> tuple[drawing.Ids, Row]:
        """Tokens that came at least once, and how often."""
        size = len(self._place)
        came = self._numbers[:size] > 0  # those taken back have come 0 times
        return self._ids[:size][came], self._numbers[:size][came]


def sample_rows(logits: Tensor, samplers: Sequence[Sampler]) -> list[Choice]:
    """The next token of every row; each sampler takes it into its history.

    Args:
        logits: (B, V) float32 on any device, as the model gives them.
        samplers: B of them.

    Raises:
        NotNumbersError: logits are NaN or +inf. No sampler has taken anything then.
    """
    if len(samplers) != len(logits):
        raise ValueError(f"{len(logits)} rows of logits, but {len(samplers)} samplers")
    largest = _largest(logits)
    if wrong := [place for place, value in enumerate(largest) if not value < math.inf]:
        raise NotNumbersError(wrong)
    if logits.device.type == "cpu":
        rows = logits.detach().float().numpy()
        tokens = [sampler.choose(row) for sampler, row in zip(samplers, rows, strict=True)]
    else:
        tokens = _choose_on_device(logits, samplers)
    choices = []
    for place, (sampler, token) in enumerate(zip(samplers, tokens, strict=True)):
        choice = Choice(token)
        if sampler.options.logprobs is not None:
            choice = _with_logprobs(token, to_numpy(logits[place]), sampler.options.logprobs)
        choices.append(choice)
        if token != NOTHING_LEFT:
            sampler.push(token)
    return choices


def probabilities(logits: Tensor, sampler: Sampler) -> Row:
    """What the row's next token is drawn from, after the whole chain.

    Args:
        logits: (V,) float32.

    Returns:
        (V,) float32, their sum 1; at temperature 0 a single 1. All 0 where every token is ruled out.

    Raises:
        NotNumbersError: logits are NaN or +inf.
    """
    row = to_numpy(logits)
    if not row.max() < math.inf:
        raise NotNumbersError([0])
    result: Row = np.zeros_like(row)
    edited = sampler.edit(row)
    best = int(edited.argmax())
    if edited[best] == -np.inf:
        return result
    if sampler.options.temperature == 0:
        result[best] = 1
        return result
    ids, weights = drawing.distribution(edited, sampler.options)
    weights = weights / weights.sum()
    if ids is None:
        result[: len(weights)] = weights
    else:
        result[ids] = weights
    return result


def bad_word_ids(words: Iterable[str], encode: Callable[[str], Sequence[int]]) -> list[list[int]]:
    """The token sequences that spell these words, alone and after a space (GPT-2's BPE has other tokens for the two).

    A word may still be spelled in other tokens than these, and be part of a longer word.

    Args:
        encode: text to ids, without special tokens.
    """
    spelled = [list(encode(text)) for word in words for text in (word, " " + word.lstrip(" "))]
    return [ids for place, ids in enumerate(spelled) if ids and ids not in spelled[:place]]


def to_numpy(logits: Tensor) -> Row:
    """As float32 on the host; no copy where it is there already."""
    array: Row = logits.detach().float().cpu().numpy()
    return array


def _largest(logits: Tensor) -> list[float]:
    """Each row's largest logit; NaN where any is."""
    if logits.device.type == "cpu":
        return [float(row.max()) for row in logits.detach().float().numpy()]
    values: list[float] = logits.amax(-1).tolist()
    return values


def _choose_on_device(logits: Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """Rows of equal options that need no history go through the vectorised chain together; the others to the host, one by one."""
    tokens = [NOTHING_LEFT] * len(samplers)
    groups: list[list[int]] = []
    for place, sampler in enumerate(samplers):
        if sampler.edits:
            tokens[place] = sampler.choose(to_numpy(logits[place]))
            continue
        for group in groups:
            first = samplers[group[0]]
            if _same_shape(first.options, sampler.options) and first.vocabulary == sampler.vocabulary:
                group.append(place)
                break
        else:
            groups.append([place])
    for group in groups:
        first = samplers[group[0]]
        rows = logits if len(group) == len(logits) else logits[torch.tensor(group, device=logits.device)]
        shaped = sampling.shape(sampling.limit_vocabulary(rows.float(), first.vocabulary), first.options)
        greedy = first.options.temperature == 0
        uniforms = [] if greedy else [samplers[place].uniform() for place in group]
        for place, token in zip(group, sampling.choose(shaped, greedy, uniforms), strict=True):
            tokens[place] = token
    return tokens


def _same_shape(one: SamplingOptions, other: SamplingOptions) -> bool:
    """Whether two rows need the same cuts."""
    names = ("temperature",) if one.temperature == 0 else ("temperature", "top_k", "top_p", "min_p", "typical_p")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _with_logprobs(token: int, logits: Row, count: int) -> Choice:
    largest = logits.max()
    total = float(largest) + math.log(float(np.exp(logits - largest).sum()))
    top: list[tuple[int, float]] = []
    if count > 0:
        ids = drawing.likeliest(logits, min(count, len(logits)))
        order = np.argsort(-logits[ids], kind="stable")[:count]
        top = [(int(id_), float(logits[id_]) - total) for id_ in ids[order]]
    return Choice(token, None if token == NOTHING_LEFT else float(logits[token]) - total, top)
