"""How fast text becomes token shards: `gpt3 prepare` compared with two well-known ways, each in processes of its own.

    python benchmarks/prepare.py --data novels.jsonl --mb 100 --runs 3 [--datatrove PYTHON]

Two files are made from the text of --data: ``short`` (paragraphs joined to about 600 bytes per document) and ``long`` (documents
of about 20 kB). All systems use GPT-2's ids and two processes: gpt3; the way nanoGPT prepares OpenWebText (`datasets.map` with
tiktoken, then a memory map), rewritten here; datatrove's tokenizing pipeline, if --datatrove names a Python that has it (it gets
the data in two files, since it distributes files). Runs alternate. MB/s is text over wall-clock time of the whole process,
imports included; CPU s, the median processor seconds of a process and its children, depends less on other load. Peak memory
is that of the largest process. The token counts must be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

from gpt3.bench.harness import alternate, rates
from gpt3.tables import markdown

WORKERS = 2


def run_gpt3(file: str, out: str) -> int:
    from gpt3.corpus.options import PrepareOptions
    from gpt3.corpus.prepare import prepare
    from gpt3.corpus.shards import open_shards

    folder = prepare(PrepareOptions(data=[file], out=out, workers=WORKERS))
    return sum(split.tokens for split in open_shards(folder).manifest.splits.values())


def run_nanogpt(file: str, out: str) -> int:
    """Documents to Arrow, `map` with tiktoken, ids to Arrow, then all ids into one memory map."""
    import datasets
    import numpy as np
    import tiktoken

    from gpt3.inference.streaming import TokenBytes
    from gpt3.tokenizer.gpt2 import SPLIT_PATTERN, gpt2_tokenizer

    table = TokenBytes(gpt2_tokenizer())
    ranks = {table[i]: i for i in range(50256)}  # from this package: no download
    specials = {"<|endoftext|>": 50256}
    encoding = tiktoken.Encoding("gpt2", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=specials)
    Path(out).mkdir(parents=True)
    cache = str(Path(out, "cache"))
    data = datasets.load_dataset("json", data_files=file, split="train", cache_dir=cache, num_proc=WORKERS)
    splits = data.train_test_split(test_size=0.0005, seed=1, shuffle=True)

    def encode(row: dict[str, str]) -> dict[str, object]:
        ids = [*encoding.encode_ordinary(row["text"]), 50256]
        return {"ids": ids, "len": len(ids)}

    total = 0
    for name, split in splits.map(encode, remove_columns=["text"], num_proc=WORKERS).items():
        tokens = int(np.sum(split["len"], dtype=np.uint64))
        target = np.memmap(Path(out, f"{name}.bin"), dtype=np.uint16, mode="w+", shape=(tokens,))
        batches, position = min(1024, len(split)), 0
        for index in range(batches):
            batch = split.shard(num_shards=batches, index=index, contiguous=True).with_format("numpy")
            ids = np.concatenate(batch["ids"])
            target[position : position + len(ids)] = ids
            position += len(ids)
        target.flush()
        total += tokens
    return total


DATATROVE = """
import glob, os, sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
folder, out, tokenizer, workers = sys.argv[1:]
if __name__ == "__main__":
    LocalPipelineExecutor(
        [
            JsonlReader(folder),
            DocumentTokenizer(out + "/tokens", tokenizer_name_or_path=tokenizer, eos_token="<|endoftext|>",
                              shuffle_documents=False, local_working_dir=out + "/local"),
        ],
        tasks=int(workers), workers=int(workers), logging_dir=out + "/logs",
    ).run()
    files = glob.glob(out + "/tokens/**/*.ds", recursive=True)
    print(sum(os.path.getsize(file) for file in files) // 2)
"""


def lines_of(data: str) -> Iterator[str]:
    """The lines of the data, again and again; repeated ones are numbered, so that no text occurs twice."""
    from gpt3.corpus.sources import open_sources

    for repetition in count():
        for source in open_sources(data):
            for text in (text for part in source.parts() for text in part.read()):
                yield from (f"{line} [{repetition}]" if repetition else line for line in text.split("\n"))


def write_documents(data: str, path: Path, size: int, document_bytes: int) -> int:
    """Write JSON lines of about `document_bytes` each, also in two halves, until there are `size` bytes of text.

    Returns:
        The bytes of text.
    """
    written, rows, piece = 0, [], ""
    for line in lines_of(data):
        piece += line + "\n"
        if len(piece) >= document_bytes:
            written += len(piece.encode("utf-8"))
            rows.append(json.dumps({"text": piece}, ensure_ascii=False) + "\n")
            piece = ""
            if written >= size:
                break
    halves = path.with_name(f"{path.stem}-in-two")
    halves.mkdir()
    middle = len(rows) // 2
    for target, part in ((path, rows), (halves / "0.jsonl", rows[:middle]), (halves / "1.jsonl", rows[middle:])):
        target.write_text("".join(part), encoding="utf-8")
    return written


class Run(NamedTuple):
    """What a command cost, and the number of tokens that it printed last."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    tokens: int


def measure(command: list[str]) -> Run:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    began = time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        with process.stdout:
            output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{log.read()[-3000:]}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Run(time.monotonic() - began, usage.ru_utime + usage.ru_stime, peak, int(output.split()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", default="wiki", help="source of the text, as in gpt3 prepare")
    parser.add_argument("--mb", type=float, default=100, help="size of each file in MB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=["gpt3", "nanogpt", "datatrove"])
    parser.add_argument("--datatrove", metavar="PYTHON", help="a Python that has datatrove")
    arguments = parser.parse_args()
    systems = [name for name in arguments.only if name != "datatrove" or arguments.datatrove]
    with tempfile.TemporaryDirectory(prefix="prepare-") as folder:
        work, out = Path(folder), Path(folder, "out")
        kinds = {"short": 600, "long": 20_000}
        sizes = {
            kind: write_documents(arguments.data, work / f"{kind}.jsonl", int(arguments.mb * 1e6), length)
            for kind, length in kinds.items()
        }
        if "datatrove" in systems:
            from gpt3.tokenizer.gpt2 import gpt2_tokenizer

            gpt2_tokenizer().save_pretrained(work / "tokenizer")
            (work / "run_datatrove.py").write_text(DATATROVE)

        def measure_system(kind: str, name: str) -> Run:
            command = [sys.executable, __file__, "run", name, str(work / f"{kind}.jsonl"), str(out)]
            if name == "datatrove":
                places = [
                    work / "run_datatrove.py",
                    work / f"{kind}-in-two",
                    out,
                    work / "tokenizer" / "tokenizer.json",
                ]
                command = [arguments.datatrove, *map(str, places), str(WORKERS)]
            found = measure(command)
            shutil.rmtree(out)
            return found

        found = alternate(
            kinds,
            systems,
            arguments.runs,
            measure_system,
            describe=lambda run: f"{run.tokens:,} tokens in {run.seconds:.1f} s",
        )
    rows = []
    for (kind, name), runs in found.items():
        speed = [value / 1e6 for value in rates(sizes[kind], [[run.seconds] for run in runs]).values()]
        cpu, peak = statistics.median(run.cpu_seconds for run in runs), max(run.peak_bytes for run in runs) / 1e6
        rows.append(
            [kind, name, *(f"{value:.1f}" for value in speed), f"{cpu:.1f}", f"{peak:.0f}", f"{runs[0].tokens:,}"]
        )
        if runs[0].tokens != found[kind, systems[0]][0].tokens:
            raise SystemExit(f"{name} has another number of tokens")
    print(markdown(["documents", "system", "MB/s", "least", "most", "CPU s", "peak MB", "tokens"], rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        print({"gpt3": run_gpt3, "nanogpt": run_nanogpt}[sys.argv[2]](*sys.argv[3:]))
    else:
        main()
