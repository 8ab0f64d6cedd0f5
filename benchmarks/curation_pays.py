"""Does curation pay? A model trained on what a recipe keeps, and one on the raw mixture at equal tokens; on clean text held out.

    python -m benchmarks.curation_pays [--novels novels.jsonl] [--tokens 20M] [--model demo] [--seeds 3] [--out FOLDER]

Clean text is the embedded Wikipedia and, with `--novels`, as much text of a file of novels. A tenth of it is held out; another
tenth is a trusted source, whose copies are dropped. The raw mixture is the rest, with as many documents of junk made from it:
boilerplate around a few sentences, shuffled words, lists of names, near-copies, and text in other letters in place of other
languages. One recipe: FineWeb's rules and near-duplicates. No run reads the trusted source. Each run has one thread, so that
its result does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import statistics as st
from collections.abc import Iterator
from pathlib import Path

from gpt3.cli import main as cli
from gpt3.corpus.sources import open_sources
from gpt3.report import svg
from gpt3.report.run_folder import read_metrics
from gpt3.training.options import TrainOptions
from gpt3.training.run import train

RECIPE = """
sources:
  - {{name: good, data: "{0}/good.jsonl", trusted: true}}
  - {{name: web, data: "{0}/raw.jsonl"}}
heuristics: fineweb
near_duplicates: {{at_least: 0.7}}
tokenizer: "{0}/tokenizer"
validation_fraction: 0
"""
MENU = "Home | About | Contact | Login | Register\nAccept all cookies\nSubscribe to our newsletter\nShare on social media\n"
FOOTER = (
    "\nAll rights reserved. Privacy policy. Terms of use.\nClick here to read more\nRelated posts\nBuy now\nAdd to cart"
)
OTHER = str.maketrans("aeioutnshrdlcmwfgypbvk", "oáüeijmłzčgbškřvdåßtpx")
DOCUMENT = 4000
"""Characters of a document of a novel."""


def clean_texts(novels: str | None) -> list[str]:
    """Documents of 60 words or more, in a seeded order: the embedded Wikipedia and as much text of novels."""
    found = [text for source in open_sources("wiki") for part in source.parts() for text in part.documents()]
    size = sum(map(len, found))
    if novels:
        pieces = []
        for part in open_sources(novels)[0].parts():
            for text in part.documents():
                pieces += [text[i : i + DOCUMENT] for i in range(0, min(len(text), 40 * DOCUMENT), DOCUMENT)]
            if sum(map(len, pieces)) > 4 * size:
                break
        draw = random.Random(1)
        found += draw.sample(pieces, min(len(pieces), size // DOCUMENT))
    found = [text for text in found if len(text.split()) >= 60]
    random.Random(0).shuffle(found)
    return found


def junk(texts: list[str], draw: random.Random) -> Iterator[str]:
    """Web-like junk made of clean texts, one kind after the other."""
    names = sorted({word.strip(",.;") for text in texts[:200] for word in text.split() if word[:1].isupper()})
    for number, text in enumerate(texts):
        words = text.split()
        if number % 5 == 0:
            yield MENU * draw.randrange(1, 4) + " ".join(words[:25]) + FOOTER * draw.randrange(1, 4)
        elif number % 5 == 1:
            draw.shuffle(words)
            yield " ".join(words)
        elif number % 5 == 2:
            yield "\n".join(f"- {draw.choice(names)} {draw.randrange(1900, 2030)}" for _ in range(len(words) // 3))
        elif number % 5 == 3:
            words[draw.randrange(len(words))] = draw.choice(names)
            yield " ".join(words) + f"\nPage {draw.randrange(999)}"
        else:
            yield text.lower().translate(OTHER)


def write(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def make(out: Path, novels: str | None, vocabulary: int) -> None:
    """The texts, the tokenizer and the corpus; what is there is not made again."""
    clean = clean_texts(novels)
    tenth = len(clean) // 10
    raw = clean[2 * tenth :]
    draw = random.Random(2)
    mixed = [*raw, *junk(raw, draw)]
    draw.shuffle(mixed)
    if not (out / "recipe.yaml").exists():
        for name, texts in (("held", clean[:tenth]), ("good", clean[tenth : 2 * tenth]), ("raw", mixed)):
            write(out / f"{name}.jsonl", texts)
        (out / "recipe.yaml").write_text(RECIPE.format(out.as_posix()), encoding="utf-8")
    if not (out / "tokenizer").exists():
        run(
            "tokenizer",
            "train",
            "--data",
            f"{out}/raw.jsonl",
            "--vocab-size",
            str(vocabulary),
            "--out",
            f"{out}/tokenizer",
        )
    run("corpus", f"{out}/recipe.yaml", "--out", f"{out}/corpus", "--workers", "1")
    if not (out / "all").exists():
        words = (
            "--tokenizer",
            f"{out}/tokenizer",
            "--validation-fraction",
            "0",
            "--workers",
            "1",
            "--out",
            f"{out}/all",
        )
        run("prepare", "--data", f"{out}/raw.jsonl", *words)


def run(*words: str) -> None:
    if cli.main(list(words)):
        raise SystemExit(1)


def curve(out: Path, options: TrainOptions, data: Path, name: str) -> list[tuple[int, float]]:
    """Train, if it is not done yet: (tokens, bits per byte on the clean text) at each validation."""
    folder = out / name
    if not (folder / "model").exists():
        train(dataclasses.replace(options, data=[str(data)], out=str(folder)))
    found = read_metrics(folder / "metrics.jsonl")
    return [(row["tokens"], row["val/clean/bits_per_byte"]) for row in found if "val/clean/bits_per_byte" in row]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--novels")
    parser.add_argument("--tokens", default="20M")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--heads", type=int)
    parser.add_argument("--context", type=int)
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--validation-tokens", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("runs/curation-pays"))
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    out = given.out.resolve()
    make(out, given.novels, given.vocabulary)
    options = TrainOptions(
        model=given.model, layers=given.layers, width=given.width, heads=given.heads, context=given.context,
        batch_tokens=given.batch_tokens, tokens=given.tokens, val=[f"clean={out}/held.jsonl"], validation_fraction=0.0,
        validation_tokens=given.validation_tokens, validation_share=None, device="cpu", threads="1", compile=False,
        sample_prompt=["The "], workers=1, stream="off",
    )  # fmt: skip
    curves: dict[str, list[list[tuple[int, float]]]] = {"raw": [], "kept": []}
    for seed in range(given.seeds):
        for name, data in (("raw", out / "all"), ("kept", out / "corpus" / "shards" / "web")):
            curves[name].append(curve(out, dataclasses.replace(options, seed=seed), data, f"{name}-{seed}"))
    last = {name: [found[-1][1] for found in runs] for name, runs in curves.items()}
    for name, values in last.items():
        print(f"{name:5} {st.mean(values):.4f} bits per byte ({', '.join(f'{value:.4f}' for value in values)})")
    gains = [1 - kept / raw for raw, kept in zip(last["raw"], last["kept"], strict=True)]
    print(f"fewer bits per byte with what is kept: {st.mean(gains):.1%} ({', '.join(f'{gain:.1%}' for gain in gains)})")
    for name, runs in curves.items():
        row = [(points[0][0] / 1e6, st.mean(value for _, value in points)) for points in zip(*runs, strict=True)]
        print(f"{name:5} " + "  ".join(f"{x:.2f}M {y:.3f}" for x, y in row))
    if given.figure:
        given.figure.write_text(draw(curves), encoding="utf-8")


def draw(curves: dict[str, list[list[tuple[int, float]]]]) -> str:
    """By how much what is kept is better, along the run: an SVG with the standard error of the seeds."""
    points = []
    for raw, kept in zip(zip(*curves["raw"], strict=True), zip(*curves["kept"], strict=True), strict=True):
        gains = [100 * (1 - k / r) for (_, r), (_, k) in zip(raw, kept, strict=True)]
        error = st.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
        points.append((raw[0][0] / 1e6, st.mean(gains), error))
    line = svg.Line("kept, compared with raw", points, svg.COLORS[0])
    panel = svg.Axes("", [line], "million tokens", y_text="{:g}%".format)
    return svg.svg([panel], "Fewer bits per byte on clean text", width=360)


if __name__ == "__main__":
    main()
