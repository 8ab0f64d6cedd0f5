"""/v1/completions: what a request asks for, as texts to write; and its answer in OpenAI's shapes."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gpt3.errors import InputError
from gpt3.inference.options import SMALLEST_TEMPERATURE, SamplingOptions
from gpt3.inference.sampling import Token
from gpt3.serving.errors import bad
from gpt3.serving.schema import Body, CompletionBody
from gpt3.serving.texts import Piece, Spelling, Text
from gpt3.tokenizer.chat_template import ChatTemplate, has_template

if TYPE_CHECKING:
    from gpt3.inference.language_model import LanguageModel

DEFAULT_MAX_TOKENS = 16
LEAST_TOP_P = 1e-9
"""top_p 0, which OpenAI allows, is the likeliest token alone."""


class Served:
    """The model that is served, and what requests need of it.

    Args:
        model: to serve.
        name: its id in the API.
        max_samples: texts one request may ask for.
    """

    def __init__(self, model: LanguageModel, name: str, max_samples: int) -> None:
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
        """A request may ask for so many texts.

        Raises:
            ApiError: 400.
        """
        if samples > self.max_samples:
            raise bad(
                f"the request asks for {samples} texts ({what}), this server writes {self.max_samples} a request at most; "
                "send several requests"
            )


def sampling_options(body: Body, logprobs: int | None) -> SamplingOptions:
    """How tokens are chosen."""
    temperature = 1.0 if body.temperature is None else body.temperature
    return SamplingOptions(
        temperature=0.0 if temperature < SMALLEST_TEMPERATURE else temperature,
        top_p=1.0 if body.top_p is None else max(body.top_p, LEAST_TOP_P),
        top_k=body.top_k or 0,
        min_p=body.min_p or 0.0,
        repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias={int(token): bias for token, bias in (body.logit_bias or {}).items()},
        stop=body.stops,
        logprobs=logprobs,
    )


def seed_of(body: Body) -> int:
    """The request's seed, or one of chance."""
    return secrets.randbits(31) if body.seed is None else body.seed % 2**63


class Answer:
    """One request and its answer, as far as completions and chats share it.

    Args:
        served: the model.
        body: the request.

    Attributes:
        texts: the completions to generate, each with its number.
        prompt_tokens: of all prompts.

    Raises:
        ApiError: 400, a request that cannot be carried out.
    """

    prefix: str
    """Of the answer's id."""
    kind: str
    """What the answer calls itself."""
    chunk_kind: str
    """What a chunk of a streamed answer calls itself."""
    texts: list[Text]
    prompt_tokens: int

    def __init__(self, served: Served, body: Body) -> None:
        self.served = served
        self.stream, self.include_usage = bool(body.stream), body.include_usage
        body.check_shared(served.model.vocabulary)
        self.id = f"{self.prefix}-{secrets.token_urlsafe(18)}"
        self.created = int(time.time())

    def opening(self) -> list[dict[str, Any]]:
        """Chunks before the first piece."""
        return []

    def closing(self) -> list[dict[str, Any]]:
        """Chunks after the last piece."""
        return [self.response(self.chunk_kind, [], usage=self.usage())] if self.include_usage else []

    def chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        """A chunk of the stream."""
        return self.response(self.chunk_kind, [choice], **({"usage": None} if self.include_usage else {}))

    def response(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """An answer, whole or a chunk."""
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.served.name}
        return {**head, "choices": choices, **more}

    def usage(self) -> dict[str, int]:
        """Tokens that were read and generated, all candidates of best_of included."""
        generated = sum(len(text.tokens) for text in self.texts)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": generated,
            "total_tokens": self.prompt_tokens + generated,
        }


class Completion(Answer):
    """One request to /v1/completions.

    Args:
        served: the model.
        body: the request.

    Attributes:
        texts: what is to be written: text s of prompt p has the number p x best_of + s.

    Raises:
        ApiError: 400, a request that cannot be carried out.
    """

    prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def __init__(self, served: Served, body: CompletionBody) -> None:
        super().__init__(served, body)
        self.body = body
        if body.suffix:
            raise bad(
                "suffix is not supported: the model writes forward only; put all text before into prompt", "suffix"
            )
        self.n = body.n or 1
        self.best_of = body.best_of or self.n
        if self.best_of < self.n:
            raise bad(f"best_of is {self.best_of} and n is {self.n}; give a best_of of at least n", "best_of")
        if body.stream and self.best_of > self.n:
            raise bad("best_of cannot be streamed: it is known at the end which are best; leave out one", "best_of")
        self.max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
        self.prompts = _prompts(body.prompt)
        served.check_samples(len(self.prompts) * self.best_of, f"{len(self.prompts)} prompts x {self.best_of}")
        chooses = self.best_of > self.n
        options = sampling_options(body, 0 if body.logprobs is None and chooses else body.logprobs)
        seed = seed_of(body)
        self.texts = []
        self.prompt_tokens = 0
        for number, prompt in enumerate(self.prompts):
            ids = served.encode(prompt, "prompt")
            served.check_length(len(ids), self.max_tokens, "max_tokens")
            self.prompt_tokens += len(ids)
            spelled = served.spelling.text(ids) if prompt != "" else ""
            echo = None if not body.echo else prompt if isinstance(prompt, str) else spelled
            for sample in range(self.best_of):
                self.texts.append(
                    Text(
                        served.model,
                        served.spelling,
                        ids,
                        options,
                        seed=seed,
                        number=number * self.best_of + sample,
                        limit=self.max_tokens,
                        echo=echo,
                        base=len(spelled),
                        score_prompt=bool(echo) and body.logprobs is not None,
                    )
                )

    def answer(self) -> dict[str, Any]:
        """The whole response, once all texts are complete."""
        choices: list[dict[str, Any]] = []
        for number in range(len(self.prompts)):
            texts = self.texts[number * self.best_of : (number + 1) * self.best_of]
            if self.best_of > self.n:
                texts = sorted(texts, key=lambda text: -text.mean_logprob)[: self.n]
            for text in texts:
                choices.append(self._choice(len(choices), text.text, text.given, text.finish_reason))
        return self.response(self.kind, choices, usage=self.usage())

    def chunks(self, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        """Chunks of the stream."""
        return [
            self.chunk(self._choice(piece.number, piece.text, piece.tokens, piece.finish_reason)) for piece in pieces
        ]

    def _choice(self, index: int, text: str, tokens: Sequence[Token], reason: str | None) -> dict[str, Any]:
        logprobs = None if self.body.logprobs is None else self._logprobs(tokens)
        return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any]:
        spelling = self.served.spelling
        top: list[dict[str, float] | None] = []
        for token in tokens:
            if token.logprob is None:
                top.append(None)
                continue
            entries = {spelling[id_]: logprob for id_, logprob in token.top}
            entries.setdefault(spelling[token.id], token.logprob)
            top.append(entries)
        return {
            "tokens": [spelling[token.id] for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": top,
            "text_offset": [token.offset for token in tokens],
        }


def _prompts(prompt: object) -> list[str | list[int]]:
    """The prompts of any of the four forms.

    Raises:
        ApiError: 400, an empty list.
    """
    if prompt is None:
        return [""]
    if isinstance(prompt, str):
        return [prompt]
    assert isinstance(prompt, list)
    if not prompt:
        raise bad("prompt is an empty list; give at least one prompt", "prompt")
    if isinstance(prompt[0], int):
        return [prompt]
    return list(prompt)
