"""Request bodies and errors of OpenAI's API: every field with its range, and the faults of a body in one line.

Fields of the sampler come from the table of sampler options (`SamplingOptions` and the chain of `gpt3.inference.sampling`).
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, create_model
from starlette.responses import Response

from gpt3.errors import InputError, one_line
from gpt3.inference.options import SMALLEST_TEMPERATURE, SamplingOptions
from gpt3.inference.sampling import CHAIN
from gpt3.options import documentation, option_of
from gpt3.serving.openai_fields import FIELDS, MESSAGE_FIELDS, UNSUPPORTED, ignored
from gpt3.serving.response_format import FORM, ResponseFormat
from gpt3.serving.strict import HALF, Strict, Text

MOST_STOPS = 4
SEEDS = 2**63
LEAST_TOP_P = 1e-9
"""top_p 0, which OpenAI allows, is the likeliest token alone."""
OPENAI = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
"""Sampler options that OpenAI's API has, too."""
RANGES: dict[str, dict[str, float | None]] = {
    "temperature": {"le": 2},
    "top_p": {"gt": None, "ge": 0},
    "top_k": {"le": 2**31},
    "repetition_penalty": {"le": 100},
}
"""Where the API's range is not the option's."""
FORMS = {
    "": "the body must be a JSON object",
    "prompt": "must be a text, a list of texts, a list of token ids, or a list of such lists",
    "stop": f"must be a text or a list of up to {MOST_STOPS} texts",
    "content": 'must be a text or a list of parts {"type": "text", "text": …}',
    "response_format": FORM,
}
"""Errors of fields that have several forms."""
MOST_DIGITS = 300
"""Of a whole number that is read as one; larger ones are no `float`, either."""


@dataclass(eq=False)
class ApiError(Exception):
    """An error response: an HTTP status and one JSON object."""

    status: int
    message: str
    """One line: what is wrong, which value, what to do."""
    param: str | None = None
    """The field at fault."""
    code: str | None = None
    """A word for programs to compare."""
    headers: dict[str, str] | None = None
    """Further headers of the response."""

    @property
    def body(self) -> dict[str, Any]:
        """Its JSON."""
        kind = "rate_limit_error" if self.status == 429 else "invalid_request_error"
        kind = "server_error" if self.status >= 500 else kind
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> Response:
        """The response. In ASCII: what it quotes of a request may be invalid text."""
        return Response(json.dumps(self.body), self.status, self.headers, "application/json")


def bad(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A request that cannot be carried out as it is: 400."""
    return ApiError(400, message, param, code)


class LongNumber(float):
    """A whole number of more than `MOST_DIGITS` digits: outside the range of every field."""

    def __new__(cls, digits: str) -> LongNumber:
        """The number that these digits spell."""
        number = super().__new__(cls, digits)
        number.digits = digits
        return number

    digits: str

    def __repr__(self) -> str:
        return f"{self.digits[:6]}… ({len(self.digits):,} digits)"


def parse(body: bytes) -> Any:
    """A request's body as JSON.

    Raises:
        json.JSONDecodeError: it is not JSON, or nested too deeply.
    """

    def whole_number(digits: str) -> Any:
        return int(digits) if len(digits) <= MOST_DIGITS else LongNumber(digits)

    try:
        return json.loads(body, parse_int=whole_number)
    except (UnicodeDecodeError, RecursionError) as error:
        raise json.JSONDecodeError(one_line(error), "", 0) from None


def sampler_fields() -> dict[str, Any]:
    """A field for each sampler option that is a number: its type and pydantic's description of it."""
    hints, texts = typing.get_type_hints(SamplingOptions), documentation(SamplingOptions)
    in_chain = {name for step in CHAIN for name in step.options}
    found = {}
    for field in sorted(dataclasses.fields(SamplingOptions), key=lambda field: field.name not in OPENAI):
        name, kind, declared = field.name, hints[field.name], option_of(field)
        if name in in_chain and kind in (int, float):
            bounds: dict[str, Any] = {"ge": declared.least, "gt": declared.above, "le": declared.most}
            bounds |= {"lt": declared.below} | RANGES.get(name, {})
            text = f"{texts[name]} Default: {field.default:g}.{'' if name in OPENAI else ' Not an OpenAI field.'}"
            extra: Any = {"x-neutral": field.default, "x-openai": name in OPENAI}
            found[name] = (kind | None, Field(None, description=text, json_schema_extra=extra, **bounds))
    return found


SAMPLER = sampler_fields()
MODEL: Any = (str | None, Field(None, description="Model id as /v1/models lists it. Default: the first."))
Sampler: Any = create_model("Sampler", __base__=Strict, model=MODEL, **SAMPLER, **FIELDS)
"""The fields that tables give: the sampler options, after the model's id, and those that change nothing."""
Turn: Any = create_model("Turn", __base__=Strict, **MESSAGE_FIELDS)


class Body(Sampler):
    """What both kinds of request share. null stands for the default everywhere."""

    n: int | None = Field(None, ge=1, le=128)
    """Completions of each prompt. Default: 1."""
    stream: bool | None = None
    """Send pieces as server-sent events, closed by data: [DONE]."""
    stream_options: dict[str, bool | None] | None = None
    """{"include_usage": true} sends a last chunk with the usage."""
    stop: Text | Annotated[list[Text], Field(max_length=MOST_STOPS)] | None = None
    """1 to 4 strings that end the completion; they are not in it."""
    logit_bias: dict[str, float] | None = None
    """-100 to 100 by token id, added to the logits: {"50256": -100} prevents EOS."""
    seed: int | None = Field(None, ge=-SEEDS, lt=SEEDS)
    """The same seed gives the same text."""
    response_format: ResponseFormat | None = Field(None, discriminator="type")
    """What the text must follow; its type is text, json_object, json_schema, regex or choice. Default: any text."""

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool((self.stream_options or {}).get("include_usage"))

    def check_shared(self, vocabulary: int) -> None:
        """What the types do not say.

        Raises:
            ApiError: 400.
        """
        if "" in self.stops:
            raise bad("stop has an empty text. Use texts of at least one character.", "stop")
        if unknown := sorted(set(self.stream_options or {}) - {"include_usage", "include_obfuscation"}):
            raise bad(f"stream_options has {unknown[0][:40]!r}, but takes include_usage.", "stream_options")
        if self.include_usage and not self.stream:
            raise bad("stream_options is given without stream. Leave it out, or set stream.", "stream_options")
        for token, bias in (self.logit_bias or {}).items():
            if not (token.isascii() and token.isdigit() and len(token) < 10 and int(token) < vocabulary):
                raise bad(f"logit_bias names {token[:20]!r}. Use token ids from 0 to {vocabulary - 1}.", "logit_bias")
            if not abs(bias) <= 100:
                raise bad(f"logit_bias of {token} is {bias:g}. Use numbers from -100 to 100.", "logit_bias")

    def sampling_options(self, logprobs: int | None, limit: int) -> SamplingOptions:
        """How tokens are chosen.

        Args:
            logprobs: see SamplingOptions.
            limit: tokens at most, from 0.

        Raises:
            ApiError: 400, options that contradict each other.
        """
        given = {name: value for name in SAMPLER if (value := getattr(self, name)) is not None}
        if given.get("temperature", 1) < SMALLEST_TEMPERATURE:
            given["temperature"] = 0.0
        if "top_p" in given:
            given["top_p"] = max(given["top_p"], LEAST_TOP_P)
        given |= self.response_format.options() if self.response_format is not None else {}
        bias = {int(token): value for token, value in (self.logit_bias or {}).items()}
        try:
            return SamplingOptions(
                **given, logit_bias=bias, stop=self.stops, logprobs=logprobs, max_new_tokens=max(limit, 1)
            )
        except InputError as error:
            raise bad(re.sub("--([a-z-]+)", lambda flag: flag[1].replace("-", "_"), str(error))) from None


class CompletionBody(Body):
    """POST /v1/completions."""

    prompt: Text | list[Text] | list[int] | list[list[int]] | None = Field(None, examples=["The sea was"])
    """A text, several, token ids, or several lists of them. Default: the start of a document."""
    suffix: str | None = None
    """Refused: these models only continue text."""
    max_tokens: int | None = Field(None, ge=0)
    """Tokens to generate at most; 0 with echo scores the prompt. Default: 16."""
    logprobs: int | None = Field(None, ge=0, le=5)
    """Log-probabilities of the chosen token and this many of the likeliest. Default: none."""
    echo: bool | None = None
    """Return the prompt before the completion."""
    best_of: int | None = Field(None, ge=1, le=20)
    """Generate this many and return the n of the highest log-probability per token."""

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, in whichever of the four forms they are given.

        Raises:
            ApiError: 400, an empty list.
        """
        if self.prompt is None or isinstance(self.prompt, str):
            return [self.prompt or ""]
        if not self.prompt:
            raise bad("prompt is an empty list. Give at least one prompt.", "prompt")
        several: Any = [self.prompt] if isinstance(self.prompt[0], int) else self.prompt
        return list(several)


class TextPart(create_model("Part", __base__=Strict, prompt_cache_breakpoint=ignored())):  # type: ignore[misc]
    """A part of a message."""

    type: Literal["text"]
    """What it is."""
    text: Text
    """The part's text."""


class Message(Turn):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    """Who speaks."""
    content: Text | Annotated[list[TextPart], Field(min_length=1)]
    """A text, or parts {"type": "text", "text": …}."""

    @property
    def text(self) -> str:
        """Its text, parts joined."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatBody(Body):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    """The conversation so far."""
    max_tokens: int | None = Field(None, ge=0)
    """Tokens to generate at most; 0 counts the tokens of the messages. Default: what fits the context."""
    max_completion_tokens: int | None = Field(None, ge=0)
    """The newer name of max_tokens."""
    logprobs: bool | None = None
    """Return log-probabilities of the tokens."""
    top_logprobs: int | None = Field(None, ge=0, le=20)
    """And of this many of the likeliest at each place."""


class LoadBody(Strict):
    """POST /v1/models/load."""

    model: Text
    """Id of a model that /v1/models lists as available."""


def validation_error(faults: Sequence[Any]) -> ApiError:
    """All faults of a body in one line: field, value, range."""
    if any(fault["type"] == "json_invalid" for fault in faults):
        return bad('the body is not JSON; send an object such as {"prompt": "The sea was"}', code="invalid_json")
    clauses: dict[str, str] = {}
    unknown = []
    # first those that tell most of a field
    for fault in sorted(faults, key=lambda fault: fault["type"] not in (UNSUPPORTED, HALF)):
        places = [str(place) for place in fault["loc"][1:]]
        name = next((place for place in places if place in FORMS), places[-1] if places else "")
        places = places[: places.index(name) + 1] if name else []  # what follows a field of several forms names these
        place = ".".join(places)[:60]
        if fault["type"] == UNSUPPORTED:
            clauses.setdefault(place, f"{place} {fault['msg']}")
        elif fault["type"] == HALF:
            reason = "half a character (a surrogate without its other half). Send whole ones."
            clauses.setdefault(place, f"{place or 'the name of a field'} has {reason}")
        elif name in FORMS:
            clauses.setdefault(place, f"{place} {FORMS[name]}".lstrip())
        elif fault["type"] == "extra_forbidden":
            unknown.append(place[:40])
        elif fault["type"] == "missing":
            clauses.setdefault(place, f"{place} is missing")
        else:
            value = repr(fault.get("input"))
            value = "null" if value == "None" else value if len(value) <= 40 else value[:37] + "..."
            reason = fault["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            reason = "an object" if fault["type"].startswith("model_") else reason
            reason = f"a list of at least {fault['ctx']['min_length']}" if fault["type"] == "too_short" else reason
            clauses.setdefault(place, f"{place} is {value}; it should be {reason}")
    if unknown:
        clauses["?"] = f"unrecognized request argument: {', '.join(unknown)}"
    first = next(iter(clauses))
    return bad(
        "; ".join(clause.rstrip(".") for clause in clauses.values()),
        None if first in ("", "?") else first.split(".")[0],
    )
