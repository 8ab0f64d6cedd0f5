"""Two records compared, entry by entry; a record made compact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.recorder.record import WORDS, Record, canonical, compact, is_compact

SHOWN = 60
"""Characters of a value that are shown around a difference."""


def read(path: Path) -> dict[str, Any]:
    """A record from its file: ``header`` and ``entries``."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_compact(path: Path, target: Path) -> None:
    """Write the record at `path` with long values as hashes, small enough to be kept with the code."""
    found = read(path)
    record = Record()
    record.entries = {key: compact(value, key) for key, value in found["entries"].items()}
    record.write(target, found["header"])


def compare(first: Path, second: Path, differences_only: bool = False) -> int:
    """Print for each entry whether it is equal, and where not, the first difference. Returns the number of differences.

    Parts that only one record has are named and not compared. Entries of prose that differ are listed as worded differently and
    do not count.
    """
    a, b = read(first), read(second)
    for name in sorted(a["header"].keys() | b["header"].keys()):
        values = a["header"].get(name), b["header"].get(name)
        if values[0] != values[1]:
            print(f"header     {name}: {values[0]} | {values[1]}")
    parts = set(a["header"]["parts"]) & set(b["header"]["parts"])
    one, two = ({k: v for k, v in x["entries"].items() if k.split("/")[0] in parts} for x in (a, b))
    print(f"compared: {', '.join(sorted(parts)) or 'nothing'}")
    counts = dict.fromkeys(("equal", "different", "worded differently"), 0)
    for key in [*one, *(key for key in two if key not in one)]:
        where = "" if key not in one or key not in two else difference(one[key], two[key])
        if key not in one or key not in two:
            where = f"only in {first if key in one else second}"
        kind = "equal" if not where else "worded differently" if key.endswith(WORDS) else "different"
        counts[kind] += 1
        if kind == "different" or (kind != "equal" and not differences_only):
            print(f"{kind}: {key}\n    {where}")
        elif not differences_only:
            print(f"{kind}: {key}")
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return counts["different"] if parts else 1


def difference(one: Any, two: Any) -> str:
    """Where two values first differ, and what they are there; empty where they are equal."""
    if is_compact(one) != is_compact(two):
        one, two = compact(one, WORDS), compact(two, WORDS)
    return "" if canonical(one) == canonical(two) else _first(one, two, "")


def _first(one: Any, two: Any, place: str) -> str:
    if isinstance(one, dict) and isinstance(two, dict):
        for name in [*one, *(name for name in two if name not in one)]:
            if name not in one or name not in two:
                return f"{place}.{name}: only in the {'first' if name in one else 'second'}"
            if canonical(one[name]) != canonical(two[name]):
                return _first(one[name], two[name], f"{place}.{name}")
    if isinstance(one, list) and isinstance(two, list):
        for index, (left, right) in enumerate(zip(one, two, strict=False)):
            if canonical(left) != canonical(right):
                return _first(left, right, f"{place}[{index}]")
        return f"{place}: {len(one)} | {len(two)} items, equal as far as the shorter goes"
    if isinstance(one, str) and isinstance(two, str):
        at = next((i for i, (left, right) in enumerate(zip(one, two, strict=False)) if left != right), -1)
        start = max(0, (min(len(one), len(two)) if at < 0 else at) - SHOWN // 2)
        one, two = one[start : start + SHOWN], two[start : start + SHOWN]
        place += f" from character {start}"
    return f"{place}: {canonical(one)[:200]} | {canonical(two)[:200]}".lstrip(": ")
