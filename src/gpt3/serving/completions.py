"""Requests for completions and for answers in a chat: the choices to generate, and the response in OpenAI's format."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpt3.errors import InputError
from gpt3.inference.generation import RunningSequence
from gpt3.inference.options import SamplingOptions
from gpt3.inference.sampling import Token
from gpt3.serving.schema import ApiError, Body, ChatBody, CompletionBody, bad
from gpt3.serving.served_model import ServedModel
from gpt3.tables import counted
from gpt3.tokenizer import chat_template

DEFAULT_MAX_TOKENS = 16
Json = dict[str, Any]


@dataclass(frozen=True)
class Delta:
    """What a choice grew by; or, of a response that is not streamed, the whole choice."""

    number: int
    """Of the choice in its request."""
    text: str
    tokens: list[Token]
    """New tokens that begin in the text shown so far; empty unless log-probabilities are requested."""
    finish_reason: str | None
    """"stop" or "length" in the last delta."""


Event = Delta | ApiError | None
"""What a choice grew by; an error, which is the last event; None: all choices are complete."""


class Choice(RunningSequence):
    """A completion of one prompt.

    Args:
        served: the model.
        echo: shown before the completion: the prompt as text, or nothing.
        base: characters of the prompt, which offsets count.
        unseen: characters of the prompt's ids before it: the start token of OPT's tokenizer, say, which is in no text.
        prompt, more: see RunningSequence; `number` is also that of the choice in its request.

    Attributes:
        given: the tokens of the text, with log-probabilities where they are requested.
    """

    def __init__(
        self, served: ServedModel, *prompt: Any, echo: str = "", base: int = 0, unseen: int = 0, **more: Any
    ) -> None:
        super().__init__(served.model, *prompt, **more)
        self.served, self.echo, self.base, self.unseen = served, echo, base, unseen
        self.given: list[Token] = []
        self._listed = 0  # of `details`

    @property
    def needs_engine(self) -> bool:
        """Whether there is anything to compute."""
        return self.limit > 0 or self.score is not None

    def whole(self, number: int) -> Delta:
        """All of it, once it is complete, as the choice of this number."""
        return Delta(number, self.echo + self.text, self.given, self.finish_reason)

    def advance(self, tokens: Sequence[Token]) -> Delta:
        """Take the next tokens."""
        begins = not self.first_at
        given = self._prompt_tokens() if begins and self.score is not None else []
        shown = (self.echo if begins else "") + self.take(tokens)
        end = len(self.text)
        listed = [token for token in self.details[self._listed :] if token.offset < end]
        self._listed += len(listed)
        if self.ending is not None and not self.stopped:
            listed.append(self.ending)
        given += [dataclasses.replace(token, offset=self.base + token.offset) for token in listed]
        self.given += given
        return Delta(self.number, shown, given, self.finish_reason)

    def _prompt_tokens(self) -> list[Token]:
        offsets = [max(0, offset - self.unseen) for offset in self.served.offsets(self.prompt)]
        found = [Token(self.prompt[0])]
        for scores in self.scores:
            rows = (scores.logprobs.tolist(), scores.top_ids.tolist(), scores.top_logprobs.tolist())
            for logprob, ids, values in zip(*rows, strict=True):
                place, top = len(found), list(zip(ids, values, strict=True))
                found.append(Token(self.prompt[place], logprob, top, offset=offsets[place]))
        self.scores.clear()
        return found


class TextRequest(ABC):
    """A request for one or more texts, until all of them are complete.

    Args:
        served: the model.
        body: the request.

    Attributes:
        choices: what is to be generated.
        prompt_tokens: of all prompts.
        events: what its worker tells the event loop that waits: of a stream, what choices grew by; then an error, or None.
        stream: whether deltas are sent; otherwise only the end.
        started: choices that have or had a slot.
        ended: it is complete, failed, or its client went away.

    Raises:
        ApiError: 400, a request that cannot be carried out.
    """

    prefix: str
    """Of its id."""
    kind: str
    """`object` of the response."""
    chunk_kind: str
    """`object` of a chunk of its stream."""
    loop: asyncio.AbstractEventLoop
    """That waits for the events, once a worker has it."""

    def __init__(self, served: ServedModel, body: Body) -> None:
        self.served, self.body = served, body
        body.check_shared(served.model.vocabulary)
        self.seed: int = secrets.randbits(31) if body.seed is None else body.seed % 2**63
        self.choices: list[Choice] = []
        self.prompt_tokens = 0
        self.id = f"{self.prefix}-{secrets.token_urlsafe(18)}"
        self.created, self.arrived = int(time.time()), time.monotonic()
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.stream = bool(body.stream)
        self.started = 0
        self.has_token = self.has_event = self.ended = False

    @abstractmethod
    def choice(self, whole: Delta) -> Json:
        """A choice of the response."""

    @abstractmethod
    def chunks(self, delta: Delta) -> list[Json]:
        """Chunks of the stream."""

    def add(self, ids: list[int], options: SamplingOptions, count: int, **more: Any) -> None:
        """Add `count` choices that continue a prompt."""
        self.prompt_tokens += len(ids)
        self.served.check_constraint(options)
        for _ in range(count):
            self.choices.append(Choice(self.served, ids, options, seed=self.seed, number=len(self.choices), **more))

    def answer(self) -> Json:
        """The whole response, once all choices are complete."""
        choices = [self.choice(choice.whole(number)) for number, choice in enumerate(self.best())]
        return self.response(self.kind, choices, usage=self.usage())

    def best(self) -> list[Choice]:
        """The choices to return."""
        return self.choices

    def opening(self) -> list[Json]:
        """Chunks before the first delta."""
        return []

    def closing(self) -> list[Json]:
        """Chunks after the last delta."""
        return [self.response(self.chunk_kind, [], usage=self.usage())] if self.body.include_usage else []

    def chunk(self, choice: Json) -> Json:
        """A chunk of the stream."""
        return self.response(self.chunk_kind, [choice], **({"usage": None} if self.body.include_usage else {}))

    def response(self, kind: str, choices: list[Json], **more: Any) -> Json:
        """An object of OpenAI's API."""
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.served.name}
        return {**head, "choices": choices, **more}

    def usage(self) -> dict[str, int]:
        """Tokens read and generated, all candidates of best_of included."""
        count = sum(len(choice.text_ids) for choice in self.choices)
        total = self.prompt_tokens + count
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": count, "total_tokens": total}


class Completion(TextRequest):
    """A request to /v1/completions. Candidate s of prompt p has the number p x best_of + s."""

    prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def __init__(self, served: ServedModel, body: CompletionBody) -> None:
        super().__init__(served, body)
        if body.suffix:
            message = "suffix is not supported: the model only continues text. Put all text before the gap into prompt."
            raise bad(message, "suffix")
        self.n = body.n or 1
        self.best_of = body.best_of or self.n
        chooses = self.best_of > self.n
        if self.best_of < self.n:
            raise bad(f"best_of is {self.best_of} and n is {self.n}. Use a best_of of at least n.", "best_of")
        if body.stream and chooses:
            raise bad("best_of cannot be streamed: the best are known only at the end. Leave out one.", "best_of")
        limit = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
        prompts = body.prompts
        served.check_samples(len(prompts) * self.best_of, f"{counted(len(prompts), 'prompt')} x {self.best_of}")
        options = body.sampling_options(0 if body.logprobs is None and chooses else body.logprobs, limit)
        for prompt in prompts:
            ids = served.encode(prompt)
            served.check_length(len(ids), limit, "max_tokens")
            spelled = served.text(ids) if prompt != "" else ""
            echo = "" if not body.echo else prompt if isinstance(prompt, str) else spelled
            unseen = len(spelled) - len(prompt) if isinstance(prompt, str) and spelled.endswith(prompt) else 0
            place = {"base": len(spelled) - unseen, "unseen": unseen}
            score = body.logprobs if echo else None  # the implied start of an empty prompt is not listed
            self.add(ids, options, self.best_of, limit=limit, echo=echo, score=score, **place)

    def best(self) -> list[Choice]:
        """The n of the highest log-probability per token for each prompt."""
        if self.best_of == self.n:
            return self.choices
        groups = [self.choices[start : start + self.best_of] for start in range(0, len(self.choices), self.best_of)]
        return [best for group in groups for best in sorted(group, key=lambda one: -one.mean_logprob)[: self.n]]

    def choice(self, whole: Delta) -> Json:
        """As TextRequest's."""
        logprobs = None if self.body.logprobs is None else self._logprobs(whole.tokens)
        return {"text": whole.text, "index": whole.number, "logprobs": logprobs, "finish_reason": whole.finish_reason}

    def chunks(self, delta: Delta) -> list[Json]:
        """As TextRequest's."""
        return [self.chunk(self.choice(delta))]

    def _logprobs(self, tokens: Sequence[Token]) -> Json:
        spelled = self.served.spelled
        top: list[dict[str, float] | None] = []
        for token in tokens:
            entries = {spelled(id_): logprob for id_, logprob in token.top}
            if token.logprob is not None:
                entries.setdefault(spelled(token.id), token.logprob)
            top.append(None if token.logprob is None else entries)
        return {
            "tokens": [spelled(token.id) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": top,
            "text_offset": [token.offset for token in tokens],
        }


class Chat(TextRequest):
    """A request to /v1/chat/completions.

    Raises:
        ApiError: 400, a request that cannot be carried out, or a model without a chat template.
    """

    prefix, kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, served: ServedModel, body: ChatBody) -> None:
        if served.template is None:
            reason = f"the model {served.name} has no chat template, it only continues text. Use /v1/completions."
            raise bad(reason, "model", "no_chat_template")
        super().__init__(served, body)
        if body.top_logprobs and not body.logprobs:
            raise bad("top_logprobs is given without logprobs. Set logprobs to true.", "top_logprobs")
        limits = {limit for limit in (body.max_tokens, body.max_completion_tokens) if limit is not None}
        if len(limits) > 1:
            raise bad("max_tokens and max_completion_tokens differ. Use one.", "max_tokens")
        roles = {"developer": "system"}
        turns = [chat_template.Message(roles.get(sent.role, sent.role), sent.text) for sent in body.messages]
        try:
            ids = served.template.prompt(turns)
        except InputError as error:  # a template that fails on these messages
            raise bad(str(error), "messages") from None
        served.check_length(len(ids), max(limits, default=1), "messages")
        limit = max(limits, default=served.context - len(ids))
        n = body.n or 1
        served.check_samples(n, "n")
        options = body.sampling_options((body.top_logprobs or 0) if body.logprobs else None, limit)
        self.add(ids, options, n, limit=limit)

    def choice(self, whole: Delta) -> Json:
        """As TextRequest's."""
        return {
            "index": whole.number,
            "message": {"role": "assistant", "content": whole.text, "refusal": None},
            "logprobs": self._logprobs(whole.tokens),
            "finish_reason": whole.finish_reason,
        }

    def opening(self) -> list[Json]:
        """Chunks that name the role."""
        return [self._chunk(index, {"role": "assistant", "content": ""}) for index in range(len(self.choices))]

    def chunks(self, delta: Delta) -> list[Json]:
        """Chunks of the stream; the finish reason comes in one of its own."""
        result = []
        if delta.text or delta.tokens:
            result.append(self._chunk(delta.number, {"content": delta.text}, self._logprobs(delta.tokens)))
        if delta.finish_reason is not None:
            result.append(self._chunk(delta.number, {}, reason=delta.finish_reason))
        return result

    def _chunk(self, index: int, delta: Json, logprobs: Any = None, reason: str | None = None) -> Json:
        return self.chunk({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason})

    def _logprobs(self, tokens: Sequence[Token]) -> Json | None:
        if not self.body.logprobs:
            return None
        shown = [token for token in tokens if token.id not in self.served.model.ends]
        content = [
            self._entry(token.id, token.logprob or 0.0) | {"top_logprobs": [self._entry(*top) for top in token.top]}
            for token in shown
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float) -> Json:
        return {"token": self.served.spelled(token), "logprob": logprob, "bytes": list(self.served.bytes_of(token))}
