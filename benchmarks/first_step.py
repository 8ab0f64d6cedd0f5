"""How long a run on large data takes to its first step, and what preparation costs during it.

    python benchmarks/first_step.py [--gigabytes 10] [--minutes 1] [--model demo] [--tokenizer gpt2] [--hub SECONDS]

Writes JSON lines of that size (the embedded Wikipedia again and again, a number before each copy of a document). Then runs
`gpt3 train` on them with an empty cache, timed from outside; and once more with the blocks there already, which is the speed
without preparation. Prints seconds to the first step and tokens per second of both. The file needs that much disk.

With --hub the text lies in Parquet files of 25 MB on a Hugging Face hub on 127.0.0.1 that waits so many seconds before every
answer, one answer at a time; the hub keeps all of it in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # loopback_hub
from gpt3.corpus.wiki import articles, document
from gpt3.report.run_folder import read_metrics
from loopback_hub import LoopbackHub

PARQUET_BYTES = 25e6


def texts(size: float) -> Iterator[str]:
    """Documents of `size` bytes together, all different."""
    known = [document(article) for article in articles()]
    written = 0
    for copy in itertools.count():
        for text in known:
            if written >= size:
                return
            yield f"{copy}. {text}"
            written += len(text.encode()) + 4


def write_data(path: Path, size: float) -> None:
    """JSON lines of `size` bytes of text."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts(size))


def slow_hub(size: float, seconds: float) -> LoopbackHub:
    """A hub whose dataset me/big has Parquet files with `size` bytes of text, and that waits before every answer."""
    files, rest = {}, texts(size)
    for number in range(max(1, round(size / PARQUET_BYTES))):
        rows = list(itertools.islice(rest, round(PARQUET_BYTES / 3300)))  # an article has 3.3 kB
        data = io.BytesIO()
        pq.write_table(pa.table({"text": rows}), data)
        files[f"train-{number:05}.parquet"] = data.getvalue()

    def answer(method: str, path: str, number: int) -> None:
        time.sleep(seconds)

    return LoopbackHub({"me/big": files}, answer)


def timed_run(command: list[str], run: Path, **variables: str) -> tuple[float, float]:
    """Seconds from the start of the command to its first logged step; median tokens per second of its steps."""
    began = time.perf_counter()
    environment = {**os.environ, **variables}
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
    parser.add_argument("--hub", type=float, metavar="SECONDS")
    options = parser.parse_args()
    size = options.gigabytes * 1e9
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        data, variables = (
            str(folder / "big.jsonl"),
            {"GPT3_CACHE": str(folder / "cache"), "HF_HOME": str(folder / "hf")},
        )
        if options.hub is None:
            write_data(Path(data), size)
        else:
            hub = stack.enter_context(slow_hub(size, options.hub))
            data, variables["HF_ENDPOINT"] = "hf:me/big", hub.endpoint
        command = [sys.executable, "-m", "gpt3", "train", "--data", data, "--model", options.model]
        command += ["--minutes", str(options.minutes), "--tokenizer", options.tokenizer]
        where = "of JSON lines" if options.hub is None else f"on a hub that waits {options.hub:g} s before every answer"
        print(f"{options.gigabytes:g} GB {where}, {' '.join(command[2:])}", flush=True)
        for number, what in enumerate(("empty cache, preparing while training", "blocks there already")):
            first, speed = timed_run(command, folder / f"run-{number}", **variables)
            print(f"{what}: first step after {first:.1f} s, {speed:,.0f} tokens/s", flush=True)


if __name__ == "__main__":
    main()
