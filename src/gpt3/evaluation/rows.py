"""Rows of a task's file, found by name in the folder --data-dir and read as any file of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gpt3.corpus import records
from gpt3.corpus.compression import RATIOS
from gpt3.corpus.formats import READERS
from gpt3.errors import InputError, one_line

ENDINGS = tuple(
    dict.fromkeys(
        [".jsonl", ".jsonl.gz", ".csv", ".parquet", *(kind + packed for kind in READERS for packed in ("", *RATIOS))]
    )
)
"""Of a task's file; the first that exists is read."""
FOLDERS = ("", "gpt3_synthetic")
T = TypeVar("T")


class Row(records.Row):
    """A row in which an empty field (JSON's null) is a mistake when it is used."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if value is None:
            raise ValueError(f"the field {name!r} is empty")
        return value


def find(data_dir: str, names: Sequence[str]) -> Path | None:
    """The first file of these names, without their endings."""
    paths = (Path(data_dir, folder, name + ending) for name in names for folder in FOLDERS for ending in ENDINGS)
    return next((path for path in paths if path.is_file()), None)


def read_items(path: Path, make: Callable[[dict[str, Any]], T]) -> list[T]:
    """An item of each row.

    Raises:
        InputError: a file that cannot be read, or a row that `make` cannot use; file, line and field are named.
    """
    items = []
    for place, row in records.read_rows(path):
        try:
            items.append(make(Row(row)))
        except KeyError as error:
            raise InputError(f"{place}: no field {error}; it has {', '.join(map(str, row))}") from None
        except (TypeError, ValueError, IndexError) as error:
            raise InputError(f"{place}: {one_line(error)}") from None
        except AttributeError as error:
            raise InputError(f"{place}: a field is of the wrong kind ({one_line(error)})") from None
    if not items:
        raise InputError(f"{path} has no rows; give a file with at least one")
    return items
