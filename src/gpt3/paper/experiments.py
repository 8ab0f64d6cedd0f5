"""Every experiment that ``gpt3 paper`` knows, by its place in the paper, in the order in which they run."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from pathlib import Path

from gpt3.errors import InputError
from gpt3.paper.experiment import Experiment

EXPERIMENTS = {
    "3.1": "gpt3.paper.scaling",
    "2.3": "gpt3.paper.noise_scale",
    "1.2": "gpt3.paper.in_context",
    "1.3": "gpt3.paper.aggregate",
    "2.1": "gpt3.paper.sizes",
    "3.10": "gpt3.paper.arithmetic",
    "3.9.4": "gpt3.paper.news",
    "3.9.5": "gpt3.paper.novel_words",
    "3.9.6": "gpt3.paper.grammar",
    "6.2": "gpt3.paper.bias",
    "6.3": "gpt3.paper.energy",
    "C": "gpt3.paper.contamination",
    "D": "gpt3.paper.compute",
}
"""Modules whose EXPERIMENT is the one of that figure. Those before others train the models that these ask."""


def experiment(figure: str) -> Experiment:
    """The one of a known figure."""
    found = importlib.import_module(EXPERIMENTS[figure]).EXPERIMENT
    assert isinstance(found, Experiment)
    return found


def chosen(figures: Sequence[str]) -> list[Experiment]:
    """Those named, in the order in which they run; without names, all.

    Raises:
        InputError: there is none of a name.
    """
    for name in figures:
        if name not in EXPERIMENTS:
            near = difflib.get_close_matches(name, EXPERIMENTS, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]}?" if near else f"Choose of {', '.join(EXPERIMENTS)}."
            if name == "wiki" or Path(name).exists():
                hint = f"If it is training text, write --data {name}."
            raise InputError(f"{name} is no experiment of gpt3 paper. {hint}")
    return [experiment(name) for name in EXPERIMENTS if not figures or name in figures]
