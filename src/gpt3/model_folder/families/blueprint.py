"""The plan of a conversion: our configuration, and for each of our tensors what it is made from.

Letters in shapes: V = vocab_size, P = max_position_embeddings, C = hidden_size, F = intermediate_size. Ours are the names of
`gpt3.model`, without the prefix `transformer.`; linear weights are (out, in).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gpt3.model import GPT3Config

Shape = tuple[int, ...]
TOKEN_EMBEDDING = "wte.weight"
HEAD = "lm_head.weight"


def same(tensor: Tensor) -> Tensor:
    """The tensor as it is."""
    return tensor


@dataclass(frozen=True)
class Source:
    """Where one of our tensors comes from."""

    shapes: Mapping[str, Shape]
    """Names and shapes of the tensors it is made from, in order; none for a constant."""
    make: Callable[..., Tensor] = same
    """Makes ours from them."""


@dataclass
class Blueprint:
    """A conversion, before any weight is read."""

    family: str
    """Its name in words: GPT-2, OPT, …"""
    config: GPT3Config
    """The configuration that our model will have."""
    prefix: str
    """What stands before every name in the checkpoints of some programs and is missing in those of others."""
    passed_over: re.Pattern[str]
    """Tensors of no use to us, such as causal masks saved along."""
    sources: dict[str, Source] = field(default_factory=dict)
    """For each of our tensors but the output head, which `Checkpoint` sees to."""
    embedding: str = TOKEN_EMBEDDING
    """Their name of the token embedding."""
    notes: list[str] = field(default_factory=list)
    """What a user should know about the conversion, a line each."""
    starts_with_bos: bool = False
    """Whether its tokenizer puts the beginning-of-text token before each text where its files do not say."""

    def take(self, ours: str, theirs: str, shape: Shape, make: Callable[[Tensor], Tensor] = same) -> None:
        """Ours is made from one of theirs."""
        self.sources[ours] = Source({theirs: shape}, make)

    def linear(self, ours: str, theirs: str, inputs: int, outputs: int, *, transposed: bool = False) -> None:
        """Weight and bias of a linear layer; `transposed`: theirs is a Conv1D, (in, out)."""
        if transposed:
            self.take(f"{ours}.weight", f"{theirs}.weight", (inputs, outputs), torch.t)
        else:
            self.take(f"{ours}.weight", f"{theirs}.weight", (outputs, inputs))
        self.take(f"{ours}.bias", f"{theirs}.bias", (outputs,))

    def norm(self, ours: str, theirs: str) -> None:
        """Gain and bias of a layer norm."""
        for part in ("weight", "bias"):
            self.take(f"{ours}.{part}", f"{theirs}.{part}", (self.config.hidden_size,))

    def constant(self, ours: str, value: float, *shape: int) -> None:
        """Theirs have no such tensor, which is the same as one full of `value`."""
        self.sources[ours] = Source({}, lambda: torch.full(shape, value))


def rescaled(tensor: Tensor, factor: float) -> Tensor:
    """The tensor times `factor`, rounded once to its own number format. Powers of two lose nothing."""
    return tensor if factor == 1 else (tensor.double() * factor).to(tensor.dtype)


def with_scaled_query(qkv: Tensor, factor: float) -> Tensor:
    """(3C, …), the rows of query, key and value: the query's multiplied, which multiplies every attention score."""
    query, rest = qkv.tensor_split([qkv.shape[0] // 3])
    return qkv if factor == 1 else torch.cat([rescaled(query, factor), rest])


def is_power_of_two(factor: float) -> bool:
    """Whether multiplying by it is exact in binary floating point."""
    return math.frexp(factor)[0] == 0.5
