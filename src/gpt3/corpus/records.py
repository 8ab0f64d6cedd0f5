"""Local files of any format, plain or compressed, as records, with errors that name the file and the place.

Training text (`gpt3.corpus.files`), conversations for fine-tuning and rows of evaluation tasks are all read here.
Compressed are .gz .xz .bz2 .zst, including files of several members or frames.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from gpt3.corpus import formats
from gpt3.corpus.formats import STRING, RecordError, pick_field
from gpt3.errors import InputError, require

RATIOS = {".gz": 3.0, ".bz2": 4.0, ".xz": 4.0, ".zst": 3.3}
"""Suffixes of compressed files, and roughly how many bytes of English prose one compressed byte holds."""
PARQUET = ".parquet"
WITH_FIELDS = (*formats.READERS, PARQUET)
"""Formats whose records have fields."""
KNOWN = f"{' '.join((*formats.TEXT, *WITH_FIELDS))}, all but .parquet also with {' '.join(RATIOS)}"
BUFFER_BYTES = 1024 * 1024
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
    with explained(path):
        if format_of(path) not in WITH_FIELDS:
            raise RecordError(0, f"has no rows with fields; known are {' '.join(WITH_FIELDS)}, also compressed")
        for number, row in read_records(path):
            if not isinstance(row, dict):
                raise RecordError(number, f"expected an object with fields, found {formats.kind_of(row)}")
            yield f"{path}: {_unit(path)} {number}", row


def read_records(
    path: Path, column: str | None = None, start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, Any]]:
    """The records of a file of a known format, or of a stretch of it, each with its number, counted from the stretch's start.

    Args:
        column: of a parquet file, whose values are yielded; None: whole rows.
        start: first byte of a plain file, first row group of a parquet file; rows of parquet are numbered through the file.
        stop: the byte or row group to stop before; None: the file's end.
    """
    kind = str(format_of(path))
    if kind == PARQUET:
        with open_parquet(path) as table:
            yield from parquet_records(table, column, start, stop)
        return
    by_member = kind in formats.BY_MEMBER and path.suffix.lower() == ".gz"
    with open(path, "rb") if by_member else open_stream(path, start, stop) as stream:
        yield from enumerate(formats.read_text(stream), 1) if kind in formats.TEXT else formats.READERS[kind](stream)


# ---- bytes


def open_stream(path: Path, start: int = 0, stop: int | None = None) -> BinaryIO:
    """Open `path` for reading its bytes, decompressed if the suffix says so.

    Args:
        start, stop: the range of bytes to read; for plain files only.

    Raises:
        OSError: as `open` does; here or on the first read.
        Exception: on reading compressed data that is cut off or damaged, each library's own (see `is_damage`).
        InputError: on reading .zst without the package for it.
    """
    suffix = path.suffix.lower()
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    if suffix not in RATIOS and stop is None:
        file = open(path, "rb", buffering=BUFFER_BYTES)  # noqa: SIM115 (the caller closes it)
        file.seek(start)
        return file
    if suffix not in RATIOS:
        raw: Any = _Chunks(_range(path, start, cast(int, stop)))
    elif suffix in openers:
        raw = openers[suffix](path, "rb")
    elif sys.version_info < (3, 14):
        raw = _Chunks(_zstd_frames(path))
    else:
        raw = require("compression.zstd", extra="data", purpose=f"reading {path.name}").open(path, "rb")
    return cast(BinaryIO, io.BufferedReader(raw, BUFFER_BYTES))


def is_damage(error: BaseException) -> bool:
    """Whether an error on reading compressed data means that it is cut off, or is not what its name says."""
    if isinstance(error, OSError):  # the disk's have a number; gzip.BadGzipFile and bz2's "Invalid data stream" do not
        return error.errno is None
    zstd = type(error).__name__ == "ZstdError"  # of a package that may be missing
    return zstd or isinstance(error, (EOFError, zlib.error, lzma.LZMAError))


def _range(path: Path, start: int, stop: int) -> Generator[bytes, None, None]:
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while data := file.read(min(BUFFER_BYTES, stop - file.tell())):
            yield data


def _zstd_frames(path: Path) -> Generator[bytes, None, None]:
    """By the package `zstandard`, frame by frame: its own reader does not notice that a file is cut off."""
    zstandard: Any = require("zstandard", extra="data", purpose=f"reading {path.name}")
    decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)  # for files made with `zstd --long`, too
    frame: Any = None
    with open(path, "rb") as file:
        while data := (frame.unused_data if frame and frame.eof else b"") or file.read(64 * 1024):
            if frame is None or frame.eof:
                frame = decompressor.decompressobj()
            yield frame.decompress(data)
    if frame is not None and not frame.eof:
        raise EOFError("compressed file ended before the end-of-frame marker was reached")


class _Chunks(io.RawIOBase):
    """A stream out of chunks of bytes."""

    def __init__(self, chunks: Generator[bytes, None, None]) -> None:
        self.chunks = chunks
        self.rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.rest and (chunk := next(self.chunks, None)) is not None:
            self.rest = memoryview(chunk)
        size = min(len(buffer), len(self.rest))
        buffer[:size] = self.rest[:size]
        self.rest = self.rest[size:]
        return size

    def close(self) -> None:
        self.chunks.close()
        super().close()


# ---- parquet


def open_parquet(file: Any, buffer_bytes: int = 1024 * 1024) -> Any:
    """Open a file or a path. Columns are read `buffer_bytes` at a time: memory stays small however large the row groups."""
    import pyarrow.parquet

    options = {"buffer_size": buffer_bytes, "pre_buffer": False, "page_checksum_verification": True}
    return pyarrow.parquet.ParquetFile(file, **options)


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
    columns = [i for i in range(metadata.num_columns) if column in (None, metadata.schema.column(i).path)]
    return [(group.num_rows, sum(group.column(i).total_uncompressed_size for i in columns)) for group in groups]


def parquet_records(
    table: Any, column: str | None, start: int, stop: int | None, skip: int = 0
) -> Iterator[tuple[int, Any]]:
    """The records of the row groups [start, stop) but for the first `skip`; whole row groups are skipped unread.

    Args:
        column: yield its values; None: whole rows, as dicts.
        stop: None: the last one is included.

    Yields:
        The row's number in the file, from 1, and the value.
    """
    groups = row_groups(table, column)
    row = sum(rows for rows, _ in groups[:start])
    for index, (rows, size) in list(enumerate(groups))[start:stop]:
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
    except RecordError as error:
        number = error.line + (_count_lines(path, start) if start else 0)
        raise InputError(f"{path}: {f'{_unit(path)} {number}: ' if error.line else ''}{error.what}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: {_not_utf8(path, start)}") from None
    except Exception as error:
        suffix = path.suffix.lower()
        if suffix in RATIOS and is_damage(error):
            raise InputError(f"{path}: damaged or cut off ({error}); fetch or compress it again") from None
        arrow = isinstance(error, OSError) or type(error).__module__.split(".")[0] == "pyarrow"
        if suffix != PARQUET or not arrow:
            raise
        message = str(error).split("\n")[0].rstrip(".")
        raise InputError(f"{path}: damaged, cut off or not parquet ({message})") from None


def _unit(path: Path) -> str:
    """What the records of a file are counted in."""
    return "row" if path.suffix.lower() == PARQUET else "line"


def _not_utf8(path: Path, start: int) -> str:
    """Where a file (decompressed) stops being UTF-8, looked for from byte `start` on, and what to do."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = start
    with open_stream(path, start) as file:
        while True:
            data = file.read(BUFFER_BYTES)
            pending = len(decoder.getstate()[0])  # bytes of a character the last chunk cut
            try:
                decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                place, byte = offset - pending + error.start, error.object[error.start]
                old = "UTF-16" if place == 0 and byte in codecs.BOM_UTF16 else "CP1252"  # what Windows writes
                return f"not UTF-8 at byte {place} (0x{byte:02x}); save it as UTF-8, e.g. with iconv -f {old} -t UTF-8"
            offset += len(data)
            if not data:  # the text itself was fine: half a character spelled in it
                return "not UTF-8"


def _count_lines(path: Path, stop: int) -> int:
    """Line ends in the first `stop` bytes of a plain file."""
    with open_stream(path, 0, stop) as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(BUFFER_BYTES), b""))


# ---- text of a file or of standard input

STANDARD_INPUT = "-"
"""In place of a file's name."""


def read_bytes(name: str) -> bytes:
    """The content of a file, or of standard input for "-"; nothing where there is none.

    Raises:
        InputError: the file cannot be read.
    """
    if name == STANDARD_INPUT:
        return b"" if sys.stdin is None else sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror}). Give a text file") from None


def decoded(content: bytes, name: str) -> str:
    """The text in the UTF-8 content of `name`, with its line ends; a byte order mark is left out.

    Raises:
        InputError: it is not UTF-8 (the byte is named).
    """
    text = content.removeprefix(formats.BYTE_ORDER_MARK)
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        place = error.start + len(content) - len(text)
        raise InputError(f"{shown(name)} is not UTF-8 at byte {place}. Convert it to UTF-8") from None


def shown(name: str) -> str:
    """A file as messages name it."""
    return "standard input" if name == STANDARD_INPUT else name


def read_text(name: str) -> str:
    """The text of a UTF-8 file, or of standard input for "-".

    Raises:
        InputError: it cannot be read, is empty, or is not UTF-8.
    """
    text = decoded(read_bytes(name), name)
    if not text:
        raise InputError(f"{shown(name)} is empty. Give a text file with content")
    return text
