"""The evaluation of models on tasks: questions, answers and results, into a folder; and of a model in training (`Probe`).

results.json        all figures
report.html         the same drawn
examples/TASK-K.jsonl   a JSON object for each question; an interrupted evaluation resumes from them
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt3 import __version__
from gpt3.corpus.slices import split_rows
from gpt3.durable import utf8, write_text
from gpt3.errors import InputError, RunError
from gpt3.evaluation import Result, Source, Split, Task
from gpt3.evaluation.options import EvalOptions
from gpt3.evaluation.protocol import Questions, fitting_shots, score, with_room
from gpt3.evaluation.results import (
    Evaluation,
    GroupScore,
    TaskScore,
    group_score,
    mean,
    page,
    results_folder,
    task_score,
)
from gpt3.evaluation.tasks import GROUPS, in_lm_eval_style, select
from gpt3.inference.continuations import continuation_logprobs
from gpt3.inference.language_model import LanguageModel, load
from gpt3.model_folder.locate import locate
from gpt3.progress import Progress, say
from gpt3.work_folder import check_file, differences, locked_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from gpt3.model import GPT3ForCausalLM

DECISIVE = ("seed", "format", "style", "dtype", "quantize")
"""Options that the answers depend on."""
MARKS = {
    "results.json": b'"model_hash"',
    "report.html": b"<title>gpt3 eval</title>",
    "contamination/contamination.json": b'"text_bytes"',
    "contamination/examples.jsonl": b'"words"',
}
"""What the first bytes of our files hold; others are replaced only with --overwrite."""
TOLD_FAULTS = 3
"""Tasks whose errors are shown in full; of more, the names."""

Verdicts = Mapping[str, Sequence[bool]]
"""By task: whether each question is absent from the training text."""
Overlap = Callable[[str, str, Mapping[str, Split], Path], Verdicts]
"""Looks for questions in a model's training text: its folder, --contamination, tasks, and where to write what was found."""


def evaluate(
    options: EvalOptions, overlap: Overlap | None = None, report: Callable[[Evaluation], None] | None = None
) -> list[Evaluation]:
    """Score models on tasks, as ``gpt3 eval`` does, and write the results.

    Args:
        overlap: looks for the questions in the training text (`gpt3.contamination.overlap.measure_overlap`). None: they are
            not looked for.
        report: called with each model's results as soon as they are known.

    Returns:
        One result per model. Printed, it is the table; ``results`` has the figures of each task.

    Raises:
        InputError: unknown tasks, missing or bad data, too many few-shot examples, no model.
        KeyboardInterrupt: passed on; the same command resumes.
    """
    prepared = prepare(options)  # before the model, whose loading takes seconds
    places = [locate(name) for name in (options.model or (None,))]
    outs = folders_of(options, places)
    for folder in (*outs, Path(options.out or "eval")):
        for name, mark in MARKS.items():
            check_file("--out", folder / name, mark, overwrite=options.overwrite)
    found = []
    for place, out in zip(places, outs, strict=True):
        if not options.model or len(places) > 1:
            say(f"model: {place}")
        model = load(
            place, device=options.device, dtype=options.dtype, quantize=options.quantize, threads=options.threads
        )
        parts = fit(model, prepared)
        with locked_folder(out):
            splits = {asked.task.name: asked.split for asked in parts}
            clean = overlap(str(place), options.contamination, splits, out / "contamination") if overlap else {}
            found.append(_evaluate(model, str(place), parts, options, out, clean))
        if report is not None:
            report(found[-1])
        say(f"results: {out / 'results.json'}")
    if len(found) > 1:
        path = Path(options.out or "eval") / "report.html"
        write_text(path, page(found))
        say(f"report of all models: {path}")
    return found


def prepare(options: EvalOptions) -> list[Questions]:
    """The questions of every task, for each number of few-shot examples.

    Raises:
        InputError: all tasks whose data is missing or bad, in one message.
    """
    if options.data_dir is not None and not Path(split_rows(options.data_dir)[0]).is_dir():
        raise InputError(f"--data-dir {options.data_dir} is not a folder. Give the folder with the tasks' files.")
    tasks = select(options.task_names)
    if options.style == "lm-eval":
        tasks = in_lm_eval_style(tasks)
    source = Source(options.data_dir, options.format, options.seed)
    parts: list[Questions] = []
    faults: dict[str, str] = {}  # by message: the missing file of several tasks is named once
    for task in tasks:
        try:
            split = task.split(source)
            for count in options.shot_counts:
                shots = task.shots if count is None else count
                parts.append(Questions(task, split, shots, options.seed, options.limit, is_k=count is None))
        except InputError as error:
            faults.setdefault(str(error), task.name)
    if faults:
        told, others = [*faults][:TOLD_FAULTS], [*faults.values()][TOLD_FAULTS:]
        raise InputError("; ".join([*told, f"and {len(others)} more: {', '.join(others)}"] if others else told))
    return parts


def fit(model: LanguageModel, parts: Sequence[Questions]) -> list[Questions]:
    """The questions for this model: K reduced to what fits, none twice, and room for the longest answer.

    Raises:
        InputError: more few-shot examples than fit, which were asked for by their number.
    """
    found: dict[tuple[str, int], Questions] = {}
    reduced: dict[str, list[str]] = {}
    for part in parts:
        asked = dataclasses.replace(part, task=with_room(model, part.task, part.split))
        task, reason = asked.task, "the available examples"
        if (fits := fitting_shots(model, asked)) < asked.shots:
            reason = f"fit {model.engine.context:,} positions"
            if not asked.is_k:
                raise InputError(
                    f"--shots {asked.shots} of {task.name} exceeds the model's {model.engine.context:,} positions. "
                    f"About {fits} fit."
                )
            asked = dataclasses.replace(asked, shots=fits)
        if asked.is_k and asked.shots < task.shots:
            reduced.setdefault(reason, []).append(f"{task.name} {asked.shots} of {task.shots}")
        found.setdefault((task.name, asked.shots), asked)
    for reason, names in reduced.items():
        say(f"K reduced to {reason}: {', '.join(names)}")
    return list(found.values())


def _evaluate(
    model: LanguageModel, name: str, parts: Sequence[Questions], options: EvalOptions, out: Path, clean: Verdicts
) -> Evaluation:
    """Score all parts and write `out`."""
    scores = []
    model_hash = fingerprint(model)
    with Progress("eval", sum(map(len, parts)), "examples") as progress:
        for asked in parts:
            task = asked.task
            header = {"model": name, "model_hash": model_hash, "task": task.name, "shots": asked.shots}
            header |= {option: getattr(options, option) for option in DECISIVE} | {"questions": digest(asked)}
            path = out / "examples" / f"{task.name}-{asked.shots}.jsonl"
            results = _answers(path, header, model, asked, options.batch, progress)
            scores.append(task_score(task, asked.shots, results, clean.get(task.name), asked.split.origin))
    chosen: dict[str, Any] = {name: getattr(options, name) for name in ("seed", "format", "style", "limit")}
    averages = _groups(options, parts, scores)
    found = Evaluation(name, model_hash, model.parameters, __version__, **chosen, results=[*scores, *averages])
    write_text(out / "report.html", page([found]))
    write_text(out / "results.json", json.dumps(found.as_dict(), indent=1, ensure_ascii=False) + "\n")
    return found


def _answers(
    path: Path, header: dict[str, Any], model: LanguageModel, asked: Questions, batch: int, progress: Progress
) -> list[Result]:
    """Results of all questions: those in the file from an interrupted evaluation, and the others, added as they are known.

    The first line of the file is `header`, which decides the scores. A file with another one is started again.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b")  # noqa: SIM115 - below, where another error is another matter
    except OSError as error:
        raise InputError(f"--out {path} cannot be written ({error.strerror}). Choose another folder.") from None
    with file:
        results, kept = _resumed(path, header)
        progress.start += len(results)
        progress.update(progress.done + len(results))
        file.truncate(kept)
        if not kept:
            file.write(_line(header))
        try:
            for result in score(model, asked.task, asked[len(results) :], batch=batch):
                results.append(result)
                file.write(_line(dataclasses.asdict(result)))
                file.flush()
                progress.advance(1, f"{asked.task.name} K={asked.shots}")
        finally:
            file.flush()
            os.fsync(file.fileno())
    return results


def _resumed(path: Path, header: dict[str, Any]) -> tuple[list[Result], int]:
    """The results in a file of the same header, and the bytes of the file to keep."""
    results: list[Result] = []
    kept = 0
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), -1):
        try:
            values = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            values = None
        if not isinstance(values, dict):
            break  # half a line, left by a kill
        if number < 0 and values != header:
            say(f"{path} is of another evaluation and starts again: {'; '.join(differences(values, header))}")
            break
        if number >= 0:
            if values.get("number") != number:
                break
            results.append(Result(**values))
        kept += len(line)
    return results, kept


def _line(values: dict[str, Any]) -> bytes:
    return utf8(json.dumps(values, ensure_ascii=False)) + b"\n"


def _groups(options: EvalOptions, parts: Sequence[Questions], scores: Sequence[TaskScore]) -> list[GroupScore]:
    """Averages of the groups that were requested by name, for each of --shots (K by each task's own)."""
    found = []
    for name, count in itertools.product(options.task_names, options.shot_counts):
        members = [
            score
            for asked, score in zip(parts, scores, strict=True)
            if score.task in GROUPS.get(name, ())
            and "acc" in score.metrics
            and (asked.is_k if count is None else asked.shots == count)
        ]
        shots = {score.shots for score in members}
        if members:
            found.append(group_score(name, shots.pop() if len(shots) == 1 else None, members))
    return found


def folders_of(options: EvalOptions, places: Sequence[str | Path]) -> list[Path]:
    """The folder of each model's results: ``--out`` for one, else a folder with its name there or in eval/."""
    if options.out is not None and len(places) == 1:
        return [Path(options.out)]
    found: dict[str, Path] = {}
    for place in map(str, places):
        if place not in found:
            found[place] = results_folder(Path(options.out or "eval"), place, found.values())
    return [found[str(place)] for place in places]


def fingerprint(model: LanguageModel) -> str:
    """A hash of how likely a model finds a fixed text: it distinguishes models that were in one place."""
    ids = [*range(min(17, model.engine.vocabulary))]
    [found] = continuation_logprobs(model.engine, ids[:1], [ids[1 : model.engine.context]])
    return hashlib.sha256(repr([round(value, 3) for value in found.logprobs]).encode()).hexdigest()[:16]


def digest(asked: Questions) -> str:
    """A hash of the first questions, so that other data starts again."""
    text = json.dumps([(question.context, question.item.completions) for question in asked[:50]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# ---- in training: `gpt3 train --probe arithmetic,wiki-topic`, logged as eval/NAME

PROBED, PROBED_SHOTS = 50, 1
"""Questions of a task (those of a group are shared among its tasks, at least 5 each), and few-shot examples."""


class Probe:
    """An Evaluator of the training loop: accuracy of each name, one-shot if that fits, else zero-shot.

    Args:
        names: generated tasks, and groups of them (`check_probes`).
        tokenizer: of the model.
        every: steps between two measurements.
    """

    def __init__(self, names: Sequence[str], tokenizer: PreTrainedTokenizerFast, every: int) -> None:
        self.every, self.tokenizer = every, tokenizer
        self.parts = {name: select([name]) for name in names}
        self._asked: dict[str, Questions] = {}

    def __call__(self, model: GPT3ForCausalLM, step: int) -> Mapping[str, float]:
        """Accuracies by name, 0 to 1; none if the weights give NaN. The random state is untouched."""
        try:
            language_model = LanguageModel(model, self.tokenizer)
            return {f"{name}/acc": self._accuracy(language_model, tasks) for name, tasks in self.parts.items()}
        except RunError:  # the loop stops for that, with its own message
            return {}

    def _accuracy(self, model: LanguageModel, tasks: Sequence[Task]) -> float:
        right = []
        for task in tasks:
            if task.name not in self._asked:
                split, limit = task.split(Source()), max(5, PROBED // len(tasks))
                asked = Questions(with_room(model, task, split), split, PROBED_SHOTS, 0, limit)
                fits = fitting_shots(model, asked) >= PROBED_SHOTS
                self._asked[task.name] = asked if fits else dataclasses.replace(asked, shots=0)
            asked = self._asked[task.name]
            right += [result.metrics["acc"] for result in score(model, asked.task, asked)]
        return mean(right).value


def check_probes(names: Sequence[str]) -> None:
    """Refuse tasks that cannot be evaluated in training.

    Raises:
        InputError: unknown tasks, or tasks that need files.
    """
    files = [task.name for task in select(names, "--probe") if task.name not in GROUPS["generated"]]
    if files:
        raise InputError(
            f"--probe {files[0]} needs files. Use arithmetic, scrambling, wiki-topic or one of their tasks."
        )
