"""Texts and their scores: loss, perplexity and bits per byte of a text, and each token with the text it stands for."""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpt3.errors import InputError
from gpt3.inference.engine import Engine
from gpt3.inference.scoring import Scores, score_chunks
from gpt3.inference.streaming import TokenBytes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Summary:
    """A text's figures. Summaries of several texts add up to those of all of them."""

    tokens: int = 0
    """Tokens scored: every token of the text."""
    bytes: int = 0
    """Of the text in UTF-8."""
    characters: int = 0
    """Unicode code points."""
    nats: float = 0.0
    """Minus the natural log-probability of all of it."""
    greedy: int = 0
    """Tokens that were the model's first choice."""

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(loss); of hopeless models capped at exp(700), which float64 still holds."""
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
        return self.greedy / self.tokens

    def __add__(self, other: Summary) -> Summary:
        return Summary(
            self.tokens + other.tokens,
            self.bytes + other.bytes,
            self.characters + other.characters,
            self.nats + other.nats,
            self.greedy + other.greedy,
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "tokens": self.tokens,
            "bytes": self.bytes,
            "characters": self.characters,
            "nats": self.nats,
            "loss": self.loss,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "bits_per_token": self.bits_per_token,
            "accuracy": self.accuracy,
        }


@dataclass(frozen=True)
class Alternative:
    """A token that could have stood in a place."""

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
    """Its place among all tokens there; 1 is the likeliest."""
    entropy: float
    """Of the distribution there, in nats."""
    top: tuple[Alternative, ...] = ()
    """The likeliest tokens there."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = {
            "text": self.text,
            "id": self.id,
            "start": self.start,
            "end": self.end,
            "logprob": self.logprob,
            "rank": self.rank,
            "entropy": self.entropy,
        }
        if self.top:
            found["top"] = [{"id": each.id, "text": each.text, "logprob": each.logprob} for each in self.top]
        return found


class TokenReader:
    """Turns the scores of a text, piece by piece, into its tokens with their text and places.

    Args:
        tokenizer: a byte-level BPE.

    Raises:
        InputError: it is none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._bytes = TokenBytes(tokenizer)
        self._special = {
            number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._names: dict[int, str] = {}
        self._at = 0

    def name(self, token: int) -> str:
        """A token's text by itself, as in `Alternative`."""
        if token not in self._names:
            known = self._special.get(token)
            self._names[token] = known or self._bytes[token].decode("utf-8", "backslashreplace")
        return self._names[token]

    def read(self, scores: Scores) -> Iterator[TokenScore]:
        """The next tokens of the text."""
        columns = (scores.ids, scores.logprobs, scores.ranks, scores.entropies, scores.top_ids, scores.top_logprobs)
        for token, logprob, rank, entropy, ids, logprobs in zip(*(each.tolist() for each in columns), strict=True):
            content = self._bytes[token]
            start, self._at = self._at, self._at + len(content)
            top = tuple(Alternative(i, self.name(i), value) for i, value in zip(ids, logprobs, strict=True))
            yield TokenScore(self._decoder.decode(content), token, start, self._at, logprob, rank, entropy, top)


@dataclass(frozen=True)
class TextScore:
    """A text's figures and, where they were asked for, its tokens."""

    summary: Summary
    tokens: list[TokenScore] = field(default_factory=list, repr=False)

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.summary.loss

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return self.summary.perplexity

    @property
    def bits_per_byte(self) -> float:
        """All bits over all bytes."""
        return self.summary.bits_per_byte


def score_text(
    engine: Engine,
    tokenizer: PreTrainedTokenizerFast,
    text: str,
    *,
    context: int | None = None,
    stride: int | None = None,
    tokens: bool = False,
    top: int = 0,
) -> TextScore:
    """How probable a model finds a text that begins a document.

    Args:
        context, stride: windows, see `gpt3.inference.scoring`.
        tokens: give every token's score, too.
        top: with each token, as many of the likeliest in its place.

    Raises:
        InputError: an empty text, or what `encode_texts` and `score_tokens` raise.

    Example:
        >>> score_text(engine, tokenizer, "The sea was calm.").bits_per_byte
    """
    reader = TokenReader(tokenizer) if tokens or top else None
    found: list[TokenScore] = []

    def take(scores: Scores) -> None:
        if reader is not None:
            found.extend(reader.read(scores))

    (ids,) = encode_texts(tokenizer, [("the text", text)])
    summary = summarize(engine, tokenizer, text, ids, take, context=context, stride=stride, top=top)
    return TextScore(summary, found)


def encode_texts(tokenizer: PreTrainedTokenizerFast, texts: Sequence[tuple[str, str]]) -> list[list[int]]:
    """The ids of texts, given as name and text; what spells a special token in them stays text.

    Raises:
        InputError: naming each with nothing in it, or with half a surrogate pair, which is no character.
    """
    from gpt3.tokenizer.encoder import Encoder

    faults = []
    for name, text in texts:
        if not text:
            faults.append(f"{name} is empty; there is nothing to score")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            faults.append(f"{name} is no text at character {error.start} ({error.reason}); give it in UTF-8")
    if faults:
        raise InputError("; ".join(faults))
    ids, lengths = Encoder(tokenizer).encode_batch([text for _, text in texts])
    ends = lengths.cumsum().tolist()
    return [ids[end - length : end].tolist() for end, length in zip(ends, lengths.tolist(), strict=True)]


def first_token(tokenizer: PreTrainedTokenizerFast) -> int:
    """The id that stands before a document in training: beginning-of-text where there is one, else end-of-text.

    Raises:
        InputError: the tokenizer has neither.
    """
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise InputError("the tokenizer names no end-of-text, which a text is scored after; set its eos_token")
    return int(start)


def summarize(
    engine: Engine,
    tokenizer: PreTrainedTokenizerFast,
    text: str,
    ids: list[int],
    take: Callable[[Scores], None],
    *,
    context: int | None = None,
    stride: int | None = None,
    top: int = 0,
) -> Summary:
    """Score `text`, whose tokens are `ids`, handing each piece of scores to `take` as it comes; return its figures."""
    tokens = greedy = 0
    logprob = 0.0
    for scores in score_chunks(engine, ids, context, stride, start=first_token(tokenizer), top=top):
        tokens += len(scores)
        greedy += int((scores.ranks == 1).sum())
        logprob += scores.total
        take(scores)
    return Summary(tokens, len(text.encode("utf-8")), len(text), -logprob, greedy)
