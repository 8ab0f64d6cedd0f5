"""The OpenAPI document's responses as JSON Schema, and /docs: the document as a plain page that loads nothing from elsewhere."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

Schema = dict[str, Any]


def record(**fields: Schema) -> Schema:
    """An object of these fields, all of them, and no others."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def listed(items: Schema) -> Schema:
    """An array."""
    return {"type": "array", "items": items}


def one_of(*values: str) -> Schema:
    """One of these texts."""
    return {"type": "string", "enum": list(values)}


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    return {"anyOf": [schema, NULL]}


TEXT: Schema = {"type": "string"}
NULL: Schema = {"type": "null"}
COUNT: Schema = {"type": "integer", "minimum": 0}
LOGPROB: Schema = {"type": "number", "maximum": 1e-3}  # 0 but for rounding
ERROR = record(error=record(message=TEXT, type=TEXT, param=or_null(TEXT), code=or_null(TEXT)))
EVENT: Schema = {"type": "object", "properties": {"data": TEXT}, "required": ["data"]}
"""A server-sent event: its data is a chunk of the answer as JSON, or [DONE]."""
HEAD = {"id": TEXT, "created": COUNT, "model": TEXT}
REASON = one_of("stop", "length")
USAGE = record(prompt_tokens=COUNT, completion_tokens=COUNT, total_tokens=COUNT)
TOP = or_null({"type": "object", "additionalProperties": LOGPROB})
LOGPROBS = record(
    tokens=listed(TEXT), token_logprobs=listed(or_null(LOGPROB)), top_logprobs=listed(TOP), text_offset=listed(COUNT)
)
CHOICE = record(text=TEXT, index=COUNT, finish_reason=REASON, logprobs=or_null(LOGPROBS))
COMPLETION = record(**HEAD, object=one_of("text_completion"), choices=listed(CHOICE), usage=USAGE)
TOKEN = {"token": TEXT, "logprob": LOGPROB, "bytes": or_null(listed(COUNT))}
CHAT_LOGPROBS = record(content=listed(record(**TOKEN, top_logprobs=listed(record(**TOKEN)))), refusal=NULL)
MESSAGE = record(role=one_of("assistant"), content=TEXT, refusal=NULL)
CHAT_CHOICE = record(index=COUNT, message=MESSAGE, logprobs=or_null(CHAT_LOGPROBS), finish_reason=REASON)
CHAT_COMPLETION = record(**HEAD, object=one_of("chat.completion"), choices=listed(CHAT_CHOICE), usage=USAGE)
SIZES = {"created": COUNT, "context_length": COUNT, "vocabulary": COUNT}
MODEL = record(id=TEXT, object=one_of("model"), owned_by=TEXT, **SIZES, chat={"type": "boolean"})
LOADABLE = record(
    id=TEXT, object=one_of("model"), name=TEXT, kind=one_of("run", "published"), parameters=or_null(TEXT),
    bytes=COUNT, stored={"type": "boolean"}, state=one_of("available", "downloading", "loading", "failed"),
    downloaded=or_null(COUNT), error=or_null(TEXT),
)  # fmt: skip
MODELS = record(object=one_of("list"), data=listed(MODEL), available=listed(LOADABLE))
LOAD = record(id=TEXT, state=one_of("loaded", "downloading", "loading"))
HEALTH = record(status=one_of("ok", "no model", "stopping"), models=listed(TEXT))

REFUSALS = {
    400: "a request that cannot be carried out",
    401: "no key, or a wrong one",
    403: "not allowed: the server is for its own machine, for its own page, or for its own models only",
    404: "no such model",
    409: "another model is being loaded",
    413: "the body is too large",
    415: "the body is not JSON",
    429: "the queue is full; Retry-After says when to try again",
    500: "the model failed",
    503: "the server is stopping, or has no model yet",
    504: "the request took too long",
}
OF_TEXTS = tuple(status for status in REFUSALS if status != 409)
"""Those of a request for texts."""


def responses(
    schema: Schema | None, what: str, refusals: Iterable[int] = OF_TEXTS, stream: bool = False
) -> dict[Any, Any]:
    """FastAPI's `responses` of a path: its answer of this schema, as events too when it streams; and its refusals."""
    found: dict[Any, Any] = {
        status: {"description": REFUSALS[status], "content": {"application/json": {"schema": ERROR}}}
        for status in refusals
    }
    if schema is not None:
        events = {"text/event-stream": {"schema": EVENT}} if stream else {}
        found[200] = {"description": what, "content": {"application/json": {"schema": schema}, **events}}
    return found


def corrected(document: Schema) -> Schema:
    """FastAPI's OpenAPI document without the 422 that FastAPI adds: such requests get a 400 here."""
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document.get("components", {}).get("schemas", {}).pop(name, None)
    return document


def reference_page(document: Schema) -> str:
    """The page of an OpenAPI document."""
    schemas = document.get("components", {}).get("schemas", {})
    operations = [
        _operation(f"{method.upper()} {path}", operation, schemas)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>gpt3 API</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="stylesheet" href="/playground/reference.css"></head><body><main>'
        f"<h1>gpt3 API <small>{html.escape(document['info']['version'])}</small></h1>"
        '<p><a href="/">Playground</a> · <a href="/openapi.json">OpenAPI document</a></p>'
        '<p>Errors are objects <code>{"error": {"message", "type", "param", "code"}}</code>. null stands for a default.</p>'
        f"{''.join(operations)}</main></body></html>\n"
    )


def _operation(title: str, operation: Schema, schemas: Schema) -> str:
    parts = [f"<h2><code>{html.escape(title)}</code></h2><p>{html.escape(operation.get('summary', ''))}</p>"]
    if body := operation.get("requestBody"):
        schema = schemas[body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]]
        rows = "".join(
            f'<tr><th scope="row"><code>{name}</code>{" *" if name in schema.get("required", []) else ""}</th>'
            f"<td>{html.escape(_kind(field))}</td><td>{html.escape(field.get('description', ''))}</td></tr>"
            for name, field in schema["properties"].items()
        )
        head = '<tr><th scope="col">field</th><th scope="col">type</th><th scope="col">meaning</th></tr>'
        parts.append(f'<div class="wide"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>')
    answers = [f"{status}: {text['description']}" for status, text in operation["responses"].items() if status >= "4"]
    if answers:
        parts.append(f'<p class="soft">{html.escape("; ".join(answers))}</p>')
    return f"<section>{''.join(parts)}</section>"


def _kind(field: Schema) -> str:
    """A schema's type with its range, in short."""
    words = []
    for part in field.get("anyOf", [field]):
        name = part.get("type", "object" if "$ref" in part or "oneOf" in part else "anything")
        name = f"list of {_kind(part['items'])}" if name == "array" else name
        name = " or ".join(json.dumps(value) for value in part["enum"]) if "enum" in part else name
        low = part.get("minimum", part.get("exclusiveMinimum"))
        high = part.get("maximum", part.get("exclusiveMaximum"))
        if low is not None:
            name += f", {low:g} to {high:g}" if high is not None else f" from {low:g}"
        if name != "null":
            words.append(name)
    return " or ".join(words)
