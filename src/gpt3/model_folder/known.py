"""Published models by short names: ``gpt2`` for openai-community/gpt2. They work wherever a model is named.

A folder or a run of the same name comes first (gpt3.model_folder.locate). `gpt3 info --known` lists them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, NamedTuple

from gpt3.tables import aligned


class Known(NamedTuple):
    """A published model that can be read here."""

    hub_id: str
    """Its repository on the hub, owner/name."""
    parameters: str
    """How many, as its authors round them."""
    licence: str
    """As its card on the hub states it; the card is what counts."""

    @property
    def approximate_count(self) -> float:
        """The parameters as a number."""
        return float(self.parameters[:-1]) * {"M": 1e6, "B": 1e9}[self.parameters[-1]]


def _sizes(short: str, hub: str, licence: str, sizes: str) -> dict[str, Known]:
    """One entry per size: `short` and the size in lower case, `hub` and the size as the hub spells it."""
    return {f"{short}{size.lower()}": Known(f"{hub}{size}", size.upper(), licence) for size in sizes.split()}


KNOWN: dict[str, Known] = {
    "gpt2": Known("openai-community/gpt2", "124M", "mit"),
    "gpt2-medium": Known("openai-community/gpt2-medium", "355M", "mit"),
    "gpt2-large": Known("openai-community/gpt2-large", "774M", "mit"),
    "gpt2-xl": Known("openai-community/gpt2-xl", "1.5B", "mit"),
    "distilgpt2": Known("distilbert/distilgpt2", "82M", "apache-2.0"),
    **_sizes("cerebras-", "cerebras/Cerebras-GPT-", "apache-2.0", "111M 256M 590M 1.3B 2.7B 6.7B 13B"),
    **_sizes("gpt-neo-", "EleutherAI/gpt-neo-", "mit", "125m 1.3B 2.7B"),
    # not 350m: its embedding is narrower than the model
    **_sizes("opt-", "facebook/opt-", "other (non-commercial)", "125m 1.3b 2.7b 6.7b 13b 30b 66b"),
    "gpt3-dev": Known("k050506koch/GPT3-dev", "17.9M", "mit"),
    "gpt3-dev-125m": Known("k050506koch/GPT3-dev-125m", "125M", "mit"),
    "gpt3-dev-125m-0612": Known("k050506koch/GPT3-dev-125m-0612", "125M", "mit"),
    "gpt3-dev-125m-1202": Known("k050506koch/GPT3-dev-125m-1202", "125M", "mit"),
}
"""Models by their short name, in lower case. Many adapters name their base so: these were hub ids before they had owners."""


def hub_id(name: str) -> str | None:
    """The hub id that a short name stands for; case does not matter. None for other names."""
    known = KNOWN.get(name.lower())
    return known.hub_id if known else None


def did_you_mean(name: str, others: Iterable[str] = ()) -> str:
    """``Did you mean gpt2-xl, …? ``: short names and `others` that are near to `name`; empty where none is."""
    near = difflib.get_close_matches(name.lower(), [*KNOWN, *others], n=3, cutoff=0.7)
    return f"Did you mean {' or '.join(near)}? " if near else ""


def rows() -> list[dict[str, Any]]:
    """One dictionary per short name: name, hub_id, parameters, licence."""
    return [{"name": name, **known._asdict()} for name, known in KNOWN.items()]


def table() -> str:
    """The short names in columns, with a line on how to use them."""
    cells = [["name", "hub id", "parameters", "licence"], *([str(value) for value in row.values()] for row in rows())]
    usage = (
        "Use a name wherever a model is named: gpt3 generate --model gpt2, gpt3 train --init-from gpt2. "
        "starter comes with the package."
    )
    return "\n".join([*aligned(cells, left=(0, 1, 3)), usage])
