"""Many prompts from a file: one per line, plain text or JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3.errors import InputError
from gpt3.inference.options import SamplingOptions
from gpt3.inference.standard_streams import STANDARD_INPUT, decoded, read_bytes, shown

JSON_ENDINGS = (".jsonl", ".ndjson")
SHOWN_FAULTS = 3


@dataclass(frozen=True)
class Prompt:
    """One prompt of a list."""

    text: str
    """What is to be continued; "" begins a new document."""
    id: str | int | None = None
    """The user's name for it, given back with each sample."""


def read_prompts(name: str) -> tuple[list[Prompt], str]:
    """The prompts of a file or of standard input, at least one, and the SHA-256 of its bytes.

    A .jsonl or .ndjson file has on each line an object with "prompt" and, if wanted, "id"; other keys are ignored, but names of
    sampling options are refused, since the options are the same for all lines. Any other file has on each line a prompt. Of
    standard input, the first character decides: { is JSON. Empty lines are skipped.

    Args:
        name: a file, or "-".

    Raises:
        InputError: no such file, not UTF-8, no prompt in it, or lines that are not prompts (the first three are named).
    """
    content = read_bytes(name)
    text = decoded(content, name)
    as_json = text.startswith("{") if name == STANDARD_INPUT else Path(name).suffix.lower() in JSON_ENDINGS
    prompts: list[Prompt] = []
    faults: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if line.strip():
            try:
                prompts.append(_parse(line) if as_json else Prompt(line))
            except ValueError as error:
                faults.append(f"line {number}: {error}")
    if faults:
        more = f"; {len(faults) - SHOWN_FAULTS:,} more such lines" if len(faults) > SHOWN_FAULTS else ""
        raise InputError(f"{shown(name)}: {'; '.join(faults[:SHOWN_FAULTS])}{more}")
    if not prompts:
        raise InputError(f"{shown(name)} has no prompts. Put one on each line.")
    return prompts, hashlib.sha256(content).hexdigest()


def _parse(line: str) -> Prompt:
    try:
        value: Any = json.loads(line)
    except ValueError:
        raise ValueError('not JSON; write {"prompt": "..."}') from None
    if not isinstance(value, dict) or not isinstance(value.get("prompt"), str):
        raise ValueError('no text under "prompt"; write {"prompt": "..."}')
    try:
        value["prompt"].encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"not text at character {error.start} of its prompt ({error.reason})") from None
    name = value.get("id")
    if isinstance(name, bool) or not isinstance(name, (str, int, type(None))):
        raise ValueError(f'"id" is {json.dumps(name)}; give a text or a whole number')
    options = [field.name for field in dataclasses.fields(SamplingOptions) if field.name in value]
    if options:
        raise ValueError(f"{', '.join(options)}: options are the same for all lines; give them on the command line")
    return Prompt(value["prompt"], name)
