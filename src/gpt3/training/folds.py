"""K-fold cross-validation over documents: K ordinary runs, each holding out another share of the documents, and their table."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt3 import work_folder
from gpt3.durable import write_text
from gpt3.errors import InputError, RunError
from gpt3.progress import say
from gpt3.report.run_folder import FINAL_MODEL, METRICS, read_metrics
from gpt3.tables import aligned
from gpt3.training.options import TrainOptions
from gpt3.training.run_folder import asked as asked_of_run
from gpt3.training.run_name import default_name

FILE_NAME = "folds.json"
FORMAT = 1
MEASURES = ("loss", "perplexity", "bits_per_byte")
COUNTS = ("tokens", "documents")


@dataclass
class FoldTable:
    """What a cross-validation came to."""

    folder: Path
    folds: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    """One a finished fold: ``fold`` from 1, `MEASURES`, `COUNTS`, ``loss_low`` and ``loss_high`` where there is an interval."""
    exit_code: int = 0
    """Of the run that did not finish."""

    @property
    def finished(self) -> bool:
        """Whether every fold is."""
        return len(self.rows) == self.folds

    @property
    def summary(self) -> dict[str, dict[str, float]]:
        """Each measure's mean and standard deviation (n - 1) over the finished folds, each counting once; of two or more."""
        values = {name: [float(row[name]) for row in self.rows] for name in MEASURES if len(self.rows) > 1}
        return {name: {"mean": statistics.fmean(v), "sd": statistics.stdev(v)} for name, v in values.items()}

    def text(self) -> str:
        """The table as lines of text."""
        lines = [["fold", "loss", "perplexity", "bits per byte", *COUNTS]]
        for row in self.rows:
            measures = (f"{row[name]:.4f}" for name in MEASURES)
            lines.append([str(row["fold"]), *measures, *(f"{row[name]:,}" for name in COUNTS)])
        if summary := self.summary:
            means = (f"{of['mean']:.4f} ± {of['sd']:.4f}" for of in summary.values())
            lines.append(["mean", *means, *(f"{sum(row[name] for row in self.rows):,}" for name in COUNTS)])
        return "\n".join(aligned(lines, left=()))

    def write(self, asked: dict[str, Any]) -> None:
        """folds.json, durably: what was asked, a row a finished fold, and when there are two, mean and sd."""
        content = {
            "format": FORMAT, "folds": self.folds, "finished": self.finished, "rows": self.rows, "summary": self.summary,
            "asked": asked,
        }  # fmt: skip
        write_text(self.folder / FILE_NAME, json.dumps(content, indent=1) + "\n")


def run_folds(options: TrainOptions, train: Callable[[TrainOptions], Any]) -> FoldTable:
    """Train fold 1, fold 2, … in OUT/fold-1, OUT/fold-2, …; print the table and write OUT/folds.json.

    Each is an ordinary run of these options with ``fold = "k/K"``, so it can be interrupted and resumed. Finished folds are
    read, not repeated: the same command resumes where the last one stopped.

    Args:
        options: of every run. ``out`` is OUT; by default runs/NAME-folds (`default_name`), with a numeric suffix when that
            is taken.
        train: trains one run and returns a result with ``finished``: False means it was interrupted.

    Returns:
        The table, of fewer than K rows when a run was interrupted.

    Raises:
        InputError: fewer than two folds; a shared option that only makes sense for one run; OUT holds something else.
        RunError: a finished fold has no score.
    """
    folds = options.folds or 0
    if options.fold is not None:
        raise InputError(f"--folds {folds} runs every fold; leave out --fold {options.fold}")
    if options.resume not in ("auto", "never"):
        raise InputError(f"--resume {options.resume} names one run's checkpoint; with --folds use --resume auto")
    asked = asked_of_run(options)
    folder, _ = work_folder.choose_folder(
        options.out,
        Path("runs") / f"{default_name(options)}-folds",
        asked,
        before=lambda path: _read(path).get("asked"),
        finished=lambda path: options.out is None and bool(_read(path).get("finished")),
        former=Path("runs") / f"{options.size}-folds",
    )
    table = FoldTable(folder, folds)
    if options.plan:  # every fold's is the same, but for which documents are held out
        train(fold_options(options, 1, folds, folder / "fold-1"))
        return table
    table.write(asked)
    for number in range(1, folds + 1):
        out = folder / f"fold-{number}"
        if (out / FINAL_MODEL).exists():
            say(f"{out} is finished")
        else:
            say(f"fold {number} of {folds}: {out}")
            result = train(fold_options(options, number, folds, out))
            if not result.finished:
                table.exit_code = result.exit_code
                return table
        table.rows.append({"fold": number, **last_score(out)})
        table.write(asked)
    print(table.text())
    print(f"written to {folder / FILE_NAME}")
    return table


def fold_options(options: TrainOptions, number: int, folds: int, out: Path) -> TrainOptions:
    """The options of one fold's run."""
    return dataclasses.replace(options, out=str(out), fold=f"{number}/{folds}", folds=None)


def last_score(run: Path) -> dict[str, Any]:
    """The last validation of a finished run, which reads the whole fold, from its metrics.jsonl.

    Raises:
        RunError: there is none.
    """
    scores = [record for record in read_metrics(run / METRICS) if "val/loss" in record]
    if not scores:
        raise RunError(
            f"{run} is finished but its metrics.jsonl holds no validation; remove the folder and run it again"
        )
    names = (*MEASURES, *COUNTS, "loss_low", "loss_high")
    return {name: scores[-1][f"val/{name}"] for name in names if f"val/{name}" in scores[-1]}


def _read(folder: Path) -> dict[str, Any]:
    """What folds.json holds; nothing where there is none.

    Raises:
        InputError: it is of another format.
    """
    content = work_folder.stored(folder / FILE_NAME) or {"format": FORMAT}
    if content.get("format") != FORMAT:
        raise InputError(
            f"{folder / FILE_NAME} has format {content.get('format')}, not {FORMAT}. Choose another --out."
        )
    return content
