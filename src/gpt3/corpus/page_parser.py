"""The main text of HTML pages by a library, in a process of its own: a page on which it crashes or hangs costs only itself.

Pages go to the process as lengths and bytes, and texts come back in the same order. So when it dies, the page it died on is the
first one without an answer. It dies of itself if a page takes too much of its CPU time, which other programs do not change.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

from gpt3.errors import RunError, require

EXTRA = "web"
PARSERS = {"resiliparse": EXTRA, "trafilatura": "trafilatura"}
"""What finds the main text, and the extra that brings it. The encoding is Resiliparse's finding in any case."""
LEFT_OUT = {"alt_texts": False, "links": False, "comments": False, "post_meta": False}
"""Of Resiliparse: what readers wrote below a text, and who wrote it when, are not the text."""
VERSION = 2
"""Counts changes in the text of pages."""
CPU_SECONDS = 10.0
"""For one page; a usual one takes a thousandth of a second."""
WALL_SECONDS = 300.0
"""For one page, where it only waits, or where the system does not limit the CPU time."""
AHEAD, AHEAD_BYTES = 16, 2 << 20
"""Pages that are sent before an answer is waited for, and their bytes."""
FAILED, CRASHED = "page that the parser fails on", "page that crashes or hangs the parser"
PAGE, ANSWER = struct.Struct("<BHI"), struct.Struct("<?I")
CHOICES = (None, *PARSERS)

Key = TypeVar("Key")


_chosen: ContextVar[str] = ContextVar("parser", default="resiliparse")


@contextlib.contextmanager
def parsed_by(parser: str) -> Iterator[None]:
    """Have the pages that are begun here parsed by one of `PARSERS`."""
    token = _chosen.set(parser)
    try:
        yield
    finally:
        _chosen.reset(token)


def check_parser(parser: str) -> None:
    """Refuse one of `PARSERS` that is not installed.

    Raises:
        InputError: with the command that installs it.
    """
    require(parser, extra=PARSERS[parser], purpose=f"html: {parser}")


def page_text(data: bytes, charset: str | None = None, parser: str | None = "resiliparse") -> str | None:
    """The main text of a page, paragraphs on lines of their own; None where the parser fails on it.

    Args:
        charset: of the HTTP header, where there is one.
        parser: one of `PARSERS`, which leaves out navigation, advertisements and what else is around the text; None: all text.
    """
    encoding: Any = require("resiliparse.parse.encoding", extra=EXTRA, purpose="reading HTML")
    html2text: Any = require("resiliparse.extract.html2text", extra=EXTRA, purpose="reading HTML")
    try:
        page = encoding.bytes_to_str(data, charset or encoding.detect_encoding(data))
        if parser == "trafilatura":
            trafilatura: Any = require(parser, extra=PARSERS[parser], purpose="reading HTML")
            text = trafilatura.extract(page, include_comments=False) or ""
        else:
            text = html2text.extract_plain_text(page, main_content=parser is not None, **LEFT_OUT)
    except (ValueError, RuntimeError, UnicodeError, LookupError):
        return None
    return str(text).replace("\0", "").strip()


def page_texts(
    pages: Iterable[tuple[Key, bytes | str, str | None]], main_content: bool = True
) -> Iterator[tuple[Key, str, str | None]]:
    """The texts of pages, in order.

    Args:
        pages: of each a key, its bytes and its charset; in place of bytes a text, which stays as it is.
        main_content: whether a parser finds the main text, the one of `parsed_by`; else all text is given.

    Yields:
        The key, the text, and why there is none: None, `FAILED` or `CRASHED`.

    Raises:
        InputError: the extra is missing.
        RunError: the process cannot be started.
    """
    sent: deque[tuple[Key, bytes | str, str | None]] = deque()
    parser, size = PageParser.idle(), 0
    parser.choice = _chosen.get() if main_content else None
    try:
        for page in pages:
            sent.append(page)
            size += len(page[1])
            parser.send(page)
            while len(sent) > AHEAD or size > AHEAD_BYTES:
                size -= len(sent[0][1])
                yield parser.answer(sent)
        while sent:
            yield parser.answer(sent)
    finally:
        parser.close() if sent else _idle.append(parser)


class PageParser:
    """The process: started for the first page, and again where it dies."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.process: subprocess.Popen[bytes] | None = None
        self.choice: str | None = None

    @classmethod
    def idle(cls) -> PageParser:
        """One that nobody uses now."""
        with contextlib.suppress(IndexError):
            while (found := _idle.pop()).owner != os.getpid():
                pass  # of the process that this is a fork of
            return found
        return cls()

    def _start(self) -> subprocess.Popen[bytes]:
        require("resiliparse.extract.html2text", extra=EXTRA, purpose="reading HTML")
        # without the working folder, whose files could have the names of modules
        code = "import sys; sys.path[:] = filter(None, sys.path); "
        code += f"from gpt3.corpus.page_parser import serve; serve({CPU_SECONDS})"
        pipe = subprocess.PIPE
        process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        self.answers: queue.Queue[tuple[bool, bytes] | None] = queue.Queue()
        threading.Thread(target=_receive, args=(process.stdout, self.answers), daemon=True).start()
        if self.answers.get() is None:
            raise RunError(f"the parser of pages cannot be started; this says why: {sys.executable} -c {code!r}")
        return process

    def send(self, page: tuple[Any, bytes | str, str | None]) -> None:
        """Send a page; one that is a text needs no answer."""
        _, data, charset = page
        if isinstance(data, bytes):
            self.process = self.process or self._start()
            name = (charset or "").encode()
            with contextlib.suppress(OSError):  # it has died: seen by the missing answer
                assert self.process.stdin is not None
                self.process.stdin.write(PAGE.pack(CHOICES.index(self.choice), len(name), len(data)) + name + data)
                self.process.stdin.flush()

    def answer(self, sent: deque[tuple[Key, bytes | str, str | None]]) -> tuple[Key, str, str | None]:
        """Take the first page that was sent, and wait for its text."""
        key, data, _ = sent[0]
        if isinstance(data, str):
            sent.popleft()
            return key, data, None
        try:
            found = self.answers.get(timeout=WALL_SECONDS)
        except queue.Empty:
            found = None
        sent.popleft()
        if found is None:
            self.close()
            for page in sent:
                self.send(page)
            return key, "", CRASHED
        return (key, found[1].decode("utf-8"), None) if found[0] else (key, "", FAILED)

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            with contextlib.suppress(OSError):
                assert self.process.stdin is not None
                self.process.stdin.close()
            self.process = None


_idle: list[PageParser] = []


def _receive(stream: Any, answers: queue.Queue[tuple[bool, bytes] | None]) -> None:
    """Hand over the answers of a process; None when it ends."""
    with stream:
        while len(head := stream.read(ANSWER.size)) == ANSWER.size:
            good, size = ANSWER.unpack(head)
            if len(text := stream.read(size)) < size:
                break
            answers.put((good, text))
    answers.put(None)


def serve(seconds: float) -> None:
    """What the process does: answer pages from standard input until it ends.

    Args:
        seconds: CPU time for a page.
    """
    pages, out = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else is written there
    page_text(b"<p>Imports everything.")

    def answer(text: str | None) -> None:
        data = (text or "").encode("utf-8", "replace")
        out.write(ANSWER.pack(text is not None, len(data)) + data)
        out.flush()

    def limit(left: float) -> None:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_PROF, left)  # SIGPROF ends the process

    answer("")
    while head := pages.read(PAGE.size):
        choice, name, size = PAGE.unpack(head)
        charset = pages.read(name).decode()
        data = pages.read(size)
        limit(seconds)
        text = page_text(data, charset or None, CHOICES[choice])
        limit(0)
        answer(text)
