"""The file formats of documents and rows: each reader turns a stream of bytes into texts or records, one at a time.

Text is read strictly: bytes that are not UTF-8 raise `UnicodeDecodeError`, a record that cannot be used raises
`RecordError`. `gpt3.corpus.records` turns both into one line with the file's name. A byte order mark at the start of a
file is not part of its text. Parquet, which is not read from beginning to end, is in `gpt3.corpus.records`.
"""

from __future__ import annotations

import csv
import functools
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import orjson

from gpt3.corpus.books import read_docx, read_epub, read_pdf
from gpt3.corpus.web import read_html, read_warc

SEPARATOR = b"<|endoftext|>"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
TEXT_BLOCK = 64 * 1024
"""Text without a separator is cut into documents of at most this many bytes."""

RECORD_BYTES = 256 * 1024 * 1024
"""A longer record of .json or .csv means that a bracket or a quotation mark is never closed."""

STRING = "a string"
BLANK = re.compile(r"[ \t\r\n]*")
DELIMITERS = (",", ";", "\t", "|")
QUOTED = re.compile(r'"[^"]*"?')


class RecordError(Exception):
    """A record that cannot be used: `line` is its number in the stream, from 1 (a table's row; 0: all of it); `what` says why.

    Readers of formats raise it; whoever knows the file turns it into an `InputError`.
    """

    def __init__(self, line: int, what: str) -> None:
        super().__init__(line, what)
        self.line = line
        self.what = what


# ---- text


def read_text(file: BinaryIO) -> Iterator[str]:
    """Documents of .txt and .md: the whole file is one, unless lines of ``<|endoftext|>`` separate several.

    A document longer than `TEXT_BLOCK` becomes several, cut at the last blank line, else the last line end, else the last
    space. So a file of any size is read in little memory, and a single book has documents to hold out for validation. Line
    ends become those of Unix; empty lines at a document's ends are dropped.
    """
    block = bytearray()
    line_starts = True
    first = True
    while line := file.readline(TEXT_BLOCK):
        if first:
            line, first = line.removeprefix(BYTE_ORDER_MARK), False
        if line_starts and line.startswith(SEPARATOR) and line.strip() == SEPARATOR:
            yield _document(block)
            block.clear()
            continue
        line_starts = line.endswith(b"\n")
        block += line
        while len(block) > TEXT_BLOCK:
            cut = _cut_point(block, TEXT_BLOCK)
            yield _document(block[:cut])
            del block[:cut]
    yield _document(block)


def _document(block: bytearray) -> str:
    text = block.decode("utf-8")
    if "\r" in text:  # this search alone is much faster
        text = text.replace("\r\n", "\n")
    return text.strip("\n")


def _cut_point(block: bytearray, limit: int) -> int:
    """Where to cut a block longer than `limit` bytes: at most `limit`, at least 1."""
    for mark in (b"\n\n", b"\n\r\n", b"\n", b" "):
        found = block.rfind(mark, limit // 2, limit)
        if found > 0:
            return found + (len(mark) if mark != b" " else 0)  # a word keeps the space before it
    while limit > 1 and block[limit] & 0xC0 == 0x80:  # not within a character
        limit -= 1
    return limit


# ---- records: (line, value) of each


def read_jsonl(file: BinaryIO) -> Iterator[tuple[int, Any]]:
    """The values of .jsonl: one on every line. Blank lines are skipped."""

    loads: Callable[[bytes], Any] = orjson.loads
    for line, data in enumerate(file, 1):
        if line == 1:
            data = data.removeprefix(BYTE_ORDER_MARK)
            if data.lstrip().startswith(b"["):
                raise RecordError(
                    1, "a list, not an object. If the whole file is one list, its name must end in .json."
                )
        try:
            yield line, loads(data)
        except orjson.JSONDecodeError:
            if data and not data.isspace():
                yield line, _load_line(data, line)


def _load_line(data: bytes, line: int) -> Any:
    """Parse a line that orjson does not: NaN and the like as Python's json takes them; anything else is an error."""
    try:
        return DECODER.decode(data.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise RecordError(line, f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise RecordError(line, "nested too deeply") from None


def _integer(digits: str) -> int | float:
    """A whole number; one of more digits than Python converts, which no field of ours has, as a float."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


DECODER = json.JSONDecoder(parse_int=_integer)


def fault_of(text: str) -> str | None:
    r"""What is wrong with a lone surrogate, which JSON's ``\ud800`` can spell but no text holds; None for other text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"the escape \\u{ord(text[error.start]):04x} is half a character and not text"
    return None


def read_json(file: BinaryIO) -> Iterator[tuple[int, Any]]:
    """The values of .json: the elements of a list, or values one after another. Never the whole file at once."""
    yield from JsonValues(file, RECORD_BYTES)


class JsonValues:
    """Iterate over (line, value) of the elements of the list a stream holds, or of its values if it does not open with "[".

    Holds one chunk and one value at a time.

    Args:
        file: the stream of bytes.
        longest: characters of one value, at most.
        chunk: characters read at a time.

    Raises (while iterating):
        RecordError: it is not JSON; with the line.
        UnicodeDecodeError: it is not UTF-8.
    """

    def __init__(self, file: BinaryIO, longest: int, chunk: int = 1024 * 1024) -> None:
        self.stream = io.TextIOWrapper(file, encoding="utf-8-sig", newline="\n")
        self.longest = longest
        self.chunk = chunk
        self.text = ""
        self.at = 0  # `text` before it is done
        self.line = 1  # of `at`

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        if self._next_mark() != "[":
            while self._next_mark():
                yield self._value()
            return
        self._advance(self.at + 1)
        if self._next_mark() != "]":
            yield self._value()
        while (mark := self._next_mark()) == ",":
            self._advance(self.at + 1)
            self._next_mark()
            yield self._value()
        if mark != "]":
            found = f"expected a comma, found {mark!r}" if mark else "the list is never closed"
            raise RecordError(self.line, f"not JSON: {found}")
        self._advance(self.at + 1)
        if mark := self._next_mark():
            raise RecordError(self.line, f"not JSON: {mark!r} after the list's end")

    def _advance(self, to: int) -> None:
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def _refill(self) -> bool:
        """Read on, at least twice as much as is pending, so that a long value costs linear time. False at the end."""
        more = self.stream.read(max(self.chunk, len(self.text) - self.at))
        self.text = self.text[self.at :] + more
        self.at = 0
        return bool(more)

    def _next_mark(self) -> str:
        """Go to the next character that is not blank and return it; "" at the end."""
        while True:
            match = BLANK.match(self.text, self.at)
            assert match is not None  # it matches nothing too
            self._advance(match.end())
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._refill():
                return ""

    def _value(self) -> tuple[int, Any]:
        """Parse the value that begins at `at`."""
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                pending = len(self.text) - self.at
                # a value the chunk cuts off: a string without its end, or an error right where the text ends
                cut_off = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - 16
                if cut_off and pending <= self.longest and self._refill():
                    continue
                line = self.line + self.text.count("\n", self.at, error.pos if not cut_off else self.at)
                what = f"a value of over {self.longest} characters" if pending > self.longest else error.msg
                raise RecordError(line, f"not JSON: {what}") from None
            except RecursionError:
                raise RecordError(self.line, "nested too deeply") from None
            if isinstance(value, (int, float)) and not self.text[end:].strip("+-.eE") and self._refill():
                continue  # the rest of a number may be in the next chunk, as in "1", "1." or "1e-"
            line = self.line
            self._advance(end)
            return line, value


def read_csv(file: BinaryIO, delimiter: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of .csv below its header, by column; the line is the one a row ends on. Quoted fields may hold line ends.

    Args:
        delimiter: what separates the columns, unless the header shows that another one of `DELIMITERS` does.
    """
    csv.field_size_limit(RECORD_BYTES)
    lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    first = lines.readline()
    delimiter = _delimiter(first, delimiter)
    reader = csv.reader(itertools.chain([first] if first else [], lines), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        if twice := [name for name in header if name and header.count(name) > 1]:
            raise RecordError(reader.line_num, f"two columns are called {twice[0]!r}")
        for row in reader:
            if row and len(row) != len(header):
                found = f"{len(row)} columns where the header has {len(header)} (separated by {delimiter!r})"
                raise RecordError(reader.line_num, f"{found}; put quotation marks around text with {delimiter!r} in it")
            if row:  # no empty line
                yield reader.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise RecordError(reader.line_num, f"not CSV: {error}") from None


def _delimiter(header: str, usual: str) -> str:
    """The delimiter of a header: `usual` if it occurs outside quotation marks, else the only other one that does.

    Raises:
        RecordError: there are several others.
    """
    bare = QUOTED.sub("", header)
    others = [mark for mark in DELIMITERS if mark in bare]
    if usual in others or not others:
        return usual
    if len(others) > 1:
        raise RecordError(1, f"which of {' '.join(map(repr, others))} separates the columns? Use {usual!r}")
    return others[0]


def _book(read: Callable[[BinaryIO], Iterator[str]], file: BinaryIO) -> Iterator[tuple[int, Any]]:
    """The texts of a file, those longer than `TEXT_BLOCK` cut as those of text files are."""
    texts = (text for long in read(file) for text in read_text(io.BytesIO(long.encode("utf-8", "replace"))))
    yield from ((number, {"text": text}) for number, text in enumerate(texts, 1) if text)


READERS: dict[str, Callable[[BinaryIO], Iterator[tuple[int, Any]]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": functools.partial(read_csv, delimiter="\t"),
    ".warc": read_warc,
    ".wet": read_warc,
    ".html": read_html,
    ".htm": read_html,
    ".epub": functools.partial(_book, read_epub),
    ".pdf": functools.partial(_book, read_pdf),
    ".docx": functools.partial(_book, read_docx),
}
"""Readers of records by suffix."""

BY_MEMBER = (".warc", ".wet")
"""Formats whose readers decompress gzip themselves, one member after the other."""

PAGES = (".warc", ".html", ".htm")
"""Formats of pages, whose text a parser finds."""

TEXT = (".txt", ".md")
"""Formats of plain text, which have no fields; `read_text` reads them."""

BY_LINE = (*TEXT, ".jsonl", ".ndjson")
"""Formats that can be cut at the ends of lines."""


# ---- the text of a record


def pick_field(kinds: Mapping[str, str], field: str | None, line: int = 0, spec: str = "FILE#") -> str:
    """The field that holds the text: `field`, else "text", else the only one of strings.

    Args:
        kinds: what each field holds, such as ``{"id": "a number", "text": "a string"}``.
        line: of the record, for messages.
        spec: how a source is written up to its field's name, for messages.

    Raises:
        RecordError: no such field, no telling which, or it holds no string; the message lists the fields.
    """
    shown = (", ".join(map(str, list(kinds)[:20])) or "none") + (", …" if len(kinds) > 20 else "")
    if field is None:
        strings = [name for name, kind in kinds.items() if kind == STRING]
        if "text" not in kinds and len(strings) != 1:
            hint = f"; name it, as in {spec}{strings[-1]}" if strings else ""
            raise RecordError(line, f"which field is the text? none is called 'text'; there are {shown}{hint}")
        field = "text" if "text" in kinds else strings[0]
    if field not in kinds:
        raise RecordError(line, f"no field {field!r}; there are {shown}")
    if kinds[field] not in (STRING, "null"):
        raise RecordError(line, f"field {field!r} is {kinds[field]}, not a string; there are {shown}")
    return field


def kind_of(value: Any) -> str:
    """What JSON calls a value."""
    names = {list: "a list", dict: "an object", bool: "a boolean", type(None): "null", str: STRING}
    return names.get(type(value), "a number")


def find_field(records: Iterable[tuple[int, Any]]) -> str | None:
    """The field that holds the text, by the first record; None where there is no record, or it is a string.

    Raises:
        RecordError: see `pick_field`.
    """
    line, record = next(iter(records), (0, None))
    return pick_field(_kinds(record), None, line) if isinstance(record, dict) else None


def texts(records: Iterable[tuple[int, Any]], field: str | None) -> Iterator[str | None]:
    """The text of each record: an object's `field`, or the record itself if it is a string.

    Raises:
        RecordError: the first record without a text.
    """
    for line, record in records:
        text = record.get(field) if type(record) is dict else record
        if type(text) is not str:
            if not isinstance(record, dict):
                raise RecordError(line, f"expected an object or a string, found {kind_of(record)}")
            text = record[pick_field(_kinds(record), field, line)]
        if text is not None and not text.isascii() and (fault := fault_of(text)):
            raise RecordError(line, fault)
        yield text


def _kinds(record: dict[str, Any]) -> dict[str, str]:
    return {name: kind_of(value) for name, value in record.items()}
