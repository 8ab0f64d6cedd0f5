"""Drafts of what comes next, which the model then checks several tokens at a time (speculative decoding).

A draft is right where it names the very token that the row's sampler chooses from the model's logits, with the row's own random
number. So a text is the same, token for token, with a draft and without one, greedy or sampled; only the time differs. (Leviathan
et al. 2023 accept by a coin of its own instead, which keeps the distribution but not the text.)
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from gpt3.errors import InputError
from gpt3.inference.decoding import common
from gpt3.inference.engine import Engine, Run
from gpt3.inference.language_model import LanguageModel
from gpt3.inference.row import Row
from gpt3.inference.sampling import NOTHING_LEFT, Rows, choose, to_numpy

MODEL_TOKENS = 4
"""Tokens that a smaller model drafts at a time, at most."""


class PromptLookup:
    """What followed the last time that the newest tokens came, in prompt or text. No second model (Saxena 2023).

    Args:
        longest, shortest: how many of the newest tokens must have come before; the longest match counts.
    """

    def __init__(self, longest: int = 3, shortest: int = 2) -> None:
        self.sizes = range(longest, shortest - 1, -1)

    def propose(self, rows: Sequence[Row], limits: Sequence[int]) -> list[list[int]]:
        """As Draft's."""
        return [self._propose(row.tokens, limit) for row, limit in zip(rows, limits, strict=True)]

    def _propose(self, tokens: list[int], limit: int) -> list[int]:
        if limit <= 0:
            return []
        content = array("i", tokens).tobytes()
        width = len(content) // len(tokens)
        for size in self.sizes:
            if size < len(tokens):
                newest, end = content[-size * width :], len(content) - width
                while (place := content.rfind(newest, 0, end)) % width and place >= 0:
                    end = place + len(newest) - 1  # not at a token's first byte
                if place >= 0:
                    found = place // width + size
                    return tokens[found : found + limit]
        return []


class ModelDraft:
    """What a smaller model would write: with the same sampling options, and the same random numbers.

    Args:
        engine: of a model with the same token ids; texts longer than its context get no draft.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.cache = engine.new_cache(1, engine.context)

    def propose(self, rows: Sequence[Row], limits: Sequence[int]) -> list[list[int]]:
        """As Draft's."""
        drafts: list[list[int]] = [[] for _ in rows]
        lengths = [
            min(limit, MODEL_TOKENS, self.cache.capacity - len(row.tokens))
            for row, limit in zip(rows, limits, strict=True)
        ]
        going = [place for place, length in enumerate(lengths) if length > 0]
        slots = max((rows[place].slot for place in going), default=0) + 1
        if slots > self.cache.slots:
            self.cache = self.engine.new_cache(slots, self.engine.context)
        new = {place: self._unread(rows[place]) for place in going}
        while going:
            lines = to_numpy(self.engine.forward(self.cache, [Run(rows[place].slot, new[place]) for place in going]))
            for place, line in zip(going, lines, strict=True):
                token = choose(line, Rows([rows[place]]))
                new[place] = [token]
                if token != NOTHING_LEFT:
                    rows[place].push(token)
                    drafts[place].append(token)
            going = [place for place in going if new[place] != [NOTHING_LEFT] and len(drafts[place]) < lengths[place]]
        for row, draft in zip(rows, drafts, strict=True):
            row.take_back(len(draft))
        return drafts

    def _unread(self, row: Row) -> list[int]:
        """Cut the slot back to what is still so, and give what it has not read."""
        length = common(self.cache.ids[row.slot], row.tokens[:-1])
        if length < self.cache.least(row.slot):
            length = 0
        self.cache.truncate(row.slot, length)
        return row.tokens[length:]


def model_draft(model: LanguageModel, draft: LanguageModel) -> ModelDraft:
    """A draft of another model, whose tokenizer must be the same.

    Raises:
        InputError: it is not.
    """
    ours, theirs = model.tokenizer.get_vocab(), draft.tokenizer.get_vocab()
    if ours != theirs:
        differing = sum(ours.get(token) != number for token, number in theirs.items())
        raise InputError(
            f"--draft has another tokenizer ({len(theirs):,} tokens, {differing:,} of them other ids than the model's); "
            "give a draft that was trained with the model's tokenizer"
        )
    if draft.vocabulary < model.vocabulary:
        raise InputError(
            f"--draft has {draft.vocabulary:,} ids, the model {model.vocabulary:,}; give a draft that has all of them"
        )
    return ModelDraft(draft.engine)
