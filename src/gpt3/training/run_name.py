"""What a run is called that ``--out`` does not name."""

from __future__ import annotations

import re
from pathlib import Path

from gpt3.corpus.sources import SOURCES
from gpt3.training.continuing import short_name
from gpt3.training.options import TrainOptions
from gpt3.training.plan import shape_of

LONGEST_NAME = 40
"""Characters of a name that comes from the data."""


def default_name(options: TrainOptions) -> str:
    """By its own data, or of wiki by its model: ``novels``, ``17M``; with given weights ``novels-from-gpt2`` or ``from-gpt2``.

    Raises:
        InputError: see `shape_of`.
    """
    data = data_name(options)
    if options.init_from is None:
        return data or shape_of(options).name
    return "-".join(filter(None, [data, "from", short_name(options.init_from)]))


def data_name(options: TrainOptions) -> str | None:
    """The name of the first source that is not wiki: ``novels`` for texts/novels.jsonl.gz; None where there is none."""
    sources = options.data if options.mixture is None else [str(Path(options.mixture).expanduser().resolve())]
    for source in ",".join(sources).split(","):
        place = re.split(r"[#@*?\[]", source.strip())[0]  # without a field, a slice, a pattern
        kind, _, rest = place.partition(":")
        if kind in SOURCES:
            name = rest.partition(":")[0].rpartition("/")[2] if kind == "hf" else kind
        else:
            name = Path(place).expanduser().resolve().name.partition(".")[0]
        name = re.sub(r"[^\w-]+", "-", name).strip("-")[:LONGEST_NAME]
        if name and kind != "wiki":
            return name
    return None
