"""/v1/chat/completions: a conversation through the model's own template, and its answer in OpenAI's shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpt3.errors import InputError
from gpt3.inference.sampling import Token
from gpt3.serving import schema
from gpt3.serving.errors import bad
from gpt3.serving.text_request import Served, TextRequest
from gpt3.serving.texts import Piece, Text
from gpt3.tokenizer.chat_template import Message


class Chat(TextRequest):
    """One request to /v1/chat/completions.

    Raises:
        ApiError: 400, a request that cannot be carried out, or a model without a chat template.
    """

    prefix, chunk_object = "chatcmpl", "chat.completion.chunk"

    def __init__(self, served: Served, body: schema.ChatBody) -> None:
        if served.template is None:
            raise bad(
                f"the model {served.name} has no chat template, it only continues text. Use /v1/completions.",
                "model",
                "no_chat_template",
            )
        super().__init__(served, body)
        if body.top_logprobs is not None and not body.logprobs:
            raise bad("top_logprobs is given without logprobs. Set logprobs to true.", "top_logprobs")
        if None not in (body.max_tokens, body.max_completion_tokens):
            raise bad("max_tokens and max_completion_tokens are both given. Use one.", "max_tokens")
        try:
            ids = served.template.prompt([message(sent) for sent in body.messages])
        except InputError as error:  # a template that fails on these messages, or a message that is no text
            raise bad(str(error), "messages") from None
        limit = body.max_tokens or body.max_completion_tokens
        served.check_length(len(ids), limit or 1, "messages")
        limit = limit or served.context - len(ids)
        n = body.n or 1
        served.check_samples(n, "n")
        options = body.sampling_options((body.top_logprobs or 0) if body.logprobs else None, limit)
        self.prompt_tokens = len(ids)
        self.texts = [
            Text(served.model, served.spelling, ids, options, seed=self.seed, number=number, limit=limit)
            for number in range(n)
        ]

    def answer(self) -> dict[str, Any]:
        """As TextRequest's."""
        choices = [
            {
                "index": text.number,
                "message": {"role": "assistant", "content": text.text, "refusal": None},
                "logprobs": self._logprobs(text.given),
                "finish_reason": text.finish_reason,
            }
            for text in self.texts
        ]
        return self.response("chat.completion", choices, usage=self.usage())

    def opening(self) -> list[dict[str, Any]]:
        """Chunks that say who speaks."""
        return [self._chunk(number, {"role": "assistant", "content": ""}) for number in range(len(self.texts))]

    def chunks(self, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        """Chunks of the stream; the reason a text ended comes in one of its own."""
        result = []
        for piece in pieces:
            if piece.text or piece.tokens:
                result.append(self._chunk(piece.number, {"content": piece.text}, self._logprobs(piece.tokens)))
            if piece.finish_reason is not None:
                result.append(self._chunk(piece.number, {}, reason=piece.finish_reason))
        return result

    def _chunk(
        self, index: int, delta: dict[str, Any], logprobs: Any = None, reason: str | None = None
    ) -> dict[str, Any]:
        return self.chunk({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason})

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not self.body.logprobs:
            return None
        content = [
            {
                **self._entry(token.id, token.logprob or 0.0),
                "top_logprobs": [self._entry(id_, logprob) for id_, logprob in token.top],
            }
            for token in tokens
            if token.id not in self.served.model.ends
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        spelling = self.served.spelling
        return {"token": spelling[token], "logprob": logprob, "bytes": list(spelling.bytes_of(token))}


def message(sent: schema.Message) -> Message:
    """A message of a request, its text parts joined.

    Raises:
        ApiError: 400, a part that is no text.
    """
    parts = [{"type": "text", "text": sent.content}] if isinstance(sent.content, str) else sent.content
    for part in parts:
        if part.get("type") != "text" or set(part) != {"type", "text"}:
            raise bad('a message has a part that is no text; give {"type": "text", "text": …}', "messages")
    return Message("system" if sent.role == "developer" else sent.role, "".join(part["text"] for part in parts))
