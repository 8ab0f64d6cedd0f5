"""Parquet files: documents of one string column, by ranges of row groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gpt3.corpus.documents import RecordError
from gpt3.corpus.formats import pick_column

BATCH_BYTES = 4 * 1024 * 1024
"""Text decoded at a time, about."""


@dataclass(frozen=True)
class RowGroup:
    """Size of one row group's text column.

    Attributes:
        rows: documents in it, empty ones included.
        bytes: its text uncompressed.
    """

    rows: int
    bytes: int


def open_parquet(file: Any, buffer_bytes: int = 1024 * 1024) -> Any:
    """Open a file or a path; columns are read `buffer_bytes` at a time, so memory stays small whatever the row groups' size."""
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(
        file, buffer_size=buffer_bytes, pre_buffer=False, page_checksum_verification=True
    )


def find_column(file: Any, field: str | None) -> str:
    """The column that holds the text, which must be of strings.

    Raises:
        RecordError: there is none, or no telling which; the message lists the columns.
    """
    schema = file.schema_arrow
    strings = [column.name for column in schema if is_string(column.type)]
    name = pick_column(schema.names, field, strings)
    if name not in strings:
        raise RecordError(0, f"column {name!r} is {schema.field(name).type}, not a string")
    return name


def is_string(kind: Any) -> bool:
    """Whether an Arrow type is text."""
    import pyarrow

    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    tests = ("is_string", "is_large_string", "is_string_view")
    return any(getattr(pyarrow.types, test)(kind) for test in tests if hasattr(pyarrow.types, test))


def row_groups(file: Any, column: str) -> list[RowGroup]:
    """The sizes of a file's row groups, from its footer alone."""
    metadata = file.metadata
    position = next(i for i in range(metadata.num_columns) if metadata.schema.column(i).path == column)
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    return [RowGroup(group.num_rows, group.column(position).total_uncompressed_size) for group in groups]


def read_rows(file: Any, column: str, start: int, stop: int, skip: int = 0) -> Iterator[str | None]:
    """Yield the rows of the row groups [start, stop) but for the first `skip`; whole row groups are skipped unread."""
    groups = row_groups(file, column)
    row = sum(group.rows for group in groups[:start])
    for index in range(start, stop):
        group = groups[index]
        if skip >= group.rows:
            skip -= group.rows
            row += group.rows
            continue
        size = max(1, min(4096, BATCH_BYTES * group.rows // max(1, group.bytes)))
        for batch in file.iter_batches(batch_size=size, row_groups=[index], columns=[column], use_threads=False):
            values = batch.column(0)[skip:] if skip else batch.column(0)
            yield from texts(values, row + batch.num_rows - len(values))
            skip = max(0, skip - batch.num_rows)
            row += batch.num_rows


def texts(values: Any, row: int) -> list[str | None]:
    """The strings of an Arrow array whose first value is row `row` (from 0) of the file."""
    try:
        return list(values.to_pylist())
    except UnicodeDecodeError:
        for index in range(len(values)):
            try:
                values[index].as_py()
            except UnicodeDecodeError as error:
                raise RecordError(row + index + 1, f"not UTF-8 at byte {error.start} of the text") from None
        raise
