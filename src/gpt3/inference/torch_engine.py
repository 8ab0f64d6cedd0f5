"""The engine for GPUs (and any other device of torch): static caches, so that a decode step can be one captured CUDA graph.

A step that gives each text one token computes every slot of the cache, whether it has a token or not: shapes never change, and
on CUDA the step is captured the first time and replayed. Prompts, and several tokens of a text, go run by run.

Each layer's cache has one place more than it needs: there go the keys of slots that have no token in a step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt3.inference.engine import ROLLBACK, Cache, Engine, Run, attend_and_store

if TYPE_CHECKING:
    from gpt3.model import GPT3ForCausalLM

CHUNK = 2048
"""Tokens of a prompt that are read at a time, which bounds the activations held."""


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
        self.tokens = torch.zeros(slots, dtype=torch.long, device=model.device)
        self.positions = torch.zeros(slots, dtype=torch.long, device=model.device)  # -1: no token in this step
        self.replay: Callable[[], Tensor] | None = None

    def _copy(self, source: int, target: int) -> None:
        for x in (*self.keys, *self.values):
            x[target] = x[source]

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return sum(x.nbytes for x in (*self.keys, *self.values))


class TorchEngine(Engine):
    """Runs a GPT-3 model with torch's operators, on its device and in its format.

    Args:
        model: kept, in evaluation mode.
    """

    def __init__(self, model: GPT3ForCausalLM) -> None:
        super().__init__(model)
        self.model, self.config = model.eval(), model.config
        self.windows = {"full_attention": None, "sliding_attention": self.config.sliding_window}
        self._lock = threading.Lock()

    def new_cache(self, slots: int, capacity: int) -> TorchCache:
        """An empty cache."""
        return TorchCache(self.model, slots, min(capacity, self.context))

    def _forward(self, cache: Cache, runs: Sequence[Run]) -> Tensor:
        assert isinstance(cache, TorchCache)
        with self._lock:
            single = [run for run in runs if len(run.tokens) == run.logits == 1]
            rows = {run.slot: self._read(cache, run) for run in runs if not len(run.tokens) == run.logits == 1}
            if single:
                logits = self._step(cache, single)
                if len(single) == len(runs):
                    return logits[[run.slot for run in runs]]
                rows |= {run.slot: logits[run.slot : run.slot + 1] for run in single}
            return torch.cat([rows[run.slot] for run in runs])

    def _step(self, cache: TorchCache, runs: Sequence[Run]) -> Tensor:
        """One token for some slots: (slots, V) float32; what the other rows hold has no meaning."""
        tokens, positions = [0] * cache.slots, [-1] * cache.slots
        for run in runs:
            tokens[run.slot], positions[run.slot] = run.tokens[0], len(cache.ids[run.slot])
        cache.tokens.copy_(torch.tensor(tokens))
        cache.positions.copy_(torch.tensor(positions))
        if self.device.type != "cuda":
            return self._decode(cache)
        if cache.replay is None:
            cache.replay = self._capture(cache)
        return cache.replay()

    def _capture(self, cache: TorchCache) -> Callable[[], Tensor]:
        """The step as a CUDA graph. What it writes on the way is written again by the replay."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):  # what is allocated at the first use, such as cuBLAS's workspace
            for _ in range(2):
                self._decode(cache)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # on this device's stream; other threads may use theirs meanwhile
        with torch.cuda.device(self.device), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            logits = self._decode(cache)

        def replay() -> Tensor:
            graph.replay()
            return logits

        return replay

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

    def _read(self, cache: TorchCache, run: Run) -> Tensor:
        """A run by itself: (run.logits, V) float32."""
        transformer, total = self.model.transformer, len(run.tokens)
        wanted = []
        for begin in range(0, total, CHUNK):
            tokens = torch.tensor(run.tokens[begin : begin + CHUNK], device=self.device)
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
