"""Make the folder ``made_by_X_Y`` that test_old_artefacts.py loads, with today's version and its command line alone.

    python tests/compatibility/make.py

Run it once for each released version and commit what it writes. A folder that is committed is never made again: it is the
proof that later versions still read what that version wrote. Takes about two minutes on two cores.
"""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gpt3

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-m", "gpt3"]

TRAIN = [
    *(
        "train",
        "--steps",
        "80",
        "--context",
        "64",
        "--batch-tokens",
        "256",
        "--micro-batch",
        "2",
        "--validate-every",
        "20",
    ),
    *("--layers", "2", "--width", "16", "--heads", "2", "--window", "8", "--lr", "0.03", "--dtype", "fp32"),
    *("--device", "cpu", "--sample-prompt", "The ", "--keep-checkpoints", "1", "--checkpoint-every", "1000"),
]
ON_FOLD = [*TRAIN, "--steps", "10", "--data", "fold", "--out", "on-fold"]
FINETUNE = ["finetune", "--filter", "none", "--batch", "4", "--micro-batch", "2", "--lr", "0.003", "--device", "cpu"]
SFT = [*FINETUNE, "--model", "trained/whole", "--data", "questions.json", "--val", "questions.json"]
RUNS = {
    "averaged": [*TRAIN, "--data", "shards", "--ema", "0.9"],
    "ranks": [*TRAIN, "--data", "shards", "--nproc", "2", "--parallel", "fsdp"],
    "mixture": [*TRAIN, "--mixture", "mixture.yaml"],
    "sft": [*SFT, "--steps", "16", "--evaluate-every", "16"],
    "dpo": [
        *(*FINETUNE, "--model", "tuned/lora", "--data", "pairs.json", "--val", "pairs.json", "--method", "dpo"),
        *("--lora", "--lora-rank", "2", "--no-merge", "--steps", "16", "--evaluate-every", "16"),
    ],
}
"""Runs that are interrupted; the test resumes each with this command. Options that only change the order of sums may differ."""
GREEDY = ["--temperature", "0", "--max-new-tokens", "24", "--device", "cpu", "--dtype", "fp32"]
MODELS = ("trained/whole", "interrupted/averaged", "interrupted/ranks", "tuned/lora/model", "tuned/lora/adapter")
EVAL = [
    *("eval", "--model", "trained/whole", "--tasks", "arithmetic-2d+,wiki-topic", "--shots", "0", "--limit", "4"),
    *("--contamination", "no", "--device", "cpu", "--dtype", "fp32", "--out", "evaluated"),
]
SAMPLES = ["generate", "--model", "trained/whole", "--input", "prompts.txt", "--output", "samples.jsonl", *GREEDY]
SCORE = [
    "score",
    "--model",
    "trained/whole",
    "--json",
    "--tokens",
    "--device",
    "cpu",
    "--dtype",
    "fp32",
    "held-out.txt",
]
FOLD = ["prepare", "--data", "shards", "--tokenizer", "tokenizer", "--fold", "1/3", "--out", "fold", "--workers", "1"]
PREPARE = [
    *(
        "prepare",
        "--tokenizer",
        "tokenizer",
        "--validation-fraction",
        "0.1",
        "--shard-tokens",
        "8000",
        "--workers",
        "1",
    ),
]


def main() -> None:
    """Make the folder under a temporary name, then put it in place."""
    name = "made_by_" + "_".join(gpt3.__version__.split(".")[:2])
    if (HERE / name).exists():
        sys.exit(
            f"{name} exists. It is what version {gpt3.__version__} wrote; delete it by hand if you mean to replace it."
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / name
        folder.mkdir()
        os.environ |= {"GPT3_CACHE": str(Path(temporary) / "cache"), "OMP_NUM_THREADS": "1"}
        os.environ["PYTHONPATH"] = str(Path(gpt3.__file__).parents[1])
        write_inputs(folder)
        recorded = make(folder)
        (folder / "recorded.json").write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
        leave_out(folder)
        shutil.copytree(folder, HERE / name)
    size = sum(path.stat().st_size for path in (HERE / name).rglob("*") if path.is_file())
    print(f"{HERE / name}: {size / 1e6:.2f} MB")


def write_inputs(folder: Path) -> None:
    """Documents, prompts, conversations: the same whenever this runs."""
    draw = random.Random(0)
    things, colours = (
        ["sea", "sky", "sun", "moon", "grass", "snow", "coal", "rose", "sand", "rain"],
        ["blue", "gold", "grey", "green", "white", "red"],
    )

    def sentence() -> str:
        return f"The {draw.choice(things)} is {draw.choice(colours)} and the {draw.choice(things)} is {draw.choice(colours)}."

    def lines(rows: list[dict[str, Any]]) -> str:
        return "".join(json.dumps(row) + "\n" for row in rows)

    documents = [{"text": " ".join(sentence() for _ in range(draw.randint(2, 9)))} for _ in range(120)]
    sums = [{"text": f"{a} plus {b} is {a + b}. " * 3} for a in range(6) for b in range(8)]
    pairs = [(f"Which colour has the {thing}?", f"It is {draw.choice(colours)}.") for thing in things]
    files = {
        "documents.jsonl": lines(documents),
        "sums.jsonl": lines(sums),
        "held-out.txt": " ".join(sentence() for _ in range(2)),
        "prompts.txt": "".join(f"The {thing} is\n" for thing in things[:6]),
        "questions.json": json.dumps([{"instruction": question, "output": answer} for question, answer in pairs]),
        "pairs.json": json.dumps([{"prompt": q, "chosen": answer, "rejected": "Who knows?"} for q, answer in pairs]),
        "mixture.yaml": "- {name: colours, data: shards, weight: 3}\n- {name: sums, data: sums, weight: 1}\n",
    }
    for name, text in files.items():
        (folder / name).write_bytes(text.encode())


def make(folder: Path) -> dict[str, Any]:
    """Everything else, and what the test compares with."""
    gpt3_(folder, "tokenizer", "train", "--data", "documents.jsonl", "--vocab-size", "270", "--out", "tokenizer")
    gpt3_(folder, *PREPARE, "--data", "documents.jsonl", "--out", "shards")
    gpt3_(folder, *PREPARE, "--data", "sums.jsonl", "--out", "sums")
    gpt3_(folder, *FOLD)
    gpt3_(folder, *RUNS["averaged"], "--out", "trained/whole")
    gpt3_(folder, *SFT, "--steps", "12", "--lora", "--lora-rank", "4", "--out", "tuned/lora")
    gpt3_(folder, *ON_FOLD)
    metrics = {}
    for name, command in RUNS.items():
        gpt3_(folder, *command, "--out", f"uninterrupted/{name}")
        metrics[name] = read_metrics(folder / "uninterrupted" / name)
        interrupt(folder, [*command, "--out", f"interrupted/{name}"], folder / "interrupted" / name)
    gpt3_(folder, *EVAL)
    gpt3_(folder, *SAMPLES)
    return {
        "version": gpt3.__version__,
        "prepare": [*PREPARE, "--data", "documents.jsonl", "--out", "again"],
        "fold": FOLD,
        "runs": {name: [*command, "--out", f"interrupted/{name}"] for name, command in RUNS.items()},
        "metrics": metrics,
        "greedy": ["generate", "--json", *GREEDY, "The sea "],
        "texts": {model: text(folder, model) for model in MODELS},
        "resumed_texts": {name: text(folder, f"uninterrupted/{name}") for name in RUNS},
        "eval": EVAL,
        "samples": SAMPLES,
        "score": SCORE,
        "scores": [json.loads(line) for line in gpt3_(folder, *SCORE).splitlines()],
        "on_fold": ON_FOLD,
        "on_fold_metrics": read_metrics(folder / "on-fold"),
    }


def gpt3_(folder: Path, *arguments: str) -> str:
    """Standard output of a command that must succeed, run in `folder`."""
    print("gpt3", *arguments, flush=True)
    done = subprocess.run([*COMMAND, *arguments], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def interrupt(folder: Path, command: list[str], run: Path) -> None:
    """Send SIGTERM to the command when a third of its steps are done."""
    print("gpt3", *command, "(interrupted)", flush=True)
    steps = int(command[command.index("--steps") + 1])
    process = subprocess.Popen([*COMMAND, *command], cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not any(row["step"] >= steps // 3 for row in read_metrics(run)):
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    code = process.wait()
    last = read_metrics(run)[-1]["step"]
    if code != 143 or not steps // 4 < last < steps - 3:
        sys.exit(f"{run.name} ended with {code} after step {last} of {steps}. Run this again.")


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl has of losses and learning rates, its whole lines."""
    path = run / "metrics.jsonl"
    content = path.read_bytes() if path.exists() else b""
    rows = [json.loads(line) for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
    return [{key: value for key, value in row.items() if key in ("step", "lr") or "loss" in key} for row in rows]


def text(folder: Path, model: str) -> str:
    """What a model continues greedily."""
    return str(json.loads(gpt3_(folder, "generate", "--json", *GREEDY, "--model", model, "The sea "))["text"])


def leave_out(folder: Path) -> None:
    """Delete what no later version reads: locks, reports, the runs that only gave numbers, a finished run's checkpoints,
    and of an interrupted one all but the newest.

    Of the machine, environment.json keeps the name of the system only.
    """
    for name in ("uninterrupted", "on-fold", "trained/whole/checkpoints"):
        shutil.rmtree(folder / name)
    for checkpoints in folder.glob("interrupted/*/checkpoints"):
        for path in sorted(checkpoints.glob("step-*"), key=lambda path: int(path.name[5:]))[:-1]:
            shutil.rmtree(path)
    for path in [*folder.rglob(".lock"), *folder.rglob("report.html")]:
        path.unlink()
    for path in folder.rglob("environment.json"):
        found = json.loads(path.read_text(encoding="utf-8")) | {"platform": platform.system()}
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
