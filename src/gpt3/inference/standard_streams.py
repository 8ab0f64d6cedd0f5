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


def read_bytes(name: str) -> bytes:
    """The content of a file, or of standard input for "-"; nothing where there is none.

    Raises:
        InputError: the file cannot be read.
    """
    if name == STANDARD_INPUT:
        return b"" if sys.stdin is None else sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror}). Give a text file") from None


def decoded(content: bytes, name: str) -> str:
    """The text in the UTF-8 content of `name`, with its line ends; a byte order mark is left out.

    Raises:
        InputError: it is not UTF-8 (the byte is named).
    """
    mark = len(BOM_UTF8) if content.startswith(BOM_UTF8) else 0
    try:
        return content[mark:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{shown(name)} is not UTF-8 at byte {error.start + mark}. Convert it to UTF-8") from None


def shown(name: str) -> str:
    """A file as messages name it."""
    return "standard input" if name == STANDARD_INPUT else name


def read_text(name: str) -> str:
    """The text of a UTF-8 file, or of standard input for "-".

    Raises:
        InputError: it cannot be read, is empty, or is not UTF-8.
    """
    text = decoded(read_bytes(name), name)
    if not text:
        raise InputError(f"{shown(name)} is empty. Give a text file with content")
    return text
