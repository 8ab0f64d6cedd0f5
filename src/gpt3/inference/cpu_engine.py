"""The engine for CPUs: weights packed once, caches allocated once, the whole model one compiled function.

Short runs (one token per text, or a few) are gathered into one `kernels.step`. Long runs (prompts) go one after another through
the same linear kernel and torch's fused attention, in chunks. The model's own forward is the reference (torch_engine.py).
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpt3.device import CPU, follow_threads
from gpt3.inference import kernel_cache, kernels, plain_step
from gpt3.inference.activations import ACTIVATIONS
from gpt3.inference.arrays import Array, Buffers, Keys, Shape
from gpt3.inference.engine import ROLLBACK, Cache, Engine, Run
from gpt3.inference.kernel_cache import Compilation
from gpt3.inference.packing import huge, pack, weights_of
from gpt3.model_folder.stored import StoredModel

if TYPE_CHECKING:
    from gpt3.model import GPT3ForCausalLM

SHORT = 32
"""Runs of up to this many tokens are gathered with others; longer ones are read by themselves."""
STEP = 256
"""Tokens of all short runs computed at a time: each has a line of scores per head, as long as the capacity."""
CHUNK = 512
"""Tokens of a long run that are read at a time, which bounds the activations held."""
_LOCK = threading.Lock()  # one parallel kernel at a time: they use all threads, and not every threading layer takes two


class CpuCache(Cache):
    """Keys and values in float32: for dense layers `capacity` places, for banded ones a ring of window + ROLLBACK."""

    def __init__(self, engine: CpuEngine, slots: int, capacity: int) -> None:
        super().__init__(slots, capacity)
        config = engine.config
        banded = np.array([kind == "sliding_attention" for kind in config.layer_types])
        index = np.where(banded, np.cumsum(banded), np.cumsum(~banded)) - 1
        self.ring = min(capacity, config.sliding_window + ROLLBACK)
        dense_shape = (int((~banded).sum()), slots, config.num_attention_heads, capacity, config.head_dim)
        ring_shape = (int(banded.sum()), slots, config.num_attention_heads, self.ring, config.head_dim)
        self.dense, self.rings = (  # read only where written
            tuple(huge(shape, np.float32) for _ in range(2)) for shape in (dense_shape, ring_shape)
        )
        self.keys = Keys(banded, index, *self.dense, *self.rings)
        self._engine = engine
        self._buffers: dict[str, Array] = {}

    def _copy(self, source: int, target: int) -> None:
        length = len(self.ids[source])
        for x in self.dense:
            x[:, target, :, :length] = x[:, source, :, :length]
        for x in self.rings:
            x[:, target] = x[:, source]

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and activations."""
        return sum(x.nbytes for x in (*self.dense, *self.rings, *self._buffers.values()))

    def buffers(self, tokens: int, logits: int, scores: bool) -> Buffers:
        """Buffers for this many tokens and rows of logits."""
        c, held = self._engine.config, self._buffers
        A = c.num_attention_heads * c.head_dim
        shapes = {
            "x": (tokens, c.hidden_size),
            "normed": (max(tokens, logits), c.hidden_size),
            "qkv": (tokens, 3 * A),
            "attended": (tokens, A),
            "hidden": (tokens, c.intermediate_size),
            "scores": (tokens if scores else 1, c.num_attention_heads, self.capacity),
            "logits": (logits, self._engine.vocabulary),
        }
        for name, shape in shapes.items():
            if name not in held or len(held[name]) < shape[0]:
                held[name] = np.empty(shape, np.float32)
        return Buffers(**held)


class CpuEngine(Engine):
    """Runs GPT-3 models on a CPU.

    Args:
        model: in memory or in its folder; copied from, it may be deleted then.
        take: empty the model's weights as they are copied, so that they are not held twice.
        weight_format: fp32, fp16, bf16, int8 or int4, of the matrices; sums and activations are float32 in all of them.

    Raises:
        InputError: weights that are not finite (the tensor is named).
        KeyError: an activation function that the kernels do not have (activations.ACTIVATIONS).
    """

    gathers = True

    def __init__(self, model: GPT3ForCausalLM | StoredModel, weight_format: str = "fp32", take: bool = False) -> None:
        self.config = config = model.config
        self.weight_format = weight_format
        self.compilation: Compilation | None = None
        weights = model.weights if isinstance(model, StoredModel) else weights_of(model, take)
        self.weights = pack(config, weights, weight_format)
        nbytes = sum({array.ctypes.data: array.nbytes for array in self.weights}.values())  # tied ones once
        super().__init__(config, CPU, nbytes)
        self.shape = Shape(
            config.num_attention_heads,
            config.sliding_window,
            ACTIVATIONS[config.activation_function],
            config.use_pre_layernorm,
            config.layer_norm_epsilon,
        )

    def new_cache(self, slots: int, capacity: int) -> CpuCache:
        """An empty cache."""
        return CpuCache(self, slots, min(capacity, self.context))

    def compile_in_background(self) -> bool:
        """If the kernels are not compiled for this machine, have a process compile them, and compute without them until then.

        Returns:
            Whether that is so. Texts and scores may then differ in the last bits from those of the kernels.
        """
        stored = self.weights.qkv.dtype
        if kernel_cache.wanted(kernels.step, stored):  # int4's fall back to int8 where they do not divide
            self.compilation = Compilation("int8" if stored == np.int8 else self.weight_format)
        return self.compilation is not None

    def _forward(self, cache: Cache, runs: Sequence[Run]) -> Array:
        assert isinstance(cache, CpuCache)
        if self.compilation is not None and self.compilation.over:
            self.compilation = None
        with _LOCK:
            if self.compilation is not None:
                return np.concatenate([self._step_plainly(cache, run) for run in runs])
            follow_threads()
            groups: list[list[Run]] = [[]]
            pieces: dict[int, Array] = {}
            for run in runs:
                if len(run.tokens) > SHORT:
                    pieces[run.slot] = self._read(cache, run)
                    continue
                if sum(len(other.tokens) for other in groups[-1]) + len(run.tokens) > STEP:
                    groups.append([])
                groups[-1].append(run)
            if len(groups[0]) == len(runs):
                return self._step(cache, runs)
            if len(runs) == 1:
                return pieces[runs[0].slot]
            for group in groups:
                if group:
                    logits = self._step(cache, group).copy()
                    ends = list(itertools.accumulate(run.logits for run in group))
                    pieces |= {run.slot: logits[end - run.logits : end] for run, end in zip(group, ends, strict=True)}
            return np.concatenate([pieces[run.slot] for run in runs])

    def _step(self, cache: CpuCache, runs: Sequence[Run]) -> Array:
        """A few tokens of each slot at once."""
        tokens = [token for run in runs for token in run.tokens]
        slots = [run.slot for run in runs for _ in run.tokens]
        positions = [len(cache.ids[run.slot]) + place for run in runs for place in range(len(run.tokens))]
        ends = itertools.accumulate(len(run.tokens) for run in runs)
        wanted = [place for run, end in zip(runs, ends, strict=True) for place in range(end - run.logits, end)]
        buffers = cache.buffers(len(tokens), len(wanted), scores=True)
        arrays = [np.array(numbers, dtype=np.int64) for numbers in (tokens, slots, positions, wanted)]
        kernels.step(self.weights, self.shape, cache.keys, buffers, *arrays)
        return buffers.logits[: len(wanted)]

    def _step_plainly(self, cache: CpuCache, run: Run) -> Array:
        """A run without the kernels: logits of its last `run.logits` tokens."""
        found = [np.empty((0, self.vocabulary), np.float32)]
        for begin in range(0, len(run.tokens), ROLLBACK):  # a ring takes no more at a time
            tokens = np.array(run.tokens[begin : begin + ROLLBACK], dtype=np.int64)
            positions = len(cache.ids[run.slot]) + begin + np.arange(len(tokens))
            wanted = np.arange(max(0, len(run.tokens) - run.logits - begin), len(tokens))
            buffers = cache.buffers(len(tokens), len(wanted), scores=False)
            slots = np.full(len(tokens), run.slot)
            plain_step.step(self.weights, self.shape, cache.keys, buffers, tokens, slots, positions, wanted)
            found.append(buffers.logits[: len(wanted)].copy())
        return np.concatenate(found)

    def _read(self, cache: CpuCache, run: Run) -> Array:
        """A long run, in chunks; logits of its last `run.logits` tokens."""
        total = len(run.tokens)
        first_wanted = total - run.logits
        logits = np.empty((run.logits, self.vocabulary), np.float32)
        for begin in range(0, total, CHUNK):
            end = min(begin + CHUNK, total)
            buffers = self._read_chunk(cache, run.slot, len(cache.ids[run.slot]) + begin, run.tokens[begin:end])
            wanted = np.arange(max(first_wanted, begin) - begin, end - begin, dtype=np.int64)
            if len(wanted):
                rows = logits[begin + int(wanted[0]) - first_wanted :]
                kernels.head(self.weights, self.shape, buffers.x, wanted, buffers.normed, rows)
        return logits

    def _read_chunk(self, cache: CpuCache, slot: int, start: int, tokens: Sequence[int]) -> Buffers:
        """Tokens at positions from `start` on: keys and values stored, the residual stream left in buffers.x."""
        import torch

        from gpt3.inference.torch_attention import attend_and_store

        n, w, shape = len(tokens), self.weights, self.shape
        b = cache.buffers(n, 1, scores=False)
        qkv, attended = torch.from_numpy(b.qkv[:n]), torch.from_numpy(b.attended[:n])
        stores = [tuple(map(torch.from_numpy, both)) for both in (cache.dense, cache.rings)]
        positions = np.arange(start, start + n)
        kernels.embed(w, np.array(tokens, dtype=np.int64), positions, b.x)
        for layer in range(len(w.qkv)):
            kernels.into_attention(w, shape, layer, b, n)
            query, key, value = qkv.view(n, 3, shape.heads, -1).permute(1, 2, 0, 3)  # each (H, n, D)
            banded, number = bool(cache.keys.banded[layer]), int(cache.keys.number[layer])
            keys, values = (x[number, slot] for x in stores[banded])
            window = shape.window if banded else None
            with torch.inference_mode():
                result = attend_and_store(query, key, value, keys, values, start, window)
                attended.view(n, shape.heads, -1).copy_(result.transpose(0, 1))
            kernels.out_of_attention(w, shape, layer, b, n)
        return b
