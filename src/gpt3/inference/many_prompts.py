"""`gpt3 generate --input`: the prompts of a file continued, one line of JSON per sample, in their order, in a file that the same
command resumes.

    out.jsonl                 one line per sample
    out.jsonl.settings.json   what decides its content: options, seed, model, prompts

A file without its settings, or with others, is not touched. No line depends on when or how often the work was interrupted:
prompts are taken in groups of GROUP_BATCHES x --batch samples, each group a request of its own. After a kill, a group of which
lines are missing is computed again from its beginning, and the lines that are there are not written twice: every sample is
computed together with the same others as without the kill, so that the file is the same to the last byte.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from gpt3 import durable, work_folder
from gpt3.corpus.formats import RecordError, fault_of, read_jsonl
from gpt3.corpus.records import STANDARD_INPUT, decoded, read_bytes, shown
from gpt3.errors import InputError
from gpt3.inference.options import GenerateOptions, SamplingOptions
from gpt3.model_folder.locate import ADAPTER_CONFIG, CONFIG, TOKENIZER, adapter_settings, base_of, is_adapter
from gpt3.progress import Progress

if TYPE_CHECKING:
    from gpt3.inference.decoding import Draft
    from gpt3.inference.generation import Generation, GenerationRequest
    from gpt3.inference.language_model import LanguageModel

JSON_ENDINGS = (".jsonl", ".ndjson")
SHOWN_FAULTS = 3
SETTINGS_SUFFIX = ".settings.json"
SYNC_SECONDS = 5.0
"""A power cut loses what was written in this time; a kill loses no whole line."""
READ_WHOLE_BYTES, SAMPLED_BYTES, SAMPLED_PLACES = 1 << 26, 4096, 64
GROUP_BATCHES = 8
"""More of them: fewer moments at which the last samples of a group are generated with empty slots."""
TIMES = ("seconds", "first_token_seconds", "tokens_per_second")
"""Fields of a sample that a second run would not repeat; they are not in the lines."""


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
        if line.strip():
            try:
                prompts.append(_parse(line) if as_json else Prompt(line.removesuffix("\r")))
            except RecordError as error:
                faults.append(f"line {number}: {error.what}")
    if faults:
        more = f"; {len(faults) - SHOWN_FAULTS:,} more such lines" if len(faults) > SHOWN_FAULTS else ""
        raise InputError(f"{shown(name)}: {'; '.join(faults[:SHOWN_FAULTS])}{more}")
    if not prompts:
        raise InputError(f"{shown(name)} has no prompts. Put one on each line.")
    return prompts, hashlib.sha256(content).hexdigest()


def _parse(line: str) -> Prompt:
    [(_, value)] = read_jsonl(io.BytesIO(line.encode("utf-8")))
    if not isinstance(value, dict) or not isinstance(value.get("prompt"), str):
        raise RecordError(1, 'no text under "prompt"; write {"prompt": "..."}')
    name = value.get("id")
    if isinstance(name, bool) or not isinstance(name, (str, int, type(None))):
        raise RecordError(1, f'"id" is {json.dumps(name)}; give a text or a whole number')
    if options := [field.name for field in dataclasses.fields(SamplingOptions) if field.name in value]:
        what = f"{', '.join(options)}: options are the same for all lines; give them on the command line"
        raise RecordError(1, what)
    for text in (value["prompt"], name):
        if isinstance(text, str) and (fault := fault_of(text)):
            raise RecordError(1, fault)
    return Prompt(value["prompt"], name)


class SampleFile:
    """Lines of samples, appended.

    Args:
        path: of the file; folders are made.
        settings: what decides its content, for JSON. A "seed" of None is taken from the file that is resumed.
        overwrite: start anew.

    Attributes:
        settings: as stored, with the seed.
        count: whole lines that are there.

    Raises:
        InputError: the file has other settings (those that differ are named), has none, or cannot be written.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any], new_seed: int, overwrite: bool = False) -> None:
        self.path = Path(path)
        self._settings_path = self.path.with_name(self.path.name + SETTINGS_SUFFIX)
        self._synced = time.monotonic()
        try:
            if overwrite:
                durable.discard(self._settings_path)  # first: a file without settings is never resumed
            old = None if overwrite else self._stored()
            seed = settings["seed"] if settings["seed"] is not None else (old or {}).get("seed", new_seed)
            self.settings = settings | {"seed": seed}
            if old is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.write_bytes(b"")
                durable.write_text(self._settings_path, json.dumps(self.settings, indent=2, ensure_ascii=False) + "\n")
            else:
                remedy = "Use --overwrite or another --output."
                work_folder.check_same(f"--output {path}", old, self.settings, remedy)
            self.count = self._keep_whole_lines()
        except OSError as error:
            raise InputError(
                f"--output {path} cannot be written ({error.strerror}). Choose another --output."
            ) from None

    def __enter__(self) -> SampleFile:
        self._file: BinaryIO = open(self.path, "ab")
        return self

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Add samples, one line each, in one write."""
        self._file.write("".join(map(line_of, records)).encode("utf-8"))
        self._file.flush()
        self.count += len(records)
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def __exit__(self, *error: object) -> None:
        os.fsync(self._file.fileno())
        self._file.close()

    def _stored(self) -> dict[str, Any] | None:
        """The settings of the file that is there; None where there is nothing to lose."""
        if not self.path.exists() or (self.path.is_file() and self.path.stat().st_size == 0):
            return None
        if not self.path.is_file():
            raise InputError(f"--output {self.path} is not a file. Choose another --output.")
        found = work_folder.stored(self._settings_path)
        if found is None:
            raise InputError(
                f"--output {self.path} exists and is not known to have these prompts and options "
                f"(no {self._settings_path.name}). Use --overwrite or another --output."
            )
        return found

    def _keep_whole_lines(self) -> int:
        """Cut off what a kill left half, or a power cut left blank; return the number of whole lines."""
        good = count = 0
        with open(self.path, "rb+") as file:
            for line in itertools.takewhile(_is_whole, file):
                good += len(line)
                count += 1
            if good < self.path.stat().st_size:
                file.truncate(good)
        return count


def _is_whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def line_of(record: dict[str, Any]) -> str:
    """A sample as a line of JSON."""
    return json.dumps(record, ensure_ascii=False) + "\n"


def model_fingerprint(place: Path | str) -> str:
    """What tells a model from another: the hub id, or a hash of configuration, tokenizer and weights, and of an adapter's base.

    Of a file of weights above READ_WHOLE_BYTES, its size and 64 places: reading all would take longer than many a request, and
    training changes every place.
    """
    if isinstance(place, str):
        return place
    digest = hashlib.sha256()
    if is_adapter(place):
        digest.update(model_fingerprint(base_of(place, adapter_settings(place))).encode())
    digest.update((place / (ADAPTER_CONFIG if is_adapter(place) else CONFIG)).read_bytes())
    if (tokenizer := place / TOKENIZER).is_file():
        digest.update(tokenizer.read_bytes())
    for path in sorted(place.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        places, length = (1, size) if size <= READ_WHOLE_BYTES else (SAMPLED_PLACES, SAMPLED_BYTES)
        with open(path, "rb") as file:
            for part in range(places):
                file.seek(size * part // places)
                digest.update(file.read(length))
    return digest.hexdigest()[:16]


@dataclass
class Tally:
    """What was done, for the closing message."""

    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    at_limit: int = 0
    """Samples that --max-new-tokens ended."""
    unmet: int = 0
    """Samples that ended earlier, before their constraint was met."""
    dropped: int = 0
    """Prompts longer than the context."""
    restarted: int = 0
    """Samples that outgrew the context."""
    drafted: int = 0
    accepted: int = 0
    first_token: float | None = None
    """Seconds from the start of the first group to its first token."""


def continue_all(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    options: GenerateOptions,
    *,
    write: Callable[[list[dict[str, Any]]], None],
    done: int = 0,
    new_draft: Callable[[], Draft | None] = lambda: None,
    first_token: Callable[[], None] = lambda: None,
) -> Tally:
    """Continue prompts and write each sample when it and those before it are complete.

    Args:
        options: with a seed.
        write: takes records in order, one per sample.
        done: samples from the beginning that are written already.
        new_draft: makes the draft of a group's request.
        first_token: called as soon as there is a token.
    """
    from gpt3.inference.generation import GenerationRequest

    count = options.num_samples
    group = max(1, GROUP_BATCHES * options.batch // count)
    tally = Tally()
    began = time.perf_counter()
    with Progress("generate", len(prompts), "prompts", start=done // count) as progress:
        for start in range(done // (group * count) * group, len(prompts), group):
            part = prompts[start : start + group]
            texts = [prompt.text for prompt in part]
            request = GenerationRequest(model, texts, options, options.batch, new_draft(), first=start)
            for samples in _in_order(request, max(0, done - start * count), len(part) * count, first_token):
                write([record(sample, part[sample.prompt_index - start].id) for sample in samples])
                tally.samples += len(samples)
                tally.tokens += sum(sample.token_count for sample in samples)
                unmet = sum(sample.unmet(options) for sample in samples)
                tally.unmet += unmet
                tally.at_limit += sum(sample.finish_reason == "length" for sample in samples) - unmet
                tally.restarted += sum(sample.restarts > 0 for sample in samples)
                tally.seconds = time.perf_counter() - began
                speed = f"{tally.tokens / tally.seconds:,.0f} tokens/s"
                progress.update((samples[-1].prompt_index * count + samples[-1].index + 1) // count, speed)
            drafted, accepted = request.accepted()
            tally.drafted, tally.accepted = tally.drafted + drafted, tally.accepted + accepted
            tally.dropped += sum(dropped > 0 for dropped in request.dropped)
            if tally.first_token is None:
                tally.first_token = min(sample.first_token_seconds for sample in request.results())
    return tally


def record(sample: Generation, name: str | int | None) -> dict[str, Any]:
    """A sample as a line holds it: the prompt's id first, where it has one, and no times."""
    values = {key: value for key, value in sample.as_dict().items() if key not in TIMES}
    return values if name is None else {"id": name, **values}


def _in_order(
    request: GenerationRequest, first: int, total: int, first_token: Callable[[], None]
) -> Iterator[list[Generation]]:
    """Samples from `first` on as they become complete, by number; several at a time where they waited for one before them."""
    for _ in request:
        first_token()
        begin = first
        while first < total and request.finished(first):
            first += 1
        if first > begin:
            yield [request.result(number) for number in range(begin, first)]
    if first < total:  # the last ones ended without text
        yield [request.result(number) for number in range(first, total)]
