"""The texts of benchmark examples, read from task files, and cut out of training text (Brown et al. 2020, App. C).

An example is its prompt and right answer, as a model is shown them. This is the reading that gives the N of the paper's Table
C.1: ARC (Easy) 11, ARC (Challenge) 12, TriviaQA 10 and 2 and 7 of the word tasks come out only with the words of the prompt
("Question", "Answer") and the right answer counted.

A 13-gram of a benchmark is cut out of a document with 200 characters on each side, which splits the document into pieces.
Pieces under 200 characters are dropped, and a document of more than 10 pieces is dropped whole. A 13-gram that more than 10
documents hold is a common phrase and stays. The paper says "a 200 character window around it" and not whether that is 200 in
all; 200 on each side removes more.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt3 import durable
from gpt3.corpus.documents import Part
from gpt3.corpus.ngrams import Array, NgramIndex, scan_parts
from gpt3.corpus.records import Row, format_of, read_rows
from gpt3.errors import InputError

LONGEST, SHORTEST = 13, 8
"""Bounds of N; the lower one is not for synthetic tasks (Brown et al. 2020, App. C)."""
PERCENTILE = 5
SYNTHETIC = re.compile(
    r"(arithmetic|cycle_letters|mid_word_[12]|anagrams|random_insertion|reversed_words|sum_of_digits"
    r"|(single|one|two|three|four|five|six)_digit)"
)
"""Names of generated tasks begin like this: their examples are short by design."""


@dataclass(frozen=True)
class TaskExample:
    """One example of a benchmark. Other tasks are measured by making these (see `gpt3.contamination.overlap.measure`)."""

    task: str
    """The task's name."""
    id: str
    """Its name, unique in the task and the same in a file of scores."""
    text: str
    """What it says: prompt and right answer."""


def ngram_length(lengths: Sequence[int], *, synthetic: bool = False) -> int:
    """N of a task whose examples have `lengths` words: their 5th percentile, 8 to 13; for a synthetic task 1 to 13.

    Source: Brown et al. 2020, App. C.
    """
    found = int(np.percentile(np.asarray(lengths), PERCENTILE))
    return max(1 if synthetic else SHORTEST, min(LONGEST, found))


def is_synthetic(task: str) -> bool:
    """Whether a task's examples are generated words or sums."""
    return SYNTHETIC.match(task) is not None


# ---- rows of files


def _question(row: Row) -> tuple[str, ...]:
    answer = row["choices"][row["gold"]]
    query = row["query"].rstrip()
    asked = query.startswith("Question:") or "\nQuestion:" in query
    return query + ("\nAnswer:" if asked and "Answer:" not in query else ""), answer


LAYOUTS: tuple[tuple[set[str], Callable[[Row], tuple[str, ...]]], ...] = (
    ({"query", "choices", "gold"}, _question),
    ({"ctx", "endings", "label"}, lambda row: (row["ctx"], row["endings"][int(row["label"])])),
    (
        {"context_options", "continuation", "gold"},
        lambda row: (row["context_options"][row["gold"]], row["continuation"]),
    ),
    ({"question", "choices", "answer"}, lambda row: (row["question"], row["choices"][row["answer"]])),
    ({"context", "completion"}, lambda row: (row["context"], row["completion"])),
    ({"context", "answer"}, lambda row: (row["context"], row["answer"])),
    ({"text"}, lambda row: (row["text"],)),
)
"""Fields that a row must have, and its texts; the first that fits is taken."""


def find_tasks(names: Sequence[str], folder: Path | None) -> dict[str, Path]:
    """The files that task names mean: a path; or in `folder` NAME.jsonl, else every NAME_….jsonl (also compressed).

    Without names: every such file of `folder` and the folders in it.

    Raises:
        InputError: nothing of that name; the message lists all such names.
    """
    here = {} if folder is None else dict(_files(folder))
    if not names and folder is None:
        raise InputError("no --tasks are given; name some, or give --data-dir, a folder of task files (.jsonl)")
    if not names and not here:
        raise InputError(f"--data-dir {folder}: no .jsonl files in it")
    if not names:
        return here
    chosen: dict[str, Path] = {}
    unknown = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_file():
            chosen[_task_of(path)] = path
        elif name in here:
            chosen[name] = here[name]
        elif found := {task: file for task, file in here.items() if task.startswith(f"{name}_")}:
            chosen |= found
        else:
            unknown.append(name)
    if unknown:
        where = "give --data-dir, a folder that holds it, or the path of a file"
        if folder is not None:
            where = f"--data-dir {folder} has {', '.join(here) or 'no .jsonl files'}"
        raise InputError(f"--tasks {' '.join(unknown)}: no file of that name; {where}")
    return chosen


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    if not folder.is_dir():
        raise InputError(f"--data-dir {folder}: no such folder")
    for path in sorted(folder.rglob("*")):
        if path.is_file() and format_of(path) == ".jsonl":
            yield _task_of(path), path


def _task_of(path: Path) -> str:
    return path.name.split(".")[0]


def read_examples(task: str, path: Path) -> Iterator[TaskExample]:
    """The examples of a file of rows; an example's id is its ``id``, else the row's number from 0.

    Raises:
        InputError: the first row that cannot be used, with its place.
    """
    number = -1
    for number, (place, row) in enumerate(read_rows(path)):
        try:
            yield TaskExample(task, str(row.get("id", number)), text_of(row))
        except ValueError as error:
            raise InputError(f"{place}: {error}") from None
        except (KeyError, IndexError, TypeError, AttributeError):
            raise InputError(f"{place}: its right answer is not among its choices") from None
    if number < 0:
        raise InputError(f"{path}: no examples, the file is empty")


def text_of(row: Row) -> str:
    """Prompt and right answer of a row. N-grams may run from one into the other.

    Raises:
        ValueError: it is of no known layout.
    """
    for fields, read in LAYOUTS:
        if fields <= row.keys():
            texts = read(row)
            if not all(isinstance(text, str) for text in texts):
                raise ValueError(f"{', '.join(sorted(fields))} must be texts")
            return "\n".join(texts)
    known = "; ".join(" ".join(sorted(fields)) for fields, _ in LAYOUTS)
    raise ValueError(f"fields {' '.join(row)} are of no known layout; known are: {known}")


# ---- benchmark text in training text

GRAM = 13
"""Words of a colliding N-gram."""
WINDOW = 200
"""Characters removed on each side of it."""
SHORTEST_PIECE = 200
"""Characters of a piece that is kept, at least."""
MOST_PIECES = 10
"""A document of more pieces is dropped."""
MOST_DOCUMENTS = 10
"""An N-gram in more documents is ignored."""
IGNORED = "ignored.npy"
COMPLETE = "complete"


def index_benchmarks(texts: Iterable[str]) -> NgramIndex:
    """The 13-grams of benchmark examples; shorter examples have none."""
    return NgramIndex.of((text, GRAM) for text in texts)


def clean(text: str, index: NgramIndex, ignored: Array | None = None) -> list[str]:
    """What is kept of a document: itself where nothing collides, else its pieces.

    Args:
        text: the document.
        index: 13-grams of the benchmarks.
        ignored: (grams,) bool, those that may stay.

    Returns:
        The pieces in order; none where the document is dropped.
    """
    numbers, starts, stops = index.find(text)
    counted = np.ones(len(numbers), dtype=bool) if ignored is None else ~ignored[numbers]
    if not counted.any():
        return [text]
    pieces = cut_out(text, sorted(zip(starts[counted].tolist(), stops[counted].tolist(), strict=True)))
    if len(pieces) > MOST_PIECES:
        return []
    return [piece for piece in pieces if len(piece) >= SHORTEST_PIECE and not piece.isspace()]


def cut_out(text: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """The pieces of `text` left when each span, in rising order, is removed with `WINDOW` characters on each side."""
    pieces = []
    kept = 0  # from where on text is not yet known to be removed
    for start, stop in spans:
        if start - WINDOW > kept:
            pieces.append(text[kept : start - WINDOW])
        kept = max(kept, stop + WINDOW)
    if kept < len(text):
        pieces.append(text[kept:])
    return pieces


def prepare_folder(folder: Path, index: NgramIndex, parts: Sequence[Part], workers: int | Executor) -> None:
    """Write to `folder` what `CleanPart`s need: the index, and which grams are in more than `MOST_DOCUMENTS` of the documents.

    Reads all parts once. A folder that is complete is left as it is.

    Raises:
        InputError: a part cannot be read.
    """
    if (folder / COMPLETE).exists():
        return
    durable.discard(folder)
    folder.mkdir(parents=True)
    index.save(folder)
    found = scan_parts(index, parts, folder, workers, label="looking for benchmark text")
    ignored = np.zeros(len(index), dtype=bool)
    ignored[[gram for gram, seen in found.sightings.items() if seen.documents > MOST_DOCUMENTS]] = True
    np.save(folder / IGNORED, ignored)
    durable.write_text(folder / COMPLETE, "")


@dataclass(frozen=True)
class CleanPart(Part):
    """A part without the benchmark text in it; a document that falls into pieces is several.

    Attributes:
        part: what is read.
        folder: see `prepare_folder`.
    """

    name: str
    size: int | None
    part: Part
    folder: Path

    def documents(self) -> Iterator[str]:
        """Yield what is kept of each document."""
        index, ignored = NgramIndex.load(self.folder), np.load(self.folder / IGNORED)
        for text in self.part.documents():
            yield from clean(text, index, ignored)


def fingerprint(index: NgramIndex) -> str:
    """sha256 in hex of the texts indexed and of these rules."""
    rules = (1, GRAM, WINDOW, SHORTEST_PIECE, MOST_PIECES, MOST_DOCUMENTS)
    return hashlib.sha256(repr(rules).encode() + index.points.tobytes()).hexdigest()
