"""One text of a request while it is written: its row in the decoder, its pieces, its tokens with their places."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt3.inference.decoding import Row
from gpt3.inference.options import SamplingOptions
from gpt3.inference.sampler import Choice, Sampler
from gpt3.inference.sampling import NOTHING_LEFT
from gpt3.inference.streaming import TextStream

if TYPE_CHECKING:
    from gpt3.inference.language_model import LanguageModel


@dataclass(frozen=True)
class Token:
    """A token, its place in the text, and its place in the model's own distribution."""

    id: int
    offset: int
    """Characters before it, from the start of prompt and completion."""
    logprob: float | None
    """None for the first token of a text: nothing precedes it."""
    top: list[tuple[int, float]] | None
    """The likeliest ids and their log-probabilities, likeliest first."""


@dataclass(frozen=True)
class Piece:
    """What a text grew by."""

    number: int
    """Of the text in its request."""
    text: str
    tokens: list[Token]
    """Those that begin in the text shown so far and were not given yet; empty unless log-probabilities were asked for."""
    finish_reason: str | None
    """"stop" or "length" in the last piece."""


class Spelling:
    """What ids look like as text: special tokens by their names, parts of characters as OpenAI writes them."""

    def __init__(self, model: LanguageModel) -> None:
        self._bytes = model.token_bytes
        self._special = {number: token.content for number, token in model.tokenizer.added_tokens_decoder.items()}

    def bytes_of(self, token: int) -> bytes:
        """The bytes it stands for; of a special token its name's."""
        return self._special[token].encode() if token in self._special else self._bytes[token]

    def __getitem__(self, token: int) -> str:
        spelled = self.bytes_of(token)
        try:
            return spelled.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)

    def text(self, ids: Sequence[int]) -> str:
        """Ids as text."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", "replace")

    def offsets(self, ids: Sequence[int]) -> list[int]:
        """Characters that are complete before each of these ids, which begin a text."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        result, before = [], 0
        for token in ids:
            result.append(before)
            before += len(decoder.decode(self.bytes_of(token)))
        return result


class Text:
    """A completion of one prompt.

    Args:
        model: that writes it.
        spelling: of the model's ids.
        ids: the prompt.
        options: how tokens are chosen; `options.max_new_tokens` is not looked at.
        seed, number: of the draws; `number` is also that of the text in its request.
        max_tokens: to write at most, from 0.
        echo: the prompt as text, shown before the completion; None: not shown.
        base: characters of the prompt, which offsets count.
        score_prompt: whether an echoed prompt has log-probabilities, too.

    Attributes:
        tokens: written so far, end-of-text left out.
        finish_reason: None while it is written.
        row: in the decoder, once it has begun.
    """

    def __init__(
        self,
        model: LanguageModel,
        spelling: Spelling,
        ids: list[int],
        options: SamplingOptions,
        *,
        seed: int,
        number: int,
        max_tokens: int,
        echo: str | None = None,
        base: int = 0,
        score_prompt: bool = False,
    ) -> None:
        self.model, self.spelling, self.ids, self.options = model, spelling, ids, options
        self.seed, self.number, self.max_tokens, self.base = seed, number, max_tokens, base
        self.echo, self.score_prompt = echo, score_prompt
        self.tokens: list[int] = []
        self.finish_reason: str | None = None
        self.row: Row | None = None
        self._stream = TextStream(model.token_bytes, options.stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._characters = 0  # of whole characters written, stop strings included
        self._infos: list[Token] = []  # with log-probabilities, those not given yet
        self._given: list[Token] = []
        self._ending: Token | None = None  # end-of-text: nothing is shown of it
        self._begun = False
        self._logprob, self._chosen = 0.0, 0

    @property
    def needs_engine(self) -> bool:
        """Whether there is anything to compute."""
        return self.max_tokens > 0 or self.score_prompt

    @property
    def text(self) -> str:
        """All that may be shown so far."""
        return (self.echo or "") + self._stream.text

    @property
    def infos(self) -> list[Token]:
        """Tokens of `text`, with log-probabilities where they were asked for."""
        return self._given

    @property
    def mean_logprob(self) -> float:
        """Log-probability per token, of end-of-text, too: what best_of compares."""
        return self._logprob / self._chosen if self._chosen else 0.0

    def begin(self) -> Row:
        """The row that writes it."""
        sampler = Sampler(
            self.options,
            self.ids,
            seed=self.seed,
            row=self.number,
            ends=self.model.ends,
            vocabulary=self.model.vocabulary,
        )
        self.row = Row(self.ids, sampler, score=self.options.logprobs if self.score_prompt else None)
        return self.row

    def take(self, choices: Sequence[Choice]) -> Piece:
        """Take the next tokens."""
        shown = []
        if not self._begun:
            self._begun = True
            shown.append(self.echo or "")
            if self.score_prompt:
                self._take_prompt()
        if len(self.tokens) == self.max_tokens:
            self.finish_reason = "length"
        for choice in choices if self.finish_reason is None else ():
            if choice.token != NOTHING_LEFT and choice.logprob is not None:
                self._logprob, self._chosen = self._logprob + choice.logprob, self._chosen + 1
            if choice.token == NOTHING_LEFT or choice.token in self.model.ends:
                self.finish_reason = "stop"
                if choice.token != NOTHING_LEFT and self.options.logprobs is not None:
                    self._ending = Token(choice.token, self.base + self._characters, choice.logprob, list(choice.top))
                break
            self.tokens.append(choice.token)
            if self.options.logprobs is not None:
                top = list(choice.top)
                self._infos.append(Token(choice.token, self.base + self._characters, choice.logprob, top))
            self._characters += len(self._decoder.decode(self.model.token_bytes[choice.token]))
            shown.append(self._stream.push(choice.token))
            if self._stream.stopped:
                self.finish_reason = "stop"
            elif len(self.tokens) == self.max_tokens:
                self.finish_reason = "length"
            if self.finish_reason is not None:
                break
        if self.finish_reason is not None:
            shown.append(self._stream.finish())
            if self._stream.stopped:  # the last, incomplete character completed a stop string
                self.finish_reason = "stop"
        return Piece(self.number, "".join(shown), self._give(), self.finish_reason)

    def _take_prompt(self) -> None:
        assert self.row is not None
        offsets = self.spelling.offsets(self.ids)
        self._infos.append(Token(self.ids[0], 0, None, None))
        place = 1
        for scores in self.row.scores:
            for logprob, ids, values in zip(
                scores.logprobs.tolist(), scores.top_ids.tolist(), scores.top_logprobs.tolist(), strict=True
            ):
                top = list(zip(ids, values, strict=True))
                self._infos.append(Token(self.ids[place], offsets[place], logprob, top))
                place += 1
        self.row.scores.clear()

    def _give(self) -> list[Token]:
        """Those that begin in what is shown."""
        end = self.base + len(self._stream.text)
        count = 0
        while count < len(self._infos) and self._infos[count].offset < end:
            count += 1
        given, self._infos = self._infos[:count], self._infos[count:]
        if self._ending is not None and not self._stream.stopped:
            given.append(self._ending)
        self._given += given
        return given
