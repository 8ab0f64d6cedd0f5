"""Work that may be interrupted and resumed: the settings it was started with, its lock, and how a signal ends it.

A folder (or a file) of work remembers the settings that it was started with, as a JSON object. The same command resumes it;
a command with other settings is refused, and the error names them. One process at a time works in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from types import FrameType
from typing import Any

from gpt3.durable import TEMPORARY_SUFFIX, discard
from gpt3.errors import InputError
from gpt3.options import default_of, flag, is_required
from gpt3.progress import say

LOCK = ".lock"
OVERWRITE = "--overwrite"
"""The option of every command that writes where the user says."""
MARK_BYTES = 1024
"""Where `check_file` looks for a mark."""
MOST_SHOWN = 6
"""Settings that one message names."""
LONGEST_SHOWN = 40
"""Characters of a setting's value in a message."""


class Settings(dict[str, Any]):
    """Settings as JSON values that know their defaults, so that work of a version without some option can be resumed."""

    defaults: Mapping[str, Any] = {}

    def __or__(self, more: Mapping[str, Any]) -> Settings:  # type: ignore[override]
        """With more settings, which have no defaults."""
        merged = Settings({**self, **more})
        merged.defaults = self.defaults
        return merged


def requested(options: Any, free: Collection[str] = ()) -> Settings:
    """The fields of an options dataclass as JSON values, without those in `free`: these may change when work is resumed."""
    fields = [field for field in dataclasses.fields(options) if field.name not in free]
    settings = Settings(json.loads(json.dumps({field.name: getattr(options, field.name) for field in fields})))
    known = {field.name: default_of(field) for field in fields if not is_required(field)}
    settings.defaults = json.loads(json.dumps(known))
    return settings


def stored(path: Path) -> dict[str, Any] | None:
    """The settings in the JSON file `path`; None where there is no such file or it holds no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A clause for each setting that differs, such as ``--lr was 0.001, now 0.0001``.

    A setting missing on one side counts as its default, or as None where `now` knows no defaults (`requested`).
    """
    defaults = now.defaults if isinstance(now, Settings) else {}
    pairs = [(name, *(side.get(name, defaults.get(name)) for side in (before, now))) for name in {**before, **now}]
    return [f"{flag(name)} was {_shown(was)}, now {_shown(new)}" for name, was, new in pairs if was != new]


def check_same(what: str, before: Mapping[str, Any], now: Mapping[str, Any], remedy: str) -> None:
    """Refuse to resume work that was started with other settings.

    Args:
        what: the work as an error names it, such as ``--out runs/novels``.
        remedy: what to do, a sentence.

    Raises:
        InputError: ``WHAT was started with other options: --lr was 0.001, now 0.0001. REMEDY``
    """
    found = differences(before, now)
    if found:
        more = [f"and {len(found) - MOST_SHOWN} more"] if len(found) > MOST_SHOWN else []
        raise InputError(f"{what} was started with other options: {'; '.join(found[:MOST_SHOWN] + more)}. {remedy}")


def choose_folder(
    out: str | None,
    default: Path,
    now: Mapping[str, Any],
    *,
    before: Callable[[Path], Mapping[str, Any] | None],
    finished: Callable[[Path], bool],
    early: Collection[str] = (),
    resume: bool = True,
    former: Path | None = None,
) -> tuple[Path, bool]:
    """The folder to work in, and whether it holds work to resume.

    Without `out`: the newest of DEFAULT, DEFAULT-2, … with unfinished work of the same settings that no process is at, else the
    next free name.

    Args:
        out: ``--out``.
        now: the settings asked for (`requested`).
        before: the settings of the work in a folder; None where there is none.
        finished: whether the work in a folder is done, so that it is not resumed.
        early: names, besides the lock's, that work killed in its first moment leaves: a folder of no others is free.
        resume: False: start afresh, only in a free folder.
        former: the default of earlier versions; work there is resumed, and none begun.

    Raises:
        InputError: `out` holds work of other settings, finished work, or something else.
    """
    if out is None:
        free = numbered(default)[-1]
        for folder in reversed(numbered(default)[:-1] + (numbered(former)[:-1] if former else []) if resume else []):
            there = None if finished(folder) else before(folder)
            if there is not None and not differences(there, now) and not is_locked(folder):
                return folder, True
        return free, False
    folder, remedy = Path(out), "Choose another --out, or remove it."
    names = [path.name for path in folder.glob("*") if not path.name.endswith(TEMPORARY_SUFFIX)]
    if not folder.exists() or (folder.is_dir() and {LOCK, *early}.issuperset(names)):
        return folder, False
    if finished(folder):
        raise InputError(f"--out {folder} is finished. {remedy}")
    there = before(folder)
    if there is None:
        raise InputError(f"--out {folder} holds other files. {remedy}")
    check_same(f"--out {folder}", there, now, remedy)
    if not resume:
        raise InputError(f"--out {folder} holds an unfinished run, and --resume never starts afresh. {remedy}")
    return folder, True


def numbered(default: Path) -> list[Path]:
    """DEFAULT, DEFAULT-2, … as far as they exist, and the first that does not."""
    found = [default]
    while found[-1].exists():
        found.append(default.with_name(f"{default.name}-{len(found) + 1}"))
    return found


def check_out(out: Path, own: Collection[str] = (), *, overwrite: bool, kind: Collection[str]) -> None:
    """Refuse to replace a folder by anything but a later one of its kind, unless the user asks for it.

    Args:
        own: patterns of the names in such a folder, where gpt3 wrote the one that is there.
        overwrite: ``--overwrite``: replace also what others wrote, as long as it is of this kind.
        kind: patterns of the names that any program gives the files of such a folder. One with other files is never replaced.

    Raises:
        InputError: `out` is a file, or holds other files.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file. Name a new folder.")
    names = sorted(path.name for path in out.glob("*"))
    if foreign := _unlike(names, kind):
        also = f", which {OVERWRITE} does not replace" if overwrite else ""
        raise InputError(f"--out {out} holds other files ({', '.join(foreign[:3])}){also}. Name a new folder.")
    if not overwrite and (others := _unlike(names, own)):
        fix = f"Name a new folder, or replace it with {OVERWRITE}."
        raise InputError(f"--out {out} holds other files ({', '.join(others[:3])}). {fix}")


def _unlike(names: Collection[str], patterns: Collection[str]) -> list[str]:
    return [name for name in names if not any(fnmatch(name, pattern) for pattern in patterns)]


def check_file(name: str, path: Path, mark: bytes, *, overwrite: bool | None = None) -> None:
    """Refuse, before the work, to replace a file by anything but a later one of its kind, unless the user asks for it.

    Args:
        name: the option, such as ``--html``.
        mark: what our files of this kind have in their first bytes.
        overwrite: ``--overwrite``: replace any file; None: there is no such option.

    Raises:
        InputError: a folder, a device or another file is there, or no file can be written there.
    """
    if str(path) == "-":
        raise InputError(f"{name} - is not standard output: this goes into a file. Name a file.")
    folder = next(parent for parent in path.parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        why = "cannot be written to" if folder.is_dir() else "is not a folder"
        raise InputError(f"{name} {path} cannot be written: {folder} {why}. Name another file.")
    if path.exists() and not path.is_file():
        raise InputError(f"{name} {path} is {'a folder' if path.is_dir() else 'a device or a pipe'}. Name a file.")
    if path.is_file() and not overwrite:
        with open(path, "rb") as file:
            start = file.read(MARK_BYTES)
        if start and mark not in start:
            fix = "remove this one" if overwrite is None else f"replace this one with {OVERWRITE}"
            raise InputError(f"{name} {path} exists, and gpt3 did not write it. Name a new file, or {fix}.")


@contextlib.contextmanager
def locked(lock: Path, busy: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file at `lock`; the system lets go of it when its process dies.

    Args:
        busy: what to say when another process holds it.
        wait: say so and wait for it; else refuse.

    Raises:
        InputError: another process holds it, and `wait` is False.
    """
    from filelock import FileLock, Timeout

    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout:
        if not wait:
            raise InputError(busy) from None
        say(busy)
        held.acquire()
    try:
        yield
    finally:
        held.release()


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold `folder`, which is made, against other processes; it goes away again if nothing was put into it.

    Raises:
        InputError: another process is at work in it, or it cannot be made.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {folder} cannot be made ({error.strerror}). Choose another --out.") from None
    busy = f"--out {folder} is in use by another process. Wait for it, or choose another --out."
    with locked(folder / LOCK, busy):
        for left in folder.glob(f"*{TEMPORARY_SUFFIX}"):  # of a killed process: this one is alone here
            discard(left)
        try:
            yield
        finally:
            unused = made and all(path.name == LOCK for path in folder.iterdir())
            if unused and os.name != "nt":  # Windows removes no open file
                discard(folder)


def is_locked(folder: Path) -> bool:
    """Whether a living process is at work in `folder`."""
    if not (folder / LOCK).exists():
        return False
    try:
        with locked(folder / LOCK, ""):
            return False
    except InputError:
        return True


def _shown(value: Any) -> str:
    if value is None:
        return "unset"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"


class Interruption:
    """The signal that asked the work to end; None so far."""

    def __init__(self) -> None:
        self.number: int | None = None

    def asked(self) -> bool:
        """Whether a signal asked the work to end."""
        return self.number is not None

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for SIGTERM, as a shell reports them."""
        return 128 + (self.number or signal.SIGINT)


@contextlib.contextmanager
def interruptible(speak: bool = True) -> Iterator[Interruption]:
    """Record SIGINT and SIGTERM instead of ending by them; a second one ends at once. Other threads than the main one do nothing.

    Args:
        speak: say on standard error what happens.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if interruption.asked():
            os._exit(128 + number)
        interruption.number = number
        if speak:
            message = "Stopping after this step. Press Ctrl-C again to quit now.\n"
            os.write(sys.stderr.fileno(), message.encode())

    old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
