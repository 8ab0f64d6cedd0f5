"""Standard input and output as the commands use them: UTF-8, and at once."""

from __future__ import annotations

import io
import sys

STANDARD_INPUT = "-"
"""In place of a file's name."""


def speak_utf8(stream: object) -> None:
    """Make a text stream write UTF-8, whatever the locale or Windows code page is."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8")


def write(text: str) -> None:
    """To standard output, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def read_bytes() -> bytes:
    """All of standard input; nothing where there is none."""
    return b"" if sys.stdin is None else sys.stdin.buffer.read()
