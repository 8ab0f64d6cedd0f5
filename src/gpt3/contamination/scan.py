"""Which benchmark examples stand in the training text (Brown et al. 2020, App. C): dirty with one shared N-gram, clean with none.

The examples' N-grams are indexed, then the text is streamed by once, whatever its size. Memory: the index, some
100 bytes an N-gram of the tasks, and a count for each N-gram found.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpt3.corpus.documents import Part
from gpt3.corpus.ngrams import NgramIndex, Sighting, scan_parts, words
from gpt3.corpus.task_texts import SHORTEST, TaskExample, is_synthetic, ngram_length
from gpt3.errors import InputError


@dataclass(frozen=True)
class Collision:
    """An N-gram of an example that the training text holds."""

    ngram: str
    """Its words, a space between."""
    documents: int
    """Documents of the training text that hold it."""
    document: str
    """The first of them: its part's name and its number there, from 0."""
    text: str
    """As it stands there."""


@dataclass(frozen=True)
class ExampleVerdict:
    """What was found of one example."""

    task: str
    id: str
    words: int
    """Its length."""
    n: int
    """The length of its N-grams: the task's N, or all its words where it has fewer; 0: too short to be looked for."""
    collisions: tuple[Collision, ...]
    """In the order of the example; the first `MOST_COLLISIONS` of them."""
    collided: int
    """How many of its different N-grams were found in all."""

    @property
    def clean(self) -> bool:
        """Whether none of its N-grams was found."""
        return not self.collided


MOST_COLLISIONS = 20


@dataclass(frozen=True)
class Shares:
    """A task's row of the paper's Table C.1. Scores are means over examples, None without scores or examples."""

    task: str
    n: int
    """N of the task."""
    examples: int
    dirty: int
    too_short: int
    """Examples of fewer words than any N-gram that counts; they are among the clean."""
    all_score: float | None = None
    dirty_score: float | None = None
    clean_score: float | None = None

    @property
    def clean(self) -> int:
        """Examples without a collision."""
        return self.examples - self.dirty

    @property
    def clean_share(self) -> float:
        """Of the examples."""
        return self.clean / self.examples

    @property
    def relative_difference(self) -> float | None:
        """(clean - all) / all of the scores, the ordinate of Figure 4.2; None where it is not defined."""
        if self.clean_score is None or not self.all_score:
            return None
        return (self.clean_score - self.all_score) / self.all_score


@dataclass(frozen=True)
class Contamination:
    """The overlap of tasks with a training text."""

    verdicts: tuple[ExampleVerdict, ...]
    """In the order of the examples."""
    lengths: Mapping[str, int]
    """N by task, in the order of the tasks."""
    documents: int
    """Documents read."""
    text_bytes: int
    """UTF-8 bytes read."""
    ngrams: int
    """Different N-grams of the tasks."""
    index_bytes: int
    """Memory of their index."""
    seconds: float
    """That reading the text took, the index made already."""
    by_task: Mapping[str, tuple[ExampleVerdict, ...]] = field(init=False)
    """The verdicts of each task."""

    def __post_init__(self) -> None:
        grouped: dict[str, list[ExampleVerdict]] = {task: [] for task in self.lengths}
        for verdict in self.verdicts:
            grouped[verdict.task].append(verdict)
        object.__setattr__(self, "by_task", {task: tuple(found) for task, found in grouped.items()})

    def shares(self, scores: Mapping[tuple[str, str], float] | None = None) -> list[Shares]:
        """The rows of the table, in the order of the tasks.

        Args:
            scores: by (task, example id). A task with none of them has no scores in its row. One scored in part (`--limit`)
                has the scores of that part beside the counts of all.
        """
        rows = []
        for task, verdicts in self.by_task.items():
            known = [(v.clean, scores[task, v.id]) for v in verdicts if scores and (task, v.id) in scores]
            rows.append(
                Shares(
                    task,
                    self.lengths[task],
                    len(verdicts),
                    sum(not v.clean for v in verdicts),
                    sum(not v.n for v in verdicts),
                    _mean([score for _, score in known]),
                    _mean([score for clean, score in known if not clean]),
                    _mean([score for clean, score in known if clean]),
                )
            )
        return rows


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def measure(examples: Iterable[TaskExample], parts: Sequence[Part], *, workers: int = 1) -> Contamination:
    """Look for the N-grams of `examples` in the documents of `parts`.

    N is each task's own (see `ngram_length`). An example of fewer words than N counts as a whole: a document that holds all
    its words in a row makes it dirty; so the paper's section 4. One of fewer than 8 words (synthetic: of fewer than N) is
    not looked for.

    Args:
        examples: of any number of tasks; their ids differ within a task.
        parts: the training text, see `gpt3.contamination.training_text`.
        workers: processes, at most; more than one only where there is more than one part.

    Raises:
        InputError: there is no example, or text that cannot be read.
    """
    listed = list(examples)
    if not listed:
        raise InputError("no examples to look for")
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
    for sighting in found.sightings:  # by gram; grams are put in the example's order below
        for owner in index.texts_with(sighting.gram):
            hits.setdefault(wanted[owner], []).append(sighting)
    verdicts = []
    for number, example in enumerate(listed):
        mine = hits.get(number, [])
        verdicts.append(
            ExampleVerdict(
                example.task, example.id, counts[number], sizes[number], _in_order(example, mine, index), len(mine)
            )
        )
    return Contamination(
        tuple(verdicts), lengths, found.documents, found.text_bytes, len(index), index.nbytes, found.seconds
    )


def gram_size(count: int, n: int, synthetic: bool) -> int:
    """The length of the N-grams of an example of `count` words in a task of `n`; 0: it is too short to be looked for."""
    if count >= n:
        return n
    return count if count >= SHORTEST and not synthetic else 0


def _in_order(example: TaskExample, sightings: list[Sighting], index: NgramIndex) -> tuple[Collision, ...]:
    if not sightings:
        return ()
    text = " ".join(words(example.text))
    collisions = [Collision(index.gram(s.gram), s.documents, s.document, s.text) for s in sightings]
    return tuple(sorted(collisions, key=lambda c: f" {text} ".find(f" {c.ngram} "))[:MOST_COLLISIONS])
