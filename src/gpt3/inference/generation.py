"""A prompt continued by a model: at once (`generate`), piece by piece (`stream`), or several samples live (`Job`)."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt3.errors import InputError
from gpt3.inference.decoding import Decoder, context_of
from gpt3.inference.options import SamplingOptions
from gpt3.inference.sampling import NOTHING_LEFT
from gpt3.inference.streaming import TextStream, TokenBytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Generation:
    """One continuation of a prompt."""

    index: int
    """Number of the sample, from 0."""

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
    """From the start, reading the prompt included, to the sample's last token; samples are written side by side."""

    @property
    def token_count(self) -> int:
        """Tokens written."""
        return len(self.tokens)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of this sample over its seconds."""
        return self.token_count / self.seconds if self.seconds > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON, the two computed values included."""
        return {
            **dataclasses.asdict(self),
            "seconds": round(self.seconds, 4),
            "token_count": self.token_count,
            "tokens_per_second": round(self.tokens_per_second, 2),
        }


class _Sample:
    """A continuation while it is written."""

    def __init__(self, token_bytes: TokenBytes, stop: list[str]) -> None:
        self.tokens: list[int] = []
        self.stream = TextStream(token_bytes, stop)
        self.finish_reason: str | None = None
        self.seconds = 0.0
        self.restarts = 0


class Job:
    """One prompt being continued by `options.num_samples` samples side by side.

    Iterate over it once for (sample index, piece of text) as they are made; `results` may be asked at any time.

    Args:
        model: a causal language model of transformers, of any float type and on any device.
        tokenizer: its byte-level BPE.
        prompt: the text to continue; "" begins a new document, from end-of-text.
        options: how tokens are chosen and when the text ends.

    Attributes:
        prompt_tokens: how many tokens of the prompt the model sees.
        dropped: how many of the oldest tokens it does not see, because the prompt is longer than the context.
        seed: of the draws.

    Raises:
        InputError: the prompt is no text, or the tokenizer does not belong to the model.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompt: str, options: SamplingOptions
    ) -> None:
        token_bytes = TokenBytes(tokenizer)
        vocabulary = vocabulary_of(model)
        ids = encode_prompt(tokenizer, prompt)
        if max(ids) >= vocabulary or tokenizer.vocab_size > vocabulary:
            raise InputError(
                f"the tokenizer has {len(tokenizer):,} ids, the model {vocabulary:,}; use the model's own tokenizer"
            )
        self.prompt, self.options = prompt, options
        self.dropped = max(0, len(ids) - context_of(model))
        ids = ids[self.dropped :]
        self.prompt_tokens = len(ids)
        self.seed = secrets.randbits(31) if options.seed is None else options.seed
        self._ends = end_tokens(model, tokenizer)
        self._decoder = Decoder(model, ids, options, self.seed, min(vocabulary, token_bytes.size))
        self._samples = [_Sample(token_bytes, options.stop) for _ in range(options.num_samples)]
        self._began = time.perf_counter()

    def __iter__(self) -> Iterator[tuple[int, str]]:
        self._began = time.perf_counter()
        while rows := self._decoder.rows:
            tokens = self._decoder.step()
            going_on = []
            for place, (row, token) in enumerate(zip(rows, tokens, strict=True)):
                piece = self._take(self._samples[row], token)
                if self._samples[row].finish_reason is None:
                    going_on.append(place)
                if piece:
                    yield row, piece
            self._decoder.keep(going_on)

    def _take(self, sample: _Sample, token: int) -> str:
        """Give a sample its next token; return the text that can be shown."""
        piece = ""
        if token == NOTHING_LEFT or token in self._ends:
            sample.finish_reason = "stop"
        else:
            sample.tokens.append(token)
            piece = sample.stream.push(token)
            if sample.stream.stopped:
                sample.finish_reason = "stop"
            elif len(sample.tokens) == self.options.max_new_tokens:
                sample.finish_reason = "length"
        if sample.finish_reason is not None:
            piece += sample.stream.finish()
            if sample.stream.stopped:  # the last, incomplete character became U+FFFD and completed a stop string
                sample.finish_reason = "stop"
        sample.seconds = time.perf_counter() - self._began
        sample.restarts = self._decoder.restarts
        return piece

    def finished(self, index: int) -> bool:
        """Whether a sample is complete."""
        return self._samples[index].finish_reason is not None

    def results(self) -> list[Generation]:
        """Every sample as far as it is written; "interrupted" is the finish reason of one that is not complete."""
        return [
            Generation(
                index=index,
                prompt=self.prompt,
                text=sample.stream.text,
                tokens=list(sample.tokens),
                finish_reason=sample.finish_reason or "interrupted",
                prompt_tokens=self.prompt_tokens,
                dropped_prompt_tokens=self.dropped,
                restarts=sample.restarts,
                seed=self.seed,
                seconds=sample.seconds,
            )
            for index, sample in enumerate(self._samples)
        ]


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompt: str = "",
    options: SamplingOptions | None = None,
    **changes: Any,
) -> list[Generation]:
    """Continue a prompt; one `Generation` a sample.

    Args:
        model, tokenizer: what `gpt3.load` returns.
        prompt: the text to continue; "" begins a new document.
        options: a SamplingOptions; by default the model's own distribution and at most 200 tokens.
        changes: fields of SamplingOptions by name, over `options`: max_new_tokens, temperature, top_k, top_p, min_p,
            repetition_penalty, no_repeat_ngram, stop, seed, num_samples.

    Raises:
        InputError: options out of their ranges (all named at once), or a tokenizer that is not the model's.

    Example:
        >>> model, tokenizer = gpt3.load("runs/demo")
        >>> generate(model, tokenizer, "The sea", temperature=0.8, seed=1)[0].text
    """
    job = Job(model, tokenizer, prompt, _with(options, changes))
    for _ in job:
        pass
    return job.results()


def stream(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompt: str = "",
    options: SamplingOptions | None = None,
    **changes: Any,
) -> Iterator[str]:
    """Continue a prompt and yield the text as it is made, in pieces of whole characters; joined, they are `generate`'s.

    Takes what `generate` takes, but a single sample.

    Raises:
        InputError: as `generate`; at the call, not at the first piece.
    """
    options = _with(options, changes)
    if options.num_samples != 1:
        raise InputError(f"num_samples is {options.num_samples}; a stream is one text: give 1, or use generate or Job")
    job = Job(model, tokenizer, prompt, options)
    return (piece for _, piece in job)


def _with(options: SamplingOptions | None, changes: dict[str, Any]) -> SamplingOptions:
    return dataclasses.replace(options if options is not None else SamplingOptions(), **changes)


def encode_prompt(tokenizer: PreTrainedTokenizerFast, prompt: str) -> list[int]:
    """Token ids of a prompt, end-of-text for an empty one: where documents begin.

    Raises:
        InputError: the prompt holds half a surrogate pair, which is no character.
    """
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"the prompt is no text at character {error.start} ({error.reason}); give it in UTF-8"
        ) from None
    ids: list[int] = tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"] if prompt else []
    if ids:
        return ids
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise InputError("the prompt is empty and the tokenizer has no end-of-text to begin from; give a --prompt")
    return [start]


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> set[int]:
    """The ids that end a text: generation_config.json's, and the tokenizer's end-of-text."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ends = set(configured) if isinstance(configured, (list, tuple)) else {configured}
    return {int(token) for token in (*ends, tokenizer.eos_token_id) if token is not None}


def vocabulary_of(model: PreTrainedModel) -> int:
    """Ids the model really has; rows of its embedding beyond them are padding."""
    real: int | None = getattr(model.config, "real_vocab_size", None)
    size: int = model.config.vocab_size
    return size if real is None else min(real, size)
