"""The evaluation of models on tasks: questions, answers and results, into a folder.

results.json        all figures, also those of earlier commands (gpt3.evaluation.earlier_results)
report.html         the same drawn
examples/TASK-K.jsonl   a JSON object for each question, from which an evaluation resumes; TASK-K-STYLE for other styles
comparison.json     next to the folders of several models: their differences (gpt3.evaluation.comparison)
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt3 import __version__
from gpt3.durable import utf8, write_text
from gpt3.errors import InputError
from gpt3.evaluation import Result, Source, Split, Task
from gpt3.evaluation.comparison import Answers, Comparison, compare
from gpt3.evaluation.earlier_results import check_model, merged, read_results
from gpt3.evaluation.options import EvalOptions
from gpt3.evaluation.page import page
from gpt3.evaluation.protocol import Questions, fitting_shots, score, with_room
from gpt3.evaluation.results import Evaluation, GroupScore, TaskScore, group_score, results_folder, seed_row, task_score
from gpt3.evaluation.styles import in_style
from gpt3.evaluation.task_rows import check_folder
from gpt3.evaluation.tasks import GROUPS, TASKS, select
from gpt3.inference.continuations import continuation_logprobs
from gpt3.inference.language_model import LanguageModel, load
from gpt3.model_folder.locate import locate
from gpt3.progress import Progress, say
from gpt3.tables import counted
from gpt3.work_folder import check_file, differences, locked_folder

DECISIVE = ("seed", "format", "style", "dtype", "quantize")
"""Options that the answers depend on."""
MARKS = {
    "results.json": b'"model_hash"',
    "report.html": b"<title>gpt3 eval</title>",
    "comparison.json": b'"comparisons"',
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
    options: EvalOptions,
    overlap: Overlap | None = None,
    report: Callable[[Evaluation | Comparison], None] | None = None,
) -> list[Evaluation]:
    """Score models on tasks, as ``gpt3 eval`` does, and write the results.

    Args:
        overlap: looks for the questions in the training text (`gpt3.contamination.overlap.measure_overlap`). None: they are
            not looked for.
        report: called with what this command found of each model as soon as it is known, and then with the comparison of
            each further model with the first.

    Returns:
        One result per model, of this command alone. Printed, it is the table; ``results`` has the figures of each task.

    Raises:
        InputError: unknown tasks, missing or bad data, too many few-shot examples, no model, a folder with results of
            another model.
        KeyboardInterrupt: passed on; the same command resumes.
    """
    tasks = in_style(select(options.task_names), options.style)
    places = [find_model(options, name) for name in (options.model or (None,))]
    prepared = prepare(options, tasks)  # before the model, whose loading takes seconds
    outs, base = folders_of(options, places), Path(options.out or "eval")
    for folder in (*outs, base):
        for name, mark in MARKS.items():
            check_file("--out", folder / name, mark, overwrite=options.overwrite)
    found: list[Evaluation] = []
    whole: list[Evaluation] = []
    answers: list[Answers] = []
    for place, out in zip(places, outs, strict=True):
        if not options.model or len(places) > 1:
            say(f"model: {place}")
        model = load(
            place, device=options.device, dtype=options.dtype, quantize=options.quantize, threads=options.threads
        )
        parts = fit(model, prepared)
        with locked_folder(out):
            model_hash = fingerprint(model)
            earlier = check_model(read_results(out), model_hash, out, overwrite=options.overwrite)
            splits = {asked.task.name: asked.split for asked in parts}
            clean = overlap(str(place), options.contamination, splits, out / "contamination") if overlap else {}
            mine, given = _evaluate(model, model_hash, str(place), parts, options, out, clean)
            found.append(mine)
            whole.append(merged(earlier, mine))
            answers.append(given)
            _write(whole[-1], out)
        if report is not None:
            report(mine)
        more = len(whole[-1].results) - len(mine.results)
        say(f"results: {out / 'results.json'}" + (f", with {counted(more, 'row')} of earlier commands" * bool(more)))
    if len(found) > 1:
        write_text(base / "report.html", page(whole))
        say(f"report of all models: {base / 'report.html'}")
        _compare(options, prepared, [str(place) for place in places], answers, base, report)
    return found


def _compare(
    options: EvalOptions,
    prepared: Sequence[Questions],
    names: Sequence[str],
    answers: Sequence[Answers],
    base: Path,
    report: Callable[[Comparison], None] | None,
) -> None:
    """Compare each further model with the first, question by question, and write comparison.json."""
    tasks = {asked.task.name: asked.task for asked in prepared}
    members = {name: GROUPS[name] for name in options.task_names if name in GROUPS}
    found = [
        compare(tasks, members, (names[0], name), (answers[0], other))
        for name, other in zip(names[1:], answers[1:], strict=True)
    ]
    content = [dataclasses.asdict(one) for one in found]
    write_text(base / "comparison.json", json.dumps({"comparisons": content}, indent=1, ensure_ascii=False) + "\n")
    if report is not None:
        for one in found:
            report(one)
    say(f"comparison: {base / 'comparison.json'}")


def find_model(options: EvalOptions, name: str | None) -> str | Path:
    """A model's place.

    Raises:
        InputError: there is none. For a task after a space, the message says to use a comma.
    """
    try:
        return locate(name)
    except InputError:
        if name is None or not (name in TASKS or name in GROUPS):
            raise
        fix = f"Separate tasks by commas: --tasks {options.tasks},{name}"
        raise InputError(f"{name} is a task, and no model has that name. {fix}") from None


def prepare(options: EvalOptions, tasks: Sequence[Task]) -> list[Questions]:
    """The questions of every task, for each number of few-shot examples.

    Raises:
        InputError: all tasks whose data is missing or bad, in one message.
    """
    if options.data_dir is not None:
        check_folder(options.data_dir)
    source = Source(options.data_dir, options.format, options.seed)
    parts: list[Questions] = []
    faults: dict[str, str] = {}  # by message: the missing file of several tasks is named once
    for task in tasks:
        try:
            split = task.split(source)
            for count in options.shot_counts:
                shots = task.shots if count is None or not task.shots else count
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
        same = found.get((task.name, asked.shots), asked)
        found[task.name, asked.shots] = dataclasses.replace(same, is_k=same.is_k or asked.is_k)
    for reason, names in reduced.items():
        say(f"K reduced to {reason}: {', '.join(names)}")
    return list(found.values())


def _evaluate(
    model: LanguageModel,
    model_hash: str,
    name: str,
    parts: Sequence[Questions],
    options: EvalOptions,
    out: Path,
    clean: Verdicts,
) -> tuple[Evaluation, Answers]:
    """Score all parts; each question's result goes into `out`."""
    scores: list[TaskScore] = []
    answers: Answers = {}
    settings = {option: getattr(options, option) for option in (*DECISIVE, "limit") if option != "style"}
    with Progress("eval", sum(map(len, parts)), "examples") as progress:
        for asked in parts:
            task = asked.task
            header = {"model": name, "model_hash": model_hash, "task": task.name, "shots": asked.shots}
            header |= {option: getattr(options, option) for option in DECISIVE} | {"questions": digest(asked)}
            style = "" if options.style == "paper" else f"-{options.style}"
            path = out / "examples" / f"{task.name}-{asked.shots}{style}.jsonl"
            results = _answers(path, header, model, asked, options.batch, progress)
            answers[task.name, asked.shots] = results
            score = task_score(task, asked.shots, results, clean.get(task.name), asked.split.origin)
            scores.append(dataclasses.replace(score, style=options.style, settings=settings))
    chosen: dict[str, Any] = {name: getattr(options, name) for name in ("seed", "format", "style", "limit")}
    averages = _groups(options, parts, scores)
    rows = [*scores, *averages]
    return Evaluation(name, model_hash, model.parameters, __version__, **chosen, results=rows), answers


def _write(found: Evaluation, out: Path) -> None:
    write_text(out / "report.html", page([found]))
    write_text(out / "results.json", json.dumps(found.as_dict(), indent=1, ensure_ascii=False) + "\n")


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


def _groups(
    options: EvalOptions, parts: Sequence[Questions], scores: Sequence[TaskScore]
) -> list[GroupScore | TaskScore]:
    """Averages of the groups that were requested by name, for each of --shots (K is each task's own) that all tasks have."""
    found: list[GroupScore | TaskScore] = []
    for name, count in itertools.product(options.task_names, options.shot_counts):
        of_group = [
            (asked, score)
            for asked, score in zip(parts, scores, strict=True)
            if score.task in GROUPS.get(name, ()) and "acc" in score.metrics and "acc" in score.shown
        ]
        members = [score for asked, score in of_group if (asked.is_k if count is None else asked.shots == count)]
        if members and len(members) == len({score.task for _, score in of_group}):
            shots = {score.shots for score in members}
            group = group_score(name, shots.pop() if len(shots) == 1 else None, members)
            row = seed_row(group, members) if options.style == "seed" else group
            found += [row] if row not in found else []  # 0 and K are the same where K is 0
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
