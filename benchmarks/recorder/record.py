"""A record: what was observed, by key, as a JSON file. What counts and how it is worded are kept apart."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WORDS = " (words)"
"""The end of the key of an entry that holds prose: a difference there is no difference in behaviour."""
VOLATILE = frozenset(
    {"seconds", "first_token_seconds", "tokens_per_second", "tokens_per_s", "mfu", "kwh", "created", "training_seconds"}
)
"""Names of values that depend on the clock; they are left out wherever they are found."""
LONG = 80
"""Characters of a value's JSON above which a compact record holds its hash only."""
EXACT = ("training", "files", "commands")
"""Parts whose numbers are the same bits on the same machine."""
WHOLE = "metrics.jsonl/loss"
"""The end of the key of values that a compact record keeps, however long: the losses of every step."""
COMPACT = re.compile(r"#[0-9a-f]{20} of \d+")
"""What stands for a long value: the beginning of its sha256, and its length."""


def canonical(value: Any) -> str:
    """A value as the one JSON text that stands for it."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def digest(content: bytes | str) -> str:
    """The sha256 of a content, marked as such."""
    return "sha256:" + hashlib.sha256(content.encode("utf-8") if isinstance(content, str) else content).hexdigest()


def stripped(value: Any) -> Any:
    """A value of JSON without what depends on the clock, and without fingerprints of files (their place and time)."""
    if isinstance(value, dict):
        placed = {"fingerprint"} if "WORK" in str(value.get("name")) else set()
        return {name: stripped(inner) for name, inner in value.items() if name not in VOLATILE | placed}
    if isinstance(value, (list, tuple)):
        return [stripped(inner) for inner in value]
    return value


def is_exact(key: str) -> bool:
    """Whether the numbers of an entry must be equal to the last bit; elsewhere rounding may differ with where buffers lie."""
    return key.split("/")[0] in EXACT


def compact(value: Any, key: str) -> Any:
    """A short value as it is; of a long one, and of all prose, the hash and the length; without numbers that may differ."""
    if is_compact(value) or key.endswith(WHOLE):
        return value
    if not is_exact(key):
        value = without_fractions(value)
    text = canonical(value)
    if len(text) <= LONG and not key.endswith(WORDS):
        return value
    return f"#{hashlib.sha256(text.encode()).hexdigest()[:20]} of {len(text)}"


def without_fractions(value: Any) -> Any:
    """A value with a sign in place of each number that is not whole."""
    if isinstance(value, dict):
        return {name: without_fractions(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_fractions(inner) for inner in value]
    return "float" if isinstance(value, float) else value


def is_compact(value: Any) -> bool:
    """Whether a value stands for a longer one."""
    return isinstance(value, str) and COMPACT.fullmatch(value) is not None


class Record:
    """Entries by key, in the order in which they were made."""

    def __init__(self) -> None:
        self.entries: dict[str, Any] = {}

    def add(self, key: str, value: Any) -> None:
        """What was observed under `key`: anything that JSON can hold."""
        if key in self.entries:
            raise KeyError(f"{key} is recorded twice")
        self.entries[key] = json.loads(json.dumps(stripped(value)))

    def words(self, key: str, value: Any) -> None:
        """Prose that belongs to `key`: messages, tables, help."""
        self.add(key + WORDS, value)

    @contextlib.contextmanager
    def attempt(self, key: str) -> Iterator[None]:
        """Record a failure under `key`, and continue with what comes after."""
        try:
            yield
        except Exception as error:
            print(f"{key} failed:", file=sys.stderr)
            traceback.print_exc()
            self.add(f"{key} failed", type(error).__name__)
            self.words(f"{key} failed", str(error)[-2000:])

    def write(self, path: Path, header: dict[str, Any]) -> None:
        """Write a JSON file with one entry per line."""
        lines = ",\n".join(f"{json.dumps(key)}: {canonical(value)}" for key, value in self.entries.items())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"header": {canonical(header)},\n"entries": {{\n{lines}\n}}}}\n', encoding="utf-8")


def header(parts: list[str], threads: int) -> dict[str, Any]:
    """What the numbers may depend on besides the code: machine, versions, threads; and the code's commit."""
    from importlib.metadata import version

    import torch

    import gpt3

    home = Path(str(gpt3.__file__)).parent
    commit = subprocess.run(["git", "-C", str(home), "rev-parse", "HEAD"], capture_output=True, text=True)
    names = ("torch", "transformers", "tokenizers", "numpy", "numba", "peft", "trl", "gguf")
    return {
        "parts": parts,
        "commit": commit.stdout.strip() or None,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": threads,
        "task files": "GPT3_RECORDER_DATA" in os.environ,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }
