"""Small runs for the law of `--model auto`: bits per byte over shape, tokens, vocabulary and repeats.

    python benchmarks/law_runs.py --novels NOVELS.jsonl.xz --work FOLDER [--minutes M] [--only NAME …]

NOVELS has a JSON object with "text" on each line, a novel of public domain. Each run is `gpt3 train` with one thread, bf16 and
the short recipe, on Wikipedia's text in the package, on novels, or on both, and is scored on documents held out of both. Runs
that benchmarks/law_runs.json has are left out, so the script may be stopped and started; --minutes ends it before a run that
begins later. benchmarks/law_fit.py fits the law to them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).with_name("law_runs.json")
HELD_OUT_NOVELS, EXCERPT = 8, 30_000
"""Every twelfth novel is held out, and scored on this many characters of its middle."""
HELD_OUT_WIKI = 0.015
PIECES, TEST_BYTES, SAMPLE_SIZES = 64, 60_000, (50_000, 200_000, 1_000_000)
"""Of the samples that hardness is measured on."""


@dataclass(frozen=True)
class Case:
    """One run."""

    text: str
    """wiki, novels or both."""
    tokens: int
    layers: int
    width: int
    vocabulary: int = 4096
    part: str = ""
    """A slice of the training text, such as ``@200KB``: the rest of the run repeats it."""
    rate: float = 1.0
    """The peak rate as a multiple of the rule's."""
    context: int = 128

    @property
    def name(self) -> str:
        """Its key in the records."""
        return "-".join(str(value) for value in asdict(self).values())


def cases() -> list[Case]:
    """The runs, cheapest first."""
    grid = {
        250_000: [(2, 128), (4, 192)],
        500_000: [(2, 128), (2, 256), (4, 192), (4, 256), (4, 384)],
        1_000_000: [(2, 128), (4, 192), (4, 256)],
        2_000_000: [(2, 128), (4, 192)],
        4_000_000: [(2, 128)],
    }
    found = [Case("both", tokens, *shape) for tokens, shapes in grid.items() for shape in shapes]
    found += [Case("both", 500_000, 2, 128, vocabulary) for vocabulary in (1024, 8192)]
    found += [Case("both", 500_000, 4, 192, 8192)]
    found += [Case("wiki", 500_000, *shape, part="@200KB") for shape in ((2, 128), (2, 256))]
    found += [Case("wiki", 1_000_000, 2, 128, part=part) for part in ("@200KB", "@800KB")]
    found += [Case(text, 500_000, 2, 128) for text in ("wiki", "novels")]
    return sorted(
        found, key=lambda case: case.tokens * (case.layers * case.width**2 * 12 + case.vocabulary * case.width)
    )


def rates() -> list[Case]:
    """Runs that ask whether the rule of the rate holds over widths."""
    shapes = [(2, 128), (4, 192), (4, 256), (4, 384)]
    return [Case("both", 250_000, *shape, rate=rate) for shape in shapes for rate in (0.5, 1.0, 2.0)]


def write_texts(novels: Path, work: Path) -> None:
    """``TEXT.jsonl`` and ``TEXT-held-out.jsonl`` for wiki and novels, documents in the order of their hash."""
    from gpt3.corpus.sources import open_sources

    if (work / "ready").exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    wiki = [text for source in open_sources(["wiki"]) for part in source.parts() for text in part.read()]
    wiki.sort(key=lambda text: hashlib.sha256(text.encode()).digest())
    held = round(len(wiki) * HELD_OUT_WIKI)
    with lzma.open(novels, "rt", encoding="utf-8") as file:
        books = [json.loads(line)["text"] for line in file]
    split = [book for i, book in enumerate(books) if i % (len(books) // HELD_OUT_NOVELS) == 0][:HELD_OUT_NOVELS]
    excerpts = [book[len(book) // 2 : len(book) // 2 + EXCERPT] for book in split]
    rest = [book for book in books if book not in split]
    for name, texts in {
        "wiki": wiki[held:],
        "wiki-held-out": wiki[:held],
        "novels": rest,
        "novels-held-out": excerpts,
    }.items():
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (work / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (work / "ready").touch()


def measure(case: Case, work: Path) -> dict[str, Any]:
    """Train it; its numbers."""
    import gpt3
    from gpt3.report.run_folder import read_metrics
    from gpt3.training.plan import small_rate

    texts = ("wiki", "novels") if case.text == "both" else (case.text,)
    began = time.perf_counter()
    result = gpt3.train(
        data=[str(work / f"{text}.jsonl{case.part}") for text in texts],
        val=[f"{text}={work / f'{text}-held-out.jsonl'}" for text in texts],
        validation_fraction=0.0, validate_every=10**6, checkpoint_every=10**6, sample_prompt=["The"],
        tokenizer=f"own:{case.vocabulary}", tokens=str(case.tokens), layers=case.layers, width=case.width,
        heads=case.width // 64, context=case.context, lr=5 * case.rate * small_rate(case.layers, case.width),
        threads="1", dtype="bf16", workers=1, out=str(work / "runs" / case.name), resume="auto",
    )  # fmt: skip
    records = read_metrics(result.folder / "metrics.jsonl")
    last = {key: value for record in records for key, value in record.items()}
    sources = json.loads((result.folder / "data.json").read_text(encoding="utf-8"))["sources"]
    steps = [record["tokens_per_s"] for record in records if "tokens_per_s" in record]
    return {
        **asdict(case),
        "unique_tokens": sum(row["tokens"] for row in sources),
        "bits_per_byte": {text: last[f"val/{text}/bits_per_byte"] for text in texts},
        "loss": {text: last[f"val/{text}/loss"] for text in texts},
        "train_loss": sum(record["loss"] for record in records[-50:] if "loss" in record) / 50,
        "tokens_per_s": sorted(steps)[int(len(steps) * 0.75)],
        "steps": last["step"],
        "seconds": round(result.seconds, 1),
        "all_seconds": round(time.perf_counter() - began, 1),
    }


def hardness(work: Path) -> dict[str, dict[str, float]]:
    """Bits per byte of held-out texts by byte n-grams of training texts, for training samples of several sizes."""
    from gpt3.training.hardness import bits_per_byte

    def text(name: str) -> bytes:
        lines = (work / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        return "".join(json.loads(line)["text"] for line in lines).encode()

    def pieces(whole: bytes, size: int) -> bytes:
        each = max(1, size // PIECES)
        return b"".join(whole[start : start + each] for start in range(0, len(whole) - each, len(whole) // PIECES))

    trained = {"wiki": [text("wiki")], "novels": [text("novels")]}
    trained["both"] = trained["wiki"] + trained["novels"]
    held_out = {name: pieces(text(f"{name}-held-out"), TEST_BYTES) for name in ("wiki", "novels")}
    found: dict[str, dict[str, float]] = {}
    for source, asked in (("novels", "novels"), ("wiki", "wiki"), ("both", "novels"), ("both", "wiki")):
        wholes = trained[source]
        for size in SAMPLE_SIZES:
            train = b"".join(pieces(whole, size * len(whole) // sum(map(len, wholes))) for whole in wholes)
            found.setdefault(f"{source}->{asked}", {})[str(size)] = round(bits_per_byte(train, held_out[asked]), 4)
    return found


def recorded() -> dict[str, Any]:
    """law_runs.json, which other processes may write, too."""
    found: dict[str, Any] = json.loads(RECORDS.read_text(encoding="utf-8")) if RECORDS.exists() else {}
    return found


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--novels", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--rates", action="store_true", help="the runs of the rate's rule")
    parser.add_argument("--hardness", action="store_true", help="only measure how hard the texts are")
    given = parser.parse_args()
    began = time.monotonic()
    write_texts(given.novels, given.work)
    if given.hardness:
        found = {"hardness": hardness(given.work)}
        RECORDS.write_text(json.dumps(recorded() | found, indent=1) + "\n", encoding="utf-8")
        return
    for case in rates() if given.rates else cases():
        if case.name in recorded():
            continue
        if time.monotonic() - began > 60 * given.minutes:
            break
        record = measure(case, given.work)
        RECORDS.write_text(json.dumps(recorded() | {case.name: record}, indent=1) + "\n", encoding="utf-8")
        print(case.name, record["bits_per_byte"], record["tokens_per_s"], flush=True)


if __name__ == "__main__":
    main()
