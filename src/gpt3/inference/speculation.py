"""Drafts of what comes next, which the model then checks several tokens at a time (speculative decoding).

A draft is right where it names the very token that the row's sampler chooses from the model's logits, with the row's own random
number. So a text is the same, token for token, with a draft and without one, greedy or sampled; only the time differs. (Leviathan
et al. 2023 accept by a coin of its own instead, which keeps the distribution but not the text.)
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from gpt3.errors import InputError
from gpt3.inference.decoding import DRAFT_TOKENS, common
from gpt3.inference.engine import Engine, Run
from gpt3.inference.language_model import LanguageModel
from gpt3.inference.row import NO_SLOT, Row
from gpt3.inference.sampling import NOTHING_LEFT, Rows, choose, to_numpy


class PromptLookup:
    """What followed the last time that the newest tokens came, in prompt or text. No second model (Saxena 2023).

    Args:
        longest, shortest: how many of the newest tokens must have come before; the longest match counts.
        tokens: drafted at a time, at most.
    """

    def __init__(self, longest: int = 3, shortest: int = 2, tokens: int = DRAFT_TOKENS) -> None:
        if not 1 <= shortest <= longest:
            raise ValueError(f"shortest is {shortest}, longest {longest}; give 1 <= shortest <= longest")
        self.sizes, self.tokens = range(longest, shortest - 1, -1), tokens

    def propose(self, rows: Sequence[Row], limits: Sequence[int]) -> list[list[int]]:
        """As Draft's."""
        return [self._propose(row.tokens, min(limit, self.tokens)) for row, limit in zip(rows, limits, strict=True)]

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
        tokens: drafted at a time, at most.
    """

    def __init__(self, engine: Engine, tokens: int = 4) -> None:
        self.engine, self.tokens = engine, tokens
        self.cache = engine.new_cache(1, engine.context)
        self._held: list[list[int]] = [[]]

    def propose(self, rows: Sequence[Row], limits: Sequence[int]) -> list[list[int]]:
        """As Draft's."""
        drafts: list[list[int]] = [[] for _ in rows]
        going = []
        for place, (row, limit) in enumerate(zip(rows, limits, strict=True)):
            capacity = self.cache.capacity - len(row.tokens)
            if (length := min(limit, self.tokens, capacity)) > 0 and row.slot != NO_SLOT:
                going.append((place, row, length))
        self._seat(max((row.slot for _, row, _ in going), default=0) + 1)
        new = {place: self._unread(row) for place, row, _ in going}
        while going:
            runs = [Run(row.slot, new[place]) for place, row, _ in going]
            logits = to_numpy(self.engine.forward(self.cache, runs))
            still = []
            for (place, row, length), run, line in zip(going, runs, logits, strict=True):
                self._held[run.slot] += run.tokens
                token = choose(line, Rows([row]))
                if token == NOTHING_LEFT:
                    continue
                row.push(token)
                drafts[place].append(token)
                new[place] = [token]
                if len(drafts[place]) < length:
                    still.append((place, row, length))
            going = still
        for row, draft in zip(rows, drafts, strict=True):
            row.take_back(len(draft))
        return drafts

    def _seat(self, slots: int) -> None:
        """Have at least so many slots; more of them are a new, empty cache."""
        if slots > self.cache.slots:
            self.cache = self.engine.new_cache(slots, self.engine.context)
            self._held = [[] for _ in range(slots)]

    def _unread(self, row: Row) -> list[int]:
        """Cut the slot back to what is still so, and give what it has not read."""
        slot = row.slot
        length = common(self._held[slot], row.tokens[:-1])
        if length < self.cache.least(slot):
            length = 0
        self.cache.truncate(slot, length)
        del self._held[slot][length:]
        return row.tokens[length:]


def model_draft(model: LanguageModel, draft: LanguageModel, tokens: int = 4) -> ModelDraft:
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
    return ModelDraft(draft.engine, tokens)
