"""Rows of a task's file: .jsonl, .jsonl.gz, .csv or .parquet, by name in the folder --data-dir."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gpt3.corpus.formats import RECORD_BYTES
from gpt3.errors import InputError, one_line

ENDINGS = (".jsonl", ".jsonl.gz", ".csv", ".parquet")
FOLDERS = ("", "gpt3_synthetic")
T = TypeVar("T")


class Row(dict[str, Any]):
    """A row, of which a field that is there and empty (JSON's null, a short line of CSV) is a mistake when it is wanted."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if value is None:
            raise ValueError(f"the field {name!r} is empty")
        return value


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
            items.append(make(Row(row)))
        except KeyError as error:
            raise InputError(f"{path}, line {line}: no field {error}; it has {', '.join(map(str, row))}") from None
        except (TypeError, ValueError, IndexError) as error:
            raise InputError(f"{path}, line {line}: {one_line(error)}") from None
        except AttributeError as error:
            raise InputError(f"{path}, line {line}: a field is of the wrong kind ({one_line(error)})") from None
    if not items:
        raise InputError(f"{path} has no rows; give a file with at least one")
    return items


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number, from 1, and row."""
    try:
        if path.suffix == ".parquet":
            yield from enumerate(_parquet(path), 1)
        elif path.suffix == ".csv":
            with open(path, encoding="utf-8", newline="") as file:
                csv.field_size_limit(RECORD_BYTES)
                yield from enumerate(csv.DictReader(file, strict=True), 2)
        else:
            opened: Any = gzip.open if path.suffix == ".gz" else open
            with opened(path, "rt", encoding="utf-8") as file:
                for number, text in enumerate(file, 1):
                    if text.strip():
                        row = _object(path, number, text)
                        yield number, row
    except (OSError, UnicodeDecodeError, EOFError, csv.Error, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({one_line(error)}); give it again") from None


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise OSError(one_line(error)) from None
    return rows


def _object(path: Path, line: int, text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {line}: no JSON ({error.msg} at character {error.pos})") from None
    if not isinstance(row, dict):
        raise InputError(f"{path}, line {line}: no JSON object; each line must be one, as {{...}}")
    return row
