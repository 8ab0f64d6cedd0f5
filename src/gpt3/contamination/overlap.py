"""Which benchmark examples a model's training text contains (Brown et al. 2020, App. C): dirty with one shared N-gram.

The examples' N-grams are indexed, then the text is streamed once, whatever its size. Memory: the index, some
100 bytes per N-gram of the tasks, and a count for each N-gram found.

The text is known if the model is a run's, from the run's own record of its data, or if `--data` (of `gpt3 eval`,
`--contamination`) names it.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

from gpt3 import durable
from gpt3.corpus.benchmark_text import SHORTEST, TaskExample, is_synthetic, ngram_length
from gpt3.corpus.documents import Part
from gpt3.corpus.ngrams import NgramIndex, Sighting, scan_parts, words
from gpt3.corpus.shards import ShardFolder
from gpt3.corpus.sources import open_sources
from gpt3.device import usable_cores
from gpt3.errors import InputError
from gpt3.evaluation import Split
from gpt3.model_folder.locate import RUNS
from gpt3.progress import say
from gpt3.training.data import open_shard_folders
from gpt3.training.options import TrainOptions
from gpt3.training.plan import shape_of

TABLE, EXAMPLES = "contamination.json", "examples.jsonl"
MARKS = {TABLE: b'"text_bytes"', EXAMPLES: b'"words"'}
"""What the first bytes of our files hold; others are replaced only if the user asks for it."""
MOST_COLLISIONS = 20
"""N-grams listed for an example."""
TUNING = ("sft", "dpo")
"""The methods in the config.yaml of a fine-tuned run."""
PART_BYTES = 16 << 20
"""Size of the parts of large files: several per core even for little text."""


# ---- the training text


def parts_of_data(data: Sequence[str]) -> list[Part]:
    """The parts of sources; of a shard folder its training split."""
    parts: list[Part] = []
    for source in open_sources(data, part_bytes=PART_BYTES):
        parts += source.parts(["train"]) if isinstance(source, ShardFolder) else source.parts()
    return parts


def find_run(model: str | None) -> Path:
    """The run folder that `--model` means: itself, the run whose model or checkpoint it is, or the newest in ./runs.

    Raises:
        InputError: there is none.
    """
    if model is None:
        runs = [path.parent for path in RUNS.glob("*/config.yaml")]
        if not runs:
            raise InputError("there is no --model, no --data and no run in ./runs. Name the training text with --data.")
        return max(runs, key=lambda run: (run / "config.yaml").stat().st_mtime_ns)
    for place in (Path(model).expanduser(), RUNS / model):
        for folder in (place, place.parent, place.parent.parent):
            if place.is_dir() and (folder / "config.yaml").is_file():
                return folder
    raise InputError(
        f"--model {model} is not a run of gpt3 train, so its training text is unknown. Name it with --data."
    )


Tuned = Callable[[Path], tuple[list[Part], str]]
"""Reads a fine-tuned run: its own texts, and its base model (`gpt3.finetuning.training_text.parts_of_tuned`)."""


def parts_of_run(run: Path, tuned: Tuned | None = None) -> list[Part]:
    """The documents that a run was trained on, from its shards: those named, or those in the cache, made again if necessary.

    Of a fine-tuned run its own texts, and those of its base model if that is a run, too; if not, a message says so.

    Args:
        tuned: reads fine-tuned runs; None: these are refused.

    Raises:
        InputError: the data has changed since (data.json has its size), or no longer exists.
    """
    if _is_tuned(run):
        return _parts_of_tuned(run, tuned)
    try:
        saved = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        known = {field.name for field in dataclasses.fields(TrainOptions)}
        options = TrainOptions(**{"stream": "off"} | {name: value for name, value in saved.items() if name in known})
        recorded = json.loads((run / "data.json").read_text(encoding="utf-8"))["sources"]
        counts = [(row["name"], row["tokens"]) for row in recorded]
    except (OSError, yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(
            f"--model {run}: its config.yaml and data.json cannot be read ({error}). Name the training text with --data."
        ) from None
    if any(tokens is None for _, tokens in counts):
        raise InputError(f"--model {run}: its data was prepared while it trained. Name the text it read with --data.")
    opened = open_shard_folders(options, shape_of(options))
    now = [(row["name"], row["tokens"]) for spec, folder in opened for row in folder.rows(spec.name)]
    if now != counts:
        raise InputError(
            f"--model {run}: its data has changed since it was trained. Name the text it read with --data."
        )
    parts: list[Part] = []
    for _, folder in opened:
        folder.tokenizer()  # refuses one that reads the ids as other text
        parts += folder.parts(["train"])
    return parts


def _is_tuned(run: Path) -> bool:
    """Whether `gpt3 finetune` wrote the run: its config.yaml has a method."""
    try:
        return yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")).get("method") in TUNING
    except (OSError, yaml.YAMLError, ValueError, AttributeError):
        return False


def _parts_of_tuned(run: Path, tuned: Tuned | None) -> list[Part]:
    if tuned is None:
        raise InputError(f"--model {run} was fine-tuned. Name the text it read with --data.")
    parts, base = tuned(run)
    try:
        return parts + parts_of_run(find_run(base), tuned)
    except InputError as error:
        say(f"contamination: only the fine-tuning data is searched, not the text of the base model {base} ({error})")
        return parts


def training_text(place: str, option: str, tuned: Tuned | None = None) -> tuple[str, list[Part]] | None:
    """A model's training text: its name and its parts; None if it is not known, or not wanted.

    Args:
        place: the model's folder.
        option: auto, no, or the text itself, as in `gpt3 contamination --data`.
        tuned: reads fine-tuned runs.

    Raises:
        InputError: the text that the option names cannot be read.
    """
    if option == "no":
        return None
    if option != "auto":
        return option, parts_of_data([option])
    try:
        run = find_run(place)
    except InputError:  # not one of our runs
        return None
    try:
        return str(run), parts_of_run(run, tuned)
    except InputError as error:
        say(f"contamination is not measured: {error}")
        return None


# ---- the examples in it


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
    clean: bool
    """Whether none of its N-grams was found."""


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
    all_score: float | None
    dirty_score: float | None
    clean_score: float | None
    clean: int
    """Examples without a collision."""
    clean_share: float
    """Clean examples over all."""
    relative_difference: float | None
    """(clean - all) / all of the scores, the ordinate of Figure 4.2; None if it is not defined."""


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
            whole, dirt, clean = (sum(part) / len(part) if part else None for part in parts)
            change = None if clean is None or not whole else (clean - whole) / whole
            count, left = len(verdicts), len(verdicts) - dirty
            row = Shares(task, self.lengths[task], count, dirty, short, whole, dirt, clean, left, left / count, change)
            rows.append(row)
        return rows

    def summary(self, what: str, rows: Sequence[Shares]) -> dict[str, Any]:
        """The table and the name of the text, ready for JSON."""
        tasks = [dataclasses.asdict(row) for row in rows]
        return {"documents": self.documents, "text_bytes": self.text_bytes, "text": what, "tasks": tasks}

    def write(self, folder: Path, what: str, rows: Sequence[Shares]) -> None:
        """Write the table and every example's verdict into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        with durable.replacing(folder / EXAMPLES) as temporary, open(temporary, "wb") as file:
            for verdict in self.verdicts:
                file.write(orjson.dumps(verdict) + b"\n")
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
    index = NgramIndex.of((example.text, size) for example, size in zip(listed, sizes, strict=True))
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpt3-ngrams-") as folder:
        found = scan_parts(index, parts, Path(folder), workers)
    seconds = time.monotonic() - start
    hits: list[dict[int, Sighting]] = [{} for _ in listed]
    for gram, sighting in found.sightings.items():
        for owner in index.texts_with(gram):
            hits[owner][gram] = sighting
    verdicts: dict[str, list[ExampleVerdict]] = {task: [] for task in lengths}
    for example, count, size, mine in zip(listed, counts, sizes, hits, strict=True):
        collisions = _in_order(example, mine, index)
        verdict = ExampleVerdict(example.task, example.id, count, size, collisions, len(mine), clean=not mine)
        verdicts[example.task].append(verdict)
    return Contamination(verdicts, lengths, found.documents, found.text_bytes, len(index), index.nbytes, seconds)


def gram_size(count: int, n: int, synthetic: bool) -> int:
    """The length of the N-grams of an example of `count` words in a task of `n`; 0: it is too short to look for."""
    if count >= n:
        return n
    return count if count >= SHORTEST and not synthetic else 0


def _in_order(example: TaskExample, sightings: Mapping[int, Sighting], index: NgramIndex) -> tuple[Collision, ...]:
    text = f" {' '.join(words(example.text))} " if sightings else ""
    collisions = [Collision(index.gram(gram), **vars(sighting)) for gram, sighting in sightings.items()]
    return tuple(sorted(collisions, key=lambda c: text.find(f" {c.ngram} "))[:MOST_COLLISIONS])


def measure_overlap(
    place: str, option: str, asked: Mapping[str, Split], out: Path, tuned: Tuned | None = None
) -> Mapping[str, Sequence[bool]]:
    """Contamination of `gpt3 eval`'s questions: look for them in the model's training text; write the findings to `out`.

    They are the items themselves, with their right answers and without few-shot examples; N is that of all items of the task,
    also under `--limit`.

    Returns:
        By task, whether each item is clean; nothing if the text is not known.
    """
    known = training_text(place, option, tuned)
    if known is None:
        return {}
    what, parts = known
    size = sum(part.size or 0 for part in parts) / 1e6
    say(f"contamination: reading {size:,.1f} MB of {what} (--contamination no skips this)")
    found = measure(examples_of(asked), parts, workers=usable_cores())
    found.write(out, what, found.shares())
    return {name: [verdict.clean for verdict in found.by_task[known_as(name)]] for name in asked}


def examples_of(splits: Mapping[str, Split]) -> list[TaskExample]:
    """The questions of the evaluation's tasks with their right answers, as they are asked without examples; ids from 0."""
    return [
        TaskExample(known_as(name), str(number), f"{item.context}\n{item.completions[item.gold]}")
        for name, split in splits.items()
        for number, item in enumerate(split.test if split.zero_shot is None else split.zero_shot)
    ]


def known_as(task: str) -> str:
    """The name here of one of the evaluation's tasks: `is_synthetic` knows generated ones by it."""
    return task.replace("-", "_")
