"""gpt3's scores compared with lm-eval's, example by example, on the same rows and model, and the time of both.

    python benchmarks/lm_eval_agreement.py --model FOLDER --data FOLDER --rows 300 --out /tmp/agreement
    python benchmarks/lm_eval_agreement.py --model FOLDER --data FOLDER --rows 60 --speed

lm-eval runs its own command with its `hf` model and its own task definitions, included unchanged except for the source of the
rows. gpt3 runs `gpt3 eval --style lm-eval`. Both read files in the hub's layout, written from --data (docs/evaluation.md, Files):
a HellaSwag row there has one `ctx`, which is split into the hub's `ctx_a` and `ctx_b` before its last, lower-case sentence.
Needs lm-eval: pip install -e '.[eval]'.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import itertools
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

from gpt3.bench.harness import alternate, common_prefix
from gpt3.tables import markdown

Row = dict[str, Any]
SUBJECT = "high_school_psychology"
"""Of MMLU, with 545 questions."""


def hellaswag(row: Row) -> Row:
    activity, _, context = row["ctx"].partition(": ")
    match = re.fullmatch(r"(.*[.!?,\"'])\s+([a-z][^.]*)", context, re.DOTALL)
    first, second = match.groups() if match else (context, "")
    label = {"endings": row["endings"], "label": str(row["label"])}
    return {"activity_label": activity, "ctx_a": first, "ctx_b": second, "ctx": context, **label}


def piqa(row: Row) -> Row:
    goal = row["query"].removeprefix("Question: ").removesuffix("\n")
    return {"goal": goal, "sol1": row["choices"][0], "sol2": row["choices"][1], "label": row["gold"]}


def arc(row: Row) -> Row:
    letters = list("ABCDEFGH"[: len(row["choices"])])
    choices = {"text": row["choices"], "label": letters}
    return {"question": row["query"].removeprefix("Question: "), "choices": choices, "answerKey": letters[row["gold"]]}


def winogrande(row: Row) -> Row:
    """The candidates are what the two contexts do not have in common."""
    one, two = row["context_options"]
    shared = one[: one.rfind(" ", 0, common_prefix(one, two)) + 1]  # whole words
    options = {"option1": one[len(shared) :], "option2": two[len(shared) :]}
    return {"sentence": f"{shared}_ {row['continuation']}", **options, "answer": str(row["gold"] + 1)}


def lambada(row: Row) -> Row:
    return {"text": row["text"]}


def boolq(row: Row) -> Row:
    """lm-eval reads SuperGLUE's rows, which have a label."""
    passage, _, question = row["query"].removeprefix("Passage: ").rpartition("\nQuestion: ")
    right = row["choices"][row["gold"]] == "yes"
    return {"passage": passage, "question": question.rstrip("?"), "answer": right, "label": int(right)}


def mmlu(row: Row) -> Row | None:
    """One subject of the file that has all."""
    return row if (row["subject"], row["split"]) == (SUBJECT, "test") else None


@dataclass(frozen=True)
class Task:
    """A task under both names."""

    ours: str
    """Name in gpt3 eval."""
    theirs: str
    """lm-eval's definition, below its folder of tasks."""
    file: str
    """In --data."""
    row: Callable[[Row], Row | None]
    """From a row of the file to the hub's layout; None: it is not of this task."""
    saved: str = ""
    """Name of the rows' file for gpt3 eval; default: the task's."""


TASKS = (
    Task("hellaswag", "hellaswag/hellaswag.yaml", "hellaswag_val", hellaswag),
    Task("piqa", "piqa/piqa.yaml", "piqa", piqa),
    Task("arc_easy", "arc/arc_easy.yaml", "arc_easy", arc),
    Task("arc_challenge", "arc/arc_challenge.yaml", "arc_challenge", arc),
    Task("winogrande", "winogrande/default.yaml", "winogrande", winogrande),
    Task("lambada", "lambada/lambada_openai.yaml", "lambada_openai", lambada),
    Task("boolq", "super_glue/boolq/default.yaml", "boolq", boolq),
    Task(f"mmlu_{SUBJECT}", f"mmlu/default/mmlu_{SUBJECT}.yaml", "mmlu", mmlu, "mmlu"),
)


def prepare(task: Task, data: Path, out: Path, rows: int) -> None:
    """Write the rows that both read, and lm-eval's definition that reads them."""
    import lm_eval

    (out / "data").mkdir(parents=True, exist_ok=True)
    (out / "tasks").mkdir(exist_ok=True)
    target = out / "data" / f"{task.saved or task.ours}.jsonl"
    with gzip.open(data / f"{task.file}.jsonl.gz", "rt", encoding="utf-8") as source:
        made = (row for line in source if (row := task.row(json.loads(line))) is not None)
        lines = [json.dumps(row) + "\n" for row in itertools.islice(made, rows)]
    target.write_text("".join(lines), encoding="utf-8")
    # A definition scores test, or validation without one; zero-shot, train is never used.
    files = dict.fromkeys(("train", "dev", "validation", "test"), str(target))
    source_of_rows = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    definition = Path(lm_eval.__file__).parent / "tasks" / task.theirs
    changes = {"include": str(definition), "task": f"local_{task.ours}", "tag": [], **source_of_rows}
    (out / "tasks" / f"{task.ours}.yaml").write_text(json.dumps(changes, indent=1))  # JSON is YAML


def run_both(model: str, out: Path, tasks: list[Task]) -> None:
    """lm-eval's command, for tasks that it has not scored in `out` yet, and gpt3's."""
    missing = [task for task in tasks if not [*(out / "theirs").rglob(f"samples_local_{task.ours}_*.jsonl")]]
    if missing:
        command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu", "--batch_size", "8"]
        command += ["--model_args", f"pretrained={model},dtype=float32", "--include_path", str(out / "tasks")]
        command += ["--tasks", ",".join(f"local_{task.ours}" for task in missing), "--log_samples"]
        subprocess.run([*command, "--output_path", str(out / "theirs")], check=True)
    command = [sys.executable, "-m", "gpt3", "eval", "--model", model, "--tasks", ",".join(task.ours for task in tasks)]
    command += [
        "--shots",
        "0",
        "--style",
        "lm-eval",
        "--data-dir",
        str(out / "data"),
        "--device",
        "cpu",
        "--dtype",
        "fp32",
    ]
    subprocess.run([*command, "--out", str(out / "ours")], check=True)


def results(task: Task, out: Path) -> tuple[list[Row], list[Row]]:
    """What both commands wrote about each row: gpt3's, lm-eval's."""
    [theirs] = (out / "theirs").rglob(f"samples_local_{task.ours}_*.jsonl")
    ours = out / "ours" / "examples" / f"{task.ours}-0-lm-eval.jsonl"
    found = [
        [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line] for path in (ours, theirs)
    ]
    return found[0][1:], found[1]


@dataclass(frozen=True)
class Agreement:
    """The rows of a task, compared."""

    task: str
    rows: int
    same: int
    """Rows with the same choice, by both rules; LAMBADA: the same verdict."""
    largest: float
    """Difference of two log-probabilities, nats."""
    acc: tuple[float, float]
    """Accuracy of gpt3 and lm-eval."""
    norm: tuple[float, float] | None
    """The same of acc_norm."""
    margins: tuple[float, ...]
    """Where choices differ: the difference between the two options for gpt3."""


def compare(task: Task, ours: list[Row], theirs: list[Row]) -> Agreement:
    """Row by row: the choices by each rule, and the log-probabilities."""
    theirs = sorted(theirs, key=lambda row: int(row["doc_id"]))
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
            first, second = (x.index(max(x)) for x in (one, two))
            if first != second:
                agree = False
                margins.append(abs(one[first] - one[second]))
        same += agree

    def means(name: str) -> tuple[float, float]:
        return statistics.mean(row["metrics"][name] for row in ours), statistics.mean(row[name] for row in theirs)

    norm = means("acc_norm") if "acc_norm" in theirs[0] else None
    return Agreement(task.ours, len(ours), same, largest, means("acc"), norm, tuple(margins))


def table(found: list[Agreement]) -> str:
    """As in docs/evaluation.md."""
    rows = []
    for one in found:
        acc, norm = (" / ".join(f"{100 * value:.2f}" for value in pair or ()) for pair in (one.acc, one.norm))
        ties = f" (margins {', '.join(f'{x:.1e}' for x in one.margins)})" if one.margins else ""
        rows.append([one.task, str(one.rows), f"{one.same}{ties}", f"{one.largest:.1e}", acc, norm])
    headings = [
        "task",
        "rows",
        "same choices",
        "largest difference, nats",
        "acc, gpt3 / lm-eval",
        "acc_norm, gpt3 / lm-eval",
    ]
    return markdown(headings, rows)


def speed(model: str, out: Path, tasks: list[Task], rounds: int, batch: int) -> Iterator[tuple[str, Agreement]]:
    """Seconds for the same rows in one process, tokenization included, loading not; medians of alternating rounds."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from gpt3.evaluation import Source
    from gpt3.evaluation.protocol import Questions, score
    from gpt3.evaluation.styles import in_style
    from gpt3.evaluation.tasks import select
    from gpt3.inference.language_model import load

    loaded = load(model, device="cpu", dtype="fp32")
    harness = HFLM(pretrained=model, dtype="float32", device="cpu", batch_size=batch)
    spent: list[float] = []
    original = harness.loglikelihood

    def timed(*arguments: Any, **more: Any) -> Any:
        start = time.perf_counter()
        values = original(*arguments, disable_tqdm=True)
        spent.append(time.perf_counter() - start)
        return values

    harness.loglikelihood = timed  # type: ignore[method-assign]
    manager = TaskManager(include_path=str(out / "tasks"), include_defaults=False)
    for task in tasks:
        [ours] = in_style(select([task.ours]), "lm-eval")
        asked = Questions(ours, ours.split(Source(str(out / "data"))), 0, seed=0)
        list(score(loaded, ours, asked[:2], batch=batch))  # warm-up

        def measure(task: Task, system: str, ours: Any = ours, asked: Any = asked) -> tuple[float, list[Row]]:
            name = f"local_{task.ours}"
            if system == "lm-eval":
                spent.clear()
                options = {"task_manager": manager, "bootstrap_iters": 0, "log_samples": True}
                samples = simple_evaluate(harness, tasks=[name], **options)["samples"][name]
                return math.fsum(spent), samples
            start = time.perf_counter()
            results = list(score(loaded, ours, asked, batch=batch))
            return time.perf_counter() - start, [dataclasses.asdict(result) for result in results]

        theirs, mine = alternate([task], ["lm-eval", "gpt3"], rounds, measure).values()
        times = [statistics.median(seconds for seconds, _ in rounds) for rounds in (theirs, mine)]
        ratio = statistics.median(a / b for (a, _), (b, _) in zip(theirs, mine, strict=True))
        same = compare(task, mine[-1][1], theirs[-1][1])
        yield f"| {task.ours} | {len(asked)} | {times[0]:.2f} | {times[1]:.2f} | {ratio:.2f} |", same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model folder of transformers")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tasks' .jsonl.gz files")
    parser.add_argument("--rows", type=int, default=300, help="of each task")
    parser.add_argument("--tasks", default=",".join(task.ours for task in TASKS))
    parser.add_argument("--out", type=Path, help="folder for the results of both; default: a temporary one")
    parser.add_argument("--speed", action="store_true", help="run both in this process and time them")
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
            print("| task | rows | lm-eval, s | gpt3, s | ratio |\n|---|---|---|---|---|")
            found = []
            for line, agreement in speed(options.model, out, tasks, options.rounds, options.batch):
                print(line, flush=True)
                found.append(agreement)
        else:
            run_both(options.model, out, tasks)
            found = [compare(task, *results(task, out)) for task in tasks]
        print(table(found))


if __name__ == "__main__":
    main()
