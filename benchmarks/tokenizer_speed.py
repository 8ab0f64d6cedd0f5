"""How fast the libraries for a byte-level BPE turn text into arrays of ids, and whether the ids are the same.

    python benchmarks/tokenizer_speed.py --data novels.jsonl [--tokenizer gpt2] [--mb 50] [--rounds 5]

--data takes what `gpt3 prepare` takes. The text is encoded twice: in documents of about 600 bytes (``short``) and of at least
100 kB (``long``). Every library that is installed takes part: tokenizers, tiktoken, fastokens (which gpt3's Encoder uses),
gigatoken, tokie, splintr (`pip install gigatoken awkward tokie splintr-rs`). Rounds alternate. MB/s is UTF-8 text over wall-clock
time, output as one NumPy array of ids and one of lengths included: of the first pass (empty caches), then the median, least
and most of the others. MB per CPU second counts all threads; use it on a busy machine. Ids are compared with those of
`tokenizers`, on the data and on difficult texts.
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

from gpt3.bench.harness import alternate, spread
from gpt3.corpus.sources import open_sources
from gpt3.inference.streaming import TokenBytes
from gpt3.tables import markdown
from gpt3.tokenizer.encoder import PROBES, Encoder
from gpt3.tokenizer.gpt2 import END_OF_TEXT, SPLIT_PATTERN
from gpt3.tokenizer.loading import load_tokenizer

Flat = tuple[np.ndarray, np.ndarray]
Encode = Callable[[list[str]], Flat]


def from_lists(ids: list[list[int]]) -> Flat:
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    return np.fromiter(chain.from_iterable(ids), np.uint32, int(lengths.sum())), lengths


def from_buffers(ids: bytes, offsets: bytes) -> Flat:
    return np.frombuffer(ids, "<u4"), np.diff(np.frombuffer(offsets, "<u8").astype(np.int64))


def libraries(name: str) -> Iterator[tuple[str, Callable[[], Encode]]]:
    """Name, and how to set it up so that text that spells end-of-text remains text."""
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
        table = TokenBytes(tokenizer)
        ranks = {table[i]: i for i in range(table.size) if i != tokenizer.eos_token_id}
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

    yield from {each.__name__: each for each in (tokenizers, tiktoken, fastokens, gigatoken, tokie, splintr)}.items()
    encoder = Encoder(tokenizer)
    yield f"gpt3's Encoder ({encoder.library})", lambda: encoder.encode_batch


def corpora(data: list[str], limit: int) -> dict[str, list[str]]:
    """About `limit` bytes of the data, cut into the two sizes of documents."""
    text, size = [], 0
    for document in (document for source in open_sources(data) for part in source.parts() for document in part.read()):
        text.append(document)
        size += len(document.encode())
        if size >= limit:
            break
    found: dict[str, list[str]] = {}
    for name, least in (("short", 500), ("long", 100_000)):
        found[name], pending = [], ""
        for line in chain.from_iterable(document.splitlines(keepends=True) for document in text):
            for start in range(0, len(line), least):
                pending += line[start : start + least]
                if len(pending) >= least:
                    found[name].append(pending)
                    pending = ""
        found[name].append(pending)
    return found


def difficult(count: int = 20_000) -> list[str]:
    """Random strings over all of Unicode, spaces, contractions and repetitions, and the probes of gpt3's Encoder."""
    rng = random.Random(0)
    special = ["'s", "'LL", " ", "  ", "\n", "\t", "\u00a0", "\u3000", "\u0085", "1", "\u00b2", ".", END_OF_TEXT]

    def piece() -> str:
        kind = rng.random()
        if kind < 0.4:
            return rng.choice(special)
        code = rng.randrange(0x20, rng.choice([0x80, 0x800, 0x3000, 0xD800, 0x110000]))
        return ("" if 0xD800 <= code < 0xE000 else chr(code)) * (1 if kind < 0.9 else rng.randrange(2, 20))

    strings = ["".join(piece() for _ in range(rng.randrange(40))) for _ in range(count)]
    return [*PROBES, "a" * 20_000, " \n" * 10_000, *strings]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, nargs="+")
    parser.add_argument("--tokenizer", default="gpt2")
    parser.add_argument("--mb", type=float, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    engines: dict[str, Encode] = {}
    for name, make in libraries(options.tokenizer):
        try:
            engines[name] = make()
        except ModuleNotFoundError as error:
            print(f"{name}: {error.name} is not installed")
    corpus = {**corpora(options.data, int(options.mb * 1e6)), "difficult": difficult()}
    reference = {kind: engines["tokenizers"](texts) for kind, texts in corpus.items()}
    different: set[str] = set()

    def measure(kind: str, name: str) -> tuple[float, float]:
        """Wall-clock and processor seconds."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = engines[name](corpus[kind])
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        if not all(map(np.array_equal, result, reference[kind])):
            different.add(name)
        return seconds

    alternate(["difficult"], list(engines), 1, measure)
    rows = []
    for (kind, name), passes in alternate(["short", "long"], list(engines), options.rounds + 1, measure).items():
        megabytes = sum(len(text.encode()) for text in corpus[kind]) / 1e6
        first, *later = (megabytes / wall for wall, _ in passes)
        median, least, most = spread([[speed] for speed in later])
        per_cpu = statistics.median(megabytes / cpu for _, cpu in passes[1:])
        same = "no" if name in different else "yes"
        speeds = [f"{first:.0f}", f"{median:.0f} ({least:.0f}-{most:.0f})", f"{per_cpu:.0f}"]
        rows.append([f"{kind}, {len(corpus[kind]):,} documents, {megabytes:.1f} MB", name, *speeds, same])
    print(markdown(["text", "library", "first pass", "MB/s (least-most)", "MB per CPU second", "same ids"], rows))


if __name__ == "__main__":
    main()
