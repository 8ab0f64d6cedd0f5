"""What an experiment of the paper is: it measures, which gives JSON, and draws that JSON; and what it works with.

A file of this package is one experiment, with one function for each of the two and an `Experiment` that names them; a line in
gpt3.paper.experiments registers it. What `measure` returns is kept in ``OUT/FIGURE.json``. `draw` sees nothing else, so the page
can be drawn again from these files.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3.durable import write_text
from gpt3.report.svg import Axes, Line

Measured = dict[str, Any]
"""JSON values: all that was measured, and what a reader needs to derive it again."""


@dataclass(frozen=True)
class Model:
    """A model that experiments ask."""

    name: str
    """For tables, such as ``0.4M``; unique in a work."""
    place: Path | str
    """A model folder, or a hub id."""
    parameters: int
    """All of them."""
    layer_parameters: int
    """Without embeddings, as the paper's axes have them."""
    written: int = 0
    """When its files were last written, in nanoseconds, so that a model trained again at its place is asked again."""


class Interrupted(Exception):  # noqa: N818  # no error
    """A signal asked the work to end; what is finished is saved.

    Args:
        exit_code: 130 or 143, as a shell reports the signal.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


@dataclass(frozen=True)
class Work:
    """What one experiment works with."""

    folder: Path
    """Its own, ``OUT/FIGURE``, for all that it makes on the way."""
    models: Sequence[Model] = ()
    """Whom to ask, smallest first: those of ``--model``, else those that experiment 3.1 trained, else one at hand."""
    data: Sequence[str] = ("wiki",)
    """Training text, as `gpt3 train --data` takes it."""
    minutes: float = 60.0
    """Its part of ``--minutes``, for training."""
    limit: int = 200
    """Questions of each task, or whatever else is counted."""
    seed: int = 0
    threads: str = "auto"
    data_dir: str | None = None
    """Files of the evaluation's tasks, as `gpt3 eval --data-dir` takes them."""
    article_words: int = 200
    """Of the articles of 3.9.4, about: 200 or 500."""

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        """What `measure` returns, JSON values, from ``FOLDER/NAME.json`` if it was measured before."""
        path = self.folder / f"{name}.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        path.parent.mkdir(parents=True, exist_ok=True)
        found = json.loads(json.dumps(measure()))
        write_text(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        return found

    def train(self, name: str, **options: Any) -> Path:
        """The run ``FOLDER/NAME``, trained or resumed as `gpt3 train` does, unless it is finished.

        Args:
            options: fields of `TrainOptions`, besides seed, threads and folder.

        Raises:
            Interrupted: a signal ended it after a checkpoint.
        """
        from gpt3.report.run_folder import FINAL_MODEL
        from gpt3.training.options import TrainOptions
        from gpt3.training.run import train

        folder = self.folder / name
        if not (folder / FINAL_MODEL).is_dir():
            given = {"seed": self.seed, "threads": self.threads, "out": str(folder), **options}
            with contextlib.redirect_stdout(sys.stderr):  # samples; standard output has the page's place
                result = train(TrainOptions(**given))
            if not result.finished:
                raise Interrupted(result.exit_code)
        return folder


@dataclass(frozen=True)
class Chart:
    """A panel of the page."""

    caption: str
    axes: Axes
    legend: Sequence[Line] = ()
    """Curves whose labels explain colors and dashes."""


@dataclass(frozen=True)
class Table:
    """A table of the page."""

    caption: str
    rows: Sequence[Sequence[str]]
    """Headings first."""


@dataclass(frozen=True)
class Drawing:
    """An experiment as the page shows it: what was found here, next to what the paper found."""

    ours: Sequence[str]
    """Sentences."""
    paper: Sequence[str]
    """Sentences, with the paper's numbers and their place there."""
    notes: Sequence[str] = ()
    """Sentences: why the two differ, and what it would take to see what cannot be seen on this machine."""
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    html: str = ""
    """Anything else, put into the page as it is: escape what comes from texts and models."""


@dataclass(frozen=True)
class Experiment:
    """One figure, table or section of the paper."""

    figure: str
    """How the command line and the files call it, such as ``3.1``."""
    title: str
    measure: Callable[[Work], Measured]
    draw: Callable[[Measured], Drawing]
    share: float = 0.0
    """Its part of ``--minutes``, relative to the others'; 0: it trains nothing."""
    again: bool = False
    """Whether it is measured each time, since people add to its folder; its pieces are kept."""
