"""/docs: the API's reference as a plain page, made from its OpenAPI document; nothing is loaded from elsewhere."""

from __future__ import annotations

import html
import json
from typing import Any


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
