"""`gpt3 score`: texts from files; figures to standard output, a page to --html, messages and progress to standard error."""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpt3.cli.numba_alone import import_numba
from gpt3.corpus.records import STANDARD_INPUT, read_text, shown
from gpt3.durable import write_text
from gpt3.errors import InputError, RunError
from gpt3.model_folder.locate import locate
from gpt3.options import DType, Options, Quantize, option
from gpt3.progress import Progress, say, write
from gpt3.work_folder import check_file

TOP = 5
"""Likeliest tokens shown for each position."""
MOST_AUTO = 1000
"""Tokens up to which --color auto shows the texts."""
PROGRESS_FROM = 4096
"""Tokens from which progress is shown."""


@dataclass(frozen=True)
class ScoreOptions(Options):
    """How well a model predicts texts: loss, perplexity and bits per byte, in total and token by token."""

    files: list[str] = option([], group="Text", common=True)
    """UTF-8 text files, each a separate document; - is standard input."""
    text: str | None = option(None, common=True)
    """A text to score, in addition to files or without any."""
    model: str | None = option(None, group="Model", common=True)
    """Model folder, run folder, name of a run in ./runs, or hub id. Default: the newest run in ./runs."""
    context: int | None = option(None, least=1, group="Windows", common=True)
    """Tokens the model sees at a time. Default: all its positions."""
    stride: int | None = option(None, least=1, common=True)
    """Tokens from one window to the next; smaller is slower and more exact. Default: half the context."""
    json: bool = option(False, group="Output", common=True)
    """Print one JSON object per line and text instead of a table, and one for the total of several."""
    tokens: bool = option(False, common=True)
    """With --json: also every token with its position, log-probability, rank and five likeliest tokens."""
    html: str | None = option(None, common=True)
    """Write the texts, colored by probability, to this HTML file, new or an earlier such page."""
    overwrite: bool = False
    """Replace a file at --html that is no such page."""
    color: Literal["auto", "always", "never"] = option("auto", common=True)
    """Show the texts colored in the terminal. auto: on a terminal, up to 1,000 tokens in total."""
    device: str = option("auto", group="Hardware")
    """auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:N or mps."""
    dtype: DType = "auto"
    """Number format of weights and arithmetic. auto: on CUDA bf16, or fp16 where it lacks that; else fp32."""
    quantize: Quantize = "none"
    """int8 or int4: 8- or 4-bit weights; int4 on a CPU."""
    threads: str = option("auto")
    """CPU threads: auto adapts to what else the machine does; a number is fixed."""

    def errors(self) -> list[str]:
        """What the ranges cannot express."""
        found: list[str] = []
        if not self.files and self.text is None:
            found.append("nothing to score. Give text files, - for standard input, or --text")
        if self.files.count(STANDARD_INPUT) > 1:
            found.append("standard input (-) is given twice. Give it once")
        if self.text == "":
            found.append("--text is empty. Give a text to score")
        if self.context is not None and self.stride is not None and self.stride > self.context >= 1:
            found.append(f"--stride {self.stride} exceeds --context {self.context}, so tokens would be skipped")
        if self.tokens and not self.json:
            found.append("--tokens needs --json. Add --json, or use --html FILE for a page")
        if self.json and self.color == "always":
            found.append("--json and --color always exclude each other. Give one of them")
        if self.html is not None and any(same_file(self.html, name) for name in self.files):
            found.append(f"--html {self.html} is a text to score. Name another file")
        if self.html == "":
            found.append("--html '' is not a file name. Give one such as score.html")
        return found


def run(options: ScoreOptions) -> None:
    """Score each text and write what was requested.

    Raises:
        InputError: a text that cannot be read, is empty or not UTF-8; an --html that is no earlier page; windows that do not
            fit the model; what loading raises.
        RunError: the page cannot be written.
        KeyboardInterrupt: passed on, once the figures of the finished texts are written.
    """
    sources = read_sources(options)  # before the model, whose loading takes seconds

    import_numba()
    from gpt3.inference import score_view
    from gpt3.inference.language_model import load
    from gpt3.inference.scoring import TextScore, TokenReader, check_windows, encode_texts, first_token, score_chunks
    from gpt3.report.page import PAGE_MARK

    if options.html is not None:
        check_file("--html", Path(options.html), PAGE_MARK, overwrite=options.overwrite)
    place = locate(options.model)
    if options.model is None:
        say(f"model: {place}")
    model = load(place, device=options.device, dtype=options.dtype, quantize=options.quantize, threads=options.threads)
    engine, tokenizer = model.engine, model.tokenizer
    context, stride = check_windows(engine, options.context, options.stride)
    texts = encode_texts(tokenizer, sources)
    if max(map(max, texts)) >= engine.vocabulary:
        raise InputError(f"--model {place}: the tokenizer has ids that the model lacks. Copy the folder again")
    total, nats, left = sum(map(len, texts)), 0.0, score_view.MOST_TOKENS
    top = TOP if options.html is not None or options.tokens else 0
    scored: list[tuple[str, TextScore]] = []
    view = score_view.terminal() if shows_colors(options, total) else None
    quiet = total < PROGRESS_FROM or ((view or options.tokens) and sys.stdout.isatty())  # a bar would cut the text
    unfinished = False  # a JSON object whose tokens are written as they come
    try:
        with nullcontext() if quiet else Progress("scored", total, "tokens") as progress:
            for (name, text), ids in zip(sources, texts, strict=True):
                score = TextScore(bytes=len(text.encode("utf-8")), characters=len(text))
                reader = TokenReader(tokenizer) if top or view else None
                start = f'{{"file": {json.dumps(name, ensure_ascii=False)}, '
                if options.tokens:
                    write(f'{start}"per_token": [')
                    unfinished = True
                if view and len(sources) > 1:
                    view.print(f"--- {score_view.printable(name)} ---")
                for scores in score_chunks(engine, [first_token(tokenizer), *ids], context, stride, top=top):
                    tokens = list(reader.read(scores)) if reader else []
                    if options.tokens:
                        rows = (json.dumps(vars(token), default=vars, ensure_ascii=False) for token in tokens)
                        write((", " if score.count else "") + ", ".join(rows))
                    if view:
                        view.print(score_view.colored(tokens), end="")
                    if options.html is not None:
                        score.tokens += tokens[:left]
                        left -= min(left, len(tokens))
                    score.add(scores)
                    nats -= scores.total
                    if progress is not None:
                        progress.advance(len(scores), f"loss {nats / (progress.done + len(scores)):.3f}")
                if view:
                    view.print("\n")
                scored.append((name, score))
                if options.json:
                    unfinished = False
                    write(("], " if options.tokens else start) + json.dumps(score.as_dict())[1:] + "\n")
    finally:  # also when interrupted
        write("]}\n" if unfinished else "")
        if scored and not options.json:
            write(score_view.table(scored) + "\n")
    if options.json and len(scored) > 1:
        write(json.dumps({"files": len(scored), **score_view.with_total(scored)[-1][1].as_dict()}) + "\n")
    if options.html is not None:
        about = f"{place}, context {context:,}, stride {stride:,}"
        try:
            write_text(Path(options.html), score_view.page(about, scored))
        except OSError as error:
            raise RunError(f"--html {options.html} cannot be written ({error.strerror}). Use another path") from None
        say(f"page: {options.html}")


def read_sources(options: ScoreOptions) -> list[tuple[str, str]]:
    """Name and text of each file in order, then of --text.

    Raises:
        InputError: every file that cannot be read, is empty or is not UTF-8, in one message.
    """
    sources: list[tuple[str, str]] = []
    faults: list[str] = []
    for name in options.files:
        try:
            sources.append((shown(name), read_text(name)))
        except InputError as error:
            is_text = " " in name and not os.path.lexists(name)
            faults.append(f"{error}, or the text itself with --text" if is_text else str(error))
    if faults:
        raise InputError("; ".join(faults))
    return sources if options.text is None else [*sources, ("--text", options.text)]


def same_file(one: str, other: str) -> bool:
    """Whether two names lead to the same file; of files that are missing, whether the names are equal."""
    try:
        return Path(one).samefile(other)
    except OSError:
        return one == other


def shows_colors(options: ScoreOptions, tokens: int) -> bool:
    """Whether the terminal shows the texts colored."""
    if options.color != "auto" or options.json:
        return options.color == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and tokens <= MOST_AUTO
