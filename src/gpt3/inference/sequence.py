"""A sequence while it is generated: chosen tokens become text until something ends it. `generate` and the server use it alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property

from gpt3.inference.options import SamplingOptions
from gpt3.inference.row import Row, bad_word_ids
from gpt3.inference.sampling import NOTHING_LEFT, Token
from gpt3.inference.streaming import TextStream
from gpt3.inference.text_model import TextModel


class RunningSequence:
    """A continuation of one prompt.

    Args:
        model: that generates it.
        prompt: ids, at most the context.
        options: how tokens are chosen, and what ends it.
        seed, number: of its random numbers.
        limit: tokens at most, from 0. Default: `options.max_new_tokens`.
        score: see Row.

    Attributes:
        tokens: ids so far; EOS is left out, tokens that spelled a stop string are not.
        details: the same with log-probabilities, where `options.logprobs` asks for them.
        ending: EOS with its log-probability, likewise.
        finish_reason: None while it is generated; "stop": EOS, a stop string, or no token left to choose; "length": the limit.
        first_at, last_at: when its first and its latest tokens came, by time.perf_counter; 0: none yet.
    """

    def __init__(
        self,
        model: TextModel,
        prompt: list[int],
        options: SamplingOptions,
        *,
        seed: int,
        number: int,
        limit: int | None = None,
        score: int | None = None,
    ) -> None:
        self.model, self.prompt, self.options, self.seed, self.number = model, prompt, options, seed, number
        self.limit = options.max_new_tokens if limit is None else limit
        self.score = score
        self.tokens: list[int] = []
        self.details: list[Token] = []
        self.ending: Token | None = None
        self.finish_reason: str | None = None
        self.first_at = self.last_at = 0.0
        self._stream = TextStream(model.token_bytes, options.stop)
        self._logprob, self._chosen = 0.0, 0

    @cached_property
    def row(self) -> Row:
        """What the decoder continues.

        Raises:
            InputError: a biased token is outside the vocabulary.
        """
        return Row(
            self.prompt,
            self.options,
            seed=self.seed,
            number=self.number,
            ends=self.model.ends,
            vocabulary=self.model.vocabulary,
            bad_words=bad_word_ids(self.options.bad_words, self.model.encode_word),
            score=self.score,
        )

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
        return self._logprob / self._chosen if self._chosen else 0.0

    def take(self, tokens: Sequence[Token]) -> str:
        """Take the next tokens; return the text that can be shown now."""
        self.last_at = time.perf_counter()
        self.first_at = self.first_at or self.last_at
        shown = []
        if len(self.tokens) == self.limit:
            self.finish_reason = "length"
        for token in tokens:
            if self.finish_reason is not None:
                break
            if token.id != NOTHING_LEFT and token.logprob is not None:
                self._logprob, self._chosen = self._logprob + token.logprob, self._chosen + 1
                token.offset = self._stream.decoded
            if token.id == NOTHING_LEFT or token.id in self.model.ends:
                self.finish_reason = "stop"
                self.ending = token if token.logprob is not None else None
                break
            self.tokens.append(token.id)
            if token.logprob is not None:
                token.text = self.model.token_bytes[token.id].decode("utf-8", "replace")
                self.details.append(token)
            shown.append(self._stream.push(token.id))
            if self.stopped:
                self.finish_reason = "stop"
            elif len(self.tokens) == self.limit:
                self.finish_reason = "length"
        if self.finish_reason is not None:
            shown.append(self._stream.finish())
            if self.stopped:  # the last, incomplete character became U+FFFD and completed a stop string
                self.finish_reason = "stop"
        return "".join(shown)
