"""The engines that run a model with torch's operators: `ReferenceEngine` as it is, `TorchEngine` over static caches.

The model's own forward is the reference of the other engines, and the way for models that are not GPT-3's class. It takes any
causal model of transformers, on any device, in any number format, with its weights where they are: it may be in the middle of
training. Each slot has a DynamicCache of its own, and runs go one after another.

The engine for GPUs (and any other device of torch) has static caches, so that a decode step can be one captured CUDA graph. A
step that gives each text one token computes every slot of the cache, whether it has a token or not: shapes never change, and on
CUDA the step is captured the first time and replayed. Prompts of about one length are read together, without a mask, on CUDA
captured, too, at a few lengths (captured.py); several tokens of a text go run by run. Each layer's cache has one place more than
it needs: there go the keys of slots that have no token in a step. What the host sends goes from pinned memory, so that nothing
waits for a GPU but who reads the logits.
"""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt3.errors import InputError
from gpt3.inference.captured import capture, captures, filled, padded_shape
from gpt3.inference.engine import ROLLBACK, Cache, Engine, Run
from gpt3.inference.packing import check
from gpt3.inference.sampling import sent
from gpt3.inference.torch_attention import attend_and_store
from gpt3.model.banded_attention import banded_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from gpt3.model import GPT3ForCausalLM

CHUNK = 2048
"""Tokens of a prompt that a `TorchEngine` reads at a time, which bounds the activations held."""
TOGETHER = 16_384
"""Tokens of prompts that a `TorchEngine` reads together, what fills up shorter ones included."""
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


class ReferenceEngine(Engine):
    """Runs a transformers model as it is.

    Args:
        model: its mode (train, eval) is left as it is found.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model.config, model.device, sum(parameter.nbytes for parameter in model.parameters()))
        self.model = model
        self.packs = model.config.model_type in PACKED

    def new_cache(self, slots: int, capacity: int) -> ReferenceCache:
        """An empty cache."""
        return ReferenceCache(slots, min(capacity, self.context))

    def _forward(self, cache: Cache, runs: Sequence[Run]) -> Tensor:
        assert isinstance(cache, ReferenceCache)
        with torch.inference_mode(), self._evaluating():
            return torch.cat([self._run(cache, run) for run in runs])

    def look_ahead(self, cache: Cache, texts: Sequence[tuple[int, Sequence[int]]], spare: Sequence[int]) -> Tensor:
        """As Engine's; neighbors of one slot go through the model as one batch. What fills up shorter ones comes after them,
        where a causal model does not look."""
        assert isinstance(cache, ReferenceCache)
        found = []
        with torch.inference_mode(), self._evaluating():
            for slot, group in itertools.groupby(texts, key=lambda pair: pair[0]):
                rows = [tokens for _, tokens in group]
                longest = max(map(len, rows))
                ids = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in rows], device=self.device)
                past = copy.deepcopy(cache.caches[slot])
                past.batch_repeat_interleave(len(rows))
                logits = self.model(input_ids=ids, past_key_values=past, use_cache=True).logits
                found += [lines[: len(tokens)] for tokens, lines in zip(rows, logits, strict=True)]
        return torch.cat(found)[:, : self.vocabulary].float()

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


def alike(runs: Sequence[Run], least: int = 2) -> Iterator[list[Run]]:
    """Groups of `least` runs or more, none over twice as long as another of its group, of at most TOGETHER tokens filled up."""
    group: list[Run] = []
    for run in (*sorted(runs, key=lambda run: len(run.tokens)), None):
        fits = run is not None and (
            not group
            or (len(run.tokens) <= 2 * len(group[0].tokens) and len(run.tokens) * (len(group) + 1) <= TOGETHER)
        )
        if not fits:
            if len(group) >= least:
                yield group
            group = []
        if run is not None:
            group.append(run)


class TorchCache(Cache):
    """Keys and values (slots, H, places + 1, D) a layer, in the model's format; rings for banded layers."""

    def __init__(self, model: GPT3ForCausalLM, slots: int, capacity: int) -> None:
        super().__init__(slots, capacity)
        c = model.config
        ring = min(capacity, c.sliding_window + ROLLBACK)
        self.places = [ring if kind == "sliding_attention" else capacity for kind in c.layer_types]
        # a place more, and then up to a multiple of 8, which fused attention's masks want
        shapes = [(slots, c.num_attention_heads, -(-(places + 1) // 8) * 8, c.head_dim) for places in self.places]
        self.keys = [torch.zeros(shape, dtype=model.dtype, device=model.device) for shape in shapes]
        self.values = [torch.zeros(shape, dtype=model.dtype, device=model.device) for shape in shapes]
        self.step_inputs = torch.zeros(2, slots, dtype=torch.long, device=model.device)
        self.tokens, self.positions = self.step_inputs  # position -1: no token in this step
        self.replay: Callable[[], Tensor] | None = None  # a step, once captured
        self.replays: dict[tuple[int, int], tuple[Tensor, Callable[[], Tensor]]] = {}  # prompts of a shape: input, pass

    def _copy(self, source: int, target: int) -> None:
        for x in (*self.keys, *self.values):
            x[target] = x[source]


class TorchEngine(Engine):
    """Runs a GPT-3 model with torch's operators, on its device and in its format.

    Args:
        model: kept, in evaluation mode.
    """

    def __init__(self, model: GPT3ForCausalLM) -> None:
        tensors = itertools.chain(model.parameters(), model.buffers())  # int8 weights are buffers
        super().__init__(model.config, model.device, sum(tensor.nbytes for tensor in tensors))
        self.model, self.config = model.eval(), model.config
        self.windows = {"full_attention": None, "sliding_attention": self.config.sliding_window}
        self._lock = threading.Lock()

    def new_cache(self, slots: int, capacity: int) -> TorchCache:
        """An empty cache."""
        return TorchCache(self.model, slots, min(capacity, self.context))

    def _forward(self, cache: Cache, runs: Sequence[Run]) -> Tensor:
        assert isinstance(cache, TorchCache)
        with self._lock, torch.inference_mode():
            single = [run for run in runs if len(run.tokens) == run.logits == 1]
            longer = [run for run in runs if not len(run.tokens) == run.logits == 1]
            begin = [run for run in longer if not cache.ids[run.slot] and run.logits <= 1 and len(run.tokens) <= CHUNK]
            rows: dict[int, Tensor] = {}
            for group in alike(begin, least=1 if captures(self.device) else 2):
                rows |= self._read_together(cache, group)
            rows |= {run.slot: self._read(cache, run) for run in longer if run.slot not in rows}
            if single:
                logits = self._step(cache, single)
                slots = [run.slot for run in single]
                if len(single) == len(runs):
                    return logits if slots == list(range(cache.slots)) else logits[sent(slots, self.device)]
                rows |= {slot: logits[slot : slot + 1] for slot in slots}
            return torch.cat([rows[run.slot] for run in runs])

    def _step(self, cache: TorchCache, runs: Sequence[Run]) -> Tensor:
        """One token for some slots: (slots, V) float32; what the other rows hold has no meaning."""
        tokens, positions = [0] * cache.slots, [-1] * cache.slots
        for run in runs:
            tokens[run.slot], positions[run.slot] = run.tokens[0], len(cache.ids[run.slot])
        cache.step_inputs.copy_(sent([tokens, positions], self.device))
        if not captures(self.device):
            return self._decode(cache)
        if cache.replay is None:
            cache.replay = capture(lambda: self._decode(cache), self.device)
        return cache.replay()

    def _decode(self, cache: TorchCache) -> Tensor:
        """(slots, V) from cache.tokens and cache.positions."""
        transformer, positions = self.model.transformer, cache.positions.clamp(min=0)
        slots = torch.arange(cache.slots, device=self.device)
        kinds: dict[str, tuple[Tensor, Tensor]] = {}  # of layer: the place of the new token, and the places it sees
        for layer, kind in enumerate(self.config.layer_types):
            if kind not in kinds:
                places, width = cache.places[layer], cache.keys[layer].shape[2]
                column = torch.arange(width, device=self.device)
                age = (positions[:, None] - column) % places  # how many tokens before the newest that at a place came
                seen = (
                    (age <= positions[:, None]) & (age < (self.windows[kind] or self.context + 1)) & (column < places)
                )
                kinds[kind] = torch.where(cache.positions < 0, places, positions % places), seen[:, None, None]
        x = transformer.wte(cache.tokens) + transformer.wpe(positions)  # (slots, C)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys, values = cache.keys[layer], cache.values[layer]
            place, seen = kinds[self.config.layer_types[layer]]
            keys[slots, :, place], values[slots, :, place] = key, value
            return F.scaled_dot_product_attention(query[:, :, None], keys, values, attn_mask=seen)[:, :, 0]

        return self._head(self._blocks(x, attend))

    def _read_together(self, cache: TorchCache, runs: Sequence[Run]) -> dict[int, Tensor]:
        """Prompts of empty slots as one batch: each slot's (run.logits, V) float32.

        What fills up a shorter one comes after it, where nothing of it looks, and the places that it gets are not seen later on.
        """
        longest = max(len(run.tokens) for run in runs)
        shape = padded_shape(len(runs), longest, cache.capacity) if captures(self.device) else None
        new = sent(filled(runs, *(shape or (len(runs), longest))), self.device)
        if shape is None:
            logits = self._prefill(cache, new)
        else:
            if shape not in cache.replays:
                inputs = new.clone()
                cache.replays[shape] = inputs, capture(lambda: self._prefill(cache, inputs), self.device)
            inputs, replay = cache.replays[shape]
            inputs.copy_(new)
            logits = replay().clone()
        return {run.slot: logits[row : row + run.logits] for row, run in enumerate(runs)}

    def _prefill(self, cache: TorchCache, inputs: Tensor) -> Tensor:
        """The logits after prompts of empty slots, (B, V) float32.

        Args:
            inputs: (B, n + 2), see `filled`.
        """
        transformer, (B, longest) = self.model.transformer, (inputs.shape[0], inputs.shape[1] - 2)
        slots, last, ids = inputs[:, 0], inputs[:, 1], inputs[:, 2:]
        x = transformer.wte(ids) + transformer.wpe(torch.arange(longest, device=self.device))  # (B, n, C)
        newest: dict[int, Tensor] = {}  # by places of a ring: the token that each place holds at the end, (B, places)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            window, places = self.windows[self.config.layer_types[layer]], cache.places[layer]
            q, k, v = (new.unflatten(0, (B, longest)).transpose(1, 2) for new in (query, key, value))  # (B, H, n, D)
            if longest <= places:
                cache.keys[layer][slots, :, :longest], cache.values[layer][slots, :, :longest] = k, v
            else:
                if places not in newest:
                    column = torch.arange(places, device=self.device)
                    newest[places] = (last[:, None] - (last[:, None] - column) % places).clamp(min=0)
                index = newest[places][:, None, :, None].expand(-1, k.shape[1], -1, k.shape[3])
                cache.keys[layer][slots, :, :places] = k.gather(2, index)
                cache.values[layer][slots, :, :places] = v.gather(2, index)
            attended = banded_attention(q, k, v, longest if window is None else window)
            return attended.transpose(1, 2).flatten(0, 1)

        x = self._blocks(x.flatten(0, 1), attend).unflatten(0, (B, longest))
        return self._head(x[torch.arange(B, device=self.device), last])

    def _read(self, cache: TorchCache, run: Run) -> Tensor:
        """One run alone: (run.logits, V) float32."""
        transformer, total = self.model.transformer, len(run.tokens)
        wanted = []
        for begin in range(0, total, CHUNK):
            tokens = sent(run.tokens[begin : begin + CHUNK], self.device)
            start = len(cache.ids[run.slot]) + begin
            x = transformer.wte(tokens) + transformer.wpe(torch.arange(start, start + len(tokens), device=self.device))

            def attend(layer: int, query: Tensor, key: Tensor, value: Tensor, start: int = start) -> Tensor:
                keys, values = (x[layer][run.slot, :, : cache.places[layer]] for x in (cache.keys, cache.values))
                window = self.windows[self.config.layer_types[layer]]
                q, k, v = (new.transpose(0, 1) for new in (query, key, value))  # (H, n, D)
                return attend_and_store(q, k, v, keys, values, start, window).transpose(0, 1)

            x = self._blocks(x, attend)
            skipped = max(0, total - run.logits - begin)
            if skipped < len(tokens):
                wanted.append(self._head(x[skipped:]))
        return torch.cat(wanted) if wanted else torch.empty(0, self.vocabulary, device=self.device)

    def _blocks(self, x: Tensor, attend: Callable[[int, Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """(N, C) through all layers. attend takes and gives (N, H, D)."""
        for layer, block in enumerate(self.model.transformer.h):
            attention: Any = block.attn
            qkv = attention.c_attn(block.ln_1(x) if block.use_pre_layernorm else x)
            query, key, value = qkv.view(len(x), 3, attention.num_heads, attention.head_dim).unbind(1)
            x = x + attention.c_proj(attend(layer, query, key, value).reshape(len(x), -1))
            if block.use_pre_layernorm:
                x = x + block.mlp(block.ln_2(x))
            else:
                x = block.ln_1(x)
                x = block.ln_2(x + block.mlp(x))
        return x

    def _head(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model.lm_head(self.model.transformer.ln_f(x))[:, : self.vocabulary]
        return logits.float()
