"""Our filters compared with datatrove's on the same documents, in one run: verdicts and speed, one thread each.

    python -m benchmarks.datatrove_filters --python DATATROVE/bin/python [--data wiki novels.jsonl pages/] [--documents 400]

datatrove (`pip install datatrove[processing]`) is in an environment of its own, whose interpreter `--python` names. With
`--spoiled` a share of the documents gets what filters are for: repeated lines, bullets, many # or numbers, braces, few words.
Its FineWeb filter gets the paper's threshold for duplicate lines (0.1; its default is 0.01) and our ends of lines: quotation
marks and ellipses are among them, as they were in FineWeb's code at its time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPOILED = (
    "plain",
    "plain",
    "plain",
    "plain",
    "repeated",
    "cut",
    "bullets",
    "hashes",
    "numbers",
    "braces",
    "ellipses",
    "list",
)
LONGEST = 20_000
"""Characters of a document, at most."""


def spoiled(text: str, draw: random.Random) -> str:
    """A document with something that a filter is for."""
    kind, lines = draw.choice(SPOILED), text.split("\n")
    if kind == "repeated":
        lines += [draw.choice(lines)] * draw.randrange(1, len(lines) + 9)
    elif kind == "cut":
        words = text.split()
        return " ".join(words[: draw.randrange(5, 120)])
    elif kind == "bullets":
        lines = [
            f"- {line}" if line.strip() and draw.random() < 0.95 else line
            for line in text.replace(". ", ".\n").split("\n")
        ]
    elif kind in ("hashes", "ellipses", "numbers"):
        sign = {"hashes": "#", "ellipses": "...", "numbers": "1234"}[kind]
        share = draw.choice((0.05, 0.1, 0.15, 0.3))
        return " ".join(f"{word} {sign}" if draw.random() < share else word for word in text.split(" "))
    elif kind == "braces":
        lines.insert(draw.randrange(len(lines) + 1), draw.choice(("if (x) { return; }", "Lorem ipsum dolor sit amet")))
    elif kind == "list":
        words = text.split()
        step = draw.randrange(2, 9)
        lines = [" ".join(words[i : i + step]) for i in range(0, min(len(words), 600), step)]
    return "\n".join(lines)


def documents(data: list[str], count: int, share: float) -> list[str]:
    """So many of each source, as evenly spread over it as its first part allows."""
    from gpt3.corpus.sources import open_sources

    draw, found = random.Random(0), []
    for source in open_sources(data):
        texts = list(itertools.islice((t for part in source.parts() for t in part.documents()), 20 * count))
        chosen = [text[:LONGEST] for text in draw.sample(texts, min(count, len(texts)))]
        found += [spoiled(text, draw) if draw.random() < share else text for text in chosen]
    return [text for text in found if text.strip()]


def theirs(path: str) -> None:
    """In datatrove's environment: print its verdicts on the documents of a file, and the seconds."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    given = json.loads(Path(path).read_text(encoding="utf-8"))
    texts, ends = given["texts"], tuple(given["ends"])
    sets = {
        "gopher quality": GopherQualityFilter(),
        "gopher repetition": GopherRepetitionFilter(),
        "fineweb's own": FineWebQualityFilter(char_duplicates_ratio=0.1, stop_chars=ends),
        "c4 braces, lorem": C4QualityFilter(
            filter_no_terminal_punct=False, min_num_sentences=-1, min_words_per_line=-1, max_word_length=-1,
            remove_citations=False, filter_javascript=False, filter_policy=False,
        ),
    }  # fmt: skip
    for chosen in sets.values():
        chosen.filter(Document(text=texts[0], id="0"))  # loads tokenizers
    found = {}
    for name, chosen in sets.items():
        start, verdicts = time.perf_counter(), []
        for number, text in enumerate(texts):
            verdict = chosen.filter(Document(text=text, id=str(number)))
            verdicts.append("" if verdict is True else verdict[1] if isinstance(verdict, tuple) else "dropped")
        found[name] = {"verdicts": verdicts, "seconds": time.perf_counter() - start}
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", help="interpreter of an environment with datatrove")
    parser.add_argument("--data", nargs="+", default=["wiki"])
    parser.add_argument("--documents", type=int, default=400, help="of each source")
    parser.add_argument("--spoiled", type=float, default=0.0, help="share of the documents that are spoiled")
    parser.add_argument("--show", type=int, default=3, help="disagreements shown of each set")
    parser.add_argument("--theirs", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.theirs:
        theirs(given.theirs)
        return
    from gpt3.curation.heuristics import C4, FINEWEB, GOPHER_QUALITY, GOPHER_REPETITION, broken
    from gpt3.curation.statistics import TERMINAL, measure

    texts = documents(given.data, given.documents, given.spoiled)
    size = sum(len(text.encode()) for text in texts) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.json"
        path.write_text(json.dumps({"texts": texts, "ends": TERMINAL}), encoding="utf-8")
        command = [given.python, __file__, "--theirs", str(path)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            sys.exit(result.stderr)
        other = json.loads(result.stdout.splitlines()[-1])
    measure(texts[:10])  # compiles
    start = time.perf_counter()
    counts = measure(texts)
    seconds = time.perf_counter() - start
    print(f"{len(texts):,} documents, {size:.1f} MB; our figures of all rules: {size / seconds:.1f} MB/s")
    rules = {"gopher quality": GOPHER_QUALITY, "gopher repetition": GOPHER_REPETITION, "fineweb's own": FINEWEB,
             "c4 braces, lorem": C4[1:]}  # fmt: skip
    together = [0, 0]
    for name, chosen in rules.items():
        numbers = broken(chosen, counts)
        ours = ["" if number < 0 else chosen[number].name for number in numbers.tolist()]
        pairs = list(zip(ours, other[name]["verdicts"], strict=True))
        equal, drops = sum(bool(a) == bool(b) for a, b in pairs), sum(bool(b) for _, b in pairs)
        together[0] += equal
        together[1] += len(pairs)
        print(f"{name:18} agree on {equal / len(pairs):.2%}, {drops / len(pairs):.1%} dropped by datatrove "
              f"({size / other[name]['seconds']:.2f} MB/s)")  # fmt: skip
        for a, b in [(a, b) for a, b in pairs if bool(a) != bool(b)][: given.show]:
            print(f"    ours: {a or 'kept':34} datatrove: {b or 'kept'}")
    print(f"all sets: agree on {together[0] / together[1]:.2%} of the verdicts; datatrove's filters one after the other: "
          f"{size / sum(found['seconds'] for found in other.values()):.2f} MB/s")  # fmt: skip


if __name__ == "__main__":
    main()
