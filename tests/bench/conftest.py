from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "speed.md"


@pytest.fixture
def undocumented() -> Callable[[Iterable[str]], list[str]]:
    """Which keys of a result docs/speed.md does not list."""
    page = PAGE.read_text(encoding="utf-8")
    return lambda keys: [key for key in keys if f"`{key}`" not in page]
