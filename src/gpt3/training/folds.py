"""K-fold cross-validation over documents: K ordinary runs, each holding out another share of the documents, and their table."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3 import work_folder
from gpt3.durable import write_text
from gpt3.errors import InputError, RunError
from gpt3.progress import say
from gpt3.report.run_folder import METRICS, read_metrics
from gpt3.training.options import TrainOptions
from gpt3.training.run_folder import asked as asked_of_run

FILE_NAME = "folds.json"
FORMAT = 1
MEASURES = ("loss", "perplexity", "bits_per_byte")
COLUMNS = (*MEASURES, "tokens", "documents")


@dataclass(frozen=True)
class FoldTable:
    """What a cross-validation came to."""

    folder: Path
    folds: int
    rows: tuple[dict[str, Any], ...]
    """One a finished fold: ``fold`` from 1, `COLUMNS`, ``loss_low`` and ``loss_high`` where there is an interval."""
    exit_code: int = 0
    """Of the run that did not finish."""

    @property
    def finished(self) -> bool:
        """Whether every fold is."""
        return len(self.rows) == self.folds

    def mean_and_sd(self, measure: str) -> tuple[float, float]:
        """Mean and standard deviation (n - 1) of a measure over the finished folds, each counting once."""
        values = [float(row[measure]) for row in self.rows]
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0

    def text(self) -> str:
        """The table as lines of text."""
        lines = [f"{'fold':>5} {'loss':>16} {'perplexity':>16} {'bits per byte':>16} {'tokens':>12} {'documents':>10}"]
        for row in self.rows:
            numbers = "".join(f" {row[measure]:>16.4f}" for measure in MEASURES)
            lines.append(f"{row['fold']:>5}{numbers} {row['tokens']:>12,} {row['documents']:>10,}")
        if len(self.rows) > 1:
            cells = ("{:.4f} ± {:.4f}".format(*self.mean_and_sd(measure)) for measure in MEASURES)
            sums = (sum(row[name] for row in self.rows) for name in ("tokens", "documents"))
            numbers = "".join(f" {cell:>16}" for cell in cells)
            lines.append(f"{'mean':>5}{numbers} " + "{:>12,} {:>10,}".format(*sums))
        return "\n".join(lines)


def run_folds(options: TrainOptions, train: Callable[[TrainOptions], Any]) -> FoldTable:
    """Train fold 1, fold 2, … in OUT/fold-1, OUT/fold-2, …; print the table and write OUT/folds.json.

    Each is an ordinary run of these options with ``fold = "k/K"``, so it can be interrupted and resumed. Finished folds are
    read, not repeated: the same command resumes where the last one stopped.

    Args:
        options: of every run. ``out`` is OUT; by default runs/MODEL-folds, with a numeric suffix when that is taken.
        train: trains one run and returns a result with ``finished``: False means it was interrupted.

    Returns:
        The table, of fewer than K rows when a run was interrupted.

    Raises:
        InputError: fewer than two folds; a shared option that only makes sense for one run; OUT holds something else.
        RunError: a finished fold has no score.
    """
    folds = int(options.folds or 0)
    fold = options.fold
    if fold is not None:
        raise InputError(f"--folds {folds} runs every fold; leave out --fold {fold}")
    if options.resume not in ("auto", "never"):
        raise InputError(f"--resume {options.resume} names one run's checkpoint; with --folds use --resume auto")
    asked = asked_of_run(options)
    folder, _ = work_folder.choose_folder(
        options.out,
        Path("runs") / f"{options.model}-folds",
        asked,
        before=lambda path: (_read(path) or {}).get("asked"),
        finished=lambda path: options.out is None and bool((_read(path) or {}).get("finished")),
    )
    rows: list[dict[str, Any]] = []
    if options.plan:  # every fold's is the same, but for which documents are held out
        train(fold_options(options, 1, folds, folder / "fold-1"))
        return FoldTable(folder, folds, ())
    _write(folder, folds, asked, rows)
    for number in range(1, folds + 1):
        out = folder / f"fold-{number}"
        if (out / "model").exists():
            say(f"{out} is finished")
        else:
            say(f"fold {number} of {folds}: {out}")
            result = train(fold_options(options, number, folds, out))
            if not result.finished:
                return FoldTable(folder, folds, tuple(rows), result.exit_code)
        rows.append({"fold": number, **last_score(out)})
        _write(folder, folds, asked, rows)
    table = FoldTable(folder, folds, tuple(rows))
    print(table.text())
    print(f"written to {folder / FILE_NAME}")
    return table


def fold_options(options: TrainOptions, number: int, folds: int, out: Path) -> TrainOptions:
    """The options of one fold's run."""
    changes: dict[str, Any] = {"out": str(out), "fold": f"{number}/{folds}", "folds": None}
    return dataclasses.replace(options, **changes)


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
    names = (*COLUMNS, "loss_low", "loss_high")
    return {name: scores[-1][f"val/{name}"] for name in names if f"val/{name}" in scores[-1]}


def _read(folder: Path) -> dict[str, Any] | None:
    """What folds.json holds; None where there is none.

    Raises:
        InputError: it is of another format.
    """
    content = work_folder.stored(folder / FILE_NAME)
    if content is not None and content.get("format") != FORMAT:
        raise InputError(
            f"{folder / FILE_NAME} has format {content.get('format')}, not {FORMAT}. Choose another --out."
        )
    return content


def _write(folder: Path, folds: int, asked: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """folds.json, durably: what was asked, a row a finished fold, and when there are two, mean and sd."""
    table = FoldTable(folder, folds, tuple(rows))
    summary = {}
    if len(rows) > 1:
        summary = {name: dict(zip(("mean", "sd"), table.mean_and_sd(name), strict=True)) for name in MEASURES}
    content = {
        "format": FORMAT, "folds": folds, "finished": table.finished, "rows": rows, "summary": summary, "asked": asked
    }  # fmt: skip
    write_text(folder / FILE_NAME, json.dumps(content, indent=1) + "\n")
