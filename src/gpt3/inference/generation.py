"""Prompts continued by a model, in pieces of text as they are generated: one prompt or many, several samples of each."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt3.inference.decoding import Decoder, Draft
from gpt3.inference.options import SamplingOptions
from gpt3.inference.row import Row, bad_word_ids
from gpt3.inference.sampling import NOTHING_LEFT, Token
from gpt3.inference.streaming import TextStream

if TYPE_CHECKING:
    from gpt3.inference.language_model import LanguageModel

LOGPROB_FIELDS = ("id", "text", "logprob", "top")
"""Of a token, in JSON."""
PARALLEL = 8
"""Sequences generated at a time unless another number is given: each has a cache."""


@dataclass(frozen=True)
class Generation:
    """One continuation of a prompt."""

    index: int
    """Number of the sample, from 0, among those of its prompt."""

    prompt_index: int
    """Number of the prompt, from 0, in the whole list."""

    prompt: str
    """What was continued."""

    text: str
    """The continuation, without the prompt, up to EOS or a stop string (neither is in it)."""

    tokens: list[int]
    """The ids that were chosen, EOS left out; those that spelled a stop string are in it."""

    finish_reason: str
    """"stop": EOS, a stop string, or no token left; "length": max_new_tokens, or no token left before a constraint is met;
    "interrupted"."""

    prompt_tokens: int
    """Tokens of the prompt that the model saw (EOS where the prompt is empty)."""

    dropped_prompt_tokens: int
    """The oldest tokens of a prompt longer than the context, which the model did not see."""

    restarts: int
    """How often the context was full and generation continued from its last half."""

    seed: int
    """The seed that gives this text again."""

    seconds: float
    """From the start of the request to the sample's last token; samples are generated in parallel."""

    first_token_seconds: float
    """From the start of the request to the sample's first token."""

    logprobs: list[Token] | None = None
    """Of each of `tokens`, where they were asked for."""

    @property
    def token_count(self) -> int:
        """Tokens generated."""
        return len(self.tokens)

    def unmet(self, options: SamplingOptions) -> bool:
        """Whether it ended before its constraint was met, and not by the number of tokens."""
        return self.finish_reason == "length" and self.token_count < options.max_new_tokens

    @property
    def tokens_per_second(self) -> float:
        """Tokens of this sample over its seconds."""
        return self.token_count / self.seconds if self.seconds > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON, the two computed values included; `logprobs` only where they were asked for."""
        values = dict(vars(self))
        if (details := values.pop("logprobs")) is not None:
            values["logprobs"] = [{name: getattr(token, name) for name in LOGPROB_FIELDS} for token in details]
        return {
            **values,
            "seconds": round(self.seconds, 4),
            "first_token_seconds": round(self.first_token_seconds, 4),
            "token_count": self.token_count,
            "tokens_per_second": round(self.tokens_per_second, 2),
        }


class RunningSequence(Row):
    """A continuation of one prompt while it is generated: chosen tokens become text until something ends it.

    `generate` and the server use it alike.

    Args:
        model: that generates it.
        prompt: ids, at most the context.
        options: how tokens are chosen, and what ends it.
        seed, number: of its random numbers.
        limit: tokens at most, from 0. Default: `options.max_new_tokens`.
        score: see Row.

    Attributes:
        text_ids: ids of the text; EOS is left out, tokens that spelled a stop string are not.
        details: the same with log-probabilities, where `options.logprobs` asks for them.
        ending: EOS with its log-probability, likewise.
        finish_reason: None while it is generated; "stop": EOS, a stop string, or no token left to choose; "length": the limit, or
            no token left before the constraint is met.
        first_at, last_at: when its first and its latest tokens came, by time.perf_counter; 0: none yet.

    Raises:
        InputError: a biased token is outside the vocabulary.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: list[int],
        options: SamplingOptions,
        *,
        seed: int,
        number: int,
        limit: int | None = None,
        score: int | None = None,
    ) -> None:
        words = bad_word_ids(options.bad_words, model.encode_word)
        constraint = model.constraint(options)
        super().__init__(prompt, options, seed, number, model.ends, model.vocabulary, words, score, constraint)
        self.limit = options.max_new_tokens if limit is None else limit
        self.text_ids: list[int] = []
        self.details: list[Token] = []
        self.ending: Token | None = None
        self.finish_reason: str | None = None
        self.first_at = self.last_at = 0.0
        self._token_bytes = model.token_bytes
        self._stream = TextStream(model.token_bytes, options.stop)

    @property
    def text(self) -> str:
        """All that may be shown so far: up to EOS or a stop string, neither of which is in it."""
        return self._stream.text

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended it."""
        return self._stream.stopped

    @property
    def mean_logprob(self) -> float:
        """Log-probability per token, EOS included; 0 where none was asked for."""
        chosen = [token.logprob or 0.0 for token in (*self.details, self.ending) if token is not None]
        return sum(chosen) / len(chosen) if chosen else 0.0

    def take(self, tokens: Sequence[Token]) -> str:
        """Take the next tokens; return the text that can be shown now."""
        self.last_at = time.perf_counter()
        self.first_at = self.first_at or self.last_at
        shown = []
        if len(self.text_ids) == self.limit:
            self.finish_reason = "length"
        for token in tokens:
            if self.finish_reason is not None:
                break
            token.offset = self._stream.decoded
            if token.id == NOTHING_LEFT or token.id in self.ends:
                unfinished = self.constraint is not None and not self.constraint.complete
                self.finish_reason = "length" if unfinished else "stop"
                self.ending = token if token.logprob is not None else None
                break
            self.text_ids.append(token.id)
            if token.logprob is not None:
                token.text = self._token_bytes[token.id].decode("utf-8", "replace")
                self.details.append(token)
            shown.append(self._stream.push(token.id))
            if self.stopped:
                self.finish_reason = "stop"
            elif len(self.text_ids) == self.limit:
                self.finish_reason = "length"
        if self.finish_reason is not None:
            shown.append(self._stream.finish())
            if self.stopped:  # the last, incomplete character became U+FFFD and completed a stop string
                self.finish_reason = "stop"
        return "".join(shown)


class GenerationRequest:
    """Prompts to continue in parallel.

    Iterate over it once for (number of the sample, piece of text) as they are made; `results` may be asked at any time. Sample s
    of prompt p has the number p x num_samples + s. What it becomes depends on the seed and that number only; where the prompts
    are part of a longer list, `first` says from which place in it on.

    Args:
        model: what `gpt3.load` returns.
        prompts: texts to continue, "" begins a new document; or lists of ids.
        options: how tokens are chosen and when a text ends.
        slots: sequences at a time; None: PARALLEL or as many as there are.
        draft: proposes tokens ahead (speculative decoding).
        first: place of the first of `prompts` in the whole list, added to their numbers.
        decoder: one that serves several requests, so that prompts which begin like an earlier text read the rest only; it
            brings its own slots, capacity and draft.

    Attributes:
        prompt_tokens: how many tokens of each prompt the model sees.
        dropped: how many of each prompt's oldest tokens it does not see, because the prompt is longer than the context.
        seed: of the draws.

    Raises:
        InputError: a prompt is no text, or options that the model cannot follow.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompts: Sequence[str | Sequence[int]],
        options: SamplingOptions,
        slots: int | None = None,
        draft: Draft | None = None,
        first: int = 0,
        decoder: Decoder | None = None,
    ) -> None:
        self.options, self._first = options, first
        self.prompts = [prompt if isinstance(prompt, str) else model.text_of(prompt) for prompt in prompts]
        self.seed = secrets.randbits(31) if options.seed is None else options.seed
        encoded = [model.encode_prompt(x) if isinstance(x, str) else model.check_ids(x) for x in prompts]
        context, count = model.engine.context, options.num_samples
        self.dropped = [max(0, len(ids) - context) for ids in encoded]
        seen = [ids[-context:] for ids in encoded]
        self.prompt_tokens = [len(ids) for ids in seen]
        self._sequences = [
            RunningSequence(model, ids, options, seed=self.seed, number=(first + number) * count + index)
            for number, ids in enumerate(seen)
            for index in range(count)
        ]
        slots = max(1, min(slots or PARALLEL, len(self._sequences)))
        capacity = min(context, max(self.prompt_tokens, default=1) + options.max_new_tokens)
        self._decoder = decoder or Decoder(model.engine, slots, capacity, draft=draft)
        for sequence in self._sequences:
            self._decoder.join(sequence)
        self._began = time.perf_counter()

    def __iter__(self) -> Iterator[tuple[int, str]]:
        self._began = time.perf_counter()
        while self._decoder.rows or self._decoder.waiting:
            for row, tokens in self._decoder.step():
                number = row.number - self._first * self.options.num_samples
                piece = self._sequences[number].take(tokens)
                if self.finished(number):
                    self._decoder.leave(row)
                if piece:
                    yield number, piece

    def complete(self) -> list[Generation]:
        """Generate all samples to their ends."""
        for _ in self:
            pass
        return self.results()

    def close(self) -> None:
        """Stop: what is not complete stays as it is, and a decoder of several requests has its slots back."""
        for sequence in self._sequences:
            if sequence in self._decoder.rows or sequence in self._decoder.waiting:
                self._decoder.leave(sequence)

    def finished(self, number: int) -> bool:
        """Whether a sample is complete."""
        return self._sequences[number].finish_reason is not None

    def result(self, number: int) -> Generation:
        """A sample as far as it is; "interrupted" is the finish reason of one that is not complete."""
        sequence = self._sequences[number]
        prompt, index = divmod(number, self.options.num_samples)
        return Generation(
            index=index,
            prompt_index=self._first + prompt,
            prompt=self.prompts[prompt],
            text=sequence.text,
            tokens=list(sequence.text_ids),
            finish_reason=sequence.finish_reason or "interrupted",
            prompt_tokens=self.prompt_tokens[prompt],
            dropped_prompt_tokens=self.dropped[prompt],
            restarts=sequence.restarts,
            seed=self.seed,
            seconds=max(0.0, sequence.last_at - self._began),
            first_token_seconds=max(0.0, sequence.first_at - self._began),
            logprobs=None if self.options.logprobs is None else list(sequence.details),
        )

    def results(self) -> list[Generation]:
        """Every sample, as `result` gives it."""
        return [self.result(number) for number in range(len(self._sequences))]

    def accepted(self) -> tuple[int, int]:
        """Tokens that a draft proposed so far, and those of them that were right."""
        rows = self._sequences
        return sum(row.drafted for row in rows), sum(row.accepted for row in rows)
