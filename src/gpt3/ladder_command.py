"""``gpt3 ladder``. Apart from gpt3.ladder, so that listing the options loads no model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LadderOptions:
    """The paper's models and two small ones: shapes, exact parameter counts, compute, memory."""

    json: bool = False
    """Print one JSON array in place of the table."""


def run(options: LadderOptions) -> None:
    """Print the ladder."""
    import json

    from gpt3.ladder import ladder_rows, ladder_table

    print(json.dumps(ladder_rows(), indent=2) if options.json else ladder_table())
