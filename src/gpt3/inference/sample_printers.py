"""How `gpt3 generate` shows the samples of one prompt while they are written: as text, or as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gpt3.inference.standard_streams import write

if TYPE_CHECKING:
    from gpt3.inference.generation import GenerationRequest


class TextPrinter:
    """Samples as plain text, in order: one is written live, the others wait for their turn."""

    def __init__(self, job: GenerationRequest) -> None:
        self._job = job
        self._count = job.options.num_samples
        self._waiting: list[list[str]] = [[] for _ in range(self._count)]
        self._now = 0  # the sample being written
        self._line_open = False
        self._head()

    def take(self, sample: int, piece: str) -> None:
        """A piece of a sample; written at once if it is that sample's turn."""
        self._waiting[sample].append(piece)
        self._catch_up()

    def close(self) -> None:
        """Write what waits, complete or not, and end the last line."""
        self._write(self._now)
        while self._now + 1 < self._count:
            self._next()
            self._write(self._now)
        self._end_line()

    def _catch_up(self) -> None:
        self._write(self._now)
        while self._job.finished(self._now) and self._now + 1 < self._count:
            self._next()
            self._write(self._now)

    def _next(self) -> None:
        self._end_line()
        write("\n")
        self._now += 1
        self._head()

    def _head(self) -> None:
        if self._count > 1:
            write(f"--- sample {self._now + 1} of {self._count} ---\n")

    def _write(self, sample: int) -> None:
        text = "".join(self._waiting[sample])
        self._waiting[sample].clear()
        if text:
            write(text)
            self._line_open = not text.endswith("\n")

    def _end_line(self) -> None:
        if self._line_open:
            write("\n")
        self._line_open = False


class JsonPrinter:
    """Samples as JSON objects, one a line in order, each as soon as it and those before it are complete."""

    def __init__(self, job: GenerationRequest) -> None:
        self._job = job
        self._printed = 0

    def take(self, sample: int, piece: str) -> None:
        """A piece has come: print the samples that are complete now."""
        self._print(only_finished=True)

    def close(self) -> None:
        """Print the rest, complete or not."""
        self._print(only_finished=False)

    def _print(self, only_finished: bool) -> None:
        while self._printed < self._job.options.num_samples:
            if only_finished and not self._job.finished(self._printed):
                return
            self._printed += 1
            write(json.dumps(self._job.result(self._printed - 1).as_dict(), ensure_ascii=False) + "\n")
