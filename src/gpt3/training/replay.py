"""The sources of a run with their weights: ``--data`` alone or with a share of old text (``--replay``), or a mixture file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from gpt3.corpus.mixture import SourceSpec, read_mixture
from gpt3.training.continuing import parse_replay
from gpt3.training.options import TrainOptions

if TYPE_CHECKING:
    from gpt3.training.data import TrainingData

NEW = "data"
"""What the sources of --data are called in a run with --replay."""
LONGEST_NAME = 30


def run_sources(options: TrainOptions) -> list[SourceSpec]:
    """The run's sources: those of the mixture file, or ``--data``, which has no name unless text is replayed with it.

    Raises:
        InputError: see `read_mixture` and `parse_replay`.
    """
    if options.mixture is not None:
        return read_mixture(options.mixture)
    data = tuple(options.data)
    replayed = parse_replay(options.replay)
    if not replayed:
        return [SourceSpec("", data, 1.0)]
    specs = [SourceSpec(NEW, data, round(1 - sum(share for _, share in replayed), 9))]
    for source, share in replayed:
        specs.append(SourceSpec(_name(source, {spec.name for spec in specs}), (source,), share))
    return specs


def _name(source: str, taken: set[str]) -> str:
    """A source's name in metrics and data.json: its own, as far as `gpt3.corpus.mixture.NAME` allows, with a number if taken."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", Path(source).name.partition(".")[0].lower()).strip("-")[:LONGEST_NAME]
    name, number = plain or "replay", 2
    while name in taken:
        name, number = f"{plain or 'replay'}-{number}", number + 1
    return name


def epoch_tokens(data: TrainingData) -> int | None:
    """Tokens of a run in which ``--data`` is read once: what a length in epochs counts by. Of a mixture: all of its sources'.

    None where that is not known: data is prepared while training.
    """
    if data.known_tokens is None:
        return None
    if data.specs[0].name != NEW:
        return data.tokens
    return round(len(data.training[0]) / data.specs[0].weight)
