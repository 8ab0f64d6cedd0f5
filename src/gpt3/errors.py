"""The errors a user can fix: one clear line each, exit code 2."""

from __future__ import annotations

import importlib
from types import ModuleType


class InputError(ValueError):
    """A user's mistake. The message is one line: what is wrong, which value, what to do.

    The command line prints it without a traceback and exits with code 2.
    """


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional `module`, or say in one line which extra installs it.

    Args:
        module: import name, e.g. ``"zstandard"``.
        extra: the extra of this package that brings it, e.g. ``"data"``.
        purpose: what it is needed for, e.g. ``"reading .zst files"``.

    Raises:
        InputError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:  # installed, but broken inside: not the user's mistake
            raise
        raise InputError(f"{purpose} needs {module}; install it with: pip install 'gpt3[{extra}]'") from None


def one_line(error: BaseException, limit: int = 200) -> str:
    """What a library's exception says, in one line of at most `limit` characters, for a message of ours."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else f"{text[:limit].rstrip()}…"


class RunError(RuntimeError):
    """A job that failed while it ran, for a reason worth one line and no traceback. Exit code 1."""
