"""The demo run compared with nanoGPT's CPU recipe: same text, same wall-clock time, bits per byte on the same held-out documents.

    python benchmarks/demo_vs_nanogpt.py --nanogpt PATH [--runs 3] [--seconds 0]

PATH is a checkout of github.com/karpathy/nanoGPT. Each run: `gpt3 train` with an empty cache, preparation included, timed
from outside; then nanoGPT's train.py with the options of its README for a CPU (4 layers, 128 wide, 4 heads, block 64,
batch 12, dropout 0, character level, learning rate 1e-3 to 1e-4, its config train_shakespeare_char.py for the rest) and as
many iterations as fit into the same seconds. nanoGPT gets the text already encoded, evaluates twice, and its start-up does
not count. Both predict an end symbol after each document, which costs bits and counts no bytes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import pickle
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

END = "\x00"
RECIPE = {
    "device": "cpu", "compile": False, "eval_iters": 20, "block_size": 64, "batch_size": 12, "n_layer": 4, "n_head": 4,
    "n_embd": 128, "dropout": 0.0, "always_save_checkpoint": True, "dataset": "demo_text",
}  # fmt: skip
VALIDATION = 0.05


def documents() -> dict[str, list[str]]:
    """The documents of both splits, as the demo run sees them."""
    from gpt3.corpus.prepare import prepare_cached
    from gpt3.corpus.shards import open_shards

    shards = open_shards(prepare_cached(["wiki"], "gpt2", validation_fraction=VALIDATION))
    tokenizer = shards.tokenizer()
    result = {}
    for name in ("train", "validation"):
        split = shards.split(name)
        starts = [0, *split.document_ends()]
        result[name] = [tokenizer.decode(split.read(a, b - 1)) for a, b in itertools.pairwise(starts)]
    return result


def write_characters(folder: Path, texts: dict[str, list[str]]) -> None:
    """nanoGPT's character-level data folder: train.bin, val.bin, meta.pkl."""
    characters = sorted(set().union(*(set(text) for split in texts.values() for text in split)) | {END})
    index = {character: number for number, character in enumerate(characters)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in (("train", "train.bin"), ("validation", "val.bin")):
        joined = "".join(text + END for text in texts[name])
        np.array([index[c] for c in joined], dtype=np.uint16).tofile(folder / file)
    meta = {"vocab_size": len(characters), "stoi": index, "itos": dict(enumerate(characters))}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))  # nanoGPT's own format


def run_python(checkout: Path, code: str) -> str:
    """Run code in the checkout; returns what it prints."""
    return subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True).stdout


def nanogpt(checkout: Path, out: Path, iterations: int, seed_shift: int) -> tuple[float, float]:
    """Train for `iterations`; returns the process's wall-clock seconds and the median milliseconds of an iteration."""
    options = {**RECIPE, "out_dir": out, "max_iters": iterations, "lr_decay_iters": iterations, "log_interval": 50}
    options["eval_interval"] = iterations
    arguments = [
        "train.py",
        "config/train_shakespeare_char.py",
        *(f"--{key}={value}" for key, value in options.items()),
    ]
    source = f"open('train.py').read().replace('manual_seed(1337', 'manual_seed({1337 + seed_shift}')"
    start = time.perf_counter()
    printed = run_python(checkout, f"import sys; sys.argv = {arguments!r}; exec({source})")
    times = [float(found) for found in re.findall(r"time ([0-9.]+)ms", printed)]
    return time.perf_counter() - start, statistics.median(times)


def nanogpt_bits(checkout: Path, out: Path, text_bytes: int) -> float:
    """Bits per byte of the trained model over the whole held-out text, in consecutive blocks."""
    code = f"""
import sys, numpy as np, torch
from model import GPT, GPTConfig
saved = torch.load({str(out / "ckpt.pt")!r}, map_location="cpu")
model = GPT(GPTConfig(**saved["model_args"])); model.load_state_dict(saved["model"]); model.eval()
data = torch.from_numpy(np.fromfile("data/demo_text/val.bin", dtype=np.uint16).astype(np.int64))
n, nats = (len(data) - 1) // 64, 0.0
x, y = data[: n * 64].view(n, 64), data[1 : n * 64 + 1].view(n, 64)
with torch.no_grad():
    for i in range(0, n, 64):
        nats += model(x[i : i + 64], y[i : i + 64])[1].double().item() * y[i : i + 64].numel()
print(nats / (n * 64) * (len(data) - 1))
"""
    return float(run_python(checkout, code).strip().splitlines()[-1]) / math.log(2) / text_bytes


def ours(work: Path, seed: int, extra: list[str]) -> tuple[float, float]:
    """One demo run with an empty cache: wall-clock seconds and bits per byte."""
    out = work / "run"
    command = [sys.executable, "-m", "gpt3", "train", "--out", str(out), "--seed", str(seed)]
    command += ["--validation-fraction", str(VALIDATION), *extra]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"GPT3_CACHE": str(work / "cache")})
    seconds = time.perf_counter() - start
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return seconds, [r["val/bits_per_byte"] for r in records if "val/bits_per_byte" in r][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of nanoGPT")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0, help="run only nanoGPT, for this many seconds")
    parser.add_argument("options", nargs="*", help="further options of gpt3 train, after --")
    arguments = parser.parse_args()
    checkout = arguments.nanogpt.resolve()
    texts = documents()
    text_bytes = sum(len(text.encode("utf-8")) for text in texts["validation"])
    write_characters(checkout / "data" / "demo_text", texts)
    ratios = []
    for number in range(arguments.runs):
        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            seconds, bits = arguments.seconds, math.nan
            if not seconds:
                seconds, bits = ours(work, 1337 + number, arguments.options)
            _, pace = nanogpt(checkout, work / "pace", 500, 0)
            iterations = int(seconds * 1000 / pace)
            spent, pace = nanogpt(checkout, work / "nanogpt", iterations, number)
            theirs = nanogpt_bits(checkout, work / "nanogpt", text_bytes)
            ratios.append(bits / theirs)
            print(
                f"run {number + 1}: gpt3 {bits:.4f} bits per byte in {seconds:.0f} s, all included;"
                f" nanoGPT {theirs:.4f} in {spent:.0f} s with start-up, {iterations:,} iterations of {pace:.1f} ms;"
                f" ratio {ratios[-1]:.3f}",
                flush=True,
            )
    print(f"ratio: median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
