"""Training on new text from a model's weights against training on it from scratch, at equal tokens, and what is forgotten.

    python benchmarks/init_from.py --new novels.jsonl.xz --out runs/init-from [--seeds 3] [--minutes 3.7] [--peaks 0.25,1]

For each seed: the demo on Wikipedia (the base, for --minutes); then, each for the base's number of steps, on the new text:
from scratch with a tokenizer of its own, from scratch with the base's tokenizer, from the base's weights (``--init-from``), and
from them with 5% of Wikipedia (``--replay wiki=5%``). --peaks adds runs from the base's weights whose peak rate is another
share of a fresh start's than the default one. Held out are 5% of the documents of each text, the same in
every run. The table has bits per byte, means and standard deviations over the seeds; results.json has each run's. Run the
same command to resume after an interruption.

--new and --old (the base's text) are what `gpt3 train --data` takes. --steps N in place of --minutes, and --toy, a model of one
layer, are for trying it out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gpt3.corpus.prepare import prepare_cached
from gpt3.durable import write_text
from gpt3.model_folder.convert import read_checkpoint
from gpt3.report.run_folder import read_metrics
from gpt3.tables import markdown
from gpt3.training.continuing import PEAK_SHARE, peak_rate
from gpt3.training.recipes import RECIPES

HELD_OUT = "0.05"
TOY = ["--layers", "1", "--width", "32", "--heads", "2", "--context", "32", "--tokenizer", "own:300"]


class Case(NamedTuple):
    """One run per seed."""

    name: str
    options: list[str]
    """Of `gpt3 train`, besides data, steps and seed."""
    replays: bool = False
    """Whether the new text is one of two sources, and so has scores of its own name."""
    old_tokens: bool = True
    """Whether its tokenizer is the base's, so that the base's held-out shards can be scored."""


def train(folder: Path, *options: str) -> Path:
    """`gpt3 train` in a process of its own, unless it is finished."""
    if not (folder / "model").exists():
        words = ["train", "--out", str(folder), "--validation-fraction", HELD_OUT, *options]
        subprocess.run([sys.executable, "-m", "gpt3", *words], check=True, stdout=sys.stderr)
    return folder


def cases(base: Path, old: str, peaks: Sequence[float], parameters: int, shape: list[str]) -> list[Case]:
    """The runs on the new text; `shape` is what the base was given, `parameters` its size, `old` its text."""
    bare = [word for pair in zip(shape[::2], shape[1::2], strict=True) if pair[0] != "--tokenizer" for word in pair]
    start = ["--init-from", str(base), "--recipe", "short"]  # as the base was trained
    rate = RECIPES["short"].rate * peak_rate(parameters) / PEAK_SHARE
    return [
        Case("from scratch, own tokenizer", shape, old_tokens=False),
        Case("from scratch, the base's tokenizer", [*bare, "--tokenizer", str(base / "model")]),
        Case("from the base", start),
        Case("from the base, 5% replay", [*start, "--replay", f"{old}=5%"], replays=True),
        *(Case(f"from the base, peak {p:g} of a fresh start's", [*start, "--lr", f"{p * rate:.4g}"]) for p in peaks),
    ]


def score(run: Path, name: str) -> float | None:
    """Bits per byte of a run's last validation of a set; the empty name is its own held-out documents."""
    records = [record for record in read_metrics(run / "metrics.jsonl") if "val/loss" in record]
    value = records[-1].get(f"val/{name}/bits_per_byte" if name else "val/bits_per_byte")
    return None if value is None else float(value)


def measure(seed: int, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """All runs of a seed; bits per byte of the new and the old text by case."""
    folder, shape = arguments.out / f"seed-{seed}", TOY if arguments.toy else []
    length = ["--steps", str(arguments.steps)] if arguments.steps else ["--minutes", f"{arguments.minutes:g}"]
    base = train(folder / "base", "--data", arguments.old, "--seed", str(seed), *length, *shape)
    settled = yaml.safe_load((base / "config.yaml").read_text(encoding="utf-8"))
    old = prepare_cached([arguments.old], base / "model", validation_fraction=float(HELD_OUT))
    parameters = read_checkpoint(base / "model", allow_ours=True).empty_model().num_parameters()
    common = ["--data", arguments.new, "--seed", str(seed), "--steps", str(settled["steps"])]
    common += ["--batch-tokens", str(settled["batch_tokens"])]
    rows: dict[str, dict[str, Any]] = {"base": {"new": None, "old": score(base, "")}}
    for case in cases(base, arguments.old, arguments.peaks, parameters, shape):
        val = ["--val", f"base-text={old}"] if case.old_tokens else []
        run = train(
            folder / case.name.replace(" ", "-").replace(",", "").replace("'", ""), *common, *case.options, *val
        )
        rows[case.name] = {"new": score(run, "data" if case.replays else ""), "old": score(run, "base-text")}
    return rows


def mean_and_sd(values: Sequence[float | None]) -> str:
    """Mean and standard deviation (n - 1) of those that are known."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    return f"{statistics.fmean(known):.3f}" + (f" ± {statistics.stdev(known):.3f}" if len(known) > 1 else "")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--new", required=True)
    parser.add_argument("--old", default="wiki")
    parser.add_argument("--out", type=Path, default=Path("runs/init-from"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=3.7)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--peaks", type=lambda text: [float(part) for part in text.split(",") if part], default=[])
    parser.add_argument("--toy", action="store_true")
    arguments = parser.parse_args(words)
    found = [measure(seed, arguments) for seed in range(1, arguments.seeds + 1)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_text(arguments.out / "results.json", json.dumps({"seeds": found, "peak_share": PEAK_SHARE}, indent=1) + "\n")
    lines = [
        [name, *(mean_and_sd([rows[name][side] for rows in found]) for side in ("new", "old"))] for name in found[0]
    ]
    print(markdown(["run", "new text, bits per byte", "old text, bits per byte"], lines))


if __name__ == "__main__":
    main()
