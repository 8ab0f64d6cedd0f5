"""Texts of a fixed length, as GPT3-dev scores MMLU: cut on the right or filled with the EOS token, which counts as text.

Its attention mask is 1 everywhere and its labels are the ids, so all tokens but the first are scored, those of the filling, too.
Texts that are the same after the cut have the very same score; among equals the first option is chosen.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpt3.errors import InputError
from gpt3.inference.continuations import Request, score_requests

if TYPE_CHECKING:
    from gpt3.inference.language_model import LanguageModel


def window_ids(model: LanguageModel, size: int, text: str) -> tuple[int, ...]:
    """A text's first `size` ids, and EOS up to that number.

    Raises:
        InputError: the tokenizer has no EOS token.
    """
    eos = model.tokenizer.eos_token_id
    if eos is None:
        raise InputError(
            "the tokenizer has no EOS token to fill texts with. Set its eos_token, or use another --style."
        )
    ids = model.encode_prompt(text)[:size] if text else []
    return (*ids, *[int(eos)] * (size - len(ids)))


def window_totals(
    model: LanguageModel, size: int, questions: Sequence[Sequence[str]], batch: int = 8
) -> list[list[float]]:
    """The log-probability of the last `size` - 1 tokens of each text, in nats.

    Args:
        questions: the texts of each question, one per option.
        batch: contexts read in parallel; no score depends on it.

    Raises:
        InputError: the model has fewer than `size` positions.
    """
    if model.engine.context < size:
        raise InputError(
            f"texts of {size} tokens exceed the model's {model.engine.context} positions. Use another --style."
        )
    rows = [[window_ids(model, size, text) for text in texts] for texts in questions]
    requests = []
    asked: list[tuple[int, ...]] = []
    for some in rows:
        distinct = sorted(set(some))
        asked += distinct
        for first, same in itertools.groupby(distinct, key=lambda ids: ids[0]):
            requests.append(Request([first], [ids[1:] for ids in same]))
    scores = itertools.chain.from_iterable(score_requests(model.engine, requests, batch=batch))
    pairs = iter(zip(asked, scores, strict=True))
    found = []
    for some in rows:
        totals = {ids: score.total for ids, score in itertools.islice(pairs, len(set(some)))}
        found.append([totals[ids] for ids in some])
    return found
