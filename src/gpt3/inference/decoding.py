"""The decode loop: one prefill of the prompt, then one forward a token, for rows that share the prompt.

The model sees only the newest token and its key-value cache (transformers' DynamicCache, which keeps just the window
of banded layers). Rows that end leave the batch. Positions are learned and absolute, so a full context cannot slide by
one: its last half is read anew as positions 0, 1, … and writing goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpt3.errors import InputError, RunError
from gpt3.inference import sampling
from gpt3.inference.options import SamplingOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Decoder:
    """Continues one prompt in several rows, a token a step.

    Args:
        model: a causal language model of transformers; its mode (train, eval) is left as it is found.
        prompt: token ids, at least one and at most the model's positions.
        options: how tokens are chosen; `num_samples` rows.
        seed: of the draws; row i's depend on (seed, i) only.
        vocabulary: ids from here on are never chosen.

    Attributes:
        rows: the numbers of the rows still written, ascending.
        restarts: how often the context was full and its last half was read anew.
    """

    def __init__(
        self, model: PreTrainedModel, prompt: Sequence[int], options: SamplingOptions, seed: int, vocabulary: int
    ) -> None:
        self.context = context_of(model)
        if not 1 <= len(prompt) <= self.context:
            raise ValueError(f"the prompt has {len(prompt)} tokens, but must have 1 to {self.context}")
        self.model, self.options, self.seed, self.vocabulary = model, options, seed, vocabulary
        self.rows = list(range(options.num_samples))
        self.restarts = 0
        self.length = len(prompt)  # of every row: prompt and what was written
        self.written = 0
        # (rows, room): prompt and text of each row; only [:, : length] is filled
        self._history = torch.tensor([prompt] * len(self.rows), dtype=torch.long, device=model.device)

    def step(self) -> list[int]:
        """One more token for each of `rows`, in their order; sampling.NOTHING_LEFT where all are ruled out.

        Raises:
            InputError: the model's weights are not numbers (the tensor is named).
        """
        training = self.model.training
        if training:
            self.model.eval()  # no dropout, and a cache under gradient checkpointing
        try:
            with torch.inference_mode():
                return self._step()
        finally:
            if training:
                self.model.train()

    def keep(self, places: Sequence[int]) -> None:
        """Go on with these places of `rows` only (ascending); the others have ended."""
        if len(places) == len(self.rows):
            return
        self.rows = [self.rows[place] for place in places]
        if not places:
            return
        index = torch.tensor(places, device=self._history.device)
        self._history = self._history[index]
        self._cache.batch_select_indices(index)

    def _step(self) -> list[int]:
        logits = self._first() if self.written == 0 else self._next()  # (rows, V)
        if bool(logits.isnan().any()):
            raise not_a_number(self.model)
        history = self._history[:, : self.length]
        logits = sampling.process(logits, history, self.options, self.vocabulary)
        greedy = self.options.temperature == 0
        uniforms = [] if greedy else [sampling.uniform(self.seed, row, self.written) for row in self.rows]
        tokens = sampling.choose(logits, greedy, uniforms)
        if self.length == self._history.shape[1]:  # full: double it
            self._history = torch.cat([self._history, torch.zeros_like(self._history)], dim=1)
        self._history[:, self.length] = torch.tensor(tokens, device=self._history.device)
        self.length += 1
        self.written += 1
        return tokens

    def _first(self) -> Tensor:
        """Read the prompt once and copy its cache to every row."""
        logits = self._prefill(self._history[:1, : self.length])
        self._cache.batch_repeat_interleave(len(self.rows))
        return logits.expand(len(self.rows), -1)

    def _next(self) -> Tensor:
        if self._cached < self.context:
            return self._forward(self._history[:, self.length - 1 : self.length])
        self.restarts += 1
        kept = max(1, self.context // 2)
        return self._prefill(self._history[:, self.length - kept : self.length])

    def _prefill(self, ids: Tensor) -> Tensor:
        from transformers import DynamicCache

        self._cache = DynamicCache(config=self.model.config)
        self._cached = 0
        return self._forward(ids)

    def _forward(self, ids: Tensor) -> Tensor:
        """(B, T) new ids → (B, V) logits of what follows the last; the cache grows by T."""
        output = self.model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._cached += ids.shape[1]
        logits: Tensor = output.logits[:, -1]
        return logits


def context_of(model: PreTrainedModel) -> int:
    """The positions the model has: the most tokens it can see at once.

    Raises:
        InputError: its configuration names no such number.
    """
    positions: int | None = getattr(model.config, "max_position_embeddings", None)
    if positions is None:
        raise InputError(
            f"model type {model.config.model_type!r} names no max_position_embeddings; use a gpt3 or gpt2 model"
        )
    return positions


def not_a_number(model: PreTrainedModel) -> Exception:
    """What to raise when logits are NaN: the weights' fault (named), or else ours."""
    for name, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            return InputError(
                f"the model's tensor {name} holds values that are no finite numbers (its training diverged); "
                "take an earlier checkpoint with --model RUN/checkpoints/step-N"
            )
    return RunError("the model's logits are not numbers although its weights are finite; try --dtype fp32")
