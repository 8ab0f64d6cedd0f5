"""The output of many prompts: whole lines in the prompts' order, added as they come, which the same command resumes.

    out.jsonl                 one line per sample
    out.jsonl.settings.json   what decides its content: options, seed, model, prompts

A file without its settings, or with others, is not touched. No line depends on when or how often the work was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from gpt3 import durable, work_folder
from gpt3.errors import InputError
from gpt3.model_folder.locate import ADAPTER_CONFIG, CONFIG, TOKENIZER, adapter_settings, base_of, is_adapter

SETTINGS_SUFFIX = ".settings.json"
SYNC_SECONDS = 5.0
"""A power cut loses what was written in this time; a kill loses no whole line."""
READ_WHOLE_BYTES, SAMPLED_BYTES, SAMPLED_PLACES = 1 << 26, 4096, 64


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
        self._file: BinaryIO | None = None
        self._synced = time.monotonic()
        try:
            if overwrite:
                durable.discard(self._settings_path)  # first: a file without settings is never resumed
            old = None if overwrite else self._stored()
            seed = settings["seed"] if settings["seed"] is not None else (old or {}).get("seed", new_seed)
            self.settings = {**settings, "seed": seed}
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
        self._file = open(self.path, "ab")
        return self

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Add samples, one line each, in one write."""
        assert self._file is not None
        self._file.write("".join(map(line_of, records)).encode("utf-8"))
        self._file.flush()
        self.count += len(records)
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def __exit__(self, *error: object) -> None:
        assert self._file is not None
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
            for line in file:
                if not line.endswith(b"\n") or not _is_object(line):
                    break
                good += len(line)
                count += 1
            if good < self.path.stat().st_size:
                file.truncate(good)
        return count


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
        with open(path, "rb") as file:
            if size <= READ_WHOLE_BYTES:
                digest.update(file.read())
                continue
            for part in range(SAMPLED_PLACES):
                file.seek(size * part // SAMPLED_PLACES)
                digest.update(file.read(SAMPLED_BYTES))
    return digest.hexdigest()[:16]


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
