"""Two records compared, entry by entry; a record made compact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.recorder.record import WORDS, Record, canonical, compact, is_compact, is_exact

EQUAL, ROUNDED, WORDED, DIFFERENT = "equal", "equal up to rounding", "worded differently", "different"
NEAR = 2e-5
"""How far two numbers may be apart, absolute below 1 and relative above, to be equal up to rounding."""
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

    Only parts that both records have are compared. Prose that differs is listed as worded differently and does not count, and
    neither do log-probabilities that differ in their last bits.
    """
    a, b = read(first), read(second)
    for name in sorted(a["header"].keys() | b["header"].keys()):
        values = a["header"].get(name), b["header"].get(name)
        if values[0] != values[1]:
            print(f"header     {name}: {values[0]} | {values[1]}")
    parts = set(a["header"]["parts"]) & set(b["header"]["parts"])
    one, two = ({k: v for k, v in x["entries"].items() if k.split("/")[0] in parts} for x in (a, b))
    print(f"compared: {', '.join(sorted(parts)) or 'nothing'}")
    counts = dict.fromkeys((EQUAL, ROUNDED, WORDED, DIFFERENT), 0)
    for key in [*one, *(key for key in two if key not in one)]:
        if key in one and key in two:
            kind, where = judge(key, one[key], two[key])
        else:
            kind, where = WORDED if key.endswith(WORDS) else DIFFERENT, f"only in {first if key in one else second}"
        counts[kind] += 1
        if kind == DIFFERENT or not differences_only:
            print(f"{kind}: {key}" + (f"\n    {where}" if where else ""))
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return counts[DIFFERENT] if parts else 1


def judge(key: str, one: Any, two: Any) -> tuple[str, str]:
    """How two values of an entry compare, and where they first differ."""
    if is_compact(one) != is_compact(two):
        one, two = (value if is_compact(value) else compact(value, key) for value in (one, two))
        if isinstance(one, str) != isinstance(two, str):
            return DIFFERENT, "one of them is long"
    if not (where := difference(one, two)):
        return EQUAL, ""
    if key.endswith(WORDS):
        return WORDED, where
    if is_exact(key) or (far := difference(one, two, NEAR)):
        return DIFFERENT, where if is_exact(key) else far
    return ROUNDED, where


def difference(one: Any, two: Any, near: float = 0.0, place: str = "") -> str:
    """Where two values first differ by more than `near`, and what they are there; empty where they are equal."""
    if canonical(one) == canonical(two):
        return ""
    if isinstance(one, dict) and isinstance(two, dict):
        for name in [*one, *(name for name in two if name not in one)]:
            if name not in one or name not in two:
                return f"{place}.{name}: only in the {'first' if name in one else 'second'}"
            if found := difference(one[name], two[name], near, f"{place}.{name}"):
                return found
        return ""
    if isinstance(one, list) and isinstance(two, list):
        for index, (left, right) in enumerate(zip(one, two, strict=False)):
            if found := difference(left, right, near, f"{place}[{index}]"):
                return found
        return f"{place}: {len(one)} and {len(two)} items" if len(one) != len(two) else ""
    if isinstance(one, float) and isinstance(two, float) and abs(one - two) <= near * max(1.0, abs(one), abs(two)):
        return ""
    if isinstance(one, str) and isinstance(two, str):
        at = next((i for i, (left, right) in enumerate(zip(one, two, strict=False)) if left != right), -1)
        start = max(0, (min(len(one), len(two)) if at < 0 else at) - SHOWN // 2)
        one, two = one[start : start + SHOWN], two[start : start + SHOWN]
        place += f" from character {start}"
    return f"{place}: {canonical(one)[:200]} | {canonical(two)[:200]}".lstrip(": ")
