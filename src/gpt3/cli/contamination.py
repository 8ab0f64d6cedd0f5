"""`gpt3 contamination`: the table of the paper's Appendix C for one's own training text and tasks."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt3.corpus.records import read_rows
from gpt3.device import usable_cores
from gpt3.errors import InputError
from gpt3.options import Options, option
from gpt3.progress import say
from gpt3.tables import aligned, counted
from gpt3.work_folder import check_file

if TYPE_CHECKING:
    from gpt3.contamination.overlap import Shares


@dataclass(frozen=True)
class ContaminationOptions(Options):
    """Find benchmark examples in the training text, by N-grams (Brown et al. 2020, App. C)."""

    tasks: list[str] = option([], group="Tasks", common=True)
    """Task files: names in --data-dir (lambada also means every lambada_….jsonl) or paths. Default: all files there."""
    data_dir: str | None = option(None, common=True)
    """Folder of task files, JSON lines, also compressed."""
    scores: str | None = option(None, common=True)
    """JSON lines with task, id and score of each example; the table then compares all, dirty and clean."""
    model: str | None = option(None, group="Training text", common=True)
    """Run whose training text is read. Default: the newest run in ./runs, unless --data is given."""
    data: list[str] = option([], common=True)
    """Training text instead of a run's: shard folders, wiki, hf:owner/name, files, folders, globs."""
    out: str | None = option(None, group="Output", common=True)
    """Folder for contamination.json (the table) and examples.jsonl (each example's verdict and collisions)."""
    overwrite: bool = option(False)
    """Replace files of these names in --out that gpt3 contamination did not write."""
    json: bool = option(False, common=True)
    """Print the table as one JSON object."""
    workers: int | None = option(None, least=1, group="Hardware", common=True)
    """Processes that read. Default: one per core."""

    def errors(self) -> list[str]:
        """What the ranges cannot express."""
        found = []
        if self.model is not None and self.data:
            found.append("--model and --data are both given. Give the one with the training text")
        if not self.tasks and self.data_dir is None:
            found.append("there are no --tasks. Name some, or use --data-dir with a folder of task files (.jsonl)")
        if self.out is not None and Path(self.out).is_file():
            found.append(f"--out {self.out} is a file. Give a folder")
        return found


def run(options: ContaminationOptions) -> None:
    """Read, compare, print the table and write what was requested."""
    from gpt3.contamination.overlap import MARKS, find_run, measure, parts_of_data, parts_of_run
    from gpt3.corpus.benchmark_text import find_tasks, read_examples
    from gpt3.finetuning.training_text import parts_of_tuned

    out = None if options.out is None else Path(options.out)
    if out is not None:
        for name, mark in MARKS.items():
            check_file("--out", out / name, mark, overwrite=options.overwrite)
    files = find_tasks(options.tasks, None if options.data_dir is None else Path(options.data_dir).expanduser())
    scores = None if options.scores is None else read_scores(Path(options.scores))
    examples = [example for task, path in files.items() for example in read_examples(task, path)]
    if scores is not None and not any((example.task, example.id) in scores for example in examples):
        fix = "Its task and id must be those of the tasks."
        raise InputError(f"--scores {options.scores} has none of these examples. {fix}")
    if options.data:
        what, parts = " ".join(options.data), parts_of_data(options.data)
    else:
        folder = find_run(options.model)
        what, parts = str(folder), parts_of_run(folder, parts_of_tuned)
    start = time.monotonic()
    found = measure(examples, parts, workers=options.workers or usable_cores())
    seconds = time.monotonic() - start
    rows = found.shares(scores)
    if out is not None:
        found.write(out, what, rows)
    if options.json:
        print(json.dumps(found.summary(what, rows)))
        return
    print(table(rows))
    size = found.text_bytes / 1e6
    index = f"{found.ngrams:,} N-grams ({found.index_bytes / 1e6:,.0f} MB)"
    say(
        f"{counted(found.documents, 'document')}, {size:,.1f} MB of {what}; {index}; "
        f"read in {found.seconds:.1f} s ({size / max(found.seconds, 1e-9):.0f} MB/s), {seconds:.1f} s in total"
    )


def table(rows: Sequence[Shares]) -> str:
    """The rows as text; the columns of scores only if there are any."""
    scored = any(row.all_score is not None for row in rows)
    heads = ["task", "N", "examples", "dirty", "clean", "clean %"]
    lines = [[*heads, "all", "dirty", "clean", "rel. diff."] if scored else heads]
    for row in rows:
        line = [row.task, str(row.n), f"{row.examples:,}", f"{row.dirty:,}", f"{row.clean:,}"]
        line.append(f"{100 * row.clean_share:.1f}")
        if scored:
            figures = (row.all_score, row.dirty_score, row.clean_score)
            line += ["-" if value is None else f"{value:.4g}" for value in figures]
            change = row.relative_difference
            line.append("-" if change is None else f"{100 * change:+.1f}%")
        lines.append(line)
    return "\n".join(aligned(lines))


def read_scores(path: Path) -> dict[tuple[str, str], float]:
    """Scores by (task, id) from a file of rows with at least these fields: task, id, score.

    Raises:
        InputError: no such file, or a row without these fields; its line is named.
    """

    scores: dict[tuple[str, str], float] = {}
    for place, row in read_rows(path):
        try:
            scores[str(row["task"]), str(row["id"])] = float(row["score"])
        except (ValueError, KeyError, TypeError):
            raise InputError(f"--scores {place} must have the fields task, id and a number score") from None
    if not scores:
        raise InputError(f"--scores {path} is empty. Give a file with a row for each example.")
    return scores
