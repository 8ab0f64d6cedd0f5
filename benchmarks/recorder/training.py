"""Training: losses, rates, gradient norms of every step, what is validated and sampled, and the weights in the end."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from benchmarks.recorder import corpus, models
from benchmarks.recorder.record import Record
from benchmarks.recorder.workshop import Answer, Workshop, content, cut, files, note

CPU = cut("--device cpu --log-every 1")
TINY = cut("--layers 2 --width 32 --heads 2 --context 32 --batch-tokens 128 --tokenizer own:300 --dtype fp32")
SHORT = cut("--steps 12 --validate-every 4 --checkpoint-every 5")


def observe(record: Record, w: Workshop) -> None:
    """All runs: long ones, variants of a tiny one, several processes, killed ones, fine-tuning."""
    text = str(corpus.documents(w))
    with record.attempt("training/demo-fp32"):
        run_folder(record, "training/demo-fp32", models.demo(w), w)
    small = cut(f"--model 17M --steps 20 --micro-batch 1 --data {text}")
    runs: dict[str, list[str]] = {
        "demo-bf16": cut("--steps 200 --context 64 --batch-tokens 64 --dtype bf16 --validate-every 1000"),
        "17M-fp32": [*small, *cut("--dtype fp32 --context 128 --batch-tokens 256 --window 16")],
        "17M-bf16": [*small, *cut("--dtype bf16 --context 16 --batch-tokens 16 --validate-every 1000")],
    }
    tiny = {
        "plain": [],
        "muon": cut("--optimizer muon --muon-momentum 0.9"),
        "lion": cut("--optimizer lion"),
        "ema": cut("--ema 0.9"),
        "dropout": cut("--dropout 0.1"),
        "masked documents": cut("--mask-documents --window 8"),
        "recomputed and accumulated": cut("--gradient-checkpointing --micro-batch 1"),
        "spikes": cut("--spike-sigmas 0.5 --spike-window 4 --spike-patience 11"),
        "bf16": cut("--dtype bf16"),
        "rates": cut(
            "--lr 1e-2 --warmup-tokens 300 --decay-tokens 900 --min-lr-ratio 0.3 --beta2 0.9 --clip 0 --seed 7"
        ),
        "tokens": cut("--tokens 1.5K"),
        "fold": cut("--fold 2/3"),
        "sets": cut(f"--val held={corpus.heldout(w)} --early-stop 1 --early-stop-on held --lr 0.5"),
        "probe": cut("--probe arithmetic --sample-every 6 --keep-checkpoints 1 --keep-every 5"),
        "sampled": ["--sample-prompt", "The sea", "--sample-prompt", "A rose"],
        "mixture": ["--mixture", str(mixture(w))],
    }
    for name, words in tiny.items():
        length = [] if "--tokens" in words else SHORT
        data = [] if name == "mixture" else ["--data", text]
        runs[f"tiny {name}"] = [*TINY, *length, *data, *words]
    works = [partial(train, record, w, f"training/{name}", [*CPU, *words]) for name, words in runs.items()]
    models.tokenizer(w)
    train(
        record, w, "training/tiny first", [*CPU, *TINY, *SHORT, "--data", text]
    )  # its tokenizer and shards are cached
    w.all(works)
    for kind in ("ddp", "fsdp"):
        words = [*CPU, *TINY, *SHORT, "--data", text, "--nproc", "2", "--parallel", kind, "--micro-batch", "2"]
        train(record, w, f"training/two processes, {kind}", words)
    folds(record, w, [*CPU, *TINY, "--data", text, "--steps", "4", "--folds", "2"])
    stopped: list[Callable[[], None]] = [
        partial(kill, record, w, "killed", signal.SIGKILL, [*CPU, *TINY, "--data", text]),
        partial(kill, record, w, "interrupted", signal.SIGINT, [*CPU, *TINY, "--data", text]),
    ]
    w.all(stopped)
    named_checkpoint(record, w, [*CPU, *TINY, *SHORT, "--data", text])
    tuned(record, w)


def mixture(w: Workshop) -> Path:
    """Two sources with weights."""

    def make(path: Path) -> None:
        sums = w.root / "sums.jsonl"
        lines = (json.dumps({"text": f"{a} plus {b} is {a + b}."}) + "\n" for a in range(20) for b in range(10))
        sums.write_text("".join(lines), encoding="utf-8")
        sources = [("text", corpus.documents(w), 75), ("sums", sums, 25)]
        rows = [{"name": name, "data": str(data), "weight": weight} for name, data, weight in sources]
        path.write_text(yaml.safe_dump(rows), encoding="utf-8")

    return w.once("mixture.yaml", make)


def train(record: Record, w: Workshop, key: str, words: list[str]) -> Path:
    """Record a run of ``gpt3 train`` in a folder of its own."""
    folder = w.root / "trained" / key.replace("/", "-").replace(" ", "-").replace(",", "")
    with record.attempt(key):
        answer = w.gpt3("train", *words, "--out", folder)
        note(record, f"{key}/command", answer)
        run_folder(record, key, folder, w)
    return folder


def run_folder(record: Record, key: str, folder: Path, w: Workshop) -> None:
    """Record what a run folder holds: its numbers column by column, its settings, its checkpoints and models."""
    for name in ("metrics.jsonl", "samples.jsonl"):
        if (folder / name).exists():
            for column, values in columns(folder / name).items():
                record.add(f"{key}/{name}/{column}", values)
    for name in ("asked.json", "data.json"):
        if (folder / name).exists():
            record.add(f"{key}/{name}", json.loads(w.clean((folder / name).read_bytes())))
    if (folder / "config.yaml").exists():
        record.add(f"{key}/config.yaml", yaml.safe_load(w.clean((folder / "config.yaml").read_bytes())))
    record.add(f"{key}/files", sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")))
    kept = sorted((folder / "checkpoints").glob("*")) if (folder / "checkpoints").exists() else []
    if kept:
        record.add(f"{key}/checkpoints", [path.name for path in kept])
        newest = max(kept, key=lambda path: int(path.name.rpartition("-")[2]))
        states = [path for path in sorted(newest.iterdir()) if path.suffix == ".safetensors"]
        record.add(f"{key}/newest checkpoint", {path.name: content(w, path) for path in states})
    for name in ("model", "adapter"):
        if (folder / name).exists():
            files(record, w, f"{key}/{name}", folder / name)


def columns(path: Path) -> dict[str, list[Any]]:
    """A file of JSON lines by its names: each value with the step it belongs to where it is not in every line."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    names = dict.fromkeys(name for row in rows for name in row)
    clock = ("seconds", "tokens_per_s", "mfu", "kwh")
    return {
        name.replace("/", " "): [
            row[name] if name in ("step", "loss", "lr", "grad_norm", "batch_tokens") else [row.get("step"), row[name]]
            for row in rows
            if name in row
        ]
        for name in names
        if name not in clock
    }


def folds(record: Record, w: Workshop, words: list[str]) -> None:
    """Record a cross-validation: the table of the folds."""
    with record.attempt("training/folds"):
        out = w.root / "trained" / "folds"
        answer: Answer = w.gpt3("train", *words, "--out", out)
        note(record, "training/folds", answer, json.loads(w.clean((out / "folds.json").read_bytes())))


def kill(record: Record, w: Workshop, name: str, number: int, words: list[str]) -> None:
    """Record a run that a signal ends on its way and that the same command finishes: it must equal one never stopped."""
    key = f"training/{name}"
    with record.attempt(key):
        folder = w.root / "trained" / name
        words = [*words, "--steps", "400", "--validate-every", "100", "--checkpoint-every", "20", "--out", str(folder)]
        quiet = w.root / f"{name}.log"
        with open(quiet, "wb") as log:
            process = w.start("train", *words, stdout=log, stderr=log)
            while process.poll() is None and len(list((folder / "checkpoints").glob("step-?*0"))) < 2:
                time.sleep(0.02)
            process.send_signal(number)
            code = process.wait(600)
        record.add(f"{key}/first exit", code)
        record.add(f"{key}/was stopped on its way", not (folder / "model").exists())
        note(record, f"{key}/command", w.gpt3("train", *words))
        run_folder(record, key, folder, w)


def named_checkpoint(record: Record, w: Workshop, words: list[str]) -> None:
    """Record a run that resumes from a named checkpoint, with another rate."""
    checkpoint = w.root / "trained" / "training-tiny-first" / "checkpoints" / "step-10"
    train(
        record, w, "training/from a checkpoint", [*words, "--resume", str(checkpoint), "--lr", "1e-4", "--steps", "16"]
    )


def tuned(record: Record, w: Workshop) -> None:
    """Record fine-tuning runs."""
    with record.attempt("training/assistant"):
        run_folder(record, "training/assistant", models.assistant(w), w)
    data = ["--data", corpus.questions(w), "--val", corpus.questions(w)]
    preferences = ["--data", corpus.pairs(w), "--val", corpus.pairs(w), "--method", "dpo"]
    runs: dict[str, list[Any]] = {
        "lora": [*data, "--lora", "--lora-rank", "4", "--no-merge"],
        "dora": [*data, "--dora", "--lora-rank", "4", "--train-on", "all", "--chat-template", "chatml"],
        "packed": [*data, "--packing", "--context", "96", "--rehearse", "0.5"],
        "dpo": [*preferences, "--beta", "0.2"],
    }

    def tune(name: str, words: list[Any]) -> None:
        key = f"training/finetune {name}"
        with record.attempt(key):
            out = w.root / "trained" / f"finetune-{name}"
            note(
                record,
                f"{key}/command",
                w.gpt3("finetune", "--model", models.plain(w), *words, *models.TUNING, "--out", out),
            )
            run_folder(record, key, out, w)

    w.all([partial(tune, name, words) for name, words in runs.items()])
    shown = w.gpt3("finetune", "--model", models.plain(w), "--data", corpus.questions(w), "--show", 2)
    record.add("training/finetune shown", {"exit": shown.code})
    record.words("training/finetune shown", {"out": shown.out, "err": shown.err})
