"""The engine for CPUs: weights packed once, caches allocated once, the whole model one compiled function.

The tokens of all runs, single ones and prompts, go through `kernels.step` together, without padding, in groups of bounded size. A
token's numbers are the same, to the last bit, whatever is computed with it and however its text is cut into runs. The model's own
forward is the reference (torch_engine.py).
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpt3.device import CPU, follow_threads
from gpt3.inference import kernel_cache, kernels, plain_step
from gpt3.inference.activations import ACTIVATIONS
from gpt3.inference.arrays import Array, Buffers, Keys, Shape
from gpt3.inference.attention_kernel import QUERIES
from gpt3.inference.engine import ROLLBACK, Cache, Engine, Run
from gpt3.inference.kernel_cache import Compilation
from gpt3.inference.microkernel import LANES
from gpt3.inference.packing import huge, pack, weights_of
from gpt3.model_folder.stored import StoredModel

if TYPE_CHECKING:
    from gpt3.model import GPT3ForCausalLM

ROWS = 512
"""Tokens of all runs that are computed at a time, which bounds the activations held. Longer runs are cut."""
_LOCK = threading.Lock()  # one parallel kernel at a time: they use all threads, and not every threading layer takes two


class CpuCache(Cache):
    """Keys and values in float32: for dense layers `capacity` places, for banded ones a ring of window + ROLLBACK."""

    def __init__(self, engine: CpuEngine, slots: int, capacity: int) -> None:
        super().__init__(slots, capacity)
        config = engine.config
        banded = np.array([kind == "sliding_attention" for kind in config.layer_types])
        index = np.where(banded, np.cumsum(banded), np.cumsum(~banded)) - 1
        self.ring = min(capacity, config.sliding_window + ROLLBACK)
        kinds = (int((~banded).sum()), capacity), (int(banded.sum()), self.ring)

        def room(layers: int, places: int) -> tuple[Array, Array]:
            """Keys and values, which are read only where they are written."""
            blocks, vectors, first = (
                -(-places // LANES),
                -(-config.head_dim // LANES),
                (layers, slots, config.num_attention_heads),
            )
            keys = huge((*first, blocks, config.head_dim, LANES), np.float32)
            return keys, huge((*first, blocks * LANES, vectors * LANES), np.float32)

        self.dense, self.rings = (room(*kind) for kind in kinds)
        self.keys = Keys(banded, index, *self.dense, *self.rings)
        self._engine = engine
        self._buffers: dict[str, Array] = {}

    def _copy(self, source: int, target: int) -> None:
        blocks = -(-len(self.ids[source]) // LANES)
        for x, length in zip(self.dense, (blocks, blocks * LANES), strict=True):
            x[:, target, :, :length] = x[:, source, :, :length]
        for x in self.rings:
            x[:, target] = x[:, source]

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and activations."""
        return sum(x.nbytes for x in (*self.dense, *self.rings, *self._buffers.values()))

    def buffers(self, tokens: int, logits: int) -> tuple[Buffers, Array]:
        """Buffers for this many tokens, and for this many rows of logits."""
        c, held = self._engine.config, self._buffers
        A = c.num_attention_heads * c.head_dim
        shapes = {
            "x": (tokens, c.hidden_size),
            "normed": (max(tokens, logits), c.hidden_size),
            "qkv": (tokens, 3 * A),
            "attended": (tokens, A),
            "hidden": (tokens, c.intermediate_size),
            "logits": (logits, self._engine.vocabulary),
        }
        for name, shape in shapes.items():
            if name not in held or len(held[name]) < shape[0]:
                held[name] = np.empty(shape, np.float32)
        return Buffers(**{name: held[name] for name in Buffers._fields}), held["logits"][:logits]


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
        total = sum(run.logits for run in runs)
        groups = list(_groups(runs, cache.lengths))
        with _LOCK:
            if self.compilation is None:
                follow_threads()
            step = kernels.step if self.compilation is None else plain_step.step
            found = None if len(groups) == 1 else np.empty((total, self.vocabulary), np.float32)
            done = 0
            for group in groups:
                buffers, logits = cache.buffers(len(group.tokens), len(group.wanted) if found is None else 0)
                if found is not None:
                    logits = found[done : done + len(group.wanted)]
                    done += len(group.wanted)
                step(self.weights, self.shape, cache.keys, buffers, *group, logits)
            return logits if found is None else found


class _Group(NamedTuple):
    """Tokens of some runs that are computed at once, as `kernels.step` takes them."""

    tokens: Array
    positions: Array
    blocks: Array
    rounds: Array
    wanted: Array


def _groups(runs: Sequence[Run], lengths: Sequence[int]) -> Iterator[_Group]:
    """All tokens of the runs in groups of up to ROWS, in order.

    Args:
        lengths: tokens that each slot holds.
    """
    parts: list[tuple[Run, int, int]] = []  # a run, and which of its tokens
    rows = 0
    for run in runs:
        begin = 0
        while begin < len(run.tokens):
            end = min(len(run.tokens), begin + ROWS - rows)
            parts.append((run, begin, end))
            rows, begin = rows + end - begin, end
            if rows == ROWS:
                yield _group(parts, lengths)
                parts, rows = [], 0
    if parts:
        yield _group(parts, lengths)


def _group(parts: Sequence[tuple[Run, int, int]], lengths: Sequence[int]) -> _Group:
    """One group: a ring takes no more than ROLLBACK tokens of a slot at a time, so these are a round."""
    tokens: list[int] = []
    positions: list[int] = []
    wanted: list[int] = []
    rounds: list[list[tuple[int, int, int, int]]] = []
    for run, begin, end in parts:
        row, first = len(tokens), lengths[run.slot] + begin
        tokens += run.tokens[begin:end]
        positions += range(first, first + end - begin)
        wanted += range(row + max(0, len(run.tokens) - run.logits - begin), len(tokens))
        for at in range(0, end - begin, QUERIES):
            if at // ROLLBACK == len(rounds):
                rounds.append([])
            rounds[at // ROLLBACK].append((row + at, min(QUERIES, end - begin - at), run.slot, first + at))
    ends = itertools.accumulate(map(len, rounds), initial=0)
    lists = tokens, positions, list(itertools.chain(*rounds)), list(ends), wanted
    return _Group(*(np.array(numbers, dtype=np.int64) for numbers in lists))
