"""Our scores beside lm-eval's, example by example, on the same rows and model, and the time both take.

    python benchmarks/lm_eval_agreement.py --model FOLDER --data FOLDER --rows 300 --out /tmp/agreement
    python benchmarks/lm_eval_agreement.py --model FOLDER --data FOLDER --rows 60 --speed

Theirs is lm-eval's own command with its `hf` model and its own task definitions, included unchanged but for where the rows come
from. Ours is `gpt3 eval --style lm-eval`. Both read files of the hub's layout, written from --data (docs/evaluation.md, Files):
a HellaSwag row there has one `ctx`, which is divided as the hub's `ctx_a` and `ctx_b` before its last, lower-case sentence.
Needs lm-eval: pip install 'gpt3[eval]'.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
LETTERS = "ABCDEFGH"


def hellaswag(row: Row) -> Row:
    """The hub's layout of a row."""
    activity, _, context = row["ctx"].partition(": ")
    first, second = context, ""
    if match := re.fullmatch(r"(.*[.!?,\"'])\s+([a-z][^.]*)", context, re.DOTALL):
        first, second = match.groups()
    label = str(row["label"])
    return {"activity_label": activity, "ctx_a": first, "ctx_b": second, "ctx": context} | {
        "endings": row["endings"],
        "label": label,
    }


def piqa(row: Row) -> Row:
    """The same of PIQA."""
    goal = row["query"].removeprefix("Question: ").removesuffix("\n")
    return {"goal": goal, "sol1": row["choices"][0], "sol2": row["choices"][1], "label": row["gold"]}


def arc(row: Row) -> Row:
    """The same of ARC."""
    letters = list(LETTERS[: len(row["choices"])])
    question = row["query"].removeprefix("Question: ")
    return {
        "question": question,
        "choices": {"text": row["choices"], "label": letters},
        "answerKey": letters[row["gold"]],
    }


def winogrande(row: Row) -> Row:
    """The same of Winogrande: the candidates are what two contexts do not have in common."""
    one, two = row["context_options"]
    same = next((place for place, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    shared = one[: one.rfind(" ", 0, same) + 1]  # whole words
    return {
        "sentence": f"{shared}_ {row['continuation']}",
        "option1": one[len(shared) :],
        "option2": two[len(shared) :],
        "answer": str(row["gold"] + 1),
    }


def lambada(row: Row) -> Row:
    """The passage."""
    return {"text": row["text"]}


@dataclass(frozen=True)
class Compared:
    """A task under both names."""

    ours: str
    """Of gpt3 eval."""
    theirs: str
    """lm-eval's definition, below its folder of tasks."""
    file: str
    """In --data."""
    row: Callable[[Row], Row]
    """To the hub's layout."""


SPLITS = ("train", "validation", "test")
"""Any of which a definition may name. It scores test, or validation without one; zero-shot, the first is never used."""
TASKS = (
    Compared("hellaswag", "hellaswag/hellaswag.yaml", "hellaswag_val", hellaswag),
    Compared("piqa", "piqa/piqa.yaml", "piqa", piqa),
    Compared("arc_easy", "arc/arc_easy.yaml", "arc_easy", arc),
    Compared("arc_challenge", "arc/arc_challenge.yaml", "arc_challenge", arc),
    Compared("winogrande", "winogrande/default.yaml", "winogrande", winogrande),
    Compared("lambada", "lambada/lambada_openai.yaml", "lambada_openai", lambada),
)


def prepare(task: Compared, data: Path, out: Path, rows: int) -> None:
    """Write the rows that both read, and lm-eval's definition that reads them."""
    import lm_eval

    (out / "data").mkdir(parents=True, exist_ok=True)
    (out / "tasks").mkdir(exist_ok=True)
    target = out / "data" / f"{task.ours}.jsonl"
    with (
        gzip.open(data / f"{task.file}.jsonl.gz", "rt", encoding="utf-8") as source,
        open(target, "w", encoding="utf-8") as file,
    ):
        for _, line in zip(range(rows), source, strict=False):
            file.write(json.dumps(task.row(json.loads(line))) + "\n")
    definition = Path(lm_eval.__file__).parent / "tasks" / task.theirs
    changes = {
        "include": str(definition),
        "task": f"local_{task.ours}",
        "tag": [],
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": dict.fromkeys(SPLITS, str(target))},
    }
    (out / "tasks" / f"{task.ours}.yaml").write_text(json.dumps(changes, indent=1))  # JSON is YAML


def run_theirs(model: str, out: Path, tasks: list[Compared]) -> None:
    """lm-eval's command, for tasks that it has not yet scored there."""
    tasks = [task for task in tasks if not [*(out / "theirs").rglob(f"samples_local_{task.ours}_*.jsonl")]]
    if not tasks:
        return
    names = ",".join(f"local_{task.ours}" for task in tasks)
    command = [
        sys.executable,
        "-m",
        "lm_eval",
        "run",
        "--model",
        "hf",
        "--model_args",
        f"pretrained={model},dtype=float32",
    ]
    command += ["--tasks", names, "--include_path", str(out / "tasks"), "--device", "cpu", "--batch_size", "8"]
    subprocess.run([*command, "--log_samples", "--output_path", str(out / "theirs")], check=True)


def run_ours(model: str, out: Path, tasks: list[Compared]) -> None:
    """Our command."""
    names = ",".join(task.ours for task in tasks)
    command = [sys.executable, "-m", "gpt3", "eval", "--model", model, "--tasks", names, "--shots", "0"]
    command += ["--style", "lm-eval", "--data-dir", str(out / "data"), "--device", "cpu", "--dtype", "fp32"]
    subprocess.run([*command, "--out", str(out / "ours")], check=True)


@dataclass(frozen=True)
class Agreement:
    """A task's rows compared."""

    task: str
    rows: int
    same: int
    """Rows with the same choice, by both rules; LAMBADA: the same verdict."""
    largest: float
    """Difference of two log-probabilities."""
    acc: tuple[float, float]
    """Ours, theirs: accuracy."""
    norm: tuple[float, float] | None
    """The same of acc_norm."""
    margins: tuple[float, ...]
    """Where choices differ: how far apart the two options are for us."""


def written(task: Compared, out: Path) -> tuple[list[Row], list[Row]]:
    """What both commands wrote of each row: ours, theirs."""
    [path] = (out / "theirs").rglob(f"samples_local_{task.ours}_*.jsonl")
    return [*_lines(out / "ours" / "examples" / f"{task.ours}-0.jsonl")][1:], [*_lines(path)]


def compare(task: Compared, ours: list[Row], theirs: list[Row]) -> Agreement:
    """Row by row: the choices by each rule, and the log-probabilities."""
    theirs = sorted(theirs, key=lambda row: int(row["doc_id"]))
    assert len(ours) == len(theirs), (task.ours, len(ours), len(theirs))
    same, largest = 0, 0.0
    margins = []
    for mine, other in zip(ours, theirs, strict=True):
        values = [float(answer[0]) for answer in other["filtered_resps"]]
        if task.ours == "lambada":
            largest = max(largest, abs(values[0] + mine["metrics"]["nll"]))
            same += mine["metrics"]["acc"] == other["acc"]
            continue
        totals = mine["detail"]["logprobs"]
        largest = max(largest, *(abs(a - b) for a, b in zip(totals, values, strict=True)))
        rules = [[1.0] * len(values)]
        if "acc_norm" in other:
            doc = other["doc"]
            options = doc.get("choices", [doc.get("sol1"), doc.get("sol2")])
            rules.append([float(len(text)) for text in (options["text"] if isinstance(options, dict) else options)])
        agree = all(mine["metrics"][name] == other[name] for name in ("acc", "acc_norm") if name in other)
        for sizes in rules:
            one, two = ([a / b for a, b in zip(x, sizes, strict=True)] for x in (totals, values))
            places = [max(range(len(x)), key=x.__getitem__) for x in (one, two)]
            if places[0] != places[1]:
                agree = False
                margins.append(abs(one[places[0]] - one[places[1]]))
        same += agree

    def means(name: str) -> tuple[float, float]:
        return statistics.mean(row["metrics"][name] for row in ours), statistics.mean(row[name] for row in theirs)

    norm = means("acc_norm") if "acc_norm" in theirs[0] else None
    return Agreement(task.ours, len(ours), same, largest, means("acc"), norm, tuple(margins))


def _lines(path: Path) -> Iterator[Row]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def agreement_table(found: list[Agreement]) -> str:
    """As docs/evaluation.md has it."""
    lines = [
        "| task | rows | same choices | largest difference, nats | acc, ours / lm-eval | acc_norm, ours / lm-eval |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for row in found:
        acc, norm = (" / ".join(f"{100 * value:.2f}" for value in pair) if pair else "" for pair in (row.acc, row.norm))
        ties = f" (margins {', '.join(f'{x:.1e}' for x in row.margins)})" if row.margins else ""
        lines.append(f"| {row.task} | {row.rows} | {row.same}{ties} | {row.largest:.1e} | {acc} | {norm} |")
    return "\n".join(lines)


def speed(model: str, out: Path, tasks: list[Compared], rounds: int, batch: int) -> Iterator[tuple[str, Agreement]]:
    """Seconds for the same rows, model and process, tokenizing included, loading not; medians of `rounds` alternations."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    import gpt3
    from gpt3.evaluation.items import Source
    from gpt3.evaluation.lm_eval_style import in_lm_eval_style
    from gpt3.evaluation.protocol import questions
    from gpt3.evaluation.scores import score
    from gpt3.evaluation.tasks import select

    loaded = gpt3.load(model, device="cpu", dtype="fp32")
    harness = HFLM(pretrained=model, dtype="float32", device="cpu", batch_size=batch)
    measured: list[float] = []
    original = harness.loglikelihood

    def timed(*arguments: Any, **more: Any) -> Any:
        start = time.perf_counter()
        values = original(*arguments, disable_tqdm=True)
        measured.append(time.perf_counter() - start)
        return values

    harness.loglikelihood = timed  # type: ignore[method-assign]
    manager = TaskManager(include_path=str(out / "tasks"), include_defaults=False)
    for task in tasks:
        [ours] = in_lm_eval_style(select([task.ours]))
        asked = questions(ours, ours.split(Source(str(out / "data"))), 0, seed=0)
        times: list[tuple[float, float]] = []
        list(score(loaded, ours, asked[:2], batch=batch))
        for _ in range(rounds):
            measured.clear()
            name = f"local_{task.ours}"
            found = simple_evaluate(harness, tasks=[name], task_manager=manager, bootstrap_iters=0, log_samples=True)
            start = time.perf_counter()
            results = list(score(loaded, ours, asked, batch=batch))
            times.append((math.fsum(measured), time.perf_counter() - start))
        theirs, mine = (statistics.median(pair[side] for pair in times) for side in (0, 1))
        ratio = statistics.median(a / b for a, b in times)
        same = compare(task, [result.as_dict() for result in results], found["samples"][name])
        yield f"| {task.ours} | {len(asked)} | {theirs:.2f} | {mine:.2f} | {ratio:.2f} |", same


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a folder of transformers")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tasks' .jsonl.gz files")
    parser.add_argument("--rows", type=int, default=300, help="of each task")
    parser.add_argument("--tasks", default=",".join(task.ours for task in TASKS))
    parser.add_argument("--out", type=Path, help="a folder for what both write; default: a temporary one")
    parser.add_argument("--speed", action="store_true", help="both in this process, with their times")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8, help="for --speed: of both")
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    tasks = [task for task in TASKS if task.ours in options.tasks.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        for task in tasks:
            prepare(task, options.data, out, options.rows)
        if options.speed:
            print("| task | rows | lm-eval, s | ours, s | ratio |\n|---|---|---|---|---|")
            same = []
            for line, agreement in speed(options.model, out, tasks, options.rounds, options.batch):
                print(line, flush=True)
                same.append(agreement)
            print(agreement_table(same))
            return
        run_theirs(options.model, out, tasks)
        run_ours(options.model, out, tasks)
        print(agreement_table([compare(task, *written(task, out)) for task in tasks]))


if __name__ == "__main__":
    main()
