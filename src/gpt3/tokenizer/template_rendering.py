"""A chat template is a program that comes with a model folder: it may fail in any way, and it may never end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

SECONDS = 2.0
"""Of computing time for one conversation; a thousand turns take some hundredths of it."""
TEMPLATE = "<template>"
"""What Jinja calls the file of a template's compiled code."""

T = TypeVar("T")


class TemplateError(ValueError):
    """A template that failed; the message says how, in one line."""


def bounded(render: Callable[[], T]) -> T:
    """What `render`, which fills in a Jinja template, gives.

    transformers' sandbox keeps a template from files and from the network, and a ``range`` below 100,000; loops in loops
    are allowed. So every line of the template looks at the clock.

    Raises:
        TemplateError: the template raised something, or computed for longer than `SECONDS`.
    """
    from gpt3.errors import one_line

    last = time.thread_time() + SECONDS

    def at_line(frame: FrameType, event: str, argument: Any) -> Any:
        if time.thread_time() > last:
            raise TimeoutError(f"it has not ended after {SECONDS:g} seconds of computing")
        return at_line

    def at_call(frame: FrameType, event: str, argument: Any) -> Any:
        return at_line if frame.f_code.co_filename == TEMPLATE else None

    before = sys.gettrace()
    sys.settrace(at_call)
    try:
        return render()
    except Exception as error:  # it is the template's code: it may raise anything
        raise TemplateError(one_line(error)) from None
    finally:
        sys.settrace(before)
