"""The values of a JSON file one by one, however large the file: a list's elements, or values one after another."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from gpt3.corpus.documents import RecordError

BLANK = re.compile(r"[ \t\r\n]*")


class JsonValues:
    """Iterate over (line, value) of the elements of the list a stream holds, or of its values if it does not open with "[".

    Holds one chunk and one value at a time.

    Raises (while iterating):
        RecordError: it is not JSON; with the line.
        UnicodeDecodeError: it is not UTF-8.
    """

    def __init__(self, file: BinaryIO, longest: int, chunk: int = 1024 * 1024) -> None:
        """
        Args:
            file: the stream of bytes.
            longest: characters of one value above which it is given up.
            chunk: characters read at a time.
        """
        self.stream = io.TextIOWrapper(file, encoding="utf-8-sig", newline="\n")
        self.decoder = json.JSONDecoder()
        self.longest = longest
        self.chunk = chunk
        self.text = ""
        self.at = 0  # what is before it in `text` is done with
        self.line = 1  # of `at`

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        in_list = self.next_mark() == "["
        if not in_list:
            while self.next_mark():
                yield self.value()
            return
        self.advance(self.at + 1)
        if self.next_mark() != "]":
            yield self.value()
        while (mark := self.next_mark()) == ",":
            self.advance(self.at + 1)
            self.next_mark()
            yield self.value()
        if mark != "]":
            found = f"expected a comma, found {mark!r}" if mark else "the list is never closed"
            raise RecordError(self.line, f"not JSON: {found}")
        self.advance(self.at + 1)
        if mark := self.next_mark():
            raise RecordError(self.line, f"not JSON: {mark!r} after the list's end")

    def advance(self, to: int) -> None:
        """Be done with the text before `to`."""
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def refill(self) -> bool:
        """Read on, twice as much as is pending at least, so that a long value costs linear time. False at the end."""
        more = self.stream.read(max(self.chunk, len(self.text) - self.at))
        self.text = self.text[self.at :] + more
        self.at = 0
        return bool(more)

    def next_mark(self) -> str:
        """Go to the next character that is not blank and return it; "" at the end."""
        while True:
            match = BLANK.match(self.text, self.at)
            assert match is not None  # it matches nothing too
            self.advance(match.end())
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.refill():
                return ""

    def value(self) -> tuple[int, Any]:
        """Parse the value that begins at `at`."""
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                pending = len(self.text) - self.at
                # a value the chunk cuts off: a string without its end, or an error right where the text ends
                cut_off = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - 16
                if cut_off and pending <= self.longest and self.refill():
                    continue
                line = self.line + self.text.count("\n", self.at, error.pos if not cut_off else self.at)
                what = f"a value of over {self.longest} characters" if pending > self.longest else error.msg
                raise RecordError(line, f"not JSON: {what}") from None
            except RecursionError:
                raise RecordError(self.line, "nested too deeply") from None
            if isinstance(value, (int, float)) and not self.text[end:].strip("+-.eE") and self.refill():
                continue  # the rest of a number may be in the next chunk, as in "1", "1." or "1e-"
            line = self.line
            self.advance(end)
            return line, value
