"""How the starter model, src/gpt3/model_folder/starter, was made, so that it can be made again.

    python examples/starter.py novels.jsonl [--minutes 150] [--run runs/starter] [--package DIR]

novels.jsonl has one book a line: author, title, year, text (.xz and .gz are read as well). Books up to 1930, the last year whose
books are in the public domain in the United States, and the embedded Wikipedia are the training text; none of the books is in
the package. The command trains, or resumes, `gpt3 train` with the options below, then writes the model folder: weights in
bfloat16, tokenizer, and a card with what the run and its own check say, the books, and ten samples of which none was picked.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from gpt3.durable import write_text
from gpt3.inference.language_model import load
from gpt3.model_folder.load import load_model
from gpt3.model_folder.locate import CARD, STARTER, WEIGHTS
from gpt3.model_folder.write import model_folder_files
from gpt3.report.run_folder import read_metrics

LAST_YEAR = 1930
WIKI_SHARE = 20
OPTIONS = {
    "tokenizer": "own:4096", "layers": 5, "width": 256, "heads": 4, "context": 512, "positions": 512, "recipe": "short",
    "batch-tokens": 8192, "validation-fraction": 0.02,
}  # fmt: skip
PROMPTS = (
    "The river", "Mathematics is", "The old house stood", "A lighthouse is", "She opened the letter and", "The moon",
    '"You are late," said', "In the winter of that year", "Music is", "The captain looked",
)  # fmt: skip
CARD_TEXT = """---
license: cc-by-sa-4.0
language: en
library_name: transformers
pipeline_tag: text-generation
tags: [gpt3]
---

# The starter model

What `gpt3 generate`, `chat` and `serve` use before you have trained a model: {parameters:,} parameters, {layers} layers of
{width}, {heads} heads, context {context}, a tokenizer of its own with {vocabulary:,} entries, weights in bfloat16. It is a base
model: it continues text. It knows the sound of old novels and of an encyclopedia, and hardly any facts; do not rely on what it
says.

Trained with the options of `examples/starter.py` and gpt3's short recipe on
{tokens:,} tokens in {minutes:.0f} minutes on {machine}.
{share}% of them are Wikipedia (the embedded lead texts, CC BY-SA 4.0),
the rest {books} novels in the public domain, which the package does not have.

| held-out text | bits per byte |
|---|---|
{scores}

## Ten samples at temperature 0.7, none picked

{samples}

## The novels

{list}
"""


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The books of a JSONL file, also a compressed one."""
    opener: Any = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    with opener(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def train(books: list[dict[str, Any]], run: Path, words: list[str]) -> None:
    """`gpt3 train` on Wikipedia and `books`; an interrupted run resumes."""
    text, mixture = run.with_name(f"{run.name}-novels.jsonl"), run.with_name(f"{run.name}.yaml")
    write_text(text, "".join(json.dumps(book, ensure_ascii=False) + "\n" for book in books))
    sources = [
        {"name": "wiki", "data": "wiki", "weight": WIKI_SHARE},
        {"name": "novels", "data": str(text), "weight": 100 - WIKI_SHARE},
    ]
    write_text(mixture, yaml.safe_dump(sources, sort_keys=False))
    given = [word for name, value in OPTIONS.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "gpt3", "train", "--mixture", str(mixture), "--out", str(run), *given, *words]
    subprocess.run(command, check=True)


def write_model(run: Path, out: Path, books: list[dict[str, Any]], machine: str) -> None:
    """The finished model of `run` as a model folder in bfloat16, with its card."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    model, tokenizer = load_model(run / "model", torch.device("cpu"), torch.float32)
    model = model.to(torch.bfloat16)
    for name, content in model_folder_files(model, tokenizer).items():
        if not name.endswith(".py"):  # the package has the classes
            (out / name).write_bytes(content)
    save_file(dict(model.named_parameters()), out / WEIGHTS[0], metadata={"format": "pt"})
    (out / WEIGHTS[0]).chmod(0o644)
    records = [record for record in read_metrics(run / "metrics.jsonl") if "val/loss" in record]
    steps = [record for record in read_metrics(run / "metrics.jsonl") if "seconds" in record and "tokens" in record]
    config, last = model.config, records[-1]
    scores = {"Wikipedia": last["val/wiki/bits_per_byte"], "novels": last["val/novels/bits_per_byte"]}
    drawn = load(out, device="cpu")
    how: Any = {"max_new_tokens": 110, "temperature": 0.7, "top_p": 0.9}
    samples = [(prompt, drawn.complete(prompt, seed=number, **how)[0].text) for number, prompt in enumerate(PROMPTS)]
    text = CARD_TEXT.format(
        parameters=model.num_parameters(), layers=config.num_hidden_layers, width=config.hidden_size,
        heads=config.num_attention_heads, context=config.max_position_embeddings, vocabulary=config.vocab_size,
        tokens=steps[-1]["tokens"], minutes=steps[-1]["seconds"] / 60, machine=machine, share=WIKI_SHARE, books=len(books),
        scores="\n".join(f"| {name} | {value:.3f} |" for name, value in scores.items()),
        samples="\n\n".join("> " + f"**{prompt}**{more}".strip().replace("\n", "\n> ") for prompt, more in samples),
        list=", ".join(f"{book['author']} {book['title']} ({book['year']})" for book in books),
    )  # fmt: skip
    write_text(out / CARD, text)


def main() -> None:
    """Train, or resume, then write the model folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("novels", type=Path)
    parser.add_argument("--minutes", type=float, default=150)
    parser.add_argument("--threads", default="auto")
    parser.add_argument("--run", type=Path, default=Path("runs/starter"))
    parser.add_argument("--package", type=Path, default=STARTER)
    parser.add_argument("--machine", default="two cores of a CPU with AVX-512 and AMX")
    arguments = parser.parse_args()
    books = [book for book in read_lines(arguments.novels) if book["year"] <= LAST_YEAR]
    train(books, arguments.run, ["--minutes", f"{arguments.minutes:g}", "--threads", arguments.threads])
    write_model(arguments.run, arguments.package, books, arguments.machine)


if __name__ == "__main__":
    main()
