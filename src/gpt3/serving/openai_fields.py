"""Fields of OpenAI's API that change nothing here: ignored ones, and ones of which only the neutral values are accepted."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

UNSUPPORTED = "unsupported"
"""The kind of pydantic's error where such a field has another value."""
IGNORED = (
    "user", "metadata", "service_tier", "parallel_tool_calls", "safety_identifier", "prompt_cache_key",
    "prompt_cache_options", "prompt_cache_retention",
)  # fmt: skip
"""Fields of any value."""
NO_TOOLS = "the model cannot call tools"
NO_MEDIA = "the model reads and writes only text"
NEUTRAL: dict[str, tuple[list[Any], str]] = {
    "tools": ([[]], NO_TOOLS),
    "tool_choice": (["none", "auto"], NO_TOOLS),
    "functions": ([[]], NO_TOOLS),
    "function_call": (["none", "auto"], NO_TOOLS),
    "modalities": ([["text"]], NO_MEDIA),
    "audio": ([], NO_MEDIA),
    "prediction": ([], "the server does not take predicted text"),
    "web_search_options": ([], "the server does not search the web"),
    "moderation": ([], "the server does not moderate"),
    "reasoning_effort": (["none"], "the model answers at once"),
    "verbosity": (["medium"], "max_tokens limits the length"),
    "store": ([False], "the server does not keep answers"),
}
"""Of each field the values that change nothing, besides null, and why there are no others."""


def ignored() -> tuple[Any, Any]:
    """A field that may have any value, for `create_model`."""
    return Any, Field(None, description="Ignored.")


def only(values: list[Any], reason: str) -> tuple[Any, Any]:
    """A field that may have these values or null, for `create_model`; the reason tells why it may have no others."""

    def check(value: Any) -> Any:
        if value is None or any(type(value) is type(one) and value == one for one in values):
            return value
        raise PydanticCustomError(UNSUPPORTED, "is not supported: {reason}. Leave it out.", {"reason": reason})

    kind: Any = Annotated[Any, AfterValidator(check), WithJsonSchema({"enum": [*values, None]})]
    return kind, Field(None, description=f"Only its neutral values are accepted: {reason}.")


FIELDS: dict[str, Any] = {name: ignored() for name in IGNORED} | {name: only(*kind) for name, kind in NEUTRAL.items()}
"""Of a request."""
MESSAGE_FIELDS: dict[str, Any] = {
    "name": ignored(),
    "annotations": ignored(),
    "refusal": only([], "an answer is text"),
    "audio": only([], NO_MEDIA),
    "tool_calls": only([[]], NO_TOOLS),
    "function_call": only([], NO_TOOLS),
}
"""Of a message: the `openai` client sends an answer back with all of them."""
