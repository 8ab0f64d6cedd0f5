"""`gpt3 contamination`: the table of the paper's Appendix C for one's own training text and tasks."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import orjson

from gpt3 import durable
from gpt3.cli.contamination_options import ContaminationOptions
from gpt3.contamination.scan import Contamination, Shares, measure
from gpt3.contamination.training_text import find_run, parts_of_data, parts_of_run
from gpt3.corpus.compression import open_stream
from gpt3.corpus.task_texts import find_tasks, read_examples
from gpt3.errors import InputError

TABLE, EXAMPLES = "contamination.json", "examples.jsonl"


def run(options: ContaminationOptions) -> None:
    """The command: read, compare, print the table and write what was asked for."""
    files = find_tasks(options.tasks, None if options.data_dir is None else Path(options.data_dir).expanduser())
    scores = None if options.scores is None else read_scores(Path(options.scores))
    if options.out is not None and Path(options.out).is_file():
        raise InputError(f"--out {options.out} is a file; give a folder")
    examples = [example for task, path in files.items() for example in read_examples(task, path)]
    if scores is not None and not any((example.task, example.id) in scores for example in examples):
        raise InputError(
            f"--scores {options.scores} has none of these examples; its task and id must be those of the tasks"
        )
    if options.data:
        what, parts = " ".join(options.data), parts_of_data(options.data)
    else:
        folder = find_run(options.model)
        what, parts = str(folder), parts_of_run(folder)
    start = time.monotonic()
    found = measure(examples, parts, workers=options.worker_count())
    seconds = time.monotonic() - start
    rows = found.shares(scores)
    if options.out is not None:
        write(Path(options.out), found, rows, what)
    if options.json:
        print(json.dumps(summary(found, rows, what)))
        return
    print(table(rows))
    print(
        f"{found.documents:,} documents, {found.text_bytes / 1e6:,.1f} MB of {what}; {found.ngrams:,} N-grams "
        f"({found.index_bytes / 1e6:,.0f} MB); "
        f"read in {found.seconds:.1f} s ({found.text_bytes / 1e6 / max(found.seconds, 1e-9):.0f} MB/s), {seconds:.1f} s in all",
        file=sys.stderr,
    )


def table(rows: list[Shares]) -> str:
    """The rows as text; the columns of scores only where there are any."""
    scored = any(row.all_score is not None for row in rows)
    head = ["task", "N", "examples", "dirty", "clean", "clean %"]
    head += ["all", "dirty", "clean", "rel. diff."] if scored else []
    lines = [head]
    for row in rows:
        line = [row.task, str(row.n), f"{row.examples:,}", f"{row.dirty:,}", f"{row.clean:,}"]
        line.append(f"{100 * row.clean_share:.1f}")
        if scored:
            figures = (row.all_score, row.dirty_score, row.clean_score)
            line += ["-" if value is None else f"{value:.4g}" for value in figures]
            change = row.relative_difference
            line.append("-" if change is None else f"{100 * change:+.1f}%")
        lines.append(line)
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not i else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def summary(found: Contamination, rows: list[Shares], what: str) -> dict[str, Any]:
    """The table and what it is of, ready for JSON."""
    tasks = [
        dataclasses.asdict(row)
        | {"clean": row.clean, "clean_share": row.clean_share, "relative_difference": row.relative_difference}
        for row in rows
    ]
    return {"text": what, "documents": found.documents, "text_bytes": found.text_bytes, "tasks": tasks}


def write(folder: Path, found: Contamination, rows: list[Shares], what: str) -> None:
    """Write both files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with durable.replacing(folder / EXAMPLES) as temporary, open(temporary, "wb") as file:
        for verdict in found.verdicts:
            file.write(orjson.dumps(dataclasses.asdict(verdict) | {"clean": verdict.clean}) + b"\n")
    durable.write_text(folder / TABLE, json.dumps(summary(found, rows, what), indent=1))


def read_scores(path: Path) -> dict[tuple[str, str], float]:
    """Scores by (task, id) from JSON lines with at least these fields: task, id, score.

    Raises:
        InputError: no such file, or a line of another kind; its number is named.
    """
    scores: dict[tuple[str, str], float] = {}
    try:
        with open_stream(path) as lines:
            for number, line in enumerate(lines, 1):
                if line.isspace():
                    continue
                try:
                    row = orjson.loads(line)
                    scores[str(row["task"]), str(row["id"])] = float(row["score"])
                except (ValueError, KeyError, TypeError):
                    raise InputError(
                        f"--scores {path}: line {number} must be a JSON object with task, id and a number score"
                    ) from None
    except OSError as error:
        raise InputError(f"--scores {path}: cannot be read ({error.strerror})") from None
    if not scores:
        raise InputError(f"--scores {path}: it is empty")
    return scores
