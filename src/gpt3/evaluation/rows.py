"""Rows of a task's file: .jsonl, .jsonl.gz, .csv or .parquet, by name in the folder --data-dir."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gpt3.errors import InputError, one_line

ENDINGS = (".jsonl", ".jsonl.gz", ".csv", ".parquet")
FOLDERS = ("", "gpt3_synthetic")
T = TypeVar("T")


def find(data_dir: str, names: Sequence[str]) -> Path | None:
    """The first file of these names, without their endings."""
    for name in names:
        for folder in FOLDERS:
            for ending in ENDINGS:
                path = Path(data_dir, folder, name + ending)
                if path.is_file():
                    return path
    return None


def read_items(path: Path, make: Callable[[dict[str, Any]], T]) -> list[T]:
    """An item of each row.

    Raises:
        InputError: a file that cannot be read, or a row that `make` cannot use; file, line and field are named.
    """
    items = []
    for line, row in _rows(path):
        try:
            items.append(make(row))
        except KeyError as error:
            raise InputError(f"{path}, line {line}: no field {error}; it has {', '.join(map(str, row))}") from None
        except (TypeError, ValueError, IndexError) as error:
            raise InputError(f"{path}, line {line}: {one_line(error)}") from None
    if not items:
        raise InputError(f"{path} has no rows; give a file with at least one")
    return items


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number, from 1, and row."""
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            yield from enumerate(pyarrow.parquet.read_table(path).to_pylist(), 1)
        elif path.suffix == ".csv":
            with open(path, encoding="utf-8", newline="") as file:
                yield from enumerate(csv.DictReader(file), 2)
        else:
            opened: Any = gzip.open if path.suffix == ".gz" else open
            with opened(path, "rt", encoding="utf-8") as file:
                for number, text in enumerate(file, 1):
                    if text.strip():
                        row = _object(path, number, text)
                        yield number, row
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise InputError(f"{path} cannot be read ({one_line(error)}); give it again") from None


def _object(path: Path, line: int, text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {line}: no JSON ({error.msg} at character {error.pos})") from None
    if not isinstance(row, dict):
        raise InputError(f"{path}, line {line}: no JSON object; each line must be one, as {{...}}")
    return row
