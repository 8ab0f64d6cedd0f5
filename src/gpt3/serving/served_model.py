"""A served model: its id and card, how it spells tokens, and what a request to it may ask for."""

from __future__ import annotations

import codecs
import itertools
import re
import threading
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from gpt3.errors import InputError
from gpt3.inference.language_model import LanguageModel
from gpt3.inference.options import SamplingOptions
from gpt3.serving.schema import bad
from gpt3.tokenizer.chat_template import ChatTemplate, has_template


class ServedModel:
    """A model with its id in the API.

    Args:
        model: the model.
        name: its id.
        max_samples: texts that one request may ask for.
    """

    def __init__(self, model: LanguageModel, name: str, max_samples: int) -> None:
        self.model, self.name, self.max_samples = model, name, max_samples
        self.template = ChatTemplate(model.tokenizer) if has_template(model.tokenizer) else None
        self.context = model.engine.context
        self.created = int(time.time())
        self._special = {number: token.content for number, token in model.tokenizer.added_tokens_decoder.items()}
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

    @property
    def tokenizing(self) -> bool:
        """Whether a thread has the tokenizer, and another one would wait for it."""
        return self._tokenizer_lock.locked()

    def bytes_of(self, token: int) -> bytes:
        """The token's bytes; for a special token, those of its name."""
        return self._special[token].encode() if token in self._special else self.model.token_bytes[token]

    def spelled(self, token: int) -> str:
        """The token as text; a part of a character as OpenAI writes it."""
        spelled = self.bytes_of(token)
        try:
            return spelled.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)

    def text(self, ids: Sequence[int]) -> str:
        """Ids as text, special tokens by their names."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", "replace")

    def offsets(self, ids: Sequence[int]) -> list[int]:
        """Complete characters before each of these ids, which begin a text; at least one id."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        lengths = [len(decoder.decode(self.bytes_of(token))) for token in ids[:-1]]
        return list(itertools.accumulate(lengths, initial=0))

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

    def check_constraint(self, options: SamplingOptions) -> None:
        """What the options ask a text to follow is compiled, and kept for its choices.

        Raises:
            ApiError: 400, it cannot be followed.
        """
        if options.constraint is not None and find_spec("llguidance") is None:
            raise bad("response_format needs llguidance, which this server does not have.", "response_format")
        try:
            self.model.constraint(options)
        except InputError as error:
            message = re.sub("^--(json-schema|regex|choices)", "response_format", str(error))
            raise bad(message, "response_format") from None

    def check_length(self, prompt: int, completion: int, param: str) -> None:
        """Prompt and completion must fit the context.

        Raises:
            ApiError: 400.
        """
        if prompt + completion > self.context:
            message = (
                f"This model's maximum context length is {self.context} tokens, however you requested "
                f"{prompt + completion} tokens ({prompt} in your prompt; {completion} for the completion). "
                "Please reduce your prompt; or completion length."
            )
            raise bad(message, param, "context_length_exceeded")

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
