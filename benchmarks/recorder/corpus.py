"""The texts that models are trained on and asked about: a few plain sentences, and signs of other scripts."""

from __future__ import annotations

import json
import random
from pathlib import Path

from benchmarks.recorder.workshop import Workshop

THINGS = ("sea", "sky", "sun", "moon", "grass", "snow", "coal", "rose", "sand", "rain", "fire", "leaf")
COLOURS = ("blue", "blue", "gold", "grey", "green", "white", "black", "red", "pale", "grey", "red", "green")
VERBS = ("meets", "follows", "hides", "warms", "cools", "colours", "feeds", "carries")
FOREIGN_SIGNS = "Ἐν ἀρχῇ ἦν ὁ λόγος. 你好，世界。 naïve café 🎉🎉 Привет, мир!"


def sentences(count: int, seed: int) -> str:
    """Plain English of a few words, the same for the same seed on every machine."""
    draw = random.Random(seed)
    pick = lambda values: values[int(draw.random() * len(values))]  # noqa: E731 - not `choice`, which has changed before
    made = [
        f"The {pick(COLOURS)} {pick(THINGS)} {pick(VERBS)} the {pick(THINGS)}, and {pick(range(90))} {pick(THINGS)}s wait."
        for _ in range(count)
    ]
    return " ".join(made)


def documents(w: Workshop) -> Path:
    """A corpus of 60 documents, one of them in other scripts."""

    def make(path: Path) -> None:
        texts = [sentences(4 + seed % 9, seed) for seed in range(59)] + [FOREIGN_SIGNS]
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")

    return w.once("text.jsonl", make)


def heldout(w: Workshop) -> Path:
    """A text that no model has read."""
    return w.once(
        "heldout.txt", lambda path: path.write_text(sentences(30, 999) + "\n" + FOREIGN_SIGNS, encoding="utf-8")
    )


def questions(w: Workshop) -> Path:
    """A dozen questions with answers of unequal lengths."""

    def make(path: Path) -> None:
        rows = [
            {
                "instruction": f"Which colour has the {thing}?",
                "output": f"The {thing} is {colour}" + " and so on" * (n % 4) + ".",
            }
            for n, (thing, colour) in enumerate(zip(THINGS, COLOURS, strict=True))
        ]
        path.write_text(json.dumps(rows), encoding="utf-8")

    return w.once("questions.json", make)


def pairs(w: Workshop) -> Path:
    """A dozen preferences."""

    def make(path: Path) -> None:
        rows = [
            {"prompt": f"Which colour has the {thing}?", "chosen": f"It is {colour}.", "rejected": "Who knows?"}
            for thing, colour in zip(THINGS, COLOURS, strict=True)
        ]
        path.write_text(json.dumps(rows), encoding="utf-8")

    return w.once("pairs.json", make)
