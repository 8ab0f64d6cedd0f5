"""`response_format`, what a text must follow: OpenAI's formats, and two more."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from gpt3.serving.strict import Strict, Text

FORM = (
    'must be {"type": "text"}, {"type": "json_object"}, {"type": "json_schema", "json_schema": {"schema": {…}}}, '
    '{"type": "regex", "pattern": "…"} or {"type": "choice", "choices": ["…"]}'
)
"""What a format that is none of them should have been."""


class FreeText(Strict):
    """Any text."""

    type: Literal["text"]

    def options(self) -> dict[str, Any]:
        """Of SamplingOptions, those that make a text follow the format."""
        return {}


class JsonObject(FreeText):
    """Any JSON object."""

    type: Literal["json_object"]  # type: ignore[assignment]

    def options(self) -> dict[str, Any]:
        """As FreeText's."""
        return {"json_schema": {"type": "object"}}


class NamedSchema(Strict):
    """A JSON Schema, as OpenAI's API sends it. It is followed whether `strict` is set or not."""

    name: Text | None = None
    """Ignored."""
    description: Text | None = None
    """Ignored."""
    schema_: dict[str, Any] = Field(alias="schema")
    """The schema."""
    strict: bool | None = None
    """Ignored."""


class JsonSchema(FreeText):
    """JSON that follows a schema."""

    type: Literal["json_schema"]  # type: ignore[assignment]
    json_schema: NamedSchema

    def options(self) -> dict[str, Any]:
        """As FreeText's."""
        return {"json_schema": self.json_schema.schema_}


class Regex(FreeText):
    """Text that matches a regular expression as a whole. Not an OpenAI format."""

    type: Literal["regex"]  # type: ignore[assignment]
    pattern: Text

    def options(self) -> dict[str, Any]:
        """As FreeText's."""
        return {"regex": self.pattern}


class Choices(FreeText):
    """One of several texts. Not an OpenAI format."""

    type: Literal["choice"]  # type: ignore[assignment]
    choices: Annotated[list[Annotated[Text, Field(min_length=1)]], Field(min_length=1)]

    def options(self) -> dict[str, Any]:
        """As FreeText's."""
        return {"choices": self.choices}


ResponseFormat = FreeText | JsonObject | JsonSchema | Regex | Choices
