"""Prompts continued by a model, piece by piece: a `Job` of one or many prompts, several samples each."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpt3.errors import InputError
from gpt3.inference.decoding import Decoder, Draft, Row
from gpt3.inference.options import SamplingOptions
from gpt3.inference.sampler import Choice, Sampler, bad_word_ids
from gpt3.inference.sampling import NOTHING_LEFT
from gpt3.inference.streaming import TextStream

if TYPE_CHECKING:
    from gpt3.inference.language_model import LanguageModel

SIDE_BY_SIDE = 8
"""Texts that are written at a time unless another number is asked for: each has a cache."""


@dataclass(frozen=True)
class Token:
    """A token that was written, with its place in the model's own distribution: no penalties, no temperature."""

    id: int
    text: str
    """Its bytes as text; U+FFFD where they are part of a character."""
    logprob: float
    """Natural logarithm of its probability."""
    top: list[tuple[int, float]]
    """The likeliest ids and their log-probabilities, likeliest first, as many as were asked for."""


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
    """The continuation, without the prompt, up to end-of-text or a stop string (neither is in it)."""

    tokens: list[int]
    """The ids that were chosen, end-of-text left out; those that spelled a stop string are in it."""

    finish_reason: str
    """"stop": end-of-text, a stop string, or no token left to choose; "length": max_new_tokens; "interrupted"."""

    prompt_tokens: int
    """Tokens of the prompt that the model saw (end-of-text where the prompt is empty)."""

    dropped_prompt_tokens: int
    """The oldest tokens of a prompt longer than the context, which the model did not see."""

    restarts: int
    """How often the context was full, and writing went on from its last half."""

    seed: int
    """The seed that gives this text again."""

    seconds: float
    """From the start of the job to the sample's last token; samples are written side by side."""

    first_token_seconds: float
    """From the start of the job to the sample's first token."""

    logprobs: list[Token] | None = None
    """Of each of `tokens`, where they were asked for."""

    @property
    def token_count(self) -> int:
        """Tokens written."""
        return len(self.tokens)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of this sample over its seconds."""
        return self.token_count / self.seconds if self.seconds > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON, the two computed values included; `logprobs` only where they were asked for."""
        values = dataclasses.asdict(self)
        if self.logprobs is None:
            del values["logprobs"]
        return {
            **values,
            "seconds": round(self.seconds, 4),
            "first_token_seconds": round(self.first_token_seconds, 4),
            "token_count": self.token_count,
            "tokens_per_second": round(self.tokens_per_second, 2),
        }


@dataclass
class _Sample:
    """A continuation while it is written."""

    prompt_index: int
    index: int
    row: Row
    stream: TextStream
    tokens: list[int] = field(default_factory=list)
    logprobs: list[Token] = field(default_factory=list)
    finish_reason: str | None = None
    first: float = 0.0
    seconds: float = 0.0


class Job:
    """Prompts being continued, side by side.

    Iterate over it once for (number of the sample, piece of text) as they are made; `results` may be asked at any time. Sample s
    of prompt p has the number p x num_samples + s. What it becomes depends on the seed and that number only; where the prompts
    are part of a longer list, `first` says from which place in it on.

    Args:
        model: what `gpt3.load` returns.
        prompts: texts to continue, "" begins a new document; or lists of ids.
        options: how tokens are chosen and when a text ends.
        slots: texts written at a time; None: SIDE_BY_SIDE or as many as there are.
        draft: proposes tokens ahead (speculative decoding).
        first: place of the first of `prompts` in the whole list, added to their numbers.
        decoder: one that goes on from job to job, so that prompts which begin like an earlier text read the rest only; it
            brings its own slots, room and draft.

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
        self.model, self.options, self._first = model, options, first
        self.prompts = [prompt if isinstance(prompt, str) else model.text_of(prompt) for prompt in prompts]
        self.seed = secrets.randbits(31) if options.seed is None else options.seed
        bad_words = bad_word_ids(options.bad_words, model.encode_word)
        self._samples: list[_Sample] = []
        self.prompt_tokens: list[int] = []
        self.dropped: list[int] = []
        context, count = model.engine.context, options.num_samples
        for number, prompt in enumerate(prompts):
            ids = model.encode_prompt(prompt) if isinstance(prompt, str) else model.check_ids(prompt)
            self.dropped.append(max(0, len(ids) - context))
            ids = ids[self.dropped[-1] :]
            self.prompt_tokens.append(len(ids))
            for index in range(count):
                sampler = Sampler(
                    options,
                    ids,
                    seed=self.seed,
                    row=(first + number) * count + index,
                    ends=model.ends,
                    vocabulary=model.vocabulary,
                    bad_words_ids=bad_words,
                )
                stream = TextStream(model.token_bytes, options.stop)
                self._samples.append(_Sample(number, index, Row(ids, sampler), stream))
        slots = min(slots or SIDE_BY_SIDE, len(self._samples))
        room = min(context, max(self.prompt_tokens, default=1) + options.max_new_tokens)
        self._decoder = decoder or Decoder(model.engine, max(slots, 1), room, draft=draft)
        self._numbers = {sample.row: number for number, sample in enumerate(self._samples)}
        for sample in self._samples:
            self._decoder.join(sample.row)
        self._began = time.perf_counter()

    def __iter__(self) -> Iterator[tuple[int, str]]:
        self._began = time.perf_counter()
        decoder = self._decoder
        while decoder.rows or decoder.waiting:
            for row, choices in decoder.step():
                number = self._numbers[row]
                piece = self._take(self._samples[number], choices)
                if self._samples[number].finish_reason is not None:
                    decoder.leave(row)
                if piece:
                    yield number, piece

    def _take(self, sample: _Sample, choices: list[Choice]) -> str:
        """Give a sample its next tokens; return the text that can be shown."""
        pieces = []
        sample.seconds = time.perf_counter() - self._began
        if not sample.tokens:
            sample.first = sample.seconds
        for choice in choices:
            if choice.token == NOTHING_LEFT or choice.token in self.model.ends:
                sample.finish_reason = "stop"
                break
            sample.tokens.append(choice.token)
            if self.options.logprobs is not None:
                text = self.model.token_bytes[choice.token].decode("utf-8", "replace")
                sample.logprobs.append(Token(choice.token, text, choice.logprob or 0.0, list(choice.top)))
            pieces.append(sample.stream.push(choice.token))
            if sample.stream.stopped:
                sample.finish_reason = "stop"
            elif len(sample.tokens) == self.options.max_new_tokens:
                sample.finish_reason = "length"
            if sample.finish_reason is not None:
                break
        if sample.finish_reason is not None:
            pieces.append(sample.stream.finish())
            if sample.stream.stopped:  # the last, incomplete character became U+FFFD and completed a stop string
                sample.finish_reason = "stop"
        return "".join(pieces)

    def close(self) -> None:
        """Write no further: what is not complete stays as it is, and a decoder that goes on has its slots back."""
        for sample in self._samples:
            if sample.finish_reason is None and (
                sample.row in self._decoder.rows or sample.row in self._decoder.waiting
            ):
                self._decoder.leave(sample.row)

    def finished(self, number: int) -> bool:
        """Whether a sample is complete."""
        return self._samples[number].finish_reason is not None

    def result(self, number: int) -> Generation:
        """A sample as far as it is written; "interrupted" is the finish reason of one that is not complete."""
        sample = self._samples[number]
        return Generation(
            index=sample.index,
            prompt_index=self._first + sample.prompt_index,
            prompt=self.prompts[sample.prompt_index],
            text=sample.stream.text,
            tokens=list(sample.tokens),
            finish_reason=sample.finish_reason or "interrupted",
            prompt_tokens=self.prompt_tokens[sample.prompt_index],
            dropped_prompt_tokens=self.dropped[sample.prompt_index],
            restarts=sample.row.restarts,
            seed=self.seed,
            seconds=sample.seconds,
            first_token_seconds=sample.first,
            logprobs=None if self.options.logprobs is None else list(sample.logprobs),
        )

    def results(self) -> list[Generation]:
        """Every sample, as `result` gives it."""
        return [self.result(number) for number in range(len(self._samples))]

    def accepted(self) -> tuple[int, int]:
        """Tokens that a draft proposed so far, and those of them that were right."""
        rows = [sample.row for sample in self._samples]
        return sum(row.drafted for row in rows), sum(row.accepted for row in rows)


def check_stream(options: SamplingOptions) -> None:
    """Raise InputError unless one text is asked for."""
    if options.num_samples != 1:
        raise InputError(f"num_samples is {options.num_samples}; a stream is one text: give 1, or use complete")
