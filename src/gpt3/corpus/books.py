"""EPUB, PDF and DOCX files as documents: what people's own texts are in.

An EPUB is read chapter by chapter in the order of its spine. Of a PDF's pages running headers and page numbers are left out,
words that a line's end cuts are joined, and lines become paragraphs. Of a DOCX the body is read, paragraphs and tables in their
order. Long texts are cut into documents as those of text files are. A file that cannot be read is skipped and counted.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from typing import BinaryIO
from urllib.parse import unquote
from xml.etree import ElementTree

from gpt3.corpus.page_parser import page_texts
from gpt3.corpus.skipped import note
from gpt3.errors import InputError, one_line, require
from gpt3.progress import say

EXTRA = "documents"
MOST_BYTES = 64 << 20
"""Of a chapter, decompressed; a larger one makes the file unreadable."""
UNREADABLE = "file that cannot be read"
EDGE = 2
"""Lines at the top and bottom of a page that may be running headers."""
FULL_LINE = 0.75
"""A line shorter than this share of the usual length ends its paragraph, if punctuation ends it."""


def read_epub(file: BinaryIO) -> Iterator[str]:
    """The chapters.

    Raises:
        InputError: the extra is missing.
    """
    require("resiliparse.extract.html2text", extra=EXTRA, purpose="reading EPUB")
    return _read(file, _chapters)


def read_pdf(file: BinaryIO) -> Iterator[str]:
    """The text.

    Raises:
        InputError: the extra is missing.
    """
    require("pypdf", extra=EXTRA, purpose="reading PDF")
    return _read(file, _pdf)


def read_docx(file: BinaryIO) -> Iterator[str]:
    """The text.

    Raises:
        InputError: the extra is missing.
    """
    require("docx", extra=EXTRA, purpose="reading DOCX")
    return _read(file, _docx)


def _read(file: BinaryIO, read: Callable[[BinaryIO], list[str]]) -> Iterator[str]:
    name, texts = str(getattr(file, "name", "a stream")), list[str]()
    try:
        texts = read(io.BytesIO(file.read()))
    except InputError:
        raise
    except Exception as error:  # damaged files make these libraries raise whatever they meet
        say(f"{name} skipped: {UNREADABLE} ({one_line(error)})")
        note(UNREADABLE, name)
    for text in texts:
        yield text.replace("\0", "").replace("\u00ad", "")  # soft hyphens


def _chapters(file: BinaryIO) -> list[str]:
    with zipfile.ZipFile(file) as book:

        def read(name: str) -> bytes:
            with book.open(name) as member:
                data = member.read(MOST_BYTES + 1)
            if len(data) > MOST_BYTES:
                raise ValueError(f"{name} is over {MOST_BYTES >> 20} MB")
            return data

        (package, *_) = ElementTree.fromstring(read("META-INF/container.xml")).findall(".//{*}rootfile")
        path = package.attrib["full-path"]
        root = ElementTree.fromstring(read(path))
        names = {item.attrib["id"]: item.attrib["href"] for item in root.findall(".//{*}item")}
        spine = [names[item.attrib["idref"]] for item in root.findall(".//{*}itemref") if item.attrib["idref"] in names]
        files = [posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(name))) for name in spine]
        pages = [(name, read(name), "utf-8") for name in files]
    found = list(page_texts(pages, main_content=False))
    if faults := [f"{name}: {fault}" for name, _, fault in found if fault]:
        raise ValueError("; ".join(faults))
    return [text for _, text, _ in found]


def _docx(file: BinaryIO) -> list[str]:
    import docx

    lines = []
    for item in docx.Document(file).iter_inner_content():
        if hasattr(item, "rows"):
            lines += ["\t".join(cell.text.strip() for cell in row.cells) for row in item.rows]
        else:
            lines.append(item.text)
    return ["\n\n".join(line for line in lines if line.strip())]


def _pdf(file: BinaryIO) -> list[str]:
    import pypdf

    pages = [page.extract_text().splitlines() for page in pypdf.PdfReader(file).pages]
    return [paragraphs(line for page in without_headers(pages) for line in page)]


def without_headers(pages: list[list[str]]) -> list[list[str]]:
    """Pages without lines at their edges that are on half of them or more, but for their numbers; and without page numbers."""
    stripped = [[line.strip() for line in page if line.strip()] for page in pages]

    def key(line: str) -> str:
        return re.sub(r"\d+", "0", line)

    counts = Counter(k for page in stripped for k in {key(line) for line in (*page[:EDGE], *page[-EDGE:])})
    most = max(2, len([page for page in stripped if page]) / 2)
    found = []
    for page in stripped:
        start, stop = 0, len(page)
        while start < min(EDGE, stop) and (counts[key(page[start])] >= most or page[start].isdigit()):
            start += 1
        while stop > max(start, len(page) - EDGE) and (counts[key(page[stop - 1])] >= most or page[stop - 1].isdigit()):
            stop -= 1
        found.append(page[start:stop])
    return found


def paragraphs(lines: Iterator[str]) -> str:
    """Lines joined to paragraphs, with a blank line between them; a word that a hyphen at a line's end cuts becomes whole."""
    listed = list(lines)
    usual = sorted(map(len, listed))[3 * len(listed) // 4] if listed else 0
    text = ""
    for line in listed:
        if re.search(r"[^\W\d_]-$", text) and line[:1].islower():
            text = text[:-1] + line
        else:
            text += line if not text or text.endswith("\n") else f" {line}"
        if len(line) < FULL_LINE * usual and line.endswith((".", "!", "?", ":", '"', "”")):
            text += "\n\n"
    return text.strip()
