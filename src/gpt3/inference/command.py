"""`gpt3 generate`: a prompt from where the user has it, text or JSON to standard output, notes to standard error."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gpt3.errors import InputError
from gpt3.inference.options import GenerateOptions

if TYPE_CHECKING:
    from gpt3.inference.generation import Job

STANDARD_INPUT = "-"


def run(options: GenerateOptions) -> None:
    """Continue the prompt and write to standard output.

    A single sample is written piece by piece. Of several, each stands below a line that numbers it: the first live, the
    next as far as it has come when its turn is there. With `options.json`, one object a line as each is complete.

    Raises:
        InputError: see `gpt3.inference.load` and `generate`.
        KeyboardInterrupt: passed on, once the text so far (JSON: finish_reason "interrupted") is written.
        BrokenPipeError: passed on: nobody reads standard output any more.
    """
    prompt = read_prompt(options)  # before the model, whose loading takes seconds
    speak_utf8(sys.stdout)

    from gpt3.inference.generation import Job
    from gpt3.inference.language_model import load
    from gpt3.inference.locating import locate

    place = locate(options.model)
    if options.model is None:
        note(f"model: {place}")
    job = Job(load(place, device=options.device, dtype=options.dtype), [prompt], options)
    if not prompt:
        note("the prompt is empty: a new document begins")
    kept, dropped = job.prompt_tokens[0], job.dropped[0]
    if dropped:
        note(
            f"the prompt has {dropped + kept:,} tokens, the model's context {kept:,}: the oldest {dropped:,} are dropped"
        )
    printer = JsonPrinter(job) if options.json else TextPrinter(job)
    try:
        for sample, piece in job:
            printer.take(sample, piece)
    except KeyboardInterrupt:
        printer.close()
        raise
    printer.close()
    if not options.json:
        note(summary(job))


def read_prompt(options: GenerateOptions) -> str:
    """The text to continue: --prompt, --prompt-file, piped standard input, or "" (a new document) on a terminal.

    One line end at the end of a file or of piped text is left out: editors and echo put it there.

    Raises:
        InputError: no such file, or not UTF-8 (the byte is named).
    """
    if options.prompt is not None and options.prompt != STANDARD_INPUT:
        return options.prompt
    if options.prompt_file is not None and options.prompt_file != STANDARD_INPUT:
        name = options.prompt_file
        try:
            content = Path(name).read_bytes()
        except OSError as error:
            raise InputError(f"--prompt-file {name} cannot be read ({error.strerror}); give a text file") from None
    else:
        name = "standard input"
        asked = STANDARD_INPUT in (options.prompt, options.prompt_file)
        if sys.stdin is None or (sys.stdin.isatty() and not asked):
            return ""
        content = sys.stdin.buffer.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 at byte {error.start}; convert it to UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")


class TextPrinter:
    """Samples as plain text, in order: one is written live, the others wait for their turn."""

    def __init__(self, job: Job) -> None:
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

    def __init__(self, job: Job) -> None:
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


def summary(job: Job) -> str:
    """The closing note: how much, how fast, why it ended, and the seed that gives it again."""
    results = job.results()
    tokens = sum(result.token_count for result in results)
    seconds = max(result.seconds for result in results)
    parts = [f"{tokens:,} tokens in {seconds:.1f} s" + (f" ({tokens / seconds:.1f} tokens/s)" if seconds else "")]
    if any(result.finish_reason == "length" for result in results):
        parts.append(f"ended by --max-new-tokens {job.options.max_new_tokens}")
    if any(result.restarts for result in results):
        parts.append("longer than the context: the model last saw only the newer half of the text")
    if job.options.temperature > 0:
        parts.append(f"--seed {job.seed} gives the same again")
    return "; ".join(parts)


def speak_utf8(stream: object) -> None:
    """Make a text stream write UTF-8, whatever the locale or Windows code page is."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8")


def write(text: str) -> None:
    """To standard output, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def note(text: str) -> None:
    """A line to standard error."""
    print(f"gpt3 generate: {text}", file=sys.stderr, flush=True)
