"""Standard input and output as the commands use them: UTF-8, and at once."""

from __future__ import annotations

import io
import sys
from codecs import BOM_UTF8
from pathlib import Path

from gpt3.errors import InputError

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


def read_text(name: str) -> str:
    """The text of a UTF-8 file, or of standard input for "-", with its line ends; a byte order mark is left out.

    Raises:
        InputError: it cannot be read, is empty, or is not UTF-8 (the byte is named).
    """
    shown = "standard input" if name == STANDARD_INPUT else name
    try:
        content = read_bytes() if name == STANDARD_INPUT else Path(name).read_bytes()
    except OSError as error:
        raise InputError(f"{shown} cannot be read ({error.strerror}). Give a text file") from None
    mark = len(BOM_UTF8) if content.startswith(BOM_UTF8) else 0
    if len(content) == mark:
        raise InputError(f"{shown} is empty. Give a text file with content")
    try:
        return content[mark:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{shown} is not UTF-8 at byte {error.start + mark}. Convert it to UTF-8") from None
