"""How fast the libraries that run a byte-level BPE turn text into arrays of ids, and whether the ids are the same.

    python benchmarks/tokenizer_speed.py --data novels.jsonl [--tokenizer gpt2] [--mb 50] [--rounds 5]

--data takes what `gpt3 prepare` takes. The text is encoded twice: cut to documents of about 600 bytes (``short``) and in
documents of at least 100 kB (``long``). Every library that is installed takes part: tokenizers, tiktoken, fastokens
(which our Encoder uses), gigatoken, tokie, splintr (`pip install gigatoken awkward tokie splintr-rs`). Rounds are
interleaved. MB/s is UTF-8 text over wall-clock, output as one numpy array of ids and one of lengths included: the first
pass (empty caches), then median, least and most of the others. MB per CPU second counts all threads and is the figure to
read on a busy machine. Ids are compared with those of `tokenizers`, on the data and on tricky texts.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from gpt3.corpus.sources import open_sources
from gpt3.tokenizer.bytelevel import END_OF_TEXT, SPLIT_PATTERN, token_bytes
from gpt3.tokenizer.encoder import PROBES, Encoder
from gpt3.tokenizer.loading import load_tokenizer

Flat = tuple[np.ndarray, np.ndarray]
Encode = Callable[[list[str]], Flat]


def from_lists(ids: list[list[int]]) -> Flat:
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    return np.fromiter(chain.from_iterable(ids), np.uint32, int(lengths.sum())), lengths


def from_buffers(ids: bytes, offsets: bytes) -> Flat:
    return np.frombuffer(ids, "<u4"), np.diff(np.frombuffer(offsets, "<u8").astype(np.int64))


def contenders(name: str) -> Iterator[tuple[str, str, Callable[[], Encode]]]:
    """Library, module to import, and how to set it up so that text spelling end-of-text stays text."""
    tokenizer = load_tokenizer(name)
    description = tokenizer.backend_tokenizer.to_str()
    plain = json.dumps({**json.loads(description), "added_tokens": []})  # for libraries without such a switch

    def tokenizers() -> Encode:
        backend = importlib.import_module("tokenizers").Tokenizer.from_str(description)
        backend.encode_special_tokens = True
        return lambda texts: from_lists(
            [each.ids for each in backend.encode_batch_fast(texts, add_special_tokens=False)]
        )

    def tiktoken() -> Encode:
        ranks = {token: i for i, token in enumerate(token_bytes(tokenizer)) if i != tokenizer.eos_token_id}
        specials = {END_OF_TEXT: tokenizer.eos_token_id}
        module = importlib.import_module("tiktoken")
        engine = module.Encoding(name, pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=specials)
        return lambda texts: from_lists(engine.encode_ordinary_batch(texts))

    def fastokens() -> Encode:
        engine = importlib.import_module("fastokens").Tokenizer.from_json_str(description)
        return lambda texts: from_buffers(*engine.encode_batch_flat(texts, split_special_tokens=True))

    def gigatoken() -> Encode:
        engine = importlib.import_module("gigatoken").Tokenizer.from_json(plain)
        awkward = importlib.import_module("awkward")

        def encode(texts: list[str]) -> Flat:
            rows = engine.encode_batch(texts)
            return awkward.to_numpy(awkward.flatten(rows)), awkward.to_numpy(awkward.num(rows))

        return encode

    def tokie() -> Encode:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tokenizer.json"
            path.write_text(plain, encoding="utf-8")
            engine = importlib.import_module("tokie").Tokenizer.from_json(str(path))
        return lambda texts: from_lists([each.ids for each in engine.encode_batch(texts, add_special_tokens=False)])

    def splintr() -> Encode:
        engine = importlib.import_module("splintr").from_json_bytes(plain.encode())
        return lambda texts: from_buffers(*engine.encode_batch_flat(texts))

    yield "tokenizers", "tokenizers", tokenizers
    yield "tiktoken", "tiktoken", tiktoken
    yield "fastokens", "fastokens", fastokens
    yield "gigatoken", "gigatoken", gigatoken
    yield "tokie", "tokie", tokie
    yield "splintr", "splintr", splintr
    encoder = Encoder(tokenizer)
    yield f"our Encoder ({encoder.library})", "gpt3", lambda: encoder.encode_batch


def corpora(data: list[str], limit: int) -> dict[str, list[str]]:
    """About `limit` bytes of the data in the two sizes of document."""
    text, size = [], 0
    for document in (document for source in open_sources(data) for part in source.parts() for document in part.read()):
        text.append(document)
        size += len(document.encode())
        if size >= limit:
            break
    shapes: dict[str, list[str]] = {}
    for name, least in (("short", 500), ("long", 100_000)):
        shapes[name], pending, length = [], [], 0
        for line in chain.from_iterable(document.splitlines(keepends=True) for document in text):
            for start in range(0, len(line), least):
                pending.append(line[start : start + least])
                length += len(pending[-1])
                if length >= least:
                    shapes[name].append("".join(pending))
                    pending, length = [], 0
        shapes[name].append("".join(pending))
    return shapes


def tricky(count: int = 20_000) -> list[str]:
    """Random strings over all of Unicode, spaces, contractions and runs, and the probes of our Encoder."""
    rng = random.Random(0)

    def piece() -> str:
        kind = rng.random()
        if kind < 0.4:
            return rng.choice(
                ["'s", "'LL", " ", "  ", "\n", "\t", "\u00a0", "\u3000", "\u0085", "1", "\u00b2", ".", END_OF_TEXT]
            )
        code = rng.randrange(0x20, rng.choice([0x80, 0x800, 0x3000, 0xD800, 0x110000]))
        return ("" if 0xD800 <= code < 0xE000 else chr(code)) * (1 if kind < 0.9 else rng.randrange(2, 20))

    return [*PROBES, "a" * 20_000, " \n" * 10_000] + [
        "".join(piece() for _ in range(rng.randrange(40))) for _ in range(count)
    ]


def same(one: Flat, other: Flat) -> bool:
    return np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, nargs="+")
    parser.add_argument("--tokenizer", default="gpt2")
    parser.add_argument("--mb", type=float, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    engines: dict[str, Encode] = {}
    for name, module, make in contenders(options.tokenizer):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            print(f"{name}: not installed")
            continue
        engines[name] = make()
    shapes = corpora(options.data, int(options.mb * 1e6))
    reference = {shape: engines["tokenizers"](texts) for shape, texts in {**shapes, "tricky": tricky()}.items()}
    exact = {name: same(encode(tricky()), reference["tricky"]) for name, encode in engines.items()}
    for shape, texts in shapes.items():
        megabytes = sum(len(text.encode()) for text in texts) / 1e6
        speeds: dict[str, list[float]] = {name: [] for name in engines}
        per_cpu: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(options.rounds + 1):
            for name, encode in engines.items():
                wall, cpu = time.perf_counter(), time.process_time()
                result = encode(texts)
                speeds[name].append(megabytes / (time.perf_counter() - wall))
                per_cpu[name].append(megabytes / (time.process_time() - cpu))
                exact[name] = exact[name] and same(result, reference[shape])
        print(f"\n{shape}: {len(texts):,} documents, {megabytes:.1f} MB, {len(reference[shape][0]):,} tokens")
        print(f"{'':28}first   MB/s (least-most)   MB per CPU second")
        for name in engines:
            first, *later = speeds[name]
            spread = f"{statistics.median(later):.0f} ({min(later):.0f}-{max(later):.0f})"
            print(f"{name:26}{first:7.0f}   {spread:<18}  {statistics.median(per_cpu[name][1:]):7.0f}")
    print("\nids identical on all of it: " + ", ".join(f"{name} {'yes' if ok else 'NO'}" for name, ok in exact.items()))


if __name__ == "__main__":
    main()
