"""Messages and progress of long work on stderr: a bar with ETA on a terminal, a plain line now and then elsewhere; and stdout."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
import warnings
from typing import Any

PLAIN_INTERVAL_SECONDS = 10.0
DUMB = ("dumb", "unknown")
"""Kinds of terminal that cannot move the cursor, and get plain lines."""
warnings.filterwarnings("ignore", "IProgress not found")  # of tqdm in a notebook: its bars are text then, which is fine


def say(text: str) -> None:
    """Print a message for the user: a line on stderr. Work does not end because nobody can read it."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def speak_utf8(stream: object) -> None:
    r"""Make a text stream write UTF-8, whatever the locale or Windows code page is.

    A byte of a file's name that is not UTF-8 appears as ``\udcff``, which JSON reads back as that name.
    """
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def open_streams() -> None:
    """Standard output in UTF-8, and the null device in place of each standard stream that the caller closed.

    Otherwise the next file opened would have its number, and whatever a library prints would end in that file.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # for as long as the process lives
    speak_utf8(sys.stdout)


def drop_output() -> None:
    """Send the rest of standard output nowhere: nobody reads it, or there is no space for it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write(text: str) -> None:
    """To standard output, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def clock(seconds: float) -> str:
    """Seconds as ``1:02:03`` or ``2:03``."""
    whole = max(0, int(seconds + 0.5))
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"


class Progress:
    """A context manager that shows how far `label` has come.

    Args:
        label: what is being done.
        total: how many units in all; None where nobody knows (no ETA then).
        unit: the unit's name, e.g. ``"MB"``.
        start: units done before this run (a resumed job); they do not count into the speed.
    """

    def __init__(self, label: str, total: float | None, unit: str = "", start: float = 0.0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = self.start = start
        self.began = self.said = time.monotonic()
        self.note = ""
        self._bar: Any = None  # rich's, on a terminal
        self._task: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and os.environ.get("TERM") not in DUMB:
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.TextColumn("{task.fields[share]}"),
                progress.TextColumn("{task.fields[note]}"),
                progress.TimeElapsedColumn(),
                progress.TextColumn("ETA"),
                progress.TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(
                self.label, total=1 if self.total else None, completed=self._part(), note="", share=self._share()
            )
        return self

    def advance(self, units: float, note: str | None = None) -> None:
        """Count `units` more as done; `note` (speed, loss, …) is shown next to the bar."""
        self.update(self.done + units, note)

    def update(self, done: float, note: str | None = None) -> None:
        """Set the units done."""
        self.done = done
        if note is not None:
            self.note = note
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._part(), note=self.note, share=self._share())
        elif now - self.said >= PLAIN_INTERVAL_SECONDS:
            self.said = now
            say(self.line(now))

    def say(self, text: str) -> None:
        """Print a line of its own without disturbing the bar."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            say(text)

    def line(self, now: float) -> str:
        """The plain form: label, done of total, per cent, note, elapsed, ETA."""
        elapsed = now - self.began
        total = f"/{self.total:,.0f}" if self.total else ""
        parts = [f"{self.label}: {self.done:,.0f}{total} {self.unit}".rstrip()]
        if self.total:
            parts.append(self._share().strip())
        if self.note:
            parts.append(self.note)
        parts.append(f"elapsed {clock(elapsed)}")
        speed = (self.done - self.start) / elapsed if elapsed > 0 else 0.0
        if self.total and speed > 0:
            parts.append(f"ETA {clock((self.total - self.done) / speed)}")
        return ", ".join(parts)

    def _part(self) -> float:
        """What rich counts: from 0 to 1, of which it draws the whole bar whatever the total; without one the units."""
        return self.done / self.total if self.total else self.done

    def _share(self) -> str:
        """Per cent done, rounded down: 100% is the end."""
        return f"{min(100, int(100 * self.done / self.total)):3}%" if self.total else ""

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            if error[0] is None and self.total:  # an estimate may have been a little high
                self.update(self.total)
            self._bar.stop()
