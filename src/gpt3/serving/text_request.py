"""What a request for text needs of a served model, and what both kinds of request have in common."""

from __future__ import annotations

import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from gpt3.errors import InputError
from gpt3.inference.text_model import TextModel
from gpt3.serving.errors import bad
from gpt3.serving.schema import Body
from gpt3.serving.texts import Piece, Spelling, Text
from gpt3.tokenizer.chat_template import ChatTemplate, has_template


class Served:
    """A model that is served.

    Args:
        model: to serve.
        name: its id in the API.
        max_samples: texts one request may ask for.
    """

    def __init__(self, model: TextModel, name: str, max_samples: int) -> None:
        self.model, self.name, self.max_samples = model, name, max_samples
        self.spelling = Spelling(model)
        self.template = ChatTemplate(model.tokenizer) if has_template(model.tokenizer) else None
        self.created = int(time.time())
        self._tokenizing = threading.Lock()  # the tokenizer is not made for several threads

    @property
    def context(self) -> int:
        """Tokens of prompt and completion together."""
        return self.model.engine.context

    def encode(self, prompt: str | Sequence[int], param: str) -> list[int]:
        """Ids of a prompt.

        Raises:
            ApiError: 400, no text, or ids that the model does not have.
        """
        try:
            if not isinstance(prompt, str):
                return self.model.check_ids(prompt)
            with self._tokenizing:
                return self.model.encode_prompt(prompt)
        except InputError as error:
            raise bad(str(error), param) from None

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
        """The number of texts in a request is bounded.

        Raises:
            ApiError: 400.
        """
        if samples > self.max_samples:
            raise bad(
                f"the request asks for {samples} texts ({what}), more than the {self.max_samples} this server generates "
                "per request. Send several requests."
            )


class TextRequest(ABC):
    """A request for one or more texts.

    Args:
        served: the model.
        body: the request.

    Attributes:
        texts: what is to be generated.
        prompt_tokens: of all prompts.

    Raises:
        ApiError: 400, a request that cannot be carried out.
    """

    prefix: str
    """Of its id."""
    chunk_object: str
    """What a chunk of its stream is called."""

    def __init__(self, served: Served, body: Body) -> None:
        self.served, self.body = served, body
        body.check_shared(served.model.vocabulary)
        self.seed: int = secrets.randbits(31) if body.seed is None else body.seed % 2**63
        self.texts: list[Text] = []
        self.prompt_tokens = 0
        self.id = f"{self.prefix}-{secrets.token_urlsafe(18)}"
        self.created = int(time.time())

    @abstractmethod
    def answer(self) -> dict[str, Any]:
        """The whole response, once all texts are complete."""

    @abstractmethod
    def chunks(self, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        """Chunks of the stream."""

    def opening(self) -> list[dict[str, Any]]:
        """Chunks before the first piece."""
        return []

    def closing(self) -> list[dict[str, Any]]:
        """Chunks after the last piece."""
        return [self.response(self.chunk_object, [], usage=self.usage())] if self.body.include_usage else []

    def chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        """A chunk of the stream."""
        return self.response(self.chunk_object, [choice], **({"usage": None} if self.body.include_usage else {}))

    def response(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """An object of OpenAI's API."""
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.served.name}
        return {**head, "choices": choices, **more}

    def usage(self) -> dict[str, int]:
        """Tokens read and generated, all candidates of best_of included."""
        count = sum(len(text.tokens) for text in self.texts)
        total = self.prompt_tokens + count
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": count, "total_tokens": total}
