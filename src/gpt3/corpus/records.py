"""Records of local files of any format, plain or compressed, with errors that name the file and the place.

Training text (`gpt3.corpus.files`), conversations for fine-tuning and rows of evaluation tasks are all read here.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpt3.corpus import formats
from gpt3.corpus.compression import RATIOS, DamagedError, open_stream
from gpt3.corpus.formats import STRING, RecordError, pick_field
from gpt3.errors import InputError

PARQUET = ".parquet"
WITH_FIELDS = (*formats.READERS, PARQUET)
"""Formats whose records have fields."""
KNOWN = f"{' '.join((*formats.TEXT, *WITH_FIELDS))}, all but .parquet also with {' '.join(RATIOS)}"
BATCH_BYTES = 4 * 1024 * 1024
"""About this much of a parquet file is decoded at a time."""

Row = dict[str, Any]
"""The fields of one record."""


def format_of(path: Path) -> str | None:
    """The suffix that tells the format, compression aside: ".jsonl" for a.jsonl.gz; None if it is not known."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]] or [""]
    streamed = (*formats.TEXT, *formats.READERS)
    if suffixes[-1] in RATIOS:
        return suffixes[0] if len(suffixes) == 2 and suffixes[0] in streamed else None
    return suffixes[-1] if suffixes[-1] in (*streamed, PARQUET) else None


def read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """The rows of one file as (place, row); a place is ``PATH: line 3``, or ``PATH: row 3`` in a parquet file.

    Raises:
        InputError: the file cannot be read, is damaged or not UTF-8, or a record of it is no row.
    """
    kind = format_of(path)
    unit = "row" if kind == PARQUET else "line"
    with explained(path):
        for number, row in _records(path, kind):
            if not isinstance(row, dict):
                raise RecordError(number, f"expected an object with fields, found {formats.kind_of(row)}")
            yield f"{path}: {unit} {number}", row


def _records(path: Path, kind: str | None) -> Iterator[tuple[int, Any]]:
    if kind == PARQUET:
        with open_parquet(path) as table:
            yield from parquet_records(table, None, 0, table.num_row_groups)
    elif kind in formats.READERS:
        with open_stream(path) as stream:
            yield from formats.READERS[kind](stream)
    else:
        raise RecordError(0, f"has no rows with fields; known are {' '.join(WITH_FIELDS)}, also compressed")


# ---- parquet


def open_parquet(file: Any, buffer_bytes: int = 1024 * 1024) -> Any:
    """Open a file or a path. Columns are read `buffer_bytes` at a time: memory stays small however large the row groups."""
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(
        file, buffer_size=buffer_bytes, pre_buffer=False, page_checksum_verification=True
    )


def text_column(table: Any, field: str | None) -> str:
    """The column that holds the text: `field`, else as `gpt3.corpus.formats.pick_field` finds it.

    Raises:
        RecordError: no such column, no telling which, or it holds no strings.
    """
    return pick_field({column.name: _kind(column.type) for column in table.schema_arrow}, field)


def _kind(arrow: Any) -> str:
    import pyarrow

    value = arrow.value_type if pyarrow.types.is_dictionary(arrow) else arrow
    return STRING if str(value) in ("string", "large_string", "string_view") else str(arrow)


def row_groups(table: Any, column: str | None) -> list[tuple[int, int]]:
    """(rows, uncompressed bytes of a column or of all columns) of each row group, from the file's footer alone."""
    metadata = table.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if column is None:
        return [(group.num_rows, group.total_byte_size) for group in groups]
    position = next(i for i in range(metadata.num_columns) if metadata.schema.column(i).path == column)
    return [(group.num_rows, group.column(position).total_uncompressed_size) for group in groups]


def parquet_records(table: Any, column: str | None, start: int, stop: int, skip: int = 0) -> Iterator[tuple[int, Any]]:
    """The records of the row groups [start, stop) but for the first `skip`; whole row groups are skipped unread.

    Args:
        column: yield its values; None: whole rows, as dicts.

    Yields:
        The row's number in the file, from 1, and the value.
    """
    groups = row_groups(table, column)
    row = sum(rows for rows, _ in groups[:start])
    for index in range(start, stop):
        rows, size = groups[index]
        if skip >= rows:
            skip -= rows
            row += rows
            continue
        batch_rows = max(1, min(4096, BATCH_BYTES * rows // max(1, size)))
        columns = None if column is None else [column]
        for batch in table.iter_batches(batch_size=batch_rows, row_groups=[index], columns=columns, use_threads=False):
            left_out = min(skip, batch.num_rows)
            values = (batch if column is None else batch.column(0)).slice(left_out)
            yield from enumerate(_to_python(values, row + left_out), row + left_out + 1)
            skip -= left_out
            row += batch.num_rows


def _to_python(values: Any, row: int) -> list[Any]:
    """The values of an Arrow array or batch whose first one is row `row` (from 0) of the file."""
    try:
        return list(values.to_pylist())
    except UnicodeDecodeError:
        for index in range(len(values)):
            try:
                values.slice(index, 1).to_pylist()
            except UnicodeDecodeError as error:
                raise RecordError(row + index + 1, f"not UTF-8 at byte {error.start} of the text") from None
        raise


# ---- errors


@contextmanager
def explained(path: Path, start: int = 0) -> Iterator[None]:
    """Turn whatever goes wrong in reading a file into one line that names it.

    Args:
        path: the file.
        start: byte where the stream began; a `RecordError` counts its lines from there.
    """
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file (a broken link, or gone since)") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read it") from None
    except DamagedError as error:
        raise InputError(f"{path}: damaged or cut off ({error}); fetch or compress it again") from None
    except RecordError as error:
        unit = "row" if path.suffix.lower() == PARQUET else "line"
        number = error.line + (_count_lines(path, start) if start else 0)
        raise InputError(f"{path}: {f'{unit} {number}: ' if error.line else ''}{error.what}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: {_not_utf8(path, start)}; convert it, e.g. with iconv -t UTF-8") from None
    except Exception as error:
        arrow = isinstance(error, OSError) or type(error).__module__.split(".")[0] == "pyarrow"
        if path.suffix.lower() != PARQUET or not arrow:
            raise
        message = str(error).split("\n")[0].rstrip(".")
        raise InputError(f"{path}: damaged, cut off or not parquet ({message})") from None


def _not_utf8(path: Path, start: int) -> str:
    """Where a file (decompressed) stops being UTF-8, looked for from byte `start` on."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_stream(path) as file:
        if start:
            file.seek(start)
        offset = start
        while True:
            data = file.read(1024 * 1024)
            pending = len(decoder.getstate()[0])  # bytes of a character the last chunk cut
            try:
                decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                return f"not UTF-8 at byte {offset - pending + error.start} (0x{error.object[error.start]:02x})"
            offset += len(data)
            if not data:  # the text itself was fine: half a character spelled in it
                return "not UTF-8"


def _count_lines(path: Path, stop: int) -> int:
    """Line ends in the first `stop` bytes of a plain file."""
    with open_stream(path, 0, stop) as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1024 * 1024), b""))
