"""Web archives and pages as documents: WARC and WET by FastWARC, the main text of HTML by Resiliparse.

A page is text of one response with status 200 and a type of HTML; others are no documents. Skipped and counted are pages over
`MOST_BYTES`, those on which the parser fails, crashes or hangs, and records that are cut off or damaged. The encoding is the
page's own, else a guess; bytes that do not fit it are replaced.
"""

from __future__ import annotations

import io
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from gpt3.corpus.page_parser import EXTRA, page_texts
from gpt3.corpus.skipped import note
from gpt3.errors import require
from gpt3.progress import say

MOST_BYTES = 8 << 20
"""Of a page; a larger one is skipped."""
LARGE, DAMAGED = f"page over {MOST_BYTES >> 20} MB", "record that is cut off or damaged"
HTML = ("text/html", "application/xhtml+xml")
GZIP = b"\x1f\x8b\x08"
BLOCK = 64 * 1024


def read_warc(stream: BinaryIO) -> Iterator[tuple[int, Any]]:
    """The pages of a WARC or WET file, each as its record's number and ``{"text": …, "url": …}``.

    Args:
        stream: of the file; gzip is decompressed here, so that a damaged member costs only itself.

    Raises:
        InputError: the extra is missing.
    """
    skips = _Skips(stream)
    for (number, url), text, fault in page_texts(_pages(stream, skips)):
        if fault:
            skips.note(fault, url)
        elif text:
            yield number, {"text": text, "url": url}
    skips.say()


def _pages(stream: Any, skips: _Skips) -> Iterator[tuple[tuple[int, str], bytes | str, str | None]]:
    warc: Any = require("fastwarc.warc", extra=EXTRA, purpose="reading WARC files")
    wanted = warc.WarcRecordType.response | warc.WarcRecordType.conversion
    number, again = 0, True
    source: Any = _Members(stream) if stream.peek(len(GZIP)).startswith(GZIP) else _UntilCut(stream)
    while again:
        for record in warc.ArchiveIterator(source, record_types=wanted):
            number += 1
            url = record.headers.get("WARC-Target-URI", "")
            is_text = record.record_type == warc.WarcRecordType.conversion
            if not is_text and not _is_page(record):
                continue
            length = record.content_length
            data = record.reader.read(MOST_BYTES + 1)
            if len(data) > MOST_BYTES:
                skips.note(LARGE, url)
            elif len(data) == length:
                yield (number, url), data.decode("utf-8", "replace") if is_text else data, record.http_charset
            elif not source.broken:  # else it is counted below
                skips.note(DAMAGED, url)
        if source.broken:
            skips.note(DAMAGED, skips.name)
        again = source.next()


def _is_page(record: Any) -> bool:
    headers = record.http_headers
    return headers is not None and headers.status_code == 200 and (record.http_content_type or "") in HTML


class _Skips:
    """What is skipped of one file."""

    def __init__(self, stream: Any) -> None:
        self.name, self.found = str(getattr(stream, "name", "a stream")), Counter[str]()

    def note(self, reason: str, place: str) -> None:
        self.found[reason] += 1
        note(reason, place)

    def say(self) -> None:
        """Say how many, if any."""
        if self.found:
            say(f"{self.name} skipped: {', '.join(f'{count:,} {reason}' for reason, count in self.found.items())}")


class _UntilCut:
    """A stream that ends where a file is cut off, as an interrupted download is."""

    broken = False

    def __init__(self, stream: Any) -> None:
        self.stream, self.place = stream, 0

    def tell(self) -> int:
        """Bytes read."""
        return self.place

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        try:
            data = bytes(self.stream.read1(size))
        except EOFError:
            self.stream, self.broken, data = io.BytesIO(), True, b""
        self.place += len(data)
        return data

    def next(self) -> bool:
        """Nothing follows."""
        return False


class _Members:
    """The content of a gzip file up to a member that is cut off or damaged; `next` continues after it."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.place, self.rest = stream, 0, b""
        self.inflate: Any = None  # of the member that is read
        self.broken = False

    def tell(self) -> int:
        """Bytes read."""
        return self.place

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end, or at a broken member."""
        while not self.broken:
            self.rest = self.rest or self.stream.read(BLOCK)
            if not self.rest:
                self.broken = self.inflate is not None
                break
            self.inflate = self.inflate or zlib.decompressobj(31)
            try:
                data = self.inflate.decompress(self.rest, size)
            except zlib.error:
                self.broken = True
                break
            self.rest = self.inflate.unconsumed_tail
            if self.inflate.eof:
                self.rest, self.inflate = self.inflate.unused_data.lstrip(b"\0"), None  # zeros are padding
            if data:
                self.place += len(data)
                return bytes(data)
        return b""

    def next(self) -> bool:
        """Find the member after a broken one; False: there is none."""
        data = self.rest[1:]  # the broken one may begin here
        while self.broken and (found := data.find(GZIP)) < 0:
            if not (more := self.stream.read(BLOCK)):
                return False
            data = data[-len(GZIP) :] + more
        if not self.broken:
            return False
        self.rest, self.inflate, self.broken = data[found:], None, False
        return True


def read_html(stream: BinaryIO) -> Iterator[tuple[int, Any]]:
    """One document: the main text of an HTML file; none where it is skipped.

    Raises:
        InputError: the extra is missing.
    """
    skips, data = _Skips(stream), stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        skips.note(LARGE, skips.name)
    else:
        ((_, text, fault),) = page_texts([(1, data, None)])
        if fault:
            skips.note(fault, skips.name)
        elif text:
            yield 1, {"text": text}
    skips.say()
