"""Each example's result, a line of JSON each, appended as it is known: what a killed evaluation goes on from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from gpt3.errors import InputError
from gpt3.evaluation.scores import Result


class ExampleFile:
    """A context manager: results that are there already, and a place for more.

    The first line says what was asked of which model; a file that says something else is begun anew.

    Args:
        path: of the file.
        header: what decides the scores: model, task, demonstrations, seed, format.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path, self.header = path, header
        self.results: list[Result] = []
        self._kept = 0
        if path.exists():
            self._read()

    def _read(self) -> None:
        lines = self.path.read_bytes().splitlines(keepends=True)
        if not lines or _parsed(lines[0]) != self.header:
            return
        kept = len(lines[0])
        for number, line in enumerate(lines[1:]):
            values = _parsed(line)
            if not line.endswith(b"\n") or values is None or values.get("number") != number:
                break  # a kill's half line
            self.results.append(Result(**values))
            kept += len(line)
        self._kept = kept

    def __enter__(self) -> ExampleFile:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "r+b" if self._kept else "wb")
        except OSError as error:
            raise InputError(f"--out {self.path} cannot be written ({error.strerror}); choose another folder") from None
        self._file.truncate(self._kept)
        self._file.seek(self._kept)
        if not self._kept:
            self._write(self.header)
        return self

    def add(self, result: Result) -> None:
        """Take the next result."""
        self.results.append(result)
        self._write(result.as_dict())

    def _write(self, values: dict[str, Any]) -> None:
        self._file.write(json.dumps(values, ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None
