"""Log-probabilities of the tokens of whole texts, in windows: loss, perplexity and bits per byte (endings: continuations.py).

    score_tokens(engine, ids, start=eos)               every token of a text, given the tokens before it
    score_text(engine, tokenizer, "The sea was calm.") the same with its figures and each token's characters

A text longer than the model's positions is read in windows of `context` tokens. Each begins `stride` tokens after the one before
and scores the tokens that no earlier window did. A smaller stride gives every token more context, and takes longer:

    context 4, stride 2      the text after the EOS token:   <eos> a b c d e f g h
    window 1 reads <eos> a b c, scores a b c d
    window 2 reads b c d e, scores e f                       (at least context - stride + 1 = 3 tokens before each)
    window 3 reads d e f g, scores g h

These are the windows of transformers' strided perplexity.
"""

from __future__ import annotations

import codecs
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt3.errors import InputError, RunError
from gpt3.inference.arrays import Array
from gpt3.inference.engine import Engine, Logits, Run
from gpt3.inference.selection import largest
from gpt3.inference.streaming import TokenBytes
from gpt3.tokenizer.encoder import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROWS_AT_ONCE = 8
"""Rows of logits in NumPy that are judged at a time: they stay in a core's cache."""


@dataclass(frozen=True)
class Scores:
    """A model's view of each of T consecutive tokens, in NumPy; logarithms are natural."""

    ids: Array
    """(T,) int64: the tokens."""
    logprobs: Array
    """(T,) float32: log-probability of each, given the tokens before it in its window."""
    ranks: Array
    """(T,) int64: its rank among all tokens by probability; 1 is the greedy choice (of equals, the lower id comes first)."""
    entropies: Array
    """(T,) float32, nats: of the predicted distribution."""
    top_ids: Array
    """(T, n) int64: the n likeliest tokens, likeliest first."""
    top_logprobs: Array
    """(T, n) float32: their log-probabilities."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def total(self) -> float:
        """Log-probability of all tokens: the sum, in float64."""
        return float(self.logprobs.sum(dtype=np.float64))

    def __getitem__(self, part: slice) -> Scores:
        return Scores(*(getattr(self, field.name)[part] for field in fields(Scores)))

    @staticmethod
    def joined(parts: Sequence[Scores]) -> Scores:
        """The scores of consecutive parts as one."""
        return Scores(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Scores)))


def judge(logits: Logits, ids: Sequence[int], top: int = 0) -> Scores:
    """Scores of `ids` under the distributions that `logits` give.

    Args:
        logits: (T, V) float32, in NumPy or in torch on any device; left unchanged.
        ids: T of them.
        top: number of likeliest tokens to return per position.

    Raises:
        RunError: logits that are NaN or infinite.
    """
    targets = np.asarray(ids, dtype=np.int64)
    if not isinstance(logits, np.ndarray):
        found = _judge_tensor(logits, targets, top)
    elif len(targets):
        groups = [slice(begin, begin + ROWS_AT_ONCE) for begin in range(0, len(targets), ROWS_AT_ONCE)]
        found = Scores.joined([_judge_array(logits[rows], targets[rows], top) for rows in groups])
    else:
        found = _judge_array(logits, targets, top)
    if not np.isfinite(found.entropies).all():
        raise RunError("the model's logits are NaN or infinite; its weights are damaged")
    return found


def _judge_array(logits: Array, ids: Array, top: int) -> Scores:
    chosen, highest = logits[np.arange(len(ids)), ids], logits.max(1)
    shifted = logits - highest[:, None]
    weights = np.exp(shifted)
    sums = weights.sum(1)
    normalizer = np.log(sums)  # log-probability = shifted logit - normalizer
    with np.errstate(invalid="ignore"):
        entropies = normalizer - np.einsum("tv,tv->t", weights, shifted) / sums
    ranks = 1 + np.count_nonzero(logits > chosen[:, None], axis=1)
    count = min(top, logits.shape[1])
    top_ids, top_logprobs = np.zeros((len(ids), count), np.int64), np.zeros((len(ids), count), np.float32)
    for place, (line, id_) in enumerate(zip(logits, ids, strict=True)):
        ranks[place] += np.count_nonzero(line[:id_] == chosen[place])  # of equals, the lower id comes first
        if count:
            likeliest = largest(line, count)
            best = likeliest[np.argsort(-line[likeliest], kind="stable")[:count]]
            top_ids[place], top_logprobs[place] = best, line[best] - highest[place] - normalizer[place]
    return Scores(ids, chosen - highest - normalizer, ranks, entropies, top_ids, top_logprobs)


def _judge_tensor(logits: Any, ids: Array, top: int) -> Scores:
    import torch

    with torch.no_grad():
        targets = torch.from_numpy(ids).to(logits.device)[:, None]  # (T, 1)
        chosen = logits.gather(1, targets)
        highest = logits.max(dim=1, keepdim=True).values
        shifted = logits - highest
        weights = shifted.exp()
        sums = weights.sum(dim=1)
        normalizer = sums.log()
        entropies = normalizer - torch.linalg.vecdot(weights, shifted) / sums
        places = torch.arange(logits.shape[1], device=logits.device)
        ahead = (logits > chosen) | ((logits == chosen) & (places < targets))
        best = logits.topk(min(top, logits.shape[1]), dim=1)
        columns = (
            (chosen - highest)[:, 0] - normalizer,
            ahead.sum(dim=1) + 1,
            entropies,
            best.indices,
            best.values - highest - normalizer[:, None],
        )
        return Scores(ids, *(column.cpu().numpy() for column in columns))


def windows(tokens: int, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Windows over `tokens` inputs as (begin, end, scored): the logits of the last `scored` inputs count, each input's once."""
    begin = done = 0
    while done < tokens:
        end = min(begin + context, tokens)
        yield begin, end, end - done
        begin, done = begin + stride, end


def check_windows(engine: Engine, context: int | None, stride: int | None) -> tuple[int, int]:
    """Context and stride with their defaults.

    Raises:
        InputError: out of range; one message names both.
    """
    found = []
    size = engine.context if context is None else context
    if not 1 <= size <= engine.context:
        found.append(f"--context {size} is not between 1 and the model's {engine.context} positions")
        size = engine.context
    step = max(1, size // 2) if stride is None else stride
    if not 1 <= step <= size:
        found.append(f"--stride {step} is not between 1 and the context of {size}. Leave it out for half the context")
    if found:
        raise InputError("; ".join(found))
    return size, step


def score_chunks(
    engine: Engine, ids: Sequence[int], context: int | None = None, stride: int | None = None, *, top: int = 0
) -> Iterator[Scores]:
    """As `score_tokens`, in pieces of at most `engine.logit_rows` tokens, each as soon as it is known: for long texts."""
    context, stride = check_windows(engine, context, stride)
    if len(ids) < 2:
        raise ValueError("no token to score")
    if not 0 <= min(ids) <= max(ids) < engine.vocabulary:
        raise ValueError(f"an id of the text is not among the {engine.vocabulary} the model has")
    cache = engine.new_cache(1, min(context, len(ids) - 1))
    for read, window_end, scored in windows(len(ids) - 1, context, stride):
        cache.truncate(0, 0)
        for begin in range(window_end - scored, window_end, engine.logit_rows):
            end = min(begin + engine.logit_rows, window_end)
            logits = engine.forward(cache, [Run(0, ids[read:end], end - begin)])
            yield judge(logits, ids[begin + 1 : end + 1], top)
            read = end


def score_tokens(
    engine: Engine, ids: Sequence[int], context: int | None = None, stride: int | None = None, *, top: int = 0
) -> Scores:
    """Score each token of a text but the first, given the tokens before it.

    Args:
        ids: the text, after the token that begins a document (`first_token`), as in training.
        context: tokens read at a time; 1 up to the engine's, the default.
        stride: tokens from one window's begin to the next; 1 up to `context`, default half of it.
        top: number of likeliest tokens to return per position.

    Returns:
        Scores of len(ids) - 1 tokens.

    Raises:
        InputError: a context or a stride out of its range.
        ValueError: an id the model does not have; no token to score.
        RunError: NaN logits.
    """
    return Scores.joined(list(score_chunks(engine, ids, context, stride, top=top)))


# ---- texts


@dataclass(frozen=True)
class Alternative:
    """A token that is likely in some position."""

    id: int
    text: str
    """Its bytes as text; bytes of a part of a character as ``\\xe4``; a special token by its name."""
    logprob: float


@dataclass(frozen=True)
class TokenScore:
    """A token of a text."""

    text: str
    """The characters it completes; "" where it ends within a character. Joined, these are the text."""
    id: int
    start: int
    """Where its bytes begin in the text's UTF-8."""
    end: int
    """Where they end."""
    logprob: float
    """Natural log-probability, given the text before it."""
    rank: int
    """Its rank among all tokens; 1 is the likeliest."""
    entropy: float
    """Of the predicted distribution, in nats."""
    top: tuple[Alternative, ...] = ()
    """The likeliest tokens in its position."""


@dataclass(repr=False)
class TextScore:
    """How probable a model finds a text. Scores of several texts add up to the score of all of them."""

    count: int = 0
    """Tokens scored: every token of the text."""
    bytes: int = 0
    """Of the text in UTF-8."""
    characters: int = 0
    """Unicode code points."""
    nats: float = 0.0
    """Minus the natural log-probability of the whole text."""
    greedy: int = 0
    """Tokens that were the model's first choice."""
    tokens: list[TokenScore] = field(default_factory=list)
    """Each token's score, if requested."""

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.count

    @property
    def perplexity(self) -> float:
        """exp(loss); capped at exp(700), which float64 still holds."""
        return math.exp(min(self.loss, 700.0))

    @property
    def bits_per_token(self) -> float:
        """The loss in bits."""
        return self.loss / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        """All bits over all bytes: comparable between tokenizers."""
        return self.nats / math.log(2) / self.bytes

    @property
    def accuracy(self) -> float:
        """Share of tokens that were the model's first choice."""
        return self.greedy / self.count

    def add(self, scores: Scores) -> None:
        """Count the next tokens of the text."""
        self.count += len(scores)
        self.nats -= scores.total
        self.greedy += int((scores.ranks == 1).sum())

    def __add__(self, other: TextScore) -> TextScore:
        return TextScore(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(TextScore)))

    def __repr__(self) -> str:
        if not self.count:
            return "TextScore(no tokens)"
        figures = (
            f"loss {self.loss:.4f} nats, perplexity {self.perplexity:,.2f}, {self.bits_per_byte:.4f} bits per byte"
        )
        return f"TextScore({self.count:,} tokens, {self.bytes:,} bytes: {figures})"

    def as_dict(self) -> dict[str, Any]:
        """All figures, for JSON."""
        names = ("bytes", "characters", "nats", "loss", "perplexity", "bits_per_byte", "bits_per_token", "accuracy")
        return {"tokens": self.count} | {name: getattr(self, name) for name in names}


class TokenReader:
    """Turns the scores of a text, piece by piece, into its tokens with their characters and byte positions.

    Args:
        tokenizer: a byte-level BPE.

    Raises:
        InputError: it is not one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._bytes = TokenBytes(tokenizer)
        added = tokenizer.added_tokens_decoder
        special = {number: token.content for number, token in added.items() if token.special}
        self._name = functools.cache(
            lambda id_: special.get(id_) or self._bytes[id_].decode("utf-8", "backslashreplace")
        )
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at = 0

    def read(self, scores: Scores) -> Iterator[TokenScore]:
        """The next tokens of the text."""
        columns = (scores.ids, scores.logprobs, scores.ranks, scores.entropies, scores.top_ids, scores.top_logprobs)
        for token, logprob, rank, entropy, ids, logprobs in zip(*(each.tolist() for each in columns), strict=True):
            content = self._bytes[token]
            start, self._at = self._at, self._at + len(content)
            top = tuple(Alternative(i, self._name(i), value) for i, value in zip(ids, logprobs, strict=True))
            yield TokenScore(self._decoder.decode(content), token, start, self._at, logprob, rank, entropy, top)


def encode_texts(tokenizer: PreTrainedTokenizerFast, texts: Sequence[tuple[str, str]]) -> list[list[int]]:
    """The ids of texts, given as name and text. The spelling of a special token inside a text stays text.

    Raises:
        InputError: a text is empty, or what `check_text` raises.
    """
    for name, text in texts:
        if not text:
            raise InputError(f"{name} is empty. Give a text to score")
        check_text(name, text)
    ids, lengths = Encoder(tokenizer).encode_batch([text for _, text in texts])
    return [part.tolist() for part in np.split(ids, lengths.cumsum()[:-1])]


def check_text(name: str, text: str) -> None:
    """Refuse a text with half a surrogate pair, which is not a character.

    Raises:
        InputError: it has one; the place is named.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{name} is not text at character {error.start} ({error.reason}). Use UTF-8.") from None


def first_token(tokenizer: PreTrainedTokenizerFast) -> int:
    """The id before a document in training: the BOS token if there is one, else the EOS token.

    Raises:
        InputError: the tokenizer has neither.
    """
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise InputError("the tokenizer has no EOS token, with which a document begins. Set its eos_token.")
    return int(start)
