"""Scores: texts token by token, every evaluation task, and benchmark text found in training text."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.recorder import corpus, models, rows
from benchmarks.recorder.record import Record, digest
from benchmarks.recorder.workshop import Workshop, files, note

SLICE = 3
"""Rows of each file below GPT3_RECORDER_DATA."""
GENERATED = "generated"
CPU = ["--device", "cpu"]


def observe(record: Record, w: Workshop) -> None:
    """``gpt3 score``, ``gpt3 eval`` and ``gpt3 contamination``."""
    texts(record, w)
    from_python(record, w)
    tasks(record, w)
    contamination(record, w)


def texts(record: Record, w: Workshop) -> None:
    """Record ``gpt3 score`` in its ways."""
    demo, held = models.demo(w), corpus.heldout(w)
    other = w.root / "other.txt"
    other.write_text("The sea was calm.<|endoftext|> naïve 🎉\r\n", encoding="utf-8")
    calls: dict[str, list[Any]] = {
        "tokens": [held, "--json", "--tokens"],
        "windows": [held, "--json", "--context", 40, "--stride", 7],
        "apart": [held, "--json", "--context", 32, "--stride", 32],
        "several": [held, other, "--json"],
        "text": ["--text", "The sea was calm.", "--json", "--tokens"],
        **{kind: [held, "--json", "--dtype", kind] for kind in ("bf16", "fp16")},
        "int8": [held, "--json", "--quantize", "int8"],
        "gpt2": [held, "--json", "--model", models.foreign(w, "gpt2")],
        "gpt-neox": [held, "--json", "--model", models.foreign(w, "gpt-neox")],
        "slow": [held, "--json", "--model", models.slow(w), "--dtype", "bf16"],
    }
    works = [
        partial(w.gpt3, "score", *words, *([] if "--model" in words else ["--model", demo]), *CPU)
        for words in calls.values()
    ]
    for name, answer in zip(calls, w.all(works), strict=True):
        with record.attempt(f"scores/text/{name}"):
            note(record, f"scores/text/{name}", answer, answer.data())
    piped = w.gpt3("score", "-", "--json", "--model", demo, *CPU, given="The sea was calm.\n")
    record.add("scores/text/piped", {"exit": piped.code, "data": piped.data()})
    shown = w.gpt3("score", other, "--color", "always", "--html", "score.html", "--model", demo, *CPU)
    record.add("scores/text/shown", {"exit": shown.code, "page": (w.root / "score.html").exists()})
    record.words("scores/text/shown", {"out": shown.out, "err": shown.err})


def from_python(record: Record, w: Workshop) -> None:
    """Record ``gpt3.load(...).score(...)`` of models and formats, each token with its rank and the likeliest."""
    import gpt3

    text = corpus.sentences(20, 8) + corpus.FOREIGN_SIGNS
    places = {"demo": models.demo(w), "unusual": models.unusual(w), "adapter": models.adapter(w)}
    places |= {name: models.foreign(w, name) for name in ("gpt-neo", "opt", "cerebras")}
    for name, place in places.items():
        for options in ({"dtype": "fp32"}, {"dtype": "fp16"}, {"quantize": "int8"}):
            key = f"scores/python/{name} {next(iter(options.values()))}"
            with record.attempt(key), contextlib.redirect_stderr(io.StringIO()):
                model = gpt3.load(place, device="cpu", **options)
                score = model.score(text, top=2, context=48, stride=20)
                each = [[t.text, t.id, t.logprob, t.rank, t.entropy, [o.id for o in t.top]] for t in score.tokens or ()]
                record.add(key, {"loss": score.loss, "bits per byte": score.bits_per_byte, "tokens": each})


def tasks(record: Record, w: Workshop) -> None:
    """Record every task: what each question came to, and the figures."""
    folder, model = rows.task_files(w), models.wide(w)
    named, every = ",".join(rows.tasks()), ["--limit", 3, *CPU, "--json"]
    alike = "hellaswag,piqa,arc_easy,arc_challenge,winogrande,lambada"
    runs: dict[str, list[Any]] = {
        "generated": ["--tasks", GENERATED, "--shots", "0,2,K", "--model", model],
        "released": ["--tasks", GENERATED, "--shots", "1", "--format", "released", "--seed", 5, "--model", model],
        "demo": ["--tasks", "arithmetic-2d+,wiki-topic,reversed-words", "--shots", "0,1", "--model", models.demo(w)],
        "int8": ["--tasks", "wiki-topic,cycle-letters", "--shots", "1", "--quantize", "int8", "--model", model],
        "rows": ["--tasks", named, "--shots", "0,1,K", "--data-dir", folder, "--model", model],
        "rows, batch 3": [
            "--tasks",
            named,
            "--shots",
            "1",
            "--data-dir",
            folder,
            "--batch",
            3,
            "--seed",
            2,
            "--model",
            model,
        ],
        "as lm-eval": [
            "--tasks",
            alike,
            "--shots",
            "0,2",
            "--style",
            "lm-eval",
            "--data-dir",
            folder,
            "--model",
            model,
        ],
        "foreign": [
            "--tasks",
            "piqa,boolq,lambada",
            "--shots",
            "0",
            "--data-dir",
            folder,
            "--model",
            models.foreign(w, "gpt2"),
        ],
        "two models": ["--tasks", "wiki-topic", "--shots", "0", "--model", model, "--model", models.demo(w)],
    }
    if "GPT3_RECORDER_DATA" in os.environ:
        sliced, names = slices(w, Path(os.environ["GPT3_RECORDER_DATA"]))
        runs["files"] = ["--tasks", ",".join(names), "--shots", "0,1", "--data-dir", sliced, "--model", model]
        runs["files"] += ["--contamination", corpus.documents(w)]
    works = []
    for name, words in runs.items():
        out = w.root / "eval" / name.replace(" ", "-").replace(",", "")
        found = [] if "--contamination" in words else ["--contamination", "no"]
        works.append(partial(w.gpt3, "eval", *words, *every, *found, "--out", out))
    for name, answer in zip(runs, w.all(works), strict=True):
        key = f"scores/tasks/{name}"
        with record.attempt(key):
            note(record, key, answer, answer.data() if answer.out else None)
            out = w.root / "eval" / name.replace(" ", "-").replace(",", "")
            for path in sorted(out.rglob("*.jsonl")):
                lines = w.clean(path.read_bytes()).splitlines()
                record.add(f"{key}/{path.relative_to(out).as_posix()}", [json.loads(line) for line in lines])


def slices(w: Workshop, source: Path) -> tuple[Path, list[str]]:
    """The first rows of each task file in `source`, and the names of the tasks."""
    folder = w.root / "slices"
    folder.mkdir(exist_ok=True)
    names = []
    known = {
        "hellaswag_val": "hellaswag",
        "lambada_openai": "lambada",
        "triviaqa_subset": "triviaqa",
        "mmlu": "mmlu_anatomy",
    }
    for path in sorted(source.glob("*.jsonl.gz")):
        name = path.name.removesuffix(".jsonl.gz")
        if known.get(name, name) not in rows.tasks():
            continue
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = [line for line in file if name != "mmlu" or json.loads(line)["subject"] == "anatomy"]
        (folder / f"{name}.jsonl").write_text("".join(lines[: SLICE * 4] + lines[-SLICE:]), encoding="utf-8")
        names.append(known.get(name, name))
    return folder, names


def contamination(record: Record, w: Workshop) -> None:
    """Record which examples appear in a training text, and shards without them."""
    leaks = w.root / "leaks.jsonl"
    examples = [corpus.sentences(2 + n, n) for n in range(4)] + [corpus.sentences(4, 5000)]
    lines = [json.dumps({"text": text, "id": f"e{n}"}) + "\n" for n, text in enumerate(examples)]
    leaks.write_text("".join(lines), encoding="utf-8")
    scores = w.root / "example-scores.jsonl"
    given = [json.dumps({"task": "leaks", "id": f"e{n}", "score": n % 2}) + "\n" for n in range(5)]
    scores.write_text("".join(given), encoding="utf-8")
    common = ["--tasks", leaks, "--json", "--workers", 1]
    calls: dict[str, list[Any]] = {
        "text": [*common, "--data", corpus.documents(w), "--out", "contamination", "--scores", scores],
        "run": [*common, "--model", models.demo(w)],
        "rows": ["--data-dir", rows.task_files(w), "--data", corpus.documents(w), "--json", "--workers", 1],
    }
    if (w.root / "slices").exists():
        calls["files"] = ["--data-dir", w.root / "slices", "--data", "wiki", "--json", "--workers", 1]
    for name, answer in zip(calls, w.all([partial(w.gpt3, "contamination", *c) for c in calls.values()]), strict=True):
        with record.attempt(f"scores/contamination/{name}"):
            note(record, f"scores/contamination/{name}", answer, answer.data() if answer.out else None)
    with record.attempt("scores/contamination/folder"):
        for path in sorted((w.root / "contamination").iterdir()):
            record.add(f"scores/contamination/folder/{path.name}", digest(w.clean(path.read_bytes())))
    out = w.root / "decontaminated"
    words = ["--data", corpus.documents(w), "--decontaminate", leaks, "--out", out, "--tokenizer", models.tokenizer(w)]
    note(record, "scores/contamination/removed", w.gpt3("prepare", *words, "--workers", 1))
    with record.attempt("scores/contamination/shards"):
        files(record, w, "scores/contamination/shards", out)
