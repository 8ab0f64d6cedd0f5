"""How well the parsers of pages find the main text: F1 of words against gold text, and pages per second of one thread.

    python -m benchmarks.page_text --pages article_pages.jsonl.gz

Each line of the file has a page as "html" and its main text as "text". Words are runs of letters and digits in lower case,
counted. Even and odd pages are shown apart, for settings that are chosen on the even ones.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from pathlib import Path
from statistics import mean

from gpt3.corpus.page_parser import PARSERS, page_text
from gpt3.corpus.records import read_rows


def f1(found: str, gold: str) -> float:
    """The harmonic mean of the shares of the found words that are gold, and of the gold words that are found."""
    ours, theirs = (Counter(re.findall(r"\w+", text.lower())) for text in (found, gold))
    return 2 * (ours & theirs).total() / max(1, ours.total() + theirs.total())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pages", required=True)
    rows = [row for _, row in read_rows(Path(parser.parse_args().pages))]
    print(f"{'parser':12} {'all':>7} {'even':>7} {'odd':>7} {'pages/s':>8}   of {len(rows)} pages")
    for name in PARSERS:
        page_text(b"<p>Imports everything.", parser=name)
        start = time.perf_counter()
        found = [page_text(row["html"].encode(), "utf-8", name) or "" for row in rows]
        speed = len(rows) / (time.perf_counter() - start)
        scores = [f1(text, row["text"]) for text, row in zip(found, rows, strict=True)]
        print(f"{name:12} {mean(scores):7.4f} {mean(scores[::2]):7.4f} {mean(scores[1::2]):7.4f} {speed:8.0f}")


if __name__ == "__main__":
    main()
