"""One text of a request while it is written: its row in the decoder, its pieces, its tokens with their places."""

from __future__ import annotations

import codecs
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpt3.inference.options import SamplingOptions
from gpt3.inference.sampling import Token
from gpt3.inference.sequence import RunningSequence
from gpt3.inference.text_model import TextModel


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

    def __init__(self, model: TextModel) -> None:
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


class Text(RunningSequence):
    """A completion of one prompt.

    Args:
        spelling: of the model's ids.
        echo: the prompt as text, shown before the completion; None: not shown.
        base: characters of the prompt, which offsets count.
        model, prompt, options, more: see RunningSequence; `number` is also that of the text in its request.

    Attributes:
        given: the tokens of `text`, with log-probabilities where they were asked for.
    """

    def __init__(
        self,
        model: TextModel,
        spelling: Spelling,
        prompt: list[int],
        options: SamplingOptions,
        *,
        echo: str | None = None,
        base: int = 0,
        **more: Any,
    ) -> None:
        super().__init__(model, prompt, options, **more)
        self.spelling, self.echo, self.base = spelling, echo, base
        self.given: list[Token] = []
        self._begun = False
        self._passed_on = 0  # of `details`

    @property
    def needs_engine(self) -> bool:
        """Whether there is anything to compute."""
        return self.limit > 0 or self.score is not None

    @property
    def text(self) -> str:
        """All that may be shown so far."""
        return (self.echo or "") + super().text

    def take_piece(self, tokens: Sequence[Token]) -> Piece:
        """Take the next tokens."""
        given = [] if self._begun or self.score is None else self._prompt_tokens()
        shown = "" if self._begun else self.echo or ""
        self._begun = True
        shown += self.take(tokens)
        end = len(super().text)
        while self._passed_on < len(self.details) and self.details[self._passed_on].offset < end:
            given.append(self._placed(self.details[self._passed_on]))
            self._passed_on += 1
        if self.ending is not None and not self.stopped:
            given.append(self._placed(self.ending))
        self.given += given
        return Piece(self.number, shown, given, self.finish_reason)

    def _placed(self, token: Token) -> Token:
        """With its place in prompt and completion."""
        return dataclasses.replace(token, offset=self.base + token.offset)

    def _prompt_tokens(self) -> list[Token]:
        offsets = self.spelling.offsets(self.prompt)
        found = [Token(self.prompt[0])]
        for scores in self.row.scores:
            for logprob, ids, values in zip(
                scores.logprobs.tolist(), scores.top_ids.tolist(), scores.top_logprobs.tolist(), strict=True
            ):
                place = len(found)
                top = list(zip(ids, values, strict=True))
                found.append(Token(self.prompt[place], logprob, top, offset=offsets[place]))
        self.row.scores.clear()
        return found
