"""Web archives and pages as documents: WARC and WET by FastWARC, the main text of HTML by Resiliparse.

A page is text of one response with status 200 and a type of HTML; others are skipped, as are pages over `MOST_BYTES` and those
the parser fails on. A file that is cut off is read up to there. The encoding is the page's own, else a guess; bytes that do not
fit it are replaced.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO

from gpt3.errors import require
from gpt3.progress import say

MOST_BYTES = 8 << 20
"""Of a page; a larger one is skipped."""
HTML = ("text/html", "application/xhtml+xml")
EXTRA = "web"


def read_warc(stream: BinaryIO) -> Iterator[tuple[int, Any]]:
    """The pages of a WARC or WET file, each as its record's number and ``{"text": …, "url": …}``.

    Raises:
        InputError: the extra is missing.
    """
    warc: Any = require("fastwarc.warc", extra=EXTRA, purpose="reading WARC files")
    wanted = warc.WarcRecordType.response | warc.WarcRecordType.conversion
    skipped = 0
    for number, record in enumerate(warc.ArchiveIterator(_UntilCut(stream), record_types=wanted), 1):
        url = record.headers.get("WARC-Target-URI", "")
        is_text = record.record_type == warc.WarcRecordType.conversion
        if not is_text and not _is_page(record):
            continue
        data = record.reader.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            skipped += 1
            continue
        text = data.decode("utf-8", "replace") if is_text else page_text(data, record.http_charset)
        if text is None:
            skipped += 1
        elif text:
            yield number, {"text": text, "url": url}
    if skipped:
        _say_skipped(skipped, getattr(stream, "name", "a stream"))


class _UntilCut:
    """A stream that ends where a file is cut off, as an interrupted download is; says so."""

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
            say("a WARC file is cut off; what comes before is used")
            self.stream, data = io.BytesIO(), b""
        self.place += len(data)
        return data


def _is_page(record: Any) -> bool:
    headers = record.http_headers
    return headers is not None and headers.status_code == 200 and (record.http_content_type or "") in HTML


def read_html(stream: BinaryIO) -> Iterator[tuple[int, Any]]:
    """One document: the main text of an HTML file; none where it is skipped.

    Raises:
        InputError: the extra is missing.
    """
    data = stream.read(MOST_BYTES + 1)
    text = page_text(data) if len(data) <= MOST_BYTES else None
    if text is None:
        _say_skipped(1, getattr(stream, "name", "a stream"))
    elif text:
        yield 1, {"text": text}


def _say_skipped(count: int, where: object) -> None:
    say(f"{where}: {count:,} pages skipped, over {MOST_BYTES >> 20} MB or not parsed")


def page_text(data: bytes, charset: str | None = None) -> str | None:
    """The main text of a page, paragraphs on lines of their own; None where the parser fails on it.

    Args:
        charset: of the HTTP header, where there is one.
    """
    encoding: Any = require("resiliparse.parse.encoding", extra=EXTRA, purpose="reading HTML")
    html2text: Any = require("resiliparse.extract.html2text", extra=EXTRA, purpose="reading HTML")
    try:
        page = encoding.bytes_to_str(data, charset or encoding.detect_encoding(data))
        text = html2text.extract_plain_text(page, main_content=True, alt_texts=False, links=False)
    except (ValueError, RuntimeError, UnicodeError, LookupError):
        return None
    return str(text).replace("\0", "").strip()
