"""/v1/completions: what a request asks for, as texts to generate; and its answer in OpenAI's shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpt3.inference.sampling import Token
from gpt3.serving.errors import bad
from gpt3.serving.schema import CompletionBody
from gpt3.serving.text_request import Served, TextRequest
from gpt3.serving.texts import Piece, Text

DEFAULT_MAX_TOKENS = 16


class Completion(TextRequest):
    """One request to /v1/completions. Text s of prompt p has the number p x best_of + s."""

    prefix, chunk_object = "cmpl", "text_completion"

    def __init__(self, served: Served, body: CompletionBody) -> None:
        super().__init__(served, body)
        if body.suffix:
            raise bad(
                "suffix is not supported: the model only continues text. Put all text before the gap into prompt.",
                "suffix",
            )
        self.n = body.n or 1
        self.best_of = body.best_of or self.n
        chooses = self.best_of > self.n
        if self.best_of < self.n:
            raise bad(f"best_of is {self.best_of} and n is {self.n}. Use a best_of of at least n.", "best_of")
        if body.stream and chooses:
            raise bad("best_of cannot be streamed: which are best is known at the end. Leave out one.", "best_of")
        limit = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
        self.prompts = _prompts(body.prompt)
        served.check_samples(len(self.prompts) * self.best_of, f"{len(self.prompts)} prompts x {self.best_of}")
        options = body.sampling_options(0 if body.logprobs is None and chooses else body.logprobs, limit)
        for prompt in self.prompts:
            ids = served.encode(prompt, "prompt")
            served.check_length(len(ids), limit, "max_tokens")
            self.prompt_tokens += len(ids)
            spelled = served.spelling.text(ids) if prompt != "" else ""
            echo = None if not body.echo else prompt if isinstance(prompt, str) else spelled
            for _ in range(self.best_of):
                self.texts.append(
                    Text(
                        served.model,
                        served.spelling,
                        ids,
                        options,
                        seed=self.seed,
                        number=len(self.texts),
                        limit=limit,
                        echo=echo,
                        base=len(spelled),
                        score=body.logprobs if echo else None,
                    )
                )

    def answer(self) -> dict[str, Any]:
        """As TextRequest's."""
        best: list[Text] = []
        for start in range(0, len(self.texts), self.best_of):
            texts = self.texts[start : start + self.best_of]
            best += sorted(texts, key=lambda text: -text.mean_logprob)[: self.n] if self.best_of > self.n else texts
        choices = [self._choice(number, text.text, text.given, text.finish_reason) for number, text in enumerate(best)]
        return self.response(self.chunk_object, choices, usage=self.usage())

    def chunks(self, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        """As TextRequest's."""
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
            entries = {spelling[id_]: logprob for id_, logprob in token.top}
            if token.logprob is not None:
                entries.setdefault(spelling[token.id], token.logprob)
            top.append(None if token.logprob is None else entries)
        return {
            "tokens": [spelling[token.id] for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": top,
            "text_offset": [token.offset for token in tokens],
        }


def _prompts(prompt: Any) -> list[str | list[int]]:
    """The prompts of any of the four forms.

    Raises:
        ApiError: 400, an empty list.
    """
    if prompt is None or isinstance(prompt, str):
        return [prompt or ""]
    if not prompt:
        raise bad("prompt is an empty list. Give at least one prompt.", "prompt")
    return [prompt] if isinstance(prompt[0], int) else list(prompt)
