"""The runs of Figure 3.1: which ones fill the time, and what each of them was and reached.

They are chosen before the first of them is made, from the time and the measured speed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt3.paper.budget import step_seconds
from gpt3.paper.experiment import Work
from gpt3.paper.scaling_fit import Point
from gpt3.paper.trunks import SHARES, UNIT, Score, train_lengths
from gpt3.report.page import compact

SHAPES = ((1, 64), (2, 64), (2, 96), (2, 128), (3, 160), (3, 192), (4, 256))
"""Layers and widths, the last one of the predicted run. Width / layers is 32 to 64, as in the paper's Small to XL."""
HEAD = 32
VOCABULARY, CONTEXT, BATCH = 4096, 128, 2048
SEEDS = 3
TIMES = 10
"""Compute of the predicted run, relative to the largest that is fitted."""
BRANCHES = 0.2 * sum(share for share in SHARES if share < 1)
"""Steps of a trunk's branches, relative to the trunk's own."""
LEAST_STEPS = 2 * UNIT


def trained(work: Work, name: str, size: dict[str, Any], steps: int, shares: Sequence[float], seed: int) -> list[Score]:
    """Scores of a size at these shares of `steps`."""
    options = {"data": list(work.data), "tokenizer": f"own:{VOCABULARY}", "validation_fraction": 0.01, "seed": seed}
    return train_lengths(work, name, steps, BATCH, shares, **options, **options_of(size))


def options_of(size: dict[str, Any]) -> dict[str, Any]:
    """A size's options of `gpt3 train`."""
    from gpt3.training.plan import small_rate
    from gpt3.training.recipes import RECIPES

    layers, width = size["layers"], size["width"]
    rate = RECIPES["short"].rate * small_rate(layers, width)
    shape = {"layers": layers, "width": width, "heads": width // HEAD, "context": CONTEXT}
    return {**shape, "recipe": "short", "lr": rate}


def planned(work: Work) -> dict[str, Any]:
    """The runs that fill the time: sizes, steps of each trunk, and the predicted run, from this machine's measured speed."""
    sizes = [size_of(layers, width) for layers, width in SHAPES]
    batch = {"batch_tokens": BATCH}
    seconds = {size["name"]: step_seconds(work, options_of(size) | batch, VOCABULARY) for size in sizes}
    *chosen, big = sizes
    big_steps = TIMES * chosen[-1]["layer_parameters"] / big["layer_parameters"]
    middle = len(chosen) // 2
    each = sum(seconds[size["name"]] for size in chosen) + (SEEDS - 1) * seconds[chosen[middle]["name"]]
    steps = 60 * work.minutes / ((1 + BRANCHES) * each + big_steps * seconds[big["name"]])
    steps = max(LEAST_STEPS, math.floor(steps / UNIT) * UNIT)
    return {
        "sizes": chosen, "seeds_of": chosen[middle]["name"], "steps": steps, "batch_tokens": BATCH, "shares": list(SHARES),
        "predicted": big, "predicted_steps": max(UNIT, round(steps * big_steps / UNIT) * UNIT), "seconds_per_step": seconds,
    }  # fmt: skip


def size_of(layers: int, width: int) -> dict[str, Any]:
    """A shape with its name, which is the number of its layers' parameters."""
    count = 12 * layers * width**2
    return {"name": compact(count), "layers": layers, "width": width, "layer_parameters": count}


def bytes_per_gpt2_token(work: Work) -> float:
    """Of the training text, from its first documents: what turns bits per byte into the paper's nats per token."""
    from gpt3.corpus.sources import open_sources
    from gpt3.tokenizer.gpt2 import gpt2_tokenizer

    texts: list[str] = []
    for source in open_sources(list(work.data)):
        size = 0
        for text in (text for part in source.parts() for text in part.read()):
            texts.append(text[:200_000])
            size += len(texts[-1])
            if size > 1_000_000:
                break
    tokens = sum(len(ids) for ids in gpt2_tokenizer()(texts)["input_ids"])
    return sum(len(text.encode()) for text in texts) / tokens


def row(size: dict[str, Any], score: Score, seed: int, bytes_per_token: float) -> dict[str, Any]:
    """What a run was and reached; `loss` in nats per token of GPT-2's tokenizer, the paper's unit."""
    return {
        **size, "seed": seed, "steps": score.steps, "tokens": score.tokens, "bits_per_byte": score.bits_per_byte,
        "loss_per_own_token": score.loss, "loss": score.bits_per_byte * math.log(2) * bytes_per_token,
    }  # fmt: skip


def unique_tokens(run: Path) -> int:
    """Tokens of the training text."""
    sources = json.loads((run / "data.json").read_text(encoding="utf-8"))["sources"]
    return sum(int(source["tokens"]) for source in sources)


def effective(tokens: float, unique: float) -> float:
    """D of a run that reads `tokens` of a text of `unique`."""
    from gpt3.training.law import Amount

    return Amount(tokens, unique).worth()


def points_of(rows: Sequence[dict[str, Any]], unique: float) -> list[Point]:
    """The runs for a fit."""
    return [
        Point(
            row["layer_parameters"],
            effective(row["tokens"], unique),
            row["loss"],
            6 * row["layer_parameters"] * row["tokens"],
        )
        for row in rows
    ]
