"""Speed of the stages of `gpt3 corpus`, one thread each: MB of text per second, medians of rounds that alternate all stages.

    python -m benchmarks.curation [--megabytes 8] [--rounds 5]

The text is the embedded Wikipedia. datasketch and scikit-learn do the same work next to ours where they are installed.
Clusters are timed on made-up signatures, half of them near-copies.
"""

from __future__ import annotations

import argparse
import statistics as st
import time
from collections.abc import Callable

import numpy as np

from gpt3.corpus.sources import open_sources
from gpt3.curation import clusters
from gpt3.curation.features import FEATURES, scores
from gpt3.curation.language import languages
from gpt3.curation.near_duplicates import NearDuplicateOptions
from gpt3.curation.statistics import measure
from gpt3.tokenizer.encoder import Encoder
from gpt3.tokenizer.loading import load_tokenizer


def wiki(megabytes: float) -> list[str]:
    """Documents of the embedded Wikipedia, again and again with a number before each, up to this much text."""
    source = open_sources("wiki")[0]
    once = [text for part in source.parts() for text in part.documents()]
    found, size, turn = [], 0, 0
    while size < megabytes * 1e6:
        for text in once:
            found.append(f"{turn} {text}")
            size += len(found[-1].encode())
            if size >= megabytes * 1e6:
                break
        turn += 1
    return found


def datasketch_signatures(texts: list[str]) -> None:
    from datasketch import MinHash

    for text in texts:
        words = text.lower().split()
        sketch = MinHash(num_perm=112)
        sketch.update_batch([" ".join(words[i : i + 5]).encode() for i in range(max(1, len(words) - 4))])


def vectorizer(texts: list[str]) -> None:
    from sklearn.feature_extraction.text import HashingVectorizer

    HashingVectorizer(n_features=FEATURES, norm=None, alternate_sign=False, token_pattern=r"\S+").transform(texts)


def made_up_signatures(documents: int) -> np.ndarray:
    """Half of them copies of others with a tenth of the hashes changed."""
    draw = np.random.default_rng(0)
    made = draw.integers(0, 2**32, (documents, 112), dtype=np.uint32)
    half = documents // 2
    made[half:] = made[draw.integers(0, half, documents - half)]
    changed = draw.random((documents - half, 112)) < 0.1
    made[half:][changed] = draw.integers(0, 2**32, int(changed.sum()), dtype=np.uint32)
    return made


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--documents", type=int, default=100_000)
    given = parser.parse_args()
    texts = wiki(given.megabytes)
    few = texts[: max(1, len(texts) // 20)]
    options, weights = NearDuplicateOptions(), np.zeros(FEATURES)
    encoder = Encoder(load_tokenizer("gpt2"), threads=1)
    signed = made_up_signatures(given.documents)
    keys = options.keys(signed)

    def cluster() -> None:
        block = clusters.Block(keys, signed)
        parents = np.empty(len(signed), dtype=np.int64)
        clusters.join_buckets([block], parents, 1 << 28)
        clusters.judge([block], parents, 0.7, 1 << 28)

    def size(listed: list[str]) -> float:
        return sum(len(text.encode()) for text in listed) / 1e6

    stages: dict[str, tuple[Callable[[], object], float, str]] = {
        "signatures": (lambda: options.signatures(texts), size(texts), "MB/s"),
        "figures of heuristics": (lambda: measure(texts), size(texts), "MB/s"),
        "languages": (lambda: languages(few), size(few), "MB/s"),
        "GPT-2's tokens": (lambda: encoder.encode_batch(texts), size(texts), "MB/s"),
        "quality scores": (lambda: scores(texts, weights, 0.0), size(texts), "MB/s"),
        "clusters": (cluster, given.documents, "documents/s"),
        "datasketch's signatures": (lambda: datasketch_signatures(few), size(few), "MB/s"),
        "scikit-learn's HashingVectorizer": (lambda: vectorizer(few), size(few), "MB/s"),
    }
    rates: dict[str, list[float]] = {name: [] for name in stages}
    for turn in range(given.rounds + 1):
        for name, (work, amount, _) in stages.items():
            start = time.perf_counter()
            work()
            if turn:  # the first compiles
                rates[name].append(amount / (time.perf_counter() - start))
    for name, found in rates.items():
        print(f"{name:34} {st.median(found):12,.1f} {stages[name][2]}  ({min(found):,.1f} to {max(found):,.1f})")


if __name__ == "__main__":
    main()
