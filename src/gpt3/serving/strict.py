"""What every request body is made of: objects without conversions and unknown fields, and texts of whole characters."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from gpt3.corpus.formats import fault_of

HALF = "string_unicode"
"""The kind of pydantic's error of a text with half a surrogate pair, which JSON can spell and no text has."""


def whole(text: str) -> str:
    """A text of whole characters, for pydantic."""
    if fault_of(text):
        raise PydanticCustomError(HALF, "half a character")
    return text


Text = Annotated[str, AfterValidator(whole)]


class Strict(BaseModel):
    """No conversions, no unknown fields, no NaN."""

    model_config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), use_attribute_docstrings=True
    )
