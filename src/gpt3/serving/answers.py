"""What answers look like, as JSON Schema: the half of the OpenAPI document that the requests' types do not give."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def record(optional: tuple[str, ...] = (), **fields: Schema) -> Schema:
    """An object of these fields and no others; all required but the optional ones."""
    required = [name for name in fields if name not in optional]
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


def listed(items: Schema) -> Schema:
    """An array."""
    return {"type": "array", "items": items}


def one_of(*values: str) -> Schema:
    """A text out of these."""
    return {"type": "string", "enum": list(values)}


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
LOGPROB: Schema = {"type": "number", "maximum": 1e-3}  # 0 but for rounding
ERROR = record(error=record(message=TEXT, type=TEXT, param=or_null(TEXT), code=or_null(TEXT)))
USAGE = record(prompt_tokens=COUNT, completion_tokens=COUNT, total_tokens=COUNT)
EVENT: Schema = {"type": "object", "properties": {"data": TEXT}, "required": ["data"]}
"""A server-sent event: its data is a chunk of the answer as JSON, or [DONE]."""
HEAD = {"id": TEXT, "created": COUNT, "model": TEXT}
REASON = one_of("stop", "length")
COMPLETION = record(
    **HEAD,
    object=one_of("text_completion"),
    choices=listed(
        record(
            text=TEXT,
            index=COUNT,
            finish_reason=REASON,
            logprobs=or_null(
                record(
                    tokens=listed(TEXT),
                    token_logprobs=listed(or_null(LOGPROB)),
                    top_logprobs=listed(or_null({"type": "object", "additionalProperties": LOGPROB})),
                    text_offset=listed(COUNT),
                )
            ),
        )
    ),
    usage=USAGE,
)
CHAT_TOKEN = {"token": TEXT, "logprob": LOGPROB, "bytes": or_null(listed(COUNT))}
CHAT_COMPLETION = record(
    **HEAD,
    object=one_of("chat.completion"),
    choices=listed(
        record(
            index=COUNT,
            message=record(role=one_of("assistant"), content=TEXT, refusal={"type": "null"}),
            logprobs=or_null(
                record(
                    content=listed(record(**CHAT_TOKEN, top_logprobs=listed(record(**CHAT_TOKEN)))),
                    refusal={"type": "null"},
                )
            ),
            finish_reason=REASON,
        )
    ),
    usage=USAGE,
)
MODEL = record(
    id=TEXT,
    object=one_of("model"),
    created=COUNT,
    owned_by=TEXT,
    context_length=COUNT,
    vocabulary=COUNT,
    chat={"type": "boolean"},
)
MODELS = record(object=one_of("list"), data=listed(MODEL))
HEALTH = record(status=one_of("ok", "stopping"), model=TEXT)

REFUSALS = {
    400: "a request that cannot be carried out as it is",
    401: "no key, or a wrong one",
    403: "the server is for its own machine only",
    404: "no such model",
    413: "the body is too large",
    415: "the body is no JSON",
    429: "the queue is full; Retry-After says when to come again",
    500: "the model failed",
    503: "the server is stopping",
    504: "the request took too long",
}


def answered(
    schema: Schema, what: str, stream: bool = False, refusals: tuple[int, ...] = tuple(REFUSALS)
) -> dict[Any, Any]:
    """FastAPI's `responses` of a path: its answer of this schema, as events too when it streams; and its refusals."""
    content: Schema = {"application/json": {"schema": schema}}
    if stream:
        content["text/event-stream"] = {"schema": EVENT}
    found: dict[Any, Any] = {200: {"description": what, "content": content}}
    for status in refusals:
        found[status] = {"description": REFUSALS[status], "content": {"application/json": {"schema": ERROR}}}
    return found


def corrected(document: Schema) -> Schema:
    """FastAPI's OpenAPI document without the 422 that it takes for granted: what it would answer so is a 400 here."""
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document.get("components", {}).get("schemas", {}).pop(name, None)
    return document
