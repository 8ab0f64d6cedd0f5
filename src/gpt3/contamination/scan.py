"""Which benchmark examples a training text contains (Brown et al. 2020, App. C): dirty with one shared N-gram, clean with none.

The examples' N-grams are indexed, then the text is streamed once, whatever its size. Memory: the index, some
100 bytes per N-gram of the tasks, and a count for each N-gram found.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gpt3 import durable
from gpt3.corpus.documents import Part
from gpt3.corpus.ngrams import NgramIndex, Sighting, scan_parts, words
from gpt3.corpus.task_texts import SHORTEST, TaskExample, is_synthetic, ngram_length
from gpt3.errors import InputError

TABLE, EXAMPLES = "contamination.json", "examples.jsonl"
MOST_COLLISIONS = 20
"""N-grams listed for an example."""


@dataclass(frozen=True)
class Collision:
    """An N-gram of an example that the training text contains."""

    ngram: str
    """Its words, separated by spaces."""
    documents: int
    """Documents of the training text that contain it."""
    document: str
    """The first of them: its part's name and its number there, from 0."""
    text: str
    """The passage as it appears there."""


@dataclass(frozen=True)
class ExampleVerdict:
    """What was found of one example."""

    task: str
    id: str
    words: int
    """Its length."""
    n: int
    """The length of its N-grams: the task's N, or all its words if it has fewer; 0: too short to look for."""
    collisions: tuple[Collision, ...]
    """In the order of the example; the first `MOST_COLLISIONS` of them."""
    collided: int
    """How many of its different N-grams were found in total."""

    @property
    def clean(self) -> bool:
        """Whether none of its N-grams was found."""
        return not self.collided


@dataclass(frozen=True)
class Shares:
    """A task's row of the paper's Table C.1. Scores are means over examples, None without scores or examples."""

    task: str
    n: int
    """N of the task."""
    examples: int
    dirty: int
    too_short: int
    """Examples with fewer words than any N-gram that counts; they are among the clean."""
    all_score: float | None = None
    dirty_score: float | None = None
    clean_score: float | None = None

    @property
    def clean(self) -> int:
        """Examples without a collision."""
        return self.examples - self.dirty

    @property
    def clean_share(self) -> float:
        """Clean examples over all."""
        return self.clean / self.examples

    @property
    def relative_difference(self) -> float | None:
        """(clean - all) / all of the scores, the ordinate of Figure 4.2; None if it is not defined."""
        if self.clean_score is None or not self.all_score:
            return None
        return (self.clean_score - self.all_score) / self.all_score


@dataclass(frozen=True)
class Contamination:
    """The overlap of tasks with a training text."""

    by_task: Mapping[str, Sequence[ExampleVerdict]]
    """The verdicts of each task, in the order of its examples."""
    lengths: Mapping[str, int]
    """N by task."""
    documents: int
    """Documents read."""
    text_bytes: int
    """UTF-8 bytes read."""
    ngrams: int
    """Different N-grams of the tasks."""
    index_bytes: int
    """Memory of their index."""
    seconds: float
    """Time to read the text, with the index made already."""

    @property
    def verdicts(self) -> list[ExampleVerdict]:
        """Those of all tasks."""
        return list(itertools.chain(*self.by_task.values()))

    def shares(self, scores: Mapping[tuple[str, str], float] | None = None) -> list[Shares]:
        """The rows of the table, in the order of the tasks.

        Args:
            scores: by (task, example id). A task with none of them has no scores in its row. For one scored in part (`--limit`)
                the scores are those of that part, and the counts those of all examples.
        """
        rows = []
        for task, verdicts in self.by_task.items():
            known = [(v.clean, scores[task, v.id]) for v in verdicts if scores and (task, v.id) in scores]
            dirty, short = sum(not v.clean for v in verdicts), sum(not v.n for v in verdicts)
            parts = [[score for clean, score in known if clean in kept] for kept in ((False, True), (False,), (True,))]
            means = [sum(part) / len(part) if part else None for part in parts]
            rows.append(Shares(task, self.lengths[task], len(verdicts), dirty, short, *means))
        return rows

    def summary(self, what: str, rows: Sequence[Shares]) -> dict[str, Any]:
        """The table and the name of the text, ready for JSON."""
        derived = ("clean", "clean_share", "relative_difference")
        tasks = [dataclasses.asdict(row) | {name: getattr(row, name) for name in derived} for row in rows]
        return {"text": what, "documents": self.documents, "text_bytes": self.text_bytes, "tasks": tasks}

    def write(self, folder: Path, what: str, rows: Sequence[Shares]) -> None:
        """Write the table and every example's verdict into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        with durable.replacing(folder / EXAMPLES) as temporary, open(temporary, "wb") as file:
            for verdict in self.verdicts:
                file.write(orjson.dumps(dataclasses.asdict(verdict) | {"clean": verdict.clean}) + b"\n")
        durable.write_text(folder / TABLE, json.dumps(self.summary(what, rows), indent=1))


def measure(examples: Iterable[TaskExample], parts: Sequence[Part], *, workers: int = 1) -> Contamination:
    """Look for the N-grams of `examples` in the documents of `parts`.

    N is each task's own (see `ngram_length`). An example with fewer words than N counts as a whole: a document that contains all
    its words in a row makes it dirty (the paper's section 4). One with fewer than 8 words (synthetic: fewer than N) is
    not looked for.

    Args:
        examples: of any number of tasks; their ids differ within a task.
        parts: the training text, see `gpt3.contamination.training_text`.
        workers: the most processes; more than one only if there is more than one part.

    Raises:
        InputError: no examples, or text that cannot be read.
    """
    listed = list(examples)
    if not listed:
        raise InputError("there are no examples to look for")
    counts = [len(words(example.text)) for example in listed]
    by_task: dict[str, list[int]] = {}
    for example, count in zip(listed, counts, strict=True):
        by_task.setdefault(example.task, []).append(count)
    lengths = {task: ngram_length(found, synthetic=is_synthetic(task)) for task, found in by_task.items()}
    sizes = [gram_size(count, lengths[e.task], is_synthetic(e.task)) for e, count in zip(listed, counts, strict=True)]
    wanted = [number for number, size in enumerate(sizes) if size]
    index = NgramIndex.of((listed[number].text, sizes[number]) for number in wanted)
    with tempfile.TemporaryDirectory(prefix="gpt3-ngrams-") as folder:
        found = scan_parts(index, parts, Path(folder), workers)
    hits: dict[int, list[Sighting]] = {}
    for sighting in found.sightings:  # by gram; put in the example's order below
        for owner in index.texts_with(sighting.gram):
            hits.setdefault(wanted[owner], []).append(sighting)
    verdicts: dict[str, list[ExampleVerdict]] = {task: [] for task in lengths}
    for number, example in enumerate(listed):
        mine = hits.get(number, [])
        collisions = _in_order(example, mine, index)
        verdict = ExampleVerdict(example.task, example.id, counts[number], sizes[number], collisions, len(mine))
        verdicts[example.task].append(verdict)
    return Contamination(verdicts, lengths, found.documents, found.text_bytes, len(index), index.nbytes, found.seconds)


def gram_size(count: int, n: int, synthetic: bool) -> int:
    """The length of the N-grams of an example of `count` words in a task of `n`; 0: it is too short to look for."""
    if count >= n:
        return n
    return count if count >= SHORTEST and not synthetic else 0


def _in_order(example: TaskExample, sightings: list[Sighting], index: NgramIndex) -> tuple[Collision, ...]:
    if not sightings:
        return ()
    text = " ".join(words(example.text))
    collisions = [Collision(index.gram(s.gram), s.documents, s.document, s.text) for s in sightings]
    return tuple(sorted(collisions, key=lambda c: f" {text} ".find(f" {c.ngram} "))[:MOST_COLLISIONS])
