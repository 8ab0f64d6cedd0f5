"""What every engine does: tokens in, logits out, over a cache of slots.

    engine = make_engine(model)                       weights packed once
    cache = engine.new_cache(slots=2, capacity=512)       keys and values of two texts, allocated once
    engine.forward(cache, [Run(0, prompt)])           read a prompt: logits of what follows it, (1, V)
    cache.copy(0, 1)                                  a second text with the same beginning
    engine.forward(cache, [Run(0, [7]), Run(1, [9])]) one token each, (2, V)

A slot holds one text. Runs of any lengths go through one forward, no padding: a prompt beside single tokens, or several tokens
whose logits are all asked for (speculation, scoring). Texts join and leave between forwards; none sees another.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from gpt3.adaptive_threads import AdaptiveThreads
from gpt3.device import Device
from gpt3.errors import InputError, RunError

Logits = Any
"""float32 where the engine computes: NumPy's arrays from the CPU engine, torch's tensors from those that run on torch."""
ROLLBACK = 64
"""Tokens a slot can give back at least (`Cache.truncate`): rings of banded layers are this much longer than the window."""


@dataclass(frozen=True)
class Run:
    """Tokens that are appended to one slot."""

    slot: int
    """The text they continue."""
    tokens: Sequence[int]
    """At least one id."""
    logits: int = 1
    """Logits are returned after each of the last `logits` tokens; 0: none, they are only read."""


class Cache(ABC):
    """Keys and values of `slots` texts, each of at most `capacity` tokens.

    Attributes:
        ids: the tokens held, by slot. Positions are 0, 1, ... within each slot.
        highest: the longest each slot was: what rings still hold depends on it.
    """

    def __init__(self, slots: int, capacity: int) -> None:
        self.slots, self.capacity = slots, capacity
        self.ids: list[list[int]] = [[] for _ in range(slots)]
        self.highest = [0] * slots

    def truncate(self, slot: int, length: int) -> None:
        """Forget all tokens of a slot but the first `length`.

        Raises:
            ValueError: more than it holds, or (other than 0) more than ROLLBACK below the longest it was.
        """
        held = self.ids[slot]
        if not 0 <= length <= len(held):
            raise ValueError(f"slot {slot} holds {len(held)} tokens, it cannot be cut to {length}")
        if 0 < length < self.least(slot):
            raise ValueError(f"slot {slot} was {self.highest[slot]} tokens long, it cannot be cut back to {length}")
        del held[length:]
        if length == 0:
            self.highest[slot] = 0

    def least(self, slot: int) -> int:
        """The fewest tokens, other than none, that the slot can be cut to."""
        return self.highest[slot] - ROLLBACK

    def copy(self, source: int, target: int) -> None:
        """Make a slot hold what another holds."""
        if source != target:
            self._copy(source, target)
            self.ids[target], self.highest[target] = list(self.ids[source]), self.highest[source]

    @property
    def lengths(self) -> list[int]:
        """Tokens held, by slot."""
        return [len(ids) for ids in self.ids]

    @abstractmethod
    def _copy(self, source: int, target: int) -> None: ...


class Engine(ABC):
    """A model ready to be run forward.

    Attributes:
        context: positions it has, the most tokens a slot may hold.
        vocabulary: V, its real ids; rows that only pad the embedding have no logits.
        device: where logits are.
        nbytes: of the weights, those read for every token and the embeddings.

    Args:
        config: a model's configuration.
        device, nbytes: see above.

    Raises:
        InputError: the configuration does not say how many positions it has.
    """

    gathers: bool = False
    """Whether runs of several slots are computed together, to the same bits as each alone and however a text is cut into runs."""
    packs: bool = False
    """Whether the engine has `tree_logits`, which reads contexts with their continuations in one forward without a cache, and
    which is known to be right for this model."""
    adaptive: ClassVar[AdaptiveThreads | None] = None
    """What changes this process's number of threads as the machine is used for other things; None: it stays."""

    def __init__(self, config: Any, device: Device, nbytes: int) -> None:
        if getattr(config, "max_position_embeddings", None) is None:
            raise InputError(
                f"model type {config.model_type!r} names no max_position_embeddings; use a gpt3 or gpt2 model"
            )
        self.context = config.max_position_embeddings
        self.vocabulary = min(getattr(config, "real_vocab_size", None) or config.vocab_size, config.vocab_size)
        self.device: Any = device  # a Device; torch's own where the engine runs on torch
        self.nbytes = nbytes

    @cached_property
    def logit_rows(self) -> int:
        """Rows of logits that scoring holds at a time: on a CPU 51 MB with GPT-2's vocabulary; a GPU needs more to be busy."""
        return 256 if self.device.type == "cpu" else 2048

    @abstractmethod
    def new_cache(self, slots: int, capacity: int) -> Cache:
        """An empty cache of `slots` texts of up to `capacity` tokens (at most `context`)."""

    def forward(self, cache: Cache, runs: Sequence[Run]) -> Logits:
        """Append each run to its slot.

        Returns:
            (sum of the runs' `logits`, V) float32, in the order of the runs. Valid until the next forward.

        Raises:
            ValueError: a slot named twice, an empty run, an id outside the vocabulary, or a run beyond the capacity.
        """
        if len({run.slot for run in runs}) != len(runs):
            raise ValueError("each slot may have one run in a forward")
        for run in runs:
            if not run.tokens or not 0 <= run.logits <= len(run.tokens):
                raise ValueError(f"a run of {len(run.tokens)} tokens and {run.logits} logits")
            held = len(cache.ids[run.slot])
            if held + len(run.tokens) > cache.capacity:
                raise ValueError(
                    f"slot {run.slot} holds {held} tokens, {len(run.tokens)} more exceed its capacity of "
                    f"{cache.capacity}"
                )
            if not 0 <= min(run.tokens) <= max(run.tokens) < self.vocabulary:
                raise ValueError(f"an id of slot {run.slot} is not among the {self.vocabulary} the model has")
        start = time.perf_counter()
        logits = self._forward(cache, runs)
        if self.adaptive is not None:
            self.adaptive.after(time.perf_counter() - start)
        for run in runs:
            cache.ids[run.slot] += run.tokens
            cache.highest[run.slot] = max(cache.highest[run.slot], len(cache.ids[run.slot]))
        return logits

    def look_ahead(self, cache: Cache, texts: Sequence[tuple[int, Sequence[int]]], spare: Sequence[int]) -> Logits:
        """Continue slots by texts, several of one slot too, and leave these slots as they are.

        Args:
            texts: slot and tokens of each, at most as many as there are spare slots.
            spare: other slots, whose content is lost.

        Returns:
            Logits after each token of each text, (sum of their tokens, V) float32. Valid until the next forward.
        """
        runs = []
        for (slot, tokens), target in zip(texts, spare, strict=False):
            cache.copy(slot, target)
            runs.append(Run(target, tokens, len(tokens)))
        return self.forward(cache, runs)

    def compile_in_background(self) -> bool:
        """If something has to be compiled for this machine, compute in another way until it is. Returns whether that is so."""
        return False

    def non_finite_error(self) -> Exception:
        """The error to raise where logits are NaN or +inf."""
        return RunError("the model's logits are not numbers although its weights are finite; try --dtype fp32")

    @abstractmethod
    def _forward(self, cache: Cache, runs: Sequence[Run]) -> Logits: ...
