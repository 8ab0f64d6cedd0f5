"""A served model, how it spells tokens, and the texts it generates for a request."""

from __future__ import annotations

import codecs
import dataclasses
import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpt3.errors import InputError
from gpt3.inference.generation import RunningSequence
from gpt3.inference.language_model import LanguageModel
from gpt3.inference.options import SamplingOptions
from gpt3.inference.sampling import Token
from gpt3.serving.schema import bad
from gpt3.tokenizer.chat_template import ChatTemplate, has_template


class Spelling:
    """Token ids as text: special tokens by their names, parts of characters as OpenAI writes them."""

    def __init__(self, model: LanguageModel) -> None:
        self._bytes = model.token_bytes
        self._special = {number: token.content for number, token in model.tokenizer.added_tokens_decoder.items()}

    def bytes_of(self, token: int) -> bytes:
        """The token's bytes; for a special token, those of its name."""
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
        """Complete characters before each of these ids, which begin a text; at least one id."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        lengths = [len(decoder.decode(self.bytes_of(token))) for token in ids[:-1]]
        return list(itertools.accumulate(lengths, initial=0))


class ServedModel:
    """A model with its id in the API.

    Args:
        model: the model.
        name: its id.
        max_samples: texts that one request may ask for.
    """

    def __init__(self, model: LanguageModel, name: str, max_samples: int) -> None:
        self.model, self.name, self.max_samples = model, name, max_samples
        self.spelling = Spelling(model)
        self.template = ChatTemplate(model.tokenizer) if has_template(model.tokenizer) else None
        self.context = model.engine.context
        self.created = int(time.time())
        self._tokenizer_lock = threading.Lock()  # the tokenizer is not thread-safe

    @property
    def card(self) -> dict[str, Any]:
        """The model as /v1/models describes it."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "gpt3",
            "context_length": self.context,
            "vocabulary": self.model.vocabulary,
            "chat": self.template is not None,
        }

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """Ids of a prompt.

        Raises:
            ApiError: 400, invalid text, or ids outside the vocabulary.
        """
        try:
            if not isinstance(prompt, str):
                return self.model.check_ids(prompt)
            with self._tokenizer_lock:
                return self.model.encode_prompt(prompt)
        except InputError as error:
            raise bad(str(error), "prompt") from None

    def check_length(self, prompt: int, completion: int, param: str) -> None:
        """Prompt and completion must fit the context.

        Raises:
            ApiError: 400.
        """
        if prompt + completion > self.context:
            raise bad(
                f"This model's maximum context length is {self.context} tokens, however you requested "
                f"{prompt + completion} tokens ({prompt} in your prompt; {completion} for the completion). "
                "Please reduce your prompt; or completion length.",
                param,
                "context_length_exceeded",
            )

    def check_samples(self, samples: int, what: str) -> None:
        """The number of texts in a request is limited.

        Raises:
            ApiError: 400.
        """
        if samples > self.max_samples:
            raise bad(
                f"the request asks for {samples} texts ({what}), more than the {self.max_samples} this server generates "
                "per request. Send several requests."
            )


@dataclass(frozen=True)
class Delta:
    """What a choice grew by."""

    number: int
    """Of the choice in its request."""
    text: str
    tokens: list[Token]
    """New tokens that begin in the text shown so far; empty unless log-probabilities are requested."""
    finish_reason: str | None
    """"stop" or "length" in the last delta."""


class Choice(RunningSequence):
    """A completion of one prompt.

    Args:
        served: the model.
        echo: the prompt as text, shown before the completion; None: not shown.
        base: characters of the prompt, which offsets count.
        prompt, options, more: see RunningSequence; `number` is also that of the choice in its request.

    Attributes:
        given: the tokens of `text`, with log-probabilities where they are requested.
    """

    def __init__(
        self,
        served: ServedModel,
        prompt: list[int],
        options: SamplingOptions,
        *,
        echo: str | None = None,
        base: int = 0,
        **more: Any,
    ) -> None:
        super().__init__(served.model, prompt, options, **more)
        self.spelling, self.echo, self.base = served.spelling, echo, base
        self.given: list[Token] = []
        self._begun = False
        self._listed = 0  # of `details`

    @property
    def needs_engine(self) -> bool:
        """Whether there is anything to compute."""
        return self.limit > 0 or self.score is not None

    @property
    def text(self) -> str:
        """All that may be shown so far."""
        return (self.echo or "") + super().text

    def advance(self, tokens: Sequence[Token]) -> Delta:
        """Take the next tokens."""
        given = [] if self._begun or self.score is None else self._prompt_tokens()
        shown = "" if self._begun else self.echo or ""
        self._begun = True
        shown += self.take(tokens)
        end = len(super().text)
        listed = [token for token in self.details[self._listed :] if token.offset < end]
        self._listed += len(listed)
        if self.ending is not None and not self.stopped:
            listed.append(self.ending)
        given += [dataclasses.replace(token, offset=self.base + token.offset) for token in listed]
        self.given += given
        return Delta(self.number, shown, given, self.finish_reason)

    def _prompt_tokens(self) -> list[Token]:
        offsets = self.spelling.offsets(self.prompt)
        found = [Token(self.prompt[0])]
        for scores in self.scores:
            rows = (scores.logprobs.tolist(), scores.top_ids.tolist(), scores.top_logprobs.tolist())
            for logprob, ids, values in zip(*rows, strict=True):
                place, top = len(found), list(zip(ids, values, strict=True))
                found.append(Token(self.prompt[place], logprob, top, offset=offsets[place]))
        self.scores.clear()
        return found
