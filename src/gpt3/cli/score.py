"""`gpt3 score`: texts from files, figures to standard output, pages to --html, notes and progress to standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gpt3.cli.score_options import ScoreOptions
from gpt3.errors import InputError, RunError
from gpt3.inference.standard_streams import STANDARD_INPUT, speak_utf8, write
from gpt3.progress import Progress, say

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from gpt3.inference.engine import Engine
    from gpt3.inference.scoring import Scores
    from gpt3.inference.text_scores import Summary, TokenScore

TOP = 5
"""Likeliest tokens shown for each place."""
MOST_AUTO = 1000
"""Tokens up to which --color auto shows the texts."""
PROGRESS_FROM = 4096
"""Tokens from which progress is shown."""
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Source:
    """A text to score and what it is called."""

    name: str
    text: str


def run(options: ScoreOptions) -> None:
    """Score each text and write what was asked for.

    Raises:
        InputError: a text that cannot be read, is empty or not UTF-8; windows that do not fit the model; what loading raises.
        RunError: the page cannot be written.
        KeyboardInterrupt: passed on, once the figures of the texts that are done are written.
    """
    sources = read_sources(options)  # before the model, whose loading takes seconds
    speak_utf8(sys.stdout)

    from gpt3.inference.score_page import Page
    from gpt3.inference.scoring import check_windows
    from gpt3.inference.text_scores import TokenReader, encode_texts, summarize

    engine, tokenizer, place = open_engine(options)
    context, stride = check_windows(engine, options.context, options.stride)
    texts = encode_texts(tokenizer, [(source.name, source.text) for source in sources])
    if max(map(max, texts)) >= engine.vocabulary:
        raise InputError(f"--model {place}: its tokenizer has ids the model has not; copy the folder again")
    total, nats = sum(map(len, texts)), 0.0
    page = Page(place, context, stride) if options.html is not None else None
    view = TerminalView() if shows_colors(options, total) else None
    reports = Reports(options, several=len(sources) > 1)
    quiet = total < PROGRESS_FROM or ((view or options.tokens) and sys.stdout.isatty())  # a bar would cut the text
    with nullcontext() if quiet else Progress("scored", total, "tokens") as progress, reports:
        for source, ids in zip(sources, texts, strict=True):
            takers: list[Callable[[list[TokenScore]], None]] = []
            if options.tokens:
                takers.append(reports.begin(source.name))
            if view:
                takers.append(view.begin(source.name if len(sources) > 1 else None))
            if page:
                takers.append(page.begin(source.name, len(ids)))
            reader = TokenReader(tokenizer) if takers else None

            def take(scores: Scores, reader: TokenReader | None = reader, takers: Sequence[Any] = takers) -> None:
                nonlocal nats
                nats -= scores.total
                if progress is not None:
                    done = progress.done + len(scores)
                    progress.update(done, f"loss {nats / done:.3f}")
                if reader is not None:
                    tokens = list(reader.read(scores))
                    for taker in takers:
                        taker(tokens)

            top = TOP if page or options.tokens else 0
            summary = summarize(engine, tokenizer, source.text, ids, take, context=context, stride=stride, top=top)
            if view:
                view.end()
            if page:
                page.end(summary)
            reports.add(source.name, summary)
    if page is not None:
        try:
            page.write(Path(str(options.html)))
        except OSError as error:
            raise RunError(
                f"--html {options.html} cannot be written ({error.strerror}); choose another place"
            ) from None
        say(f"page: {options.html}")


def open_engine(options: ScoreOptions) -> tuple[Engine, PreTrainedTokenizerFast, str]:
    """The model ready to run, its tokenizer, and where it was found.

    Raises:
        InputError: what `gpt3.inference.load` raises.
    """
    from gpt3.inference.language_model import load
    from gpt3.model_folder.locate import locate

    place = locate(options.model)
    if options.model is None:
        say(f"model: {place}")
    model = load(place, device=options.device, dtype=options.dtype, quantize=options.quantize)
    return model.engine, model.tokenizer, str(place)


def read_sources(options: ScoreOptions) -> list[Source]:
    """The texts: files in their order, then --text.

    Raises:
        InputError: every file that cannot be read, is empty or is not UTF-8, in one line.
    """
    sources: list[Source] = []
    faults: list[str] = []
    for name in options.files:
        try:
            source = read_source(name)
        except InputError as error:
            faults.append(str(error))
        else:
            sources.append(source)
    if options.text is not None:
        sources.append(Source("--text", options.text))
        if not options.text:
            faults.append("--text is empty; there is nothing to score")
    if faults:
        raise InputError("; ".join(faults))
    return sources


def read_source(name: str) -> Source:
    """A file's text as it is, line ends and all; a byte order mark is left out.

    Raises:
        InputError: it cannot be read, is empty, or is not UTF-8 (the byte is named).
    """
    shown = "standard input" if name == STANDARD_INPUT else name
    try:
        content = sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name).read_bytes()
    except OSError as error:
        raise InputError(f"{shown} cannot be read ({error.strerror}); give a text file") from None
    mark = len(BOM) if content.startswith(BOM) else 0
    if len(content) == mark:
        raise InputError(f"{shown} is empty; there is nothing to score")
    try:
        return Source(shown, content[mark:].decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{shown} is not UTF-8 at byte {error.start + mark}; convert it to UTF-8") from None


def shows_colors(options: ScoreOptions, tokens: int) -> bool:
    """Whether the terminal shows the texts coloured."""
    if options.color != "auto" or options.json:
        return options.color == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and tokens <= MOST_AUTO


class Reports:
    """Figures to standard output: JSON lines as each text is done, or a table at the end, also of a run cut short."""

    def __init__(self, options: ScoreOptions, several: bool) -> None:
        self._options, self._several = options, several
        self._rows: list[tuple[str, Summary]] = []
        self._open = False  # a text's tokens are being written
        self._first = True  # none of them is yet

    def __enter__(self) -> Reports:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        from gpt3.inference.score_view import table
        from gpt3.inference.text_scores import Summary

        if kind is BrokenPipeError:  # nobody reads on
            return
        if self._open:
            write("]}\n")  # what there is of a text that was cut short
        if not self._options.json and self._rows:
            write(table(self._rows) + "\n")
        elif self._options.json and self._several and kind is None:
            total = sum((summary for _, summary in self._rows), Summary())
            write(json.dumps({"files": len(self._rows), **total.as_dict()}) + "\n")

    def begin(self, name: str) -> Callable[[list[TokenScore]], None]:
        """Begin a text's JSON object; returns what writes its tokens, which need not be kept."""
        write(f'{{"file": {json.dumps(name, ensure_ascii=False)}, "per_token": [')
        self._open = self._first = True
        return self._write_tokens

    def add(self, name: str, summary: Summary) -> None:
        """A text is done."""
        self._rows.append((name, summary))
        if self._options.tokens:
            self._open = False
            write("], " + json.dumps(summary.as_dict())[1:] + "\n")
        elif self._options.json:
            write(json.dumps({"file": name, **summary.as_dict()}, ensure_ascii=False) + "\n")

    def _write_tokens(self, tokens: list[TokenScore]) -> None:
        found = ", ".join(json.dumps(token.as_dict(), ensure_ascii=False) for token in tokens)
        write(("" if self._first else ", ") + found)
        self._first = False


class TerminalView:
    """Texts on standard output, each token on the shade of its probability, below a legend."""

    def __init__(self) -> None:
        from rich.console import Console

        # asked for with `always`, colours go into files and pagers, too; lines are broken by whoever shows them
        color_system: Literal["auto", "truecolor"] = "auto" if sys.stdout.isatty() else "truecolor"
        self._console = Console(
            file=sys.stdout,
            force_terminal=True,
            no_color=False,
            color_system=color_system,
            soft_wrap=True,
            highlight=False,
            markup=False,
            emoji=False,
        )
        self._begun = False

    def begin(self, name: str | None) -> Callable[[list[TokenScore]], None]:
        """Begin a text below its name, if it has one."""
        from gpt3.inference.score_view import legend, printable

        if not self._begun:
            self._begun = True
            self._console.print(legend())
            self._console.print()
        if name is not None:
            self._console.print(f"--- {printable(name)} ---")
        return self._show

    def end(self) -> None:
        """A text is complete."""
        self._console.print("\n")

    def _show(self, tokens: list[TokenScore]) -> None:
        from gpt3.inference.score_view import colored

        self._console.print(colored(tokens), end="")
