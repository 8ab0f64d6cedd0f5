"""The API's reference: what answers look like, as JSON Schema (requests have types that say it), and the page at /docs."""

from __future__ import annotations

import html
import json
from typing import Any

Schema = dict[str, Any]


def record(**fields: Schema) -> Schema:
    """An object of these fields, all of them, and no others."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


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
HEALTH = record(status=one_of("ok", "stopping"), models=listed(TEXT))

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


def reference_page(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document."""
    schemas = document.get("components", {}).get("schemas", {})
    sections = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            sections.append(_operation(method.upper(), path, operation, schemas))
    version = html.escape(document["info"]["version"])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>gpt3 API</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="stylesheet" href="/playground/reference.css"></head><body><main>'
        f"<h1>gpt3 API <small>{version}</small></h1>"
        '<p><a href="/">Playground</a> · <a href="/openapi.json">OpenAPI document</a></p>'
        '<p>Errors are objects <code>{"error": {"message", "type", "param", "code"}}</code>. null stands for a default.</p>'
        + "".join(sections)
        + "</main></body></html>\n"
    )


def _operation(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    parts = [f"<h2><code>{method} {html.escape(path)}</code></h2><p>{html.escape(operation.get('summary', ''))}</p>"]
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if "$ref" in content.get("schema", {}):
        schema = schemas[content["schema"]["$ref"].rpartition("/")[2]]
        required = schema.get("required", [])
        rows = "".join(
            f'<tr><th scope="row"><code>{html.escape(name)}</code>{" *" if name in required else ""}</th>'
            f"<td>{html.escape(_kind(field))}</td><td>{html.escape(field.get('description', ''))}</td></tr>"
            for name, field in schema["properties"].items()
        )
        head = '<tr><th scope="col">field</th><th scope="col">type</th><th scope="col">meaning</th></tr>'
        parts.append(f'<div class="wide"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>')
    answers = [f"{status}: {text['description']}" for status, text in operation["responses"].items() if status >= "4"]
    if answers:
        parts.append(f'<p class="soft">{html.escape("; ".join(answers))}</p>')
    return f"<section>{''.join(parts)}</section>"


def _kind(field: dict[str, Any]) -> str:
    """A schema's type with its range, in short."""
    options = [part for part in field.get("anyOf", [field]) if part.get("type") != "null"]
    words = []
    for part in options:
        name = "list of " + _kind(part["items"]) if part.get("type") == "array" else part.get("type", "message")
        low = part.get("minimum", part.get("exclusiveMinimum"))
        high = part.get("maximum", part.get("exclusiveMaximum"))
        if low is not None and high is not None:
            name += f", {_bound(low)} to {_bound(high)}"
        elif low is not None:
            name += f" from {_bound(low)}"
        words.append(name)
    return " or ".join(words)


def _bound(value: float) -> str:
    return json.dumps(int(value)) if abs(value) < 1e6 else f"{value:.0e}"
