"""How long a run on large data takes to its first step, and what preparation costs meanwhile.

    python benchmarks/first_step.py [--gigabytes 10] [--minutes 1] [--model demo] [--tokenizer gpt2]

Writes JSON lines of that size (the embedded Wikipedia again and again, a number before each copy of a document). Then runs
`gpt3 train` on them with an empty cache, timed from outside; and once more with the blocks there already, which is the speed
without preparation. Prints seconds to the first step and tokens per second of both. The file needs that much disk.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gpt3.corpus.wiki import articles, document
from gpt3.report.run_folder import read_metrics


def write_data(path: Path, size: int) -> None:
    """JSON lines of `size` bytes."""
    texts = [document(article) for article in articles()]
    written = copy = 0
    with open(path, "w", encoding="utf-8") as file:
        while written < size:
            lines = [json.dumps({"text": f"{copy}. {text}"}) + "\n" for text in texts]
            written += file.write("".join(lines))
            copy += 1


def timed_run(command: list[str], run: Path, cache: Path) -> tuple[float, float]:
    """Seconds from the start of the command to its first logged step; median tokens per second of its steps."""
    began = time.perf_counter()
    environment = {**os.environ, "GPT3_CACHE": str(cache)}
    process = subprocess.Popen([*command, "--out", str(run)], env=environment, stderr=subprocess.DEVNULL)
    while not (metrics := run / "metrics.jsonl").exists() or not metrics.read_text(encoding="utf-8").endswith("\n"):
        if process.poll() is not None:
            raise SystemExit("the run failed")
        time.sleep(0.05)
    first = time.perf_counter() - began
    print(f"first step after {first:.1f} s", flush=True)
    if process.wait() != 0:
        raise SystemExit("the run failed")
    return first, statistics.median(
        record["tokens_per_s"] for record in read_metrics(metrics) if "tokens_per_s" in record
    )


def main() -> None:
    """Write the data, run twice, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=10)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--tokenizer", default="gpt2")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder / "big.jsonl", int(options.gigabytes * 1e9))
        command = [sys.executable, "-m", "gpt3", "train", "--data", str(folder / "big.jsonl"), "--model", options.model]
        command += ["--minutes", str(options.minutes), "--tokenizer", options.tokenizer]
        print(f"{options.gigabytes:g} GB of JSON lines, {' '.join(command[2:])}", flush=True)
        for number, what in enumerate(("empty cache, preparing meanwhile", "blocks there already")):
            first, speed = timed_run(command, folder / f"run-{number}", folder / "cache")
            print(f"{what}: first step after {first:.1f} s, {speed:,.0f} tokens/s", flush=True)


if __name__ == "__main__":
    main()
