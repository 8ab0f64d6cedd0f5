"""What readers of documents leave out, by reason: noted where it happens, taken by whoever reports it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

MOST_PLACES = 20
"""Places that are kept of each reason."""


@dataclass
class Skipped:
    """What is left out for one reason."""

    count: int = 0
    places: list[str] = field(default_factory=list)
    """The first ones: addresses of pages, or names of files."""


class _Notes(threading.local):
    def __init__(self) -> None:
        self.found: dict[str, Skipped] = {}


_notes = _Notes()


def note(reason: str, place: str) -> None:
    """Something is left out. Notes are of the thread that reads."""
    add(_notes.found, {reason: Skipped(1, [place])})


def take() -> dict[str, Skipped]:
    """The notes since the last call, which are forgotten."""
    found, _notes.found = _notes.found, {}
    return found


def add(total: dict[str, Skipped], more: Mapping[str, Skipped]) -> None:
    """Add some notes to others."""
    for reason, skipped in more.items():
        mine = total.setdefault(reason, Skipped())
        mine.count += skipped.count
        mine.places += skipped.places[: MOST_PLACES - len(mine.places)]
