"""/v1/chat/completions: a conversation through the model's own template, and its answer in OpenAI's shapes."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from typing import Any

from gpt3.serving.completions import Served, sampling_options, seed_of, usage
from gpt3.serving.errors import bad
from gpt3.serving.schema import ChatBody, Message
from gpt3.serving.texts import Piece, Text, Token
from gpt3.tokenizer.template_rendering import TemplateError, bounded


def has_template(served: Served) -> bool:
    """Whether the model's tokenizer knows how conversations look."""
    return bool(getattr(served.model.tokenizer, "chat_template", None))


class Chat:
    """One request to /v1/chat/completions.

    Attributes:
        texts: what is to be written, n of them.

    Raises:
        ApiError: 400, a request that cannot be carried out, or a model without a chat template.
    """

    def __init__(self, served: Served, body: ChatBody) -> None:
        self.served, self.body = served, body
        if not has_template(served):
            raise bad(
                f"the model {served.name} has no chat template, it only continues text; use /v1/completions",
                "model",
                "no_chat_template",
            )
        body.check_shared(served.model.vocabulary)
        if body.top_logprobs is not None and not body.logprobs:
            raise bad("top_logprobs is given without logprobs; set logprobs to true", "top_logprobs")
        if None not in (body.max_tokens, body.max_completion_tokens):
            raise bad("max_tokens and max_completion_tokens are both given; give one", "max_tokens")
        ids = conversation_ids(served, body.messages)
        limit = body.max_tokens or body.max_completion_tokens
        served.check_length(len(ids), 1 if limit is None else limit, "messages")
        self.n = body.n or 1
        served.check_samples(self.n, "n")
        options = sampling_options(body, (body.top_logprobs or 0) if body.logprobs else None)
        seed = seed_of(body)
        self.prompt_tokens = len(ids)
        self.texts = [
            Text(
                served.model,
                served.spelling,
                ids,
                options,
                seed=seed,
                number=number,
                max_tokens=limit or served.context - len(ids),
            )
            for number in range(self.n)
        ]
        self.id = f"chatcmpl-{secrets.token_urlsafe(18)}"
        self.created = int(time.time())

    def answer(self) -> dict[str, Any]:
        """The whole response, once all texts are complete."""
        choices = [
            {
                "index": text.number,
                "message": {"role": "assistant", "content": text.text, "refusal": None},
                "logprobs": self._logprobs(text.infos),
                "finish_reason": text.finish_reason,
            }
            for text in self.texts
        ]
        return self._response("chat.completion", choices, usage=usage(self.prompt_tokens, self.texts))

    def opening(self) -> list[dict[str, Any]]:
        """Chunks that say who speaks."""
        return [self._chunk(number, {"role": "assistant", "content": ""}) for number in range(self.n)]

    def chunks(self, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        """Chunks of the stream; the reason a text ended comes in one of its own."""
        result = []
        for piece in pieces:
            if piece.text or piece.tokens:
                result.append(self._chunk(piece.number, {"content": piece.text}, self._logprobs(piece.tokens)))
            if piece.finish_reason is not None:
                result.append(self._chunk(piece.number, {}, reason=piece.finish_reason))
        return result

    def closing(self) -> list[dict[str, Any]]:
        """Chunks after the last piece."""
        if not self.body.include_usage:
            return []
        return [self._response("chat.completion.chunk", [], usage=usage(self.prompt_tokens, self.texts))]

    def _chunk(
        self, index: int, delta: dict[str, Any], logprobs: Any = None, reason: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self._response("chat.completion.chunk", [choice], **({"usage": None} if self.body.include_usage else {}))

    def _response(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.served.name}
        return {**head, "choices": choices, **more}

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not self.body.logprobs:
            return None
        content = [
            {
                **self._entry(token.id, token.logprob or 0.0),
                "top_logprobs": [self._entry(id_, logprob) for id_, logprob in token.top or []],
            }
            for token in tokens
            if token.id not in self.served.model.ends
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        spelling = self.served.spelling
        return {"token": spelling[token], "logprob": logprob, "bytes": list(spelling.bytes_of(token))}


def conversation_ids(served: Served, messages: Sequence[Message]) -> list[int]:
    """The ids of a conversation, up to where the assistant speaks.

    A message is data: where its text spells one of the tokenizer's special tokens (an end of turn, say), it is encoded as the
    text it is, not as that token. So nobody can end his turn and speak for another.

    Raises:
        ApiError: 400, the template does not take these messages.
    """
    tokenizer = served.model.tokenizer
    special = sorted({token.content for token in tokenizer.added_tokens_decoder.values() if token.special}, key=len)
    spelled = re.compile("|".join(map(re.escape, reversed(special))) or r"(?!)")
    mark = secrets.token_hex(8)  # with a number: stands for a special token's name while the template is filled in
    names: list[str] = []

    def hide(match: re.Match[str]) -> str:
        names.append(match[0])
        return f"\ue000{mark}:{len(names) - 1}\ue001"

    turns = []
    for message in messages:
        role = "system" if message.role == "developer" else message.role
        content = _content(message)
        if re.search("[\ud800-\udfff]", content):
            raise bad(
                "a message holds half a character (a surrogate without its other half); send whole ones", "messages"
            )
        turns.append({"role": role, "content": spelled.sub(hide, content)})
    try:
        text = bounded(lambda: tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        raise bad(f"the model's chat template refuses these messages: {error}", "messages") from None
    ids: list[int] = []
    for place, part in enumerate(re.split(f"\ue000{mark}:(\\d+)\ue001", str(text))):
        if place % 2:
            ids += served.encode_part(names[int(part)], literal=True)
        elif part:
            ids += served.encode_part(part)
    if not ids:
        raise bad("the model's chat template makes nothing of these messages; send others", "messages")
    return ids


def _content(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    texts = []
    for part in message.content:
        if part.get("type") != "text" or set(part) != {"type", "text"}:
            raise bad('a message has a part that is no text; give {"type": "text", "text": …}', "messages")
        texts.append(part["text"])
    return "".join(texts)
