"""How fast text becomes token shards: `gpt3 prepare` against two well-known ways, each whole, in a process of its own.

    python benchmarks/prepare.py --data novels.jsonl --mb 100 --runs 3 [--datatrove PYTHON]

From the text of --data two files are made: ``short`` (paragraphs gathered to about 600 bytes a document) and ``long``
(documents of about 20 kB). Contenders, all with GPT-2's ids and two processes: ours; the way nanoGPT prepares
OpenWebText (`datasets.map` with tiktoken, then a memory map filled), written anew here; datatrove's tokenizing
pipeline, if --datatrove names a Python that has it (it gets the data cut in two files, as it shares out files). Runs are
interleaved; MB/s is text over wall-clock from the start of the process, imports included, median with least and most;
CPU s, the median of processor seconds of a process and all below it, tells less of what else the machine does. Peak
memory is the sum of their resident sets. (Both looked up 20 times a second, on Linux.) The token counts must agree.
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
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

WORKERS = 2


# ---- the contenders, each run as: python benchmarks/prepare.py run NAME FILE OUT, printing the number of tokens


def run_gpt3(file: str, out: str) -> int:
    from gpt3.corpus.options import PrepareOptions
    from gpt3.corpus.prepare import prepare
    from gpt3.corpus.shards import open_shards

    folder = prepare(PrepareOptions(data=[file], out=out, workers=WORKERS))
    return sum(split.tokens for split in open_shards(folder).manifest.splits.values())


def gpt2_tiktoken():  # type: ignore[no-untyped-def]
    """tiktoken's gpt2 encoding with ranks from our own package data: no download."""
    import tiktoken

    from gpt3.tokenizer.bytelevel import SPLIT_PATTERN, token_bytes
    from gpt3.tokenizer.gpt2 import gpt2_tokenizer

    table = token_bytes(gpt2_tokenizer())
    ranks = {token: i for i, token in enumerate(table[:50256])}
    return tiktoken.Encoding(
        "gpt2", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256}
    )


def run_nanogpt(file: str, out: str) -> int:
    """Documents to Arrow, `map` with tiktoken, ids to Arrow, then all ids into one memory map."""
    import datasets
    import numpy as np

    Path(out).mkdir(parents=True)
    cache = str(Path(out, "cache"))
    data = datasets.load_dataset("json", data_files=file, split="train", cache_dir=cache, num_proc=WORKERS)
    splits = data.train_test_split(test_size=0.0005, seed=1, shuffle=True)
    encoding = gpt2_tiktoken()

    def encode(row: dict[str, str]) -> dict[str, object]:
        ids = [*encoding.encode_ordinary(row["text"]), 50256]
        return {"ids": ids, "len": len(ids)}

    encoded = splits.map(encode, remove_columns=["text"], num_proc=WORKERS)
    total = 0
    for name, split in encoded.items():
        tokens = int(np.sum(split["len"], dtype=np.uint64))
        target = np.memmap(Path(out, f"{name}.bin"), dtype=np.uint16, mode="w+", shape=(tokens,))
        batches = min(1024, len(split))
        position = 0
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


# ---- the files


def documents(data: str) -> Iterator[str]:
    from gpt3.corpus.sources import open_sources

    for source in open_sources(data):
        for part in source.parts():
            yield from part.read()


def write_documents(data: str, path: Path, size: int, document_bytes: int) -> int:
    """Write JSON lines of about `document_bytes` each until there are `size` bytes of text; return the bytes."""
    written = round = 0
    with open(path, "w", encoding="utf-8") as file:
        while written < size:
            for text in documents(data):
                piece: list[str] = []
                length = 0
                for line in text.split("\n"):
                    piece.append(line if not round else f"{line} [{round}]")  # no text twice, when there is too little
                    length += len(line) + 1
                    if length >= document_bytes:
                        whole = "\n".join(piece)
                        written += len(whole.encode("utf-8"))
                        file.write(json.dumps({"text": whole}, ensure_ascii=False) + "\n")
                        piece, length = [], 0
                if written >= size:
                    break
            round += 1
    return written


def cut_in_two(path: Path, folder: Path) -> None:
    folder.mkdir()
    lines = path.read_bytes().splitlines(keepends=True)
    (folder / "0.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    (folder / "1.jsonl").write_bytes(b"".join(lines[len(lines) // 2 :]))


# ---- measuring


def look_at_tree(pid: int, processor: dict[int, float]) -> int:
    """Resident bytes of a process and all below it, their processor seconds noted; 0 where there is no /proc."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        numbers = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):
        return 0
    processor[pid] = (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(look_at_tree(int(child), processor) for child in below)


class Run(NamedTuple):
    seconds: float
    processor_seconds: float
    peak_bytes: int
    tokens: int


def measure(command: list[str], environment: dict[str, str]) -> Run:
    """Run a command that prints a number of tokens last."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    peak = 0
    processor: dict[int, float] = {}
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.05):
            peak = max(peak, look_at_tree(process.pid, processor))

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, errors = process.communicate()
    seconds = time.monotonic() - began
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors[-3000:]}")
    return Run(seconds, sum(processor.values()), peak, int(output.split()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", default="wiki", help="where the text comes from, as in gpt3 prepare")
    parser.add_argument("--mb", type=float, default=100, help="size of each file in MB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=["gpt3", "nanogpt", "datatrove"])
    parser.add_argument("--datatrove", metavar="PYTHON", help="a Python that has datatrove")
    arguments = parser.parse_args()

    work = Path(tempfile.mkdtemp(prefix="prepare-", dir=os.environ.get("TMPDIR")))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    try:
        sizes = {}
        for name, document_bytes in (("short", 600), ("long", 20_000)):
            sizes[name] = write_documents(
                arguments.data, work / f"{name}.jsonl", int(arguments.mb * 1e6), document_bytes
            )
            cut_in_two(work / f"{name}.jsonl", work / f"{name}-in-two")
        contenders: dict[str, Callable[[str, Path], list[str]]] = {
            name: lambda kind, out, name=name: [
                sys.executable,
                __file__,
                "run",
                name,
                str(work / f"{kind}.jsonl"),
                str(out),
            ]
            for name in ("gpt3", "nanogpt")
        }
        if arguments.datatrove:
            from gpt3.tokenizer.gpt2 import gpt2_tokenizer

            gpt2_tokenizer().save_pretrained(work / "tokenizer")
            (work / "run_datatrove.py").write_text(DATATROVE)
            contenders["datatrove"] = lambda kind, out: [
                arguments.datatrove, str(work / "run_datatrove.py"), str(work / f"{kind}-in-two"), str(out),
                str(work / "tokenizer" / "tokenizer.json"), str(WORKERS),
            ]  # fmt: skip
        contenders = {name: command for name, command in contenders.items() if name in arguments.only}
        results: dict[tuple[str, str], list[Run]] = {}
        for _ in range(arguments.runs):
            for kind in sizes:
                for name, command in contenders.items():
                    out = work / "out"
                    results.setdefault((kind, name), []).append(measure(command(kind, out), environment))
                    shutil.rmtree(out)
        columns = f"{'MB/s':>7} {'least':>7} {'most':>7} {'CPU s':>7} {'peak MB':>8} {'tokens':>12}"
        print(f"{'documents':10} {'who':10} {columns}")
        for (kind, name), runs in results.items():
            speeds = sorted(sizes[kind] / 1e6 / run.seconds for run in runs)
            processor = statistics.median(run.processor_seconds for run in runs)
            peak, tokens = max(run.peak_bytes for run in runs), runs[0].tokens
            print(
                f"{kind:10} {name:10} {statistics.median(speeds):7.1f} {speeds[0]:7.1f} {speeds[-1]:7.1f} "
                f"{processor:7.1f} {peak / 1e6:8.0f} {tokens:12,}"
            )
            if tokens != results[kind, next(iter(contenders))][0].tokens:
                raise SystemExit(f"{name} has another number of tokens")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        print({"gpt3": run_gpt3, "nanogpt": run_nanogpt}[sys.argv[2]](*sys.argv[3:]))
    else:
        main()
