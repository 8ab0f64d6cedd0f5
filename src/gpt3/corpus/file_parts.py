"""Parts of local files: where a file is cut, how a stretch of it is read, and what its reader's errors mean to the user."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gpt3.corpus import formats, parquet
from gpt3.corpus.compression import RATIOS, DamagedError, open_stream, open_stretch
from gpt3.corpus.documents import Part, RecordError
from gpt3.errors import InputError

SEARCH_BYTES = 1024 * 1024
"""How far beyond a text file's even cut a better place is looked for."""


def format_of(path: Path) -> str | None:
    """The suffix that tells the format, compression aside: ".jsonl" for a.jsonl.gz; None where it is not known."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]] or [""]
    if suffixes[-1] in RATIOS:
        return suffixes[0] if len(suffixes) == 2 and suffixes[0] in formats.READERS else None
    return suffixes[-1] if suffixes[-1] in formats.READERS or suffixes[-1] == ".parquet" else None


@dataclass(frozen=True)
class File:
    """A file as it was found: path, suffix of its format, bytes on disk, time of its last change (ns)."""

    path: Path
    format: str
    size: int
    changed: int

    @property
    def ratio(self) -> float:
        """Bytes of text per byte on disk; 1 for a plain file."""
        return RATIOS.get(self.path.suffix.lower(), 1.0)


def describe_file(path: Path) -> File:
    """Look a file up."""
    with explained(path):
        stat = path.stat()
    suffix = format_of(path)
    assert suffix is not None
    return File(path, suffix, stat.st_size, stat.st_mtime_ns)


# ---- errors


@contextmanager
def explained(path: Path, line_offset: int = 0, start: int = 0) -> Iterator[None]:
    """Turn whatever goes wrong in reading a file into one line that names it.

    Args:
        path: the file.
        line_offset: byte where the stream began in which a `RecordError`'s lines are counted.
        start: byte from which on bytes that are not UTF-8 are looked for.
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
        unit = "row" if path.suffix.lower() == ".parquet" else "line"
        number = error.line + (count_lines(path, line_offset) if line_offset else 0)
        where = f"{unit} {number}: " if error.line else ""
        raise InputError(f"{path}: {where}{error.what}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: {not_utf8(path, start)}; convert it, e.g. with iconv -t UTF-8") from None


def not_utf8(path: Path, start: int) -> str:
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


def count_lines(path: Path, stop: int) -> int:
    """Line ends in the first `stop` bytes of a plain file."""
    with open_stretch(path, 0, stop) as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1024 * 1024), b""))


# ---- parts


@dataclass(frozen=True)
class Piece:
    """A file or a stretch of one.

    Attributes:
        file: the file.
        field: the field of the text, where its format has fields.
        start: first byte of a plain file that is cut, first row group of parquet.
        stop: the byte or row group to stop before; None: the file's end.
        size: bytes of text, estimated for compressed files.
    """

    file: File
    field: str | None
    start: int
    stop: int | None
    size: int

    def documents(self) -> Iterator[str]:
        """Yield the texts in it."""
        path = self.file.path
        if self.file.format == ".parquet":
            with parquet_errors(path), parquet.open_parquet(path) as table:
                column = parquet.find_column(table, self.field)
                last = table.num_row_groups if self.stop is None else self.stop
                rows = parquet.read_rows(table, column, self.start, last)
                yield from (text for text in rows if text and not text.isspace())
            return
        reader = formats.READERS[self.file.format]
        with explained(path, self.start, self.start), self.stream() as stream:
            yield from reader(stream, self.field)

    def stream(self) -> BinaryIO:
        """The piece's bytes, decompressed."""
        if self.stop is None:
            return open_stream(self.file.path)
        return open_stretch(self.file.path, self.start, self.stop)


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """As `explained`, with Arrow's own errors."""
    import pyarrow

    with explained(path):
        try:
            yield
        except (FileNotFoundError, PermissionError):
            raise
        except (pyarrow.ArrowException, OSError) as error:
            message = str(error).split("\n")[0].rstrip(".")
            raise InputError(f"{path}: damaged, cut off or not parquet ({message})") from None


@dataclass(frozen=True)
class FilePart(Part):
    """Pieces of files that one worker reads: a stretch of a large file, or some small ones."""

    name: str
    size: int | None
    pieces: tuple[Piece, ...]

    def documents(self) -> Iterator[str]:
        """Yield the texts of all pieces."""
        for piece in self.pieces:
            yield from piece.documents()


def cut_file(file: File, field: str | None, part_bytes: int) -> Iterator[Piece]:
    """Cut a file into pieces of at most about `part_bytes`; one that cannot be cut is one piece."""
    if file.format == ".parquet":
        yield from cut_parquet(file, field, part_bytes)
        return
    if file.ratio == 1.0 and file.format in formats.BY_LINE and file.size > part_bytes:
        with explained(file.path):
            cuts = [0, *find_cuts(file, part_bytes), file.size]
        for start, stop in itertools.pairwise(cuts):
            yield Piece(file, field, start, stop, stop - start)
        return
    yield Piece(file, field, 0, None, int(file.size * file.ratio))


def cut_parquet(file: File, field: str | None, part_bytes: int) -> Iterator[Piece]:
    """Cut a parquet file into ranges of row groups."""
    if not file.size:
        return
    with parquet_errors(file.path), parquet.open_parquet(file.path) as table:
        column = parquet.find_column(table, field)
        sizes = [group.bytes for group in parquet.row_groups(table, column)]
    start = size = 0
    for index, group in enumerate(sizes):
        if size and size + group > part_bytes:
            yield Piece(file, column, start, index, size)
            start, size = index, 0
        size += group
    if start < len(sizes):
        yield Piece(file, column, start, len(sizes), size)


def find_cuts(file: File, part_bytes: int) -> list[int]:
    """Byte offsets, increasing, at which to cut a plain file: at ends of lines, in text files at the ends of documents."""
    count = -(-file.size // part_bytes)
    find = find_text_cut if file.format in formats.WITHOUT_FIELDS else find_line_end
    cuts: list[int] = []
    with open_stream(file.path) as stream:
        for index in range(1, count):
            even = file.size * index // count
            if cuts and even <= cuts[-1]:  # within a long line that the last cut passed over
                continue
            stream.seek(even - 1)  # a line may end just there
            cut = find(stream, even - 1)
            if cut < file.size:
                cuts.append(cut)
    return cuts


def find_line_end(stream: Any, offset: int) -> int:
    """The byte after the first line end at or behind `offset`, where the stream stands; or the file's end."""
    while data := stream.read(SEARCH_BYTES):
        found = data.find(b"\n")
        if found >= 0:
            return int(offset + found + 1)
        offset += len(data)
    return offset


def find_text_cut(stream: Any, offset: int) -> int:
    """Where to cut a text file near `offset`: behind a separator line, a blank line, a line, a character, in this order.

    Where the file ends within `SEARCH_BYTES` and no separator does, it is not cut: the rest is but a little more.
    """
    data = stream.read(SEARCH_BYTES)
    marks = [b"\n" + formats.SEPARATOR + b"\n", b"\n" + formats.SEPARATOR + b"\r\n"]
    if len(data) == SEARCH_BYTES:
        marks += [b"\n\n", b"\n\r\n", b"\n"]
    for mark in marks:
        found = data.find(mark)
        if found >= 0:
            return int(offset + found + len(mark))
    if len(data) < SEARCH_BYTES:
        return int(offset + len(data))
    cut = 1
    while data[cut] & 0xC0 == 0x80:
        cut += 1
    return int(offset + cut)


def find_field(file: File) -> str | None:
    """The field of a file's text, from its first record."""
    if file.format in formats.WITHOUT_FIELDS or file.format == ".parquet":
        return None
    with explained(file.path), open_stream(file.path) as stream:
        return formats.find_field(file.format, stream)
