"""The file formats documents come in: each reader turns a stream of bytes into texts, one record at a time.

Text is read strictly: bytes that are not UTF-8 raise `UnicodeDecodeError`, a record that cannot be used raises
`RecordError`. Both become one line with the file's name in `gpt3.corpus.files`. Documents that are empty or white space
are passed over. A byte order mark at a file's head is no part of its text.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from gpt3.corpus.documents import RecordError
from gpt3.corpus.json_values import JsonValues

SEPARATOR = b"<|endoftext|>"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
TEXT_BLOCK = 64 * 1024
"""A text file's stretch without a separator is cut into documents of at most this many bytes."""

RECORD_BYTES = 256 * 1024 * 1024
"""A record of .json or .csv above this is taken for a bracket or a quotation mark that is never closed."""


# ---- text


def read_text(file: BinaryIO, field: str | None = None) -> Iterator[str]:
    """Documents of .txt and .md: the whole file is one, unless lines of ``<|endoftext|>`` part it.

    A stretch longer than `TEXT_BLOCK` becomes several documents, cut at the last blank line, else the last line end,
    else the last space, so that a file of any size is read in little memory and a single book still has documents to
    hold out for validation. Line ends are those of Unix afterwards; empty lines at a document's ends are dropped.
    """
    block = bytearray()
    line_starts = True
    first = True
    while line := file.readline(TEXT_BLOCK):
        if first:
            line, first = line.removeprefix(BYTE_ORDER_MARK), False
        if line_starts and line.startswith(SEPARATOR) and line.strip() == SEPARATOR:
            yield from as_document(block)
            block.clear()
            continue
        line_starts = line.endswith(b"\n")
        block += line
        while len(block) > TEXT_BLOCK:
            cut = cut_point(block, TEXT_BLOCK)
            yield from as_document(block[:cut])
            del block[:cut]
    yield from as_document(block)


def as_document(block: bytearray) -> Iterator[str]:
    """Yield the block's text if there is any."""
    text = block.decode("utf-8")
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    text = text.strip("\n")
    if text and not text.isspace():
        yield text


def cut_point(block: bytes | bytearray, limit: int) -> int:
    """Where to cut a block longer than `limit` bytes: at most `limit`, at least 1."""
    for mark in (b"\n\n", b"\n\r\n", b"\n", b" "):
        found = block.rfind(mark, limit // 2, limit)
        if found > 0:
            return found + (len(mark) if mark != b" " else 0)  # a word keeps the space before it
    while limit > 1 and block[limit] & 0xC0 == 0x80:  # not within a character
        limit -= 1
    return limit


# ---- JSON


def pick_field(record: dict[str, Any], line: int) -> str:
    """The field that holds the text when none was named: "text", else the only one whose value is a string."""
    if "text" in record:
        return "text"
    strings = [name for name, value in record.items() if isinstance(value, str)]
    if len(strings) == 1:
        return strings[0]
    raise RecordError(line, f"which field is the text? none is called 'text'; there are {listed(record)}")


def listed(names: Any) -> str:
    """At most twenty names, for a message."""
    names = list(names)
    return (", ".join(map(str, names[:20])) or "none") + (", …" if len(names) > 20 else "")


def text_of(record: Any, field: str | None, line: int) -> str:
    """The text of one JSON record, "" where it is null."""
    if isinstance(record, str):
        return record
    if not isinstance(record, dict):
        raise RecordError(line, f"expected an object or a string, found {kind_of(record)}")
    if field is None:
        field = pick_field(record, line)
    try:
        text = record[field]
    except KeyError:
        raise RecordError(line, f"no field {field!r}; there are {listed(record)}") from None
    if text is None:
        return ""
    if not isinstance(text, str):
        raise RecordError(line, f"field {field!r} is {kind_of(text)}, not a string")
    return text


def kind_of(value: Any) -> str:
    """What JSON calls a value."""
    names = {list: "a list", dict: "an object", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else "a string")


def check_characters(text: str, line: int) -> None:
    r"""Refuse lone surrogates, which JSON's ``\ud800`` can spell but no text holds."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        escape = f"\\u{ord(text[error.start]):04x}"
        raise RecordError(line, f"the escape {escape} is half a character and not text") from None


def load_line(data: bytes, line: int) -> Any:
    """Parse a line orjson does not: NaN and the like are taken as Python's json takes them, anything else is an error."""
    try:
        record = json.loads(data.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise RecordError(line, f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise RecordError(line, "nested too deeply") from None
    for value in record.values() if isinstance(record, dict) else [record]:
        if isinstance(value, str):
            check_characters(value, line)
    return record


def read_jsonl(file: BinaryIO, field: str | None = None) -> Iterator[str]:
    """Documents of .jsonl: an object with the text in `field`, or a string, on every line. Blank lines are passed over."""
    import orjson

    loads: Callable[[bytes], Any] = orjson.loads
    for line, data in enumerate(file, 1):
        if line == 1:
            data = data.removeprefix(BYTE_ORDER_MARK)
        try:
            record = loads(data)
        except orjson.JSONDecodeError:
            if data.isspace() or not data:
                continue
            record = load_line(data, line)
        if type(record) is dict and type(text := record.get(field)) is str:  # the usual case, without a call
            if text and not text.isspace():
                yield text
            continue
        text = text_of(record, field, line)
        if text and not text.isspace():
            yield text


def read_json(file: BinaryIO, field: str | None = None) -> Iterator[str]:
    """Documents of .json: a list of objects or strings, or such values one after another. Never the whole file at once."""
    for line, record in JsonValues(file, RECORD_BYTES):
        text = text_of(record, field, line)
        if text and not text.isspace():
            check_characters(text, line)
            yield text


# ---- tables


def read_csv(file: BinaryIO, field: str | None = None, delimiter: str = ",") -> Iterator[str]:
    """Documents of .csv: a header, then one document a row in the column `field`. Quoted fields may hold line ends."""
    rows = csv_rows(file, delimiter)
    header = next(rows, None)
    if header is None:
        return
    column = header[1].index(pick_column(header[1], field))
    for line, row in rows:
        if not row:  # an empty line
            continue
        if len(row) <= column:
            raise RecordError(line, f"{len(row)} columns where the header has {len(header[1])}")
        text = row[column]
        if text and not text.isspace():
            yield text


def read_tsv(file: BinaryIO, field: str | None = None) -> Iterator[str]:
    """As `read_csv`, with tabs."""
    return read_csv(file, field, "\t")


def csv_rows(file: BinaryIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line the row ends on, row)."""
    csv.field_size_limit(RECORD_BYTES)
    reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), delimiter=delimiter, strict=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise RecordError(reader.line_num, f"not CSV: {error}") from None
        yield reader.line_num, row


def pick_column(names: list[str], field: str | None, strings: list[str] | None = None) -> str:
    """The column that holds the text: the named one, else "text", else the only one (of `strings`, if types are known)."""
    if field is not None:
        if field in names:
            return field
        raise RecordError(0, f"no column {field!r}; there are {listed(names)}")
    if "text" in names:
        return "text"
    candidates = names if strings is None else strings
    if len(candidates) == 1:
        return candidates[0]
    raise RecordError(0, f"which column is the text? none is called 'text'; there are {listed(names)}")


# ---- the formats by their suffix

READERS: dict[str, Callable[[BinaryIO, str | None], Iterator[str]]] = {
    ".txt": read_text,
    ".md": read_text,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
}
"""Readers of streams. Parquet, which is not read from its beginning to its end, has `gpt3.corpus.parquet`."""

BY_LINE = {".txt", ".md", ".jsonl", ".ndjson"}
"""Formats in which a file can be cut at the ends of lines."""

WITHOUT_FIELDS = {".txt", ".md"}
"""Formats that have no fields to choose from."""


def find_field(suffix: str, file: BinaryIO) -> str | None:
    """The field that holds the text, found in a stream's first record; None where there is no record, or it is a string.

    Raises:
        RecordError: there is no telling; the message lists the fields.
    """
    if suffix in {".csv", ".tsv"}:
        header = next(csv_rows(file, "," if suffix == ".csv" else "\t"), None)
        return pick_column(header[1], None) if header else None
    first = next(iter(JsonValues(file, RECORD_BYTES)), None) if suffix == ".json" else first_line(file)
    return pick_field(first[1], first[0]) if first and isinstance(first[1], dict) else None


def first_line(file: BinaryIO) -> tuple[int, Any] | None:
    """(line, value) of the first line that is not blank in a stream of JSON lines."""
    line = 0
    while data := file.readline(RECORD_BYTES):
        line += 1
        data = data.removeprefix(BYTE_ORDER_MARK) if line == 1 else data
        if data.lstrip().startswith(b"["):
            raise RecordError(
                line, "a list, not an object; if the whole file is one list, its name should end in .json"
            )
        if not data.isspace():
            return line, load_line(data, line)
    return None
