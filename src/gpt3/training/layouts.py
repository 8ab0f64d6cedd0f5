"""A schedule that is laid out again for another length during the run (``--minutes``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Layout(NamedTuple):
    """From when on a run has how many steps."""

    step: int
    """Steps done by then."""
    steps: int
    """Steps of the whole run from then on."""


def schedule_tokens(layouts: Sequence[Layout], tokens: float, tokens_after: Callable[[int], int]) -> float:
    """Where the first layout's schedule is when the run has seen `tokens` tokens.

    Each layout stretches or shortens what was left of the one before it. So the learning rate has no jump, and every part of the
    schedule comes, however long the run is.

    Args:
        layouts: at least two; the first one begins at step 0.
        tokens_after: tokens seen by the first N steps.
    """
    planned = tokens_after(layouts[0].steps)
    begin = place = float(tokens_after(layouts[1].step))
    if tokens <= begin:
        return tokens
    for layout, later in zip(layouts[1:], [*layouts[2:], None], strict=True):
        until = tokens if later is None else min(tokens, tokens_after(later.step))
        place += (until - begin) * (planned - place) / (tokens_after(layout.steps) - begin)
        if until == tokens:
            break
        begin = until
    return place
