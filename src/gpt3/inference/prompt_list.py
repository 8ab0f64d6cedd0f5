"""Many prompts from a file: one a line, plain text or JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3.errors import InputError
from gpt3.inference.options import SamplingOptions
from gpt3.inference.standard_streams import STANDARD_INPUT, read_bytes

JSON_ENDINGS = (".jsonl", ".ndjson")
SHOWN_FAULTS = 3


@dataclass(frozen=True)
class Prompt:
    """One prompt of a list."""

    text: str
    """What is to be continued; "" begins a new document."""
    id: str | int | None = None
    """The user's name for it, given back with each sample."""


@dataclass(frozen=True)
class PromptList:
    """Prompts in the order of their file."""

    prompts: list[Prompt]
    """At least one."""
    sha256: str
    """Of the file's bytes."""


def read_prompts(name: str) -> PromptList:
    """The prompts of a file, or of standard input.

    A .jsonl or .ndjson file has on each line an object with "prompt" and, if wanted, "id"; other keys are left alone, but names
    of sampling options are refused, since the options are the same for all lines. Any other file has on each line a prompt. Of
    standard input, the first character decides: { is JSON. Empty lines are passed over.

    Args:
        name: a file, or "-".

    Raises:
        InputError: no such file, not UTF-8, no prompt in it, or lines that are none (the first three are named).
    """
    shown = "standard input" if name == STANDARD_INPUT else name
    if name == STANDARD_INPUT:
        content = read_bytes()
    else:
        try:
            content = Path(name).read_bytes()
        except OSError as error:
            raise InputError(f"--input {name} cannot be read ({error.strerror}); give a text or .jsonl file") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"--input: {shown} is not UTF-8 at byte {error.start}; convert it to UTF-8") from None
    as_json = text.startswith("{") if name == STANDARD_INPUT else Path(name).suffix.lower() in JSON_ENDINGS
    prompts: list[Prompt] = []
    faults: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line.strip():
            continue
        try:
            prompts.append(_parse(line) if as_json else Prompt(line))
        except ValueError as error:
            faults.append(f"line {number}: {error}")
    if faults:
        more = f"; {len(faults) - SHOWN_FAULTS:,} more such lines" if len(faults) > SHOWN_FAULTS else ""
        raise InputError(f"--input {shown}: {'; '.join(faults[:SHOWN_FAULTS])}{more}")
    if not prompts:
        raise InputError(f"--input: {shown} has no prompts; put one on each line")
    return PromptList(prompts, hashlib.sha256(content).hexdigest())


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
        raise ValueError(f"no text at character {error.start} of its prompt ({error.reason})") from None
    name = value.get("id")
    if isinstance(name, bool) or not isinstance(name, (str, int, type(None))):
        raise ValueError(f'"id" is {json.dumps(name)}; give a text or a whole number')
    options = [field.name for field in dataclasses.fields(SamplingOptions) if field.name in value]
    if options:
        raise ValueError(f"{', '.join(options)}: options are the same for all lines; give them on the command line")
    return Prompt(value["prompt"], name)
