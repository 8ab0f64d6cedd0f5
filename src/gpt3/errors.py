"""The errors a user can fix: one clear line each, exit code 2; and what to install where an extra is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

DISTRIBUTION = "gpt3-paper"
"""The name this package is installed under, as in pyproject.toml. On PyPI, gpt3 is another project."""


class InputError(ValueError):
    """A user's mistake. The message is one line: what is wrong, which value, what to do.

    The command line prints it without a traceback and exits with code 2.
    """


def yaml_fault(error: Exception) -> str:
    """Why a text is no YAML, after the name of its file: ``, line 3 is not YAML: mapping values are not allowed here``."""
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or one_line(error)
    return f"{f', line {mark.line + 1}' if mark else ''} is not YAML: {reason}"


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
        raise InputError(f"{purpose} needs {module}; install it with: {install_command(extra)}") from None


def install_command(extra: str) -> str:
    """The shell command that installs an extra of this package into this interpreter, from where this package came."""
    try:
        origin = json.loads(importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
    except importlib.metadata.PackageNotFoundError:  # run from its source tree
        origin = {"url": Path(__file__).resolve().parents[2].as_uri(), "dir_info": {"editable": True}}
    url = urlparse(str(origin.get("url", "")))
    words = [sys.executable, "-m", "pip", "install"]
    if url.scheme == "file":
        editable = ["-e"] if origin.get("dir_info", {}).get("editable") else []
        words += [*editable, f"{url2pathname(unquote(url.path) if '%' in url.path else url.path)}[{extra}]"]
    elif url.scheme:
        version_control = f"{origin['vcs_info']['vcs']}+" if "vcs_info" in origin else ""
        words.append(f"{DISTRIBUTION}[{extra}] @ {version_control}{url.geturl()}")
    else:
        words.append(f"{DISTRIBUTION}[{extra}]")
    return shlex.join(words)


def extras() -> dict[str, list[str]]:
    """Each extra of this package, and the names of the packages in it that are missing here."""
    try:
        required = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    parts: dict[str, list[str]] = {}  # of an extra that is made of others
    for line in required:
        name, extra = re.match(r"[\w.-]+", line), re.search(r"""extra == ['"]([\w.-]+)['"]""", line)
        if name is None or extra is None:
            continue
        lacking = found.setdefault(extra[1], [])
        if name[0] == DISTRIBUTION:
            parts[extra[1]] = re.findall(r"[\w.-]+", line.partition("[")[2].partition("]")[0])
            continue
        try:
            importlib.metadata.distribution(name[0])
        except importlib.metadata.PackageNotFoundError:
            lacking.append(name[0])

    def whole(extra: str) -> list[str]:
        others = (missing for part in parts.get(extra, ()) for missing in whole(part))
        return list(dict.fromkeys([*found[extra], *others]))

    return {extra: whole(extra) for extra in found}


def one_line(error: BaseException, limit: int = 200) -> str:
    """What a library's exception says, in one line of at most `limit` characters, for a message of ours."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else f"{text[:limit].rstrip()}…"


class RunError(RuntimeError):
    """A job that failed while it ran, for a reason worth one line and no traceback. Exit code 1."""
