"""`gpt3 eval`: models on tasks; a table to standard output, results.json and every example to a folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt3.contamination.overlap import Verdicts, measure_overlap
from gpt3.durable import write_text
from gpt3.errors import InputError
from gpt3.evaluation.example_file import ExampleFile
from gpt3.evaluation.items import Source, Split, Task
from gpt3.evaluation.lm_eval_definitions import FOLDER
from gpt3.evaluation.lm_eval_style import in_lm_eval_style
from gpt3.evaluation.options import EvalOptions
from gpt3.evaluation.page import write_page
from gpt3.evaluation.protocol import Question, check_fit, fitting_shots, most_shots, questions, with_room
from gpt3.evaluation.results import group_record, record, table
from gpt3.evaluation.scores import score
from gpt3.evaluation.tasks import GROUPS, TASKS, select
from gpt3.progress import Progress, say
from gpt3.version import __version__

if TYPE_CHECKING:
    from gpt3.inference.language_model import LanguageModel

TOLD_FAULTS = 3
"""Tasks whose faults are told at length; of more, the names."""


@dataclass(frozen=True)
class Part:
    """A task with a number of demonstrations."""

    task: Task
    split: Split
    shots: int
    asked: list[Question]
    most: bool = False
    """The paper's K was asked for: as many as fit, if it does not."""


def run(options: EvalOptions) -> None:
    """Score and write what was asked for.

    Raises:
        InputError: unknown tasks, missing or bad data, too many demonstrations, no model.
        KeyboardInterrupt: passed on; the same command goes on from there.
    """
    if options.list_tasks:
        print(listing())
        return
    if options.lm_eval_tasks:
        print(FOLDER)
        return
    parts = prepare(options)  # before the model, whose loading takes seconds

    from gpt3.inference.language_model import load
    from gpt3.model_folder.locate import locate

    places = [locate(name) for name in (options.model or (None,))]
    found = []
    for place in places:
        if not options.model or len(places) > 1:
            say(f"model: {place}")
        model = load(place, device=options.device, dtype=options.dtype, quantize=options.quantize)
        fitting = fit(model, parts, options)
        out = folder_of(options, str(place), several=len(places) > 1)
        asked = {part.task.name: (part.task, part.split) for part in fitting}
        clean = measure_overlap(str(place), options.contamination, asked, out / "contamination")
        found.append(evaluate(model, str(place), fitting, options, out, clean))
        if not options.json:
            print(table(found[-1]["results"]))
            say(f"results: {out / 'results.json'}")
    if len(found) > 1:
        root = Path(options.out or "eval")
        write_page(root / "report.html", found)
        say(f"report of all models: {root / 'report.html'}")
    if options.json:
        print(json.dumps(found[0] if len(found) == 1 else found, indent=1))


def prepare(options: EvalOptions) -> list[Part]:
    """Every task's questions.

    Raises:
        InputError: all tasks whose data is missing or bad, in one line.
    """
    source = Source(options.data_dir, options.format, options.seed)
    parts: list[Part] = []
    faults: dict[str, str] = {}  # by message: a file of several tasks is missed once
    if options.data_dir is not None and not Path(options.data_dir).is_dir():
        raise InputError(f"--data-dir {options.data_dir} is no folder; give one with the tasks' files")
    tasks = select(options.task_names)
    if options.style == "lm-eval":
        tasks = in_lm_eval_style(tasks)
    for task in tasks:
        try:
            split: Split = task.split(source)
            for count in options.shot_counts:
                shots = min(task.shots, most_shots(split)) if count is None else count
                asked = questions(task, split, shots, options.seed, options.limit)
                parts.append(Part(task, split, shots, asked, most=count is None))
        except InputError as error:
            faults.setdefault(str(error), task.name)
    if faults:
        told, others = [*faults][:TOLD_FAULTS], [*faults.values()][TOLD_FAULTS:]
        raise InputError("; ".join([*told, f"and {len(others)} more: {', '.join(others)}"] if others else told))
    return parts


def fit(model: LanguageModel, parts: Sequence[Part], options: EvalOptions) -> list[Part]:
    """The parts as this model can be asked: K cut down to what fits and to the examples there are, none twice.

    Raises:
        InputError: a number given as such that does not fit.
    """
    found: dict[tuple[str, int], Part] = {}
    smaller: list[str] = []
    fewer: list[str] = []
    for part in parts:
        part = dataclasses.replace(part, task=with_room(model, part.task, part.split))
        if not part.most:
            check_fit(model, part.task, part.asked)
        elif (fits := fitting_shots(model, part.task, part.asked)) < part.shots:
            smaller.append(f"{part.task.name} {fits} of {part.task.shots}")
            asked = questions(part.task, part.split, fits, options.seed, options.limit)
            part = Part(part.task, part.split, fits, asked, most=True)
        elif part.shots < part.task.shots:
            fewer.append(f"{part.task.name} {part.shots} of {part.task.shots}")
        found.setdefault((part.task.name, part.shots), part)
    if smaller:
        say(f"K that fits {model.engine.context:,} positions: {', '.join(smaller)}")
    if fewer:
        say(f"K, all examples that there are: {', '.join(fewer)}")
    return list(found.values())


def evaluate(
    model: LanguageModel, name: str, parts: list[Part], options: EvalOptions, out: Path, clean: Verdicts | None = None
) -> dict[str, Any]:
    """Score all parts and write `out`.

    Args:
        clean: what is known of the training text, see overlap.py.

    Returns:
        The content of results.json.
    """
    entries = []
    total = sum(len(part.asked) for part in parts)
    with Progress("eval", total, "examples") as progress:
        for part in parts:
            header = {
                "model": name,
                "model_hash": fingerprint(model),
                "task": part.task.name,
                "shots": part.shots,
                "seed": options.seed,
                "format": options.format,
                "style": options.style,
                "dtype": options.dtype,
                "quantize": options.quantize,
                "questions": digest(part.asked),
            }
            path = out / "examples" / f"{part.task.name}-{part.shots}.jsonl"
            with ExampleFile(path, header) as file:
                done = len(file.results)
                progress.start += done
                progress.update(progress.done + done)
                for result in score(model, part.task, part.asked[done:], batch=options.batch):
                    file.add(result)
                    progress.advance(1, f"{part.task.name} K={part.shots}")
                known = (clean or {}).get(part.task.name)
                entries.append(record(part.task, part.shots, file.results, known) | {"data": dict(part.split.origin)})
    results: dict[str, Any] = {
        "model": name,
        "model_hash": fingerprint(model),
        "parameters": parameters(model),
        "gpt3_version": __version__,
        "seed": options.seed,
        "format": options.format,
        "style": options.style,
        "limit": options.limit,
        "results": entries + groups(options, parts, entries),
    }
    write_page(out / "report.html", [results])
    write_text(out / "results.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    return results


def groups(options: EvalOptions, parts: Sequence[Part], entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Averages of the groups that were asked for by name, for each of --shots (K by each task's own)."""
    found = []
    for name in options.task_names:
        for count in options.shot_counts if name in GROUPS and len(GROUPS[name]) > 1 else ():
            members = [
                entry
                for part, entry in zip(parts, entries, strict=True)
                if part.task.name in GROUPS[name]
                and "acc" in entry["metrics"]
                and (part.most if count is None else part.shots == count)
            ]
            if not members:
                continue
            shots = {entry["shots"] for entry in members}
            found.append(group_record(name, shots.pop() if len(shots) == 1 else None, members))
    return found


def folder_of(options: EvalOptions, place: str, several: bool) -> Path:
    """Where a model's results go."""
    path = Path(place)
    name = path.parent.name if path.name in ("model", "adapter") and path.parent.name else path.name
    if options.out is None:
        return Path("eval", name)
    return Path(options.out, name) if several else Path(options.out)


def fingerprint(model: LanguageModel) -> str:
    """Tells models of one place apart: a hash of how likely it finds a fixed text."""
    from gpt3.inference.continuations import continuation_logprobs

    ids = [*range(min(17, model.engine.vocabulary))]
    [found] = continuation_logprobs(model.engine, ids[:1], [ids[1 : model.engine.context]])
    return hashlib.sha256(repr([round(value, 3) for value in found.logprobs]).encode()).hexdigest()[:16]


def parameters(model: LanguageModel) -> int:
    """Trained numbers of the model, a tied head counted once; its shape is enough to know."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return int(AutoModelForCausalLM.from_config(model.config).num_parameters())


def digest(asked: list[Question]) -> str:
    """A hash of the first questions, so that other data begins anew."""
    text = json.dumps([(question.context, question.item.completions) for question in asked[:50]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def listing() -> str:
    """All tasks: name, kind, the paper's K, what is asked, and of what dataset of the hub."""
    width = max(map(len, TASKS))
    lines = [f"{'task':<{width}}  kind    K    asks"]
    for task in TASKS.values():
        if not task.name.startswith("mmlu_"):
            place = f" ({task.hub.repository})" if task.hub is not None else ""
            lines.append(f"{task.name:<{width}}  {task.kind:<7} {task.shots:<4} {task.summary}{place}")
    lines += ["", "groups:"]
    lines += [
        f"{name:<{width}}  {len(members)} tasks: {', '.join(members[:4])}{', …' * (len(members) > 4)}"
        for name, members in GROUPS.items()
    ]
    return "\n".join(lines)
