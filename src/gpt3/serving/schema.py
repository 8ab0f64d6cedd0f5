"""The bodies of requests, as OpenAI's API has them, checked; and the errors of a bad one in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gpt3.serving.errors import ApiError, bad

MOST_STOPS = 4
SEEDS = 2**63


class Body(BaseModel):
    """What both kinds of request share. null stands for the default everywhere."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    model: str | None = Field(None, description="the model's id as /v1/models lists it; may be left out")
    temperature: float | None = Field(None, ge=0, le=2, description="divides the logits; 0 is greedy. Default 1")
    top_p: float | None = Field(
        None, ge=0, le=1, description="only the fewest tokens with this much probability together. Default 1, all"
    )
    n: int | None = Field(None, ge=1, le=128, description="completions of each prompt. Default 1")
    stream: bool | None = Field(None, description="send pieces as server-sent events, closed by data: [DONE]")
    stream_options: dict[str, bool] | None = Field(
        None, description='{"include_usage": true} sends a last chunk with the usage'
    )
    stop: str | Annotated[list[str], Field(max_length=MOST_STOPS)] | None = Field(
        None, description="1 to 4 texts that end the completion; they are not in it"
    )
    presence_penalty: float | None = Field(
        None, ge=-2, le=2, description="taken from the logit of every token already in the completion. Default 0"
    )
    frequency_penalty: float | None = Field(
        None, ge=-2, le=2, description="taken from a token's logit for each time it is in the completion. Default 0"
    )
    logit_bias: dict[str, float] | None = Field(
        None, description='-100 to 100 by token id, added to the logits: {"50256": -100} keeps end-of-text away'
    )
    seed: int | None = Field(None, ge=-SEEDS, lt=SEEDS, description="the same seed gives the same text")
    user: str | None = Field(None, description="not looked at")
    top_k: int | None = Field(None, ge=0, le=2**31, description="only the k likeliest tokens; 0 is all. Not OpenAI's")
    min_p: float | None = Field(
        None, ge=0, le=1, description="only tokens at least this many times as likely as the likeliest. Not OpenAI's"
    )
    repetition_penalty: float | None = Field(
        None, ge=0.01, le=100, description="above 1: tokens in prompt or text become less likely. Not OpenAI's"
    )

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return (self.stream_options or {}).get("include_usage", False)

    def check_shared(self, vocabulary: int) -> None:
        """What the types do not say.

        Raises:
            ApiError: 400.
        """
        if any(not stop for stop in self.stops):
            raise bad("stop has an empty text; give texts of at least one character", "stop")
        if self.stream_options is not None:
            if not self.stream:
                raise bad("stream_options is given without stream; leave it out, or set stream", "stream_options")
            if unknown := set(self.stream_options) - {"include_usage", "include_obfuscation"}:
                raise bad(f"stream_options has {sorted(unknown)[0]!r}; it takes include_usage", "stream_options")
        for token, bias in (self.logit_bias or {}).items():
            if not (token.isascii() and token.isdigit() and len(token) < 10 and int(token) < vocabulary):
                raise bad(f"logit_bias names {token[:20]!r}; give token ids from 0 to {vocabulary - 1}", "logit_bias")
            if not abs(bias) <= 100:
                raise bad(f"logit_bias of {token} is {bias:g}; give numbers from -100 to 100", "logit_bias")


class CompletionBody(Body):
    """POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]] | None = Field(
        None,
        description="a text, several, token ids, or several lists of them. Default: the beginning of a document",
        examples=["The sea was"],
    )
    suffix: str | None = Field(None, description="refused: the models here write forward only")
    max_tokens: int | None = Field(
        None, ge=0, description="tokens to write at most; 0 with echo scores the prompt. Default 16"
    )
    logprobs: int | None = Field(
        None, ge=0, le=5, description="log-probabilities of the chosen token and of so many likeliest. Default none"
    )
    echo: bool | None = Field(None, description="return the prompt before the completion")
    best_of: int | None = Field(
        None, ge=1, le=20, description="write so many and return the n of the highest log-probability per token"
    )


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(strict=True, extra="forbid")

    role: Literal["system", "developer", "user", "assistant"] = Field(description="who speaks")
    content: str | list[dict[str, str]] = Field(description='a text, or parts {"type": "text", "text": …}')
    name: str | None = Field(None, description="not looked at")


class ChatBody(Body):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, description="the conversation so far")
    max_tokens: int | None = Field(
        None, ge=1, description="tokens to write at most. Default: what the context has room for"
    )
    max_completion_tokens: int | None = Field(None, ge=1, description="the same under its newer name")
    logprobs: bool | None = Field(None, description="give log-probabilities of the tokens")
    top_logprobs: int | None = Field(None, ge=0, le=20, description="and of so many likeliest in each place")


def validation_error(faults: Sequence[Any]) -> ApiError:
    """All faults of a body in one line: field, value, what it may be."""
    if any(fault["type"] == "json_invalid" for fault in faults):
        return bad('the body is not JSON; send an object such as {"prompt": "The sea was"}', code="invalid_json")
    told: dict[str, str] = {}
    unknown = []
    for fault in faults:
        places = [str(place) for place in fault["loc"][1:]]
        name = places[0] if places else ""
        if fault["type"] == "extra_forbidden" and len(places) == 1:
            unknown.append(name[:40])
        elif name == "prompt":
            told[name] = "prompt must be a text, a list of texts, a list of token ids, or a list of such lists"
        elif name == "stop":
            told[name] = f"stop must be a text or a list of up to {MOST_STOPS} texts"
        elif not name:
            told[name] = "the body must be a JSON object"
        else:
            reason = fault["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            place = ".".join(places if name != "messages" else places[:3])[:60]
            told.setdefault(place, f"{place} is {_short(fault.get('input'))}; it should be {reason}")
    if unknown:
        told["?"] = f"unrecognized request argument: {', '.join(unknown)}"
    first = next(iter(told))
    return bad("; ".join(told.values()), None if first in ("", "?") else first.split(".")[0])


def _short(value: object) -> str:
    shown = "missing" if isinstance(value, dict) else repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."
