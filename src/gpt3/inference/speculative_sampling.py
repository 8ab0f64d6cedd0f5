"""Which drafted tokens to keep, so that what is written is distributed as if the target had written it alone.

Leviathan et al. 2023, algorithm 1 ("Fast Inference from Transformers via Speculative Decoding"); Chen et al. 2023 the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpt3.inference import drawing
from gpt3.inference.drawing import Row


def speculative_accept(
    target_probs: Row, draft_probs: Row | None, drafted: Sequence[int], uniforms: Sequence[float]
) -> tuple[int, int]:
    """Accept the longest fit beginning of a draft, and one token more.

    Args:
        target_probs: (K + 1, V) float32, `sampler.probabilities` at each drafted place and after the last.
        draft_probs: (K, V) float32, what each drafted token was drawn from; None: the draft is a guess that no chance entered
            (prompt lookup, a greedy draft).
        drafted: K ids, at least 0 of them.
        uniforms: K + 1 numbers in [0, 1), independent of one another and of those that drew the draft: one a drafted token,
            the last for the token more.

    Returns:
        how many drafted tokens are accepted, and the id that follows them.
    """
    if len(target_probs) != len(drafted) + 1 or len(uniforms) != len(drafted) + 1:
        raise ValueError(
            f"{len(drafted)} drafted tokens with {len(target_probs)} target rows and {len(uniforms)} uniforms"
        )
    for place, token in enumerate(drafted):
        target = target_probs[place]
        drawn_with = 1.0 if draft_probs is None else float(draft_probs[place, token])
        if uniforms[place] * drawn_with < float(target[token]):
            continue
        if draft_probs is None:
            rest = target.copy()
            rest[token] = 0
        else:
            rest = (target - draft_probs[place]).clip(min=0)
        if not rest.sum() > 0:  # target and draft are one but for rounding: what was drawn is then a fair draw
            rest = target
        return place, drawing.draw(rest, uniforms[-1])
    return len(drafted), drawing.draw(target_probs[-1], uniforms[-1])
