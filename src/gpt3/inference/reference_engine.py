"""The model's own forward as an engine: the reference of the others, and the way for models that are not GPT-3's class.

Any causal model of transformers, on any device, in any number format, with its weights where they are: it may be in the middle
of training. Each slot has a DynamicCache of its own, and runs go one after another.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt3.errors import InputError
from gpt3.inference.engine import Cache, Engine, Run
from gpt3.inference.packing import check

if TYPE_CHECKING:
    from transformers import PreTrainedModel


PACKED = ("llama", "gpt2")
"""Model types whose forward takes a mask of its own, (1, 1, T, T), and positions; tests compare each with single texts."""


class ReferenceCache(Cache):
    """A DynamicCache a slot; what was cut is read anew by the next forward."""

    def __init__(self, slots: int, capacity: int) -> None:
        super().__init__(slots, capacity)
        self.caches: list[Any] = [None] * slots  # of transformers; None: nothing read

    def truncate(self, slot: int, length: int) -> None:
        """As Cache's."""
        if length < len(self.ids[slot]):
            self.caches[slot] = None
        super().truncate(slot, length)

    def _copy(self, source: int, target: int) -> None:
        self.caches[target] = copy.deepcopy(self.caches[source])

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        layers = [layer for cache in self.caches if cache is not None for layer in cache.layers]
        return sum(x.nbytes for layer in layers for x in (layer.keys, layer.values) if x is not None)


class ReferenceEngine(Engine):
    """Runs a transformers model as it is.

    Args:
        model: its mode (train, eval) is left as it is found.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self.model = model

    def new_cache(self, slots: int, capacity: int) -> ReferenceCache:
        """An empty cache."""
        return ReferenceCache(slots, min(capacity, self.context))

    def _forward(self, cache: Cache, runs: Sequence[Run]) -> Tensor:
        assert isinstance(cache, ReferenceCache)
        with self._evaluating():
            return torch.cat([self._run(cache, run) for run in runs])

    def look_ahead(self, cache: Cache, texts: Sequence[tuple[int, Sequence[int]]], spare: Sequence[int]) -> Tensor:
        """As Engine's; the texts of a slot go through the model as one batch. What fills up shorter ones comes after them,
        where a causal model does not look."""
        assert isinstance(cache, ReferenceCache)
        by_slot: dict[int, list[int]] = {}
        for place, (slot, _) in enumerate(texts):
            by_slot.setdefault(slot, []).append(place)
        rows: dict[int, Tensor] = {}
        with torch.inference_mode(), self._evaluating():
            for slot, places in by_slot.items():
                longest = max(len(texts[place][1]) for place in places)
                batch = [[*texts[place][1], *[0] * (longest - len(texts[place][1]))] for place in places]
                past = copy.deepcopy(cache.caches[slot])
                past.batch_repeat_interleave(len(places))
                ids = torch.tensor(batch, device=self.device)
                logits = self.model(input_ids=ids, past_key_values=past, use_cache=True).logits
                for place, lines in zip(places, logits, strict=True):
                    rows[place] = lines[: len(texts[place][1]), : self.vocabulary].float()
        return torch.cat([rows[place] for place in range(len(texts))])

    @property
    def packs(self) -> bool:
        """Whether `tree_logits` is known to be right for this kind of model."""
        return self.model.config.model_type in PACKED

    def tree_logits(self, trees: Sequence[tuple[Sequence[int], int, Sequence[Sequence[int]]]]) -> Tensor:
        """Several contexts, each with several continuations, in one forward without a cache: each token once, no padding.

        A token sees its context and what is before it in its own continuation, and its position is that of the joined text.

        Args:
            trees: context, after how many of its last tokens logits are wanted (at least one), continuations.

        Returns:
            For each tree these logits of its context, then those after each token of each continuation: (M, V) float32.
        """
        ids: list[int] = []
        positions: list[int] = []
        wanted: list[int] = []
        blocks: list[tuple[int, int, int, int]] = []  # rows from, to; the context's place and length
        for context, last, continuations in trees:
            start = len(ids)
            wanted += range(start + len(context) - last, start + len(context))
            for tokens, before in ((context, 0), *((one, len(context)) for one in continuations)):
                blocks.append((len(ids), len(ids) + len(tokens), start, before))
                wanted += range(len(ids), len(ids) + len(tokens)) if before else []
                ids += tokens
                positions += range(before, before + len(tokens))
        seen = torch.zeros(len(ids), len(ids), dtype=torch.bool)
        for begin, end, start, before in blocks:
            seen[begin:end, start : start + before] = True
            seen[begin:end, begin:end] = torch.ones(end - begin, end - begin, dtype=torch.bool).tril()
        dtype = self.model.dtype
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[None, None]
        with torch.inference_mode(), self._evaluating():
            logits: Tensor = self.model(
                input_ids=torch.tensor([ids], device=self.device),
                attention_mask=mask.to(self.device),
                position_ids=torch.tensor([positions], device=self.device),
                use_cache=False,
                logits_to_keep=torch.tensor(wanted, device=self.device),
            ).logits
        return logits[0, :, : self.vocabulary].float()

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """No dropout, and a cache under gradient checkpointing."""
        training = [module for module in self.model.modules() if module.training]
        if training:
            self.model.eval()
        try:
            yield
        finally:
            for module in training:  # not train(), which would reach parts that were not
                module.training = True

    def non_finite_error(self) -> Exception:
        """As Engine's, and the tensor that is not finite."""
        try:
            for name, tensor in self.model.named_parameters():
                check(name, tensor)
        except InputError as error:
            return error
        return super().non_finite_error()

    def _run(self, cache: ReferenceCache, run: Run) -> Tensor:
        from transformers import DynamicCache

        new = list(run.tokens)
        if cache.caches[run.slot] is None:
            cache.caches[run.slot] = DynamicCache(config=self.model.config)
            new = cache.ids[run.slot] + new
        output = self.model(
            input_ids=torch.tensor([new], device=self.device),
            past_key_values=cache.caches[run.slot],
            use_cache=True,
            logits_to_keep=max(run.logits, 1),
        )
        logits: Tensor = output.logits[0, output.logits.shape[1] - run.logits :, : self.vocabulary]
        return logits.float()
