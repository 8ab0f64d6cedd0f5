"""Families of checkpoints that can be read: one file for each, and one line in `FAMILIES`.

A family's module has a function `conversion(raw)`, which takes the content of config.json and says what our model is made
from. The first paragraph of the module's docstring is its row in docs/import.md.

Letters in shapes: C = hidden_size, F = intermediate_size, P = max_position_embeddings. Ours are the names of `gpt3.model`
without the prefix `transformer.`; linear weights are (out, in).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from gpt3.errors import InputError, one_line
from gpt3.model import GPT3Config, GPT3ForCausalLM

FAMILIES = {
    "gpt2": "gpt3.model_folder.families.gpt2",
    "gpt_neo": "gpt3.model_folder.families.gpt_neo",
    "opt": "gpt3.model_folder.families.opt",
    "custom_gpt2": "gpt3.model_folder.families.gpt3dev",
    "gpt3dev": "gpt3.model_folder.families.gpt3dev",
}
"""`model_type` in config.json, and the module of that family."""
Modules = dict[str, str | tuple[str, str, str]]
OURS = "gpt3"
PREFIX, HEAD = "transformer.", "lm_head.weight"
VALUES = (
    "vocab_size", "max_position_embeddings", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "activation_function", "layer_norm_epsilon", "initializer_range", "resid_pdrop", "embd_pdrop", "attn_pdrop",
    "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings",
)  # fmt: skip
"""Values of GPT3Config that other families have, too, by this name or another."""


class Source(NamedTuple):
    """Where one of our tensors comes from."""

    shapes: dict[str, tuple[int, ...]]
    """Names and shapes of the tensors it is made from, in order; none for a constant."""
    make: Callable[..., Tensor]
    """Makes ours from them."""


@dataclass
class Conversion:
    """What our model is made from, before any weight is read."""

    family: str
    """The family's name: GPT-2, OPT, …"""
    config: GPT3Config
    """Our configuration."""
    sources: dict[str, Source]
    """For each of our tensors but the output head, whose name and layout are the same in all families."""
    prefix: str
    """What precedes every name in some programs' files and is missing in others'."""
    ignored: str
    """A regular expression for tensors that are not needed, such as saved causal masks."""
    starts_with_bos: bool
    """Whether its tokenizer puts the BOS token before each text, where its files do not say."""
    notes: list[str] = field(default_factory=list)
    """What a user should know, one line each."""

    @property
    def embedding(self) -> str:
        """Their name of the token embedding."""
        return next(iter(self.sources["wte.weight"].shapes))


def conversion(
    family: str,
    config: GPT3Config,
    names: Modules | None = None,
    *,
    prefix: str = PREFIX,
    ignored: str = "",
    transposed: bool = False,
    absent: str = "",
    position_offset: int = 0,
    query_factor: Callable[[int], float] = lambda layer: 1.0,
    starts_with_bos: bool = False,
) -> Conversion:
    """Plan a conversion: for each of our parameters, the names and shapes of theirs and what to do with them.

    Args:
        names: our module names to theirs, ``*`` for the layer's number; three names are query, key and value, which become
            the rows of c_attn, (3C, …). A module that is not listed has the same name.
        transposed: the linear layers in their blocks are Conv1D's, (in, out).
        absent: a regular expression for parameters of ours that theirs have not: gains of 1, biases of 0.
        position_offset: the first rows of their position table, (P + offset, C), which no token uses.
        query_factor: their scale of a layer's attention scores over ours, 1 / sqrt(head_dim). The query's weights are
            multiplied by it.
    """
    names = names or {}
    sources = {}
    with torch.device("meta"):
        parameters = GPT3ForCausalLM(config).named_parameters()
    for name, parameter in parameters:
        if name == HEAD:
            continue
        ours, shape = name.removeprefix(PREFIX), tuple(parameter.shape)
        module, _, kind = ours.rpartition(".")
        block = re.match(r"h\.(\d+)\.", module)
        if re.fullmatch(absent, ours):
            sources[ours] = Source({}, partial(torch.full, shape, float(kind == "weight")))
            continue
        theirs = names.get(re.sub(r"^h\.\d+", "h.*", module), module)
        modules = [theirs] if isinstance(theirs, str) else theirs
        parts = [f"{each.replace('*', block[1]) if block else each}.{kind}" for each in modules]
        turned = transposed and block is not None and len(shape) == 2
        skipped = position_offset if module == "wpe" else 0
        factor = query_factor(int(block[1])) if block and module.endswith("c_attn") else 1.0
        their_shape = shape[::-1] if turned else ((shape[0] + skipped) // len(parts), *shape[1:])
        sources[ours] = Source(
            dict.fromkeys(parts, their_shape), partial(_make, transposed=turned, skipped=skipped, query_factor=factor)
        )
    return Conversion(family, config, sources, prefix, ignored, starts_with_bos)


def _make(*tensors: Tensor, transposed: bool, skipped: int, query_factor: float) -> Tensor:
    """One of our tensors. Scaling is in double precision, rounded once; powers of two lose nothing."""
    tensor = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
    tensor = tensor.t() if transposed else tensor[skipped:]
    if query_factor == 1:
        return tensor
    query, rest = tensor.tensor_split([tensor.shape[0] // 3])
    return torch.cat([(query.double() * query_factor).to(query.dtype), rest])


def configuration(theirs: Any, names: Mapping[str, str], **changes: Any) -> GPT3Config:
    """Our configuration with the `VALUES` of a transformers configuration, and `changes`; all layers dense unless these say so.

    Args:
        names: values that `theirs` has by another name.
    """
    found = {ours: names.get(ours, ours) for ours in VALUES}
    values = {ours: getattr(theirs, name) for ours, name in found.items() if hasattr(theirs, name)}
    return GPT3Config(**{"layer_types": ["full_attention"] * theirs.num_hidden_layers, **values, **changes})


def exactness(*factors: float) -> str:
    """How exact it is to multiply weights by `factors`, in words."""
    return "exactly" if all(math.frexp(factor)[0] == 0.5 for factor in factors) else "rounded once"


def conversion_of(raw: dict[str, Any], place: str, *, allow_ours: bool = False) -> Conversion:
    """The conversion of a model with this config.json.

    Args:
        raw: the content of config.json.
        place: what to call the model in messages.
        allow_ours: take a model of this package, too, tensor for tensor.

    Raises:
        InputError: an unknown family, or a model of a known one that ours cannot be; with the reason.
    """
    model_type = raw.get("model_type")
    if model_type == OURS and not allow_ours:
        raise InputError(f"{place} is a gpt3 model already. Use it as it is: --model {place}")
    if model_type not in FAMILIES and model_type != OURS:
        raise InputError(f"{place}: config.json has model_type {model_type!r}; known families: {', '.join(FAMILIES)}")
    if raw.get("quantization_config"):
        raise InputError(f"{place}: its weights are quantised (quantization_config). Use the unquantised checkpoint")
    try:
        if model_type == OURS:
            return conversion("gpt3", GPT3Config.from_dict(raw))
        found: Conversion = import_module(FAMILIES[model_type]).conversion(raw)
        return found
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    except (StrictDataclassError, TypeError, ValueError, KeyError, ZeroDivisionError) as error:
        raise InputError(
            f"{place}: config.json makes no {model_type} model ({one_line(error, 300)}). Save it again"
        ) from error
