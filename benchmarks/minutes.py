"""What a few minutes buy: bits per byte of held-out text after the same wall-clock time, by this package and by its peers.

    python benchmarks/minutes.py --novels novels.jsonl --out runs/minutes [--minutes 1 5] [--seeds 1 2 3] [--threads 2]
        [--python PEERS/bin/python] [--nanogpt PATH] [--nanochat PATH] [--trainer] [--litgpt]

The training text is the embedded Wikipedia and the novels (JSONL with the key text), less two held-out sets: every 40th
article, and the last 150,000 characters of every 25th novel, whose other text is left out. Each system gets the wall-clock
seconds that `gpt3 train --data train.jsonl --minutes M` takes with an empty cache, preparation included. The peers' own
preparation is free: tokenizers and encoded text are made before. Two short runs measure a peer's start and the time of an
iteration; the number of iterations follows, and what they really took is printed. All predict the end of a document, which
counts no byte.

- nanoGPT: its README's recipe for a CPU (characters, 4 layers of 128, block 64, batch 12, 1e-3 to 1e-4).
- nanochat: its runs/runcpu.sh (6 layers of 384, 512 tokens, 16,384 a step, a BPE of 32,768 entries), not compiled.
- Trainer: transformers' with GPT-2's tokenizer and a GPT2LMHeadModel of the demo's shape, 16 × 128 tokens a step, 5e-4 and
  linear to 0, else its defaults.
- litGPT: its pretrain of pythia-14m, its smallest model (6 layers of 128, GPT-2's tokens, 16 × 512 a step, AdamW's defaults,
  warm-up over a twentieth, cosine to 4e-5). Compiled if the time is 3 minutes or more.

results.jsonl in --out has a line for each run; the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from minutes_peers import LITGPT, NANOCHAT_SCORE, NANOGPT_SCORE, TRAINER, gpt2_data, nanochat_data, nanogpt_data

from gpt3.corpus.wiki import articles, document
from gpt3.durable import write_text
from gpt3.report.run_folder import read_metrics
from gpt3.tables import markdown

SETS = ("wiki", "novels")
TAIL = 150_000
"""Characters of a held-out novel."""
COMPILED = 3
"""Minutes from which litGPT compiles its model."""
PACE_STEPS = {"nanogpt": 300, "nanochat": 4, "trainer": 10, "litgpt": 4}
"""Iterations of the run that measures an iteration's time."""


class Bench(NamedTuple):
    """What all runs share."""

    out: Path
    arguments: argparse.Namespace
    environment: dict[str, str]


def write_texts(novels: Path, folder: Path) -> None:
    """train.jsonl and the held-out wiki.jsonl and novels.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    texts: dict[str, list[str]] = {"train": [], "wiki": [], "novels": []}
    for number, article in enumerate(articles()):
        texts["wiki" if number % 40 == 0 else "train"].append(document(article))
    for number, line in enumerate(novels.read_text(encoding="utf-8").splitlines()):
        text = json.loads(line)["text"]
        texts["novels" if number % 25 == 0 else "train"].append(text if number % 25 else text[-TAIL:])
    for name, found in texts.items():
        write_text(folder / f"{name}.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in found))


def held_out(out: Path, name: str) -> list[str]:
    """The documents of a set."""
    return [
        json.loads(line)["text"] for line in (out / "texts" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def run(bench: Bench, command: list[str], cwd: Path | None = None) -> tuple[float, str]:
    """Run to its end; wall-clock seconds and what it printed. Its output stays where it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, env=bench.environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)[:300]}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return time.perf_counter() - start, done.stdout


def ours(bench: Bench, work: Path, minutes: float, seed: int) -> tuple[float, dict[str, float]]:
    """`gpt3 train` with an empty cache: seconds, bits per byte by set."""
    texts = bench.out / "texts"
    command = [sys.executable, "-m", "gpt3", "train", "--data", str(texts / "train.jsonl"), "--minutes", f"{minutes:g}"]
    command += ["--seed", str(seed), "--threads", str(bench.arguments.threads), "--out", str(work / "run")]
    command += ["--val", *(f"{name}={texts / name}.jsonl" for name in SETS)]
    bench.environment["GPT3_CACHE"] = str(work / "cache")
    seconds, _ = run(bench, command)
    last = [record for record in read_metrics(work / "run" / "metrics.jsonl") if "val/wiki/loss" in record][-1]
    return seconds, {name: last[f"val/{name}/bits_per_byte"] for name in SETS}


def nanogpt(bench: Bench, work: Path, steps: int, seed: int, score: bool) -> tuple[float, dict[str, float]]:
    """nanoGPT's train.py for `steps` iterations."""
    checkout = bench.arguments.nanogpt.resolve()
    nanogpt_data(checkout, held_out(bench.out, "train"), {name: held_out(bench.out, name) for name in SETS})
    options = {
        "device": "cpu", "compile": False, "eval_iters": 1, "block_size": 64, "batch_size": 12, "n_layer": 4, "n_head": 4,
        "n_embd": 128, "dropout": 0.0, "always_save_checkpoint": True, "dataset": "minutes", "out_dir": work,
        "max_iters": steps, "lr_decay_iters": steps, "eval_interval": steps, "log_interval": 50,
    }  # fmt: skip
    words = ["train.py", "config/train_shakespeare_char.py", *(f"--{key}={value}" for key, value in options.items())]
    code = f"open('train.py').read().replace('manual_seed(1337', 'manual_seed({seed}')"
    python = bench.arguments.python
    seconds, _ = run(bench, [python, "-c", f"import sys; sys.argv = {words!r}; exec({code})"], checkout)
    return seconds, scores(bench, [python, "-c", NANOGPT_SCORE, str(work)], checkout) if score else {}


def nanochat(bench: Bench, work: Path, steps: int, seed: int, score: bool) -> tuple[float, dict[str, float]]:
    """nanochat's base_train for `steps` iterations, as runs/runcpu.sh calls it, without its evaluations on the way."""
    checkout, base = bench.arguments.nanochat.resolve(), (bench.out / "nanochat").absolute()
    bench.environment.update({"NANOCHAT_BASE_DIR": str(base), "WANDB_MODE": "disabled"})
    python = bench.arguments.python
    if not (base / "tokenizer").exists():
        nanochat_data(base, held_out(bench.out, "train"), held_out(bench.out, "wiki"))
        run(bench, [python, "-m", "scripts.tok_train", "--max-chars=2000000000"], checkout)
    options = {
        "depth": 6, "head-dim": 64, "window-pattern": "L", "max-seq-len": 512, "device-batch-size": 32,
        "total-batch-size": 16384, "eval-every": -1, "core-metric-every": -1, "sample-every": -1, "num-iterations": steps,
        "device-type": "cpu", "model-tag": work.name,
    }  # fmt: skip
    words = ["scripts/base_train.py", *(f"--{key}={value}" for key, value in options.items())]
    code = (
        f"import sys, torch; sys.argv = {words!r}; sys.path.insert(0, '.'); torch.set_num_threads({bench.arguments.threads}); "
        f"seed = torch.manual_seed; torch.manual_seed = lambda _: seed({seed}); exec(open('scripts/base_train.py').read())"
    )
    seconds, _ = run(bench, [python, "-c", code], checkout)
    return seconds, scores(bench, [python, "-c", NANOCHAT_SCORE, work.name], checkout) if score else {}


def trainer(bench: Bench, work: Path, steps: int, seed: int, score: bool) -> tuple[float, dict[str, float]]:
    """transformers' Trainer for `steps` steps."""
    return with_gpt2(bench, [sys.executable, "-c", TRAINER], work, steps, seed, score)


def litgpt(bench: Bench, work: Path, steps: int, seed: int, score: bool) -> tuple[float, dict[str, float]]:
    """litGPT's pretrain for `steps` steps."""
    return with_gpt2(bench, [bench.arguments.python, "-c", LITGPT], work, steps, seed, score)


def with_gpt2(
    bench: Bench, command: list[str], work: Path, steps: int, seed: int, score: bool
) -> tuple[float, dict[str, float]]:
    """A program that reads GPT-2's tokens, and prints its seconds of training and its nats."""
    texts = bench.out / "texts"
    gpt2_data(texts, {name: held_out(bench.out, name) for name in ("train", *SETS)})
    _, printed = run(bench, [*command, str(texts), str(work), str(steps), str(seed), *(["score"] if score else [])])
    found = json.loads(printed.strip().splitlines()[-1])
    return found.pop("seconds"), bits(bench, found) if score else {}


def scores(bench: Bench, command: list[str], cwd: Path) -> dict[str, float]:
    """Bits per byte from the nats of each set that a command prints as JSON; the texts are its last argument."""
    _, printed = run(bench, [*command, str((bench.out / "texts").absolute())], cwd)
    return bits(bench, json.loads(printed.strip().splitlines()[-1]))


def bits(bench: Bench, nats: dict[str, float]) -> dict[str, float]:
    """Nats of a whole set as bits per byte."""
    sizes = {name: sum(len(text.encode("utf-8")) for text in held_out(bench.out, name)) for name in SETS}
    return {name: nats[name] / math.log(2) / sizes[name] for name in SETS}


PEERS: dict[str, Callable[..., tuple[float, dict[str, float]]]] = {
    "nanogpt": nanogpt, "nanochat": nanochat, "trainer": trainer, "litgpt": litgpt,
}  # fmt: skip


def measure(bench: Bench, minutes: float, seed: int, done: list[dict[str, Any]]) -> None:
    """All systems at one length with one seed, this package first."""
    chosen = [name for name in PEERS if getattr(bench.arguments, name)]
    budget = 0.0
    for name in ["gpt3", *chosen]:
        key = {"system": name, "minutes": minutes, "seed": seed}
        known = next((row for row in done if {k: row[k] for k in key} == key), None)
        if known is None:
            work = (bench.out / f"{name}-{minutes:g}-{seed}").absolute()
            steps = 0
            if name == "gpt3":
                bench.environment.pop("TORCHDYNAMO_DISABLE", None)
                seconds, found = ours(bench, work, minutes, seed)
            else:
                bench.environment["TORCHDYNAMO_DISABLE"] = "0" if name == "litgpt" and minutes >= COMPILED else "1"
                start, each = pace(bench, name, bench.environment["TORCHDYNAMO_DISABLE"])
                steps = max(1, round((budget - start) / each))
                seconds, found = PEERS[name](bench, work, steps, seed, True)
            known = {**key, "seconds": round(seconds, 1), "steps": steps, "bits_per_byte": found}
            done.append(known)
            with (bench.out / "results.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(known) + "\n")
        budget = known["seconds"] if name == "gpt3" else budget
        print(json.dumps(known), flush=True)


def pace(bench: Bench, name: str, eager: str) -> tuple[float, float]:
    """Seconds of a peer's start and of an iteration, from two short runs, one three times as long as the other. Measured once.

    Args:
        eager: "1" without torch.compile, "0" with it.
    """
    file = bench.out / "pace.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if (key := f"{name} {eager}") not in known:
        steps = PACE_STEPS[name]
        short, long = (
            PEERS[name](bench, (bench.out / f"pace-{name}-{n}").absolute(), n, 1, False)[0] for n in (steps, 3 * steps)
        )
        each = max(1e-4, (long - short) / (2 * steps))
        known[key] = [max(0.0, short - each * steps), each]
        write_text(file, json.dumps(known))
    return known[key][0], known[key][1]


def table(done: list[dict[str, Any]]) -> str:
    """Medians over the seeds and their range, and each system's ratio to this package."""
    rows = []
    for minutes in sorted({row["minutes"] for row in done}):
        best = {}
        for system in dict.fromkeys(row["system"] for row in done):
            found = [row for row in done if (row["minutes"], row["system"]) == (minutes, system)]
            cells = [f"{minutes:g}", system, f"{statistics.median(row['seconds'] for row in found):.0f}"]
            for name in SETS if found else ():
                values = [row["bits_per_byte"][name] for row in found]
                middle = statistics.median(values)
                best.setdefault(name, middle)
                spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
                cells.append(f"{middle:.3f}{spread}, ours {best[name] / middle:.2f} of it")
            rows += [cells] if found else []
    return markdown(["minutes", "system", "seconds", *(f"{name}, bits per byte" for name in SETS)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--novels", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/minutes"))
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--python", default=sys.executable, help="of the peers")
    parser.add_argument("--nanogpt", type=Path, help="a checkout")
    parser.add_argument("--nanochat", type=Path, help="a checkout")
    parser.add_argument("--trainer", action="store_true")
    parser.add_argument("--litgpt", action="store_true")
    arguments = parser.parse_args()
    bench = Bench(arguments.out, arguments, {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)})
    if not (arguments.out / "texts" / "novels.jsonl").exists():
        write_texts(arguments.novels, arguments.out / "texts")
    results = arguments.out / "results.jsonl"
    done = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []
    for minutes in arguments.minutes:
        for seed in arguments.seeds:
            measure(bench, minutes, seed, done)
    print(table(done))


if __name__ == "__main__":
    main()
