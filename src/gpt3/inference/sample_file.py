"""The output of many prompts: whole lines in the prompts' order, added as they come, which a later start continues.

    out.jsonl                 a line a sample
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
from types import TracebackType
from typing import Any, BinaryIO

from gpt3 import durable
from gpt3.errors import InputError
from gpt3.model_folder.locate import ADAPTER_CONFIG, adapter_settings, base_of, is_adapter

SETTINGS_SUFFIX = ".settings.json"
SYNC_SECONDS = 5.0
"""A power cut costs what was written in so much time; a kill costs no whole line."""
READ_WHOLE_BYTES, SAMPLED_BYTES, SAMPLED_PLACES = 1 << 26, 4096, 64


class SampleFile:
    """Lines of samples, appended.

    Args:
        path: of the file; folders are made.
        settings: what decides its content, for JSON. A "seed" of None is taken from the file that is continued.
        overwrite: begin anew.

    Attributes:
        settings: as stored, with the seed.
        count: whole lines that are there.

    Raises:
        InputError: the file is of other settings (those that differ are named), has none, or cannot be written.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any], new_seed: int, overwrite: bool = False) -> None:
        self.path = Path(path)
        self._settings_path = self.path.with_name(self.path.name + SETTINGS_SUFFIX)
        self._file: BinaryIO | None = None
        self._synced = time.monotonic()
        try:
            if overwrite:
                durable.discard(self._settings_path)  # first: a file without settings is never continued
            old = None if overwrite else self._stored()
            seed = settings["seed"] if settings["seed"] is not None else (old or {}).get("seed", new_seed)
            self.settings = {**settings, "seed": seed}
            if old is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.write_bytes(b"")
                durable.write_text(self._settings_path, json.dumps(self.settings, indent=2, ensure_ascii=False) + "\n")
            else:
                self._check_same(old)
            self.count = self._keep_whole_lines()
        except OSError as error:
            raise InputError(f"--output {path} cannot be written ({error.strerror}); choose another --output") from None

    def __enter__(self) -> SampleFile:
        self._file = open(self.path, "ab")
        return self

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Add samples, a line each, in one write."""
        assert self._file is not None
        self._file.write(b"".join(line_of(record).encode("utf-8") for record in records))
        self._file.flush()
        self.count += len(records)
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._file.close()

    def _stored(self) -> dict[str, Any] | None:
        """The settings of the file that is there; None where there is nothing to lose."""
        if not self.path.exists() or (self.path.is_file() and self.path.stat().st_size == 0):
            return None
        if not self.path.is_file():
            raise InputError(f"--output {self.path} is no file; choose another --output")
        try:
            stored = json.loads(self._settings_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            stored = None
        if not isinstance(stored, dict):
            raise InputError(
                f"--output {self.path} is there and not known to be of these prompts and options "
                f"(no {self._settings_path.name}); give --overwrite or another --output"
            )
        return stored

    def _check_same(self, old: dict[str, Any]) -> None:
        names = [name for name in {**old, **self.settings} if old.get(name) != self.settings.get(name)]
        if names:
            shown = ", ".join(
                f"{name} {_short(old.get(name))}, now {_short(self.settings.get(name))}" for name in names
            )
            raise InputError(
                f"--output {self.path} was made with other settings ({shown}); give --overwrite or another --output"
            )

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
    """What tells a model from another: the hub id, or a hash of configuration, tokenizer and weights, an adapter's base with it.

    Of a file of weights above READ_WHOLE_BYTES, its size and 64 places: reading all would take longer than many a job, and
    training changes every place.
    """
    if isinstance(place, str):
        return place
    digest = hashlib.sha256()
    if is_adapter(place):
        digest.update(model_fingerprint(base_of(place, adapter_settings(place))).encode())
    digest.update((place / (ADAPTER_CONFIG if is_adapter(place) else "config.json")).read_bytes())
    if (tokenizer := place / "tokenizer.json").is_file():
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


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "…"
