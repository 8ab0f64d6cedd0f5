"""A gpt3 model folder read without torch and transformers: configuration, tokenizer, and weights mapped from their files.

Importing the two takes longer than generating a short text, and a model of theirs holds the weights once more. `open_stored`
takes folders in which all is as this package writes it. For any other it gives None: then `gpt3.model_folder.load` reads it with
transformers, or says what is wrong.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpt3.errors import InputError
from gpt3.model_folder import locate
from gpt3.tokenizer.plain import PlainTokenizer, read_plain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Array = np.ndarray[Any, Any]
FORMATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
"""safetensors' names of number formats, and NumPy's; of bf16, which NumPy has not, the bits."""
ALTERNATING = ("full_attention", "sliding_attention")
BESIDES = (
    "architectures", "attn_pdrop", "auto_map", "bos_token_id", "dtype", "embd_pdrop", "eos_token_id", "initializer_range",
    "model_type", "pad_token_id", "resid_pdrop", "torch_dtype", "transformers_version", "use_cache",
)  # fmt: skip
"""What else this package writes into a config.json: it decides neither shape nor arithmetic."""


class StoredArray(NamedTuple):
    """A tensor in a file."""

    shape: tuple[int, ...]
    dtype: str
    """Its number format, as safetensors names it: F32, BF16, …"""
    read: Callable[[], Array]
    """It, mapped where its format is NumPy's own; bf16 as float32."""


@dataclass(frozen=True)
class PlainConfig:
    """What a model computes: the fields of `gpt3.GPT3Config` that decide it, with its defaults."""

    vocab_size: int = 50257
    real_vocab_size: int | None = None
    max_position_embeddings: int = 2048
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    head_dim: int = 0
    intermediate_size: int = 0
    layer_types: tuple[str, ...] = ()
    activation_function: str = "gelu"
    sliding_window: int = 256
    use_pre_layernorm: bool = True
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = True

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of its tensors, those of `GPT3ForCausalLM`."""
        C, F, A = self.hidden_size, self.intermediate_size, self.num_attention_heads * self.head_dim
        matrices = {"attn.c_attn": (3 * A, C), "attn.c_proj": (C, A), "mlp.c_fc": (F, C), "mlp.c_proj": (C, F)}
        found: dict[str, tuple[int, ...]] = {
            "transformer.wte.weight": (self.vocab_size, C),
            "transformer.wpe.weight": (self.max_position_embeddings, C),
        }
        for layer in range(self.num_hidden_layers):
            for name, shape in matrices.items():
                found |= {
                    f"transformer.h.{layer}.{name}.weight": shape,
                    f"transformer.h.{layer}.{name}.bias": shape[:1],
                }
        norms = [f"h.{layer}.{name}" for layer in range(self.num_hidden_layers) for name in ("ln_1", "ln_2")]
        found |= {f"transformer.{norm}.{part}": (C,) for norm in (*norms, "ln_f") for part in ("weight", "bias")}
        return found if self.tie_word_embeddings else {**found, "lm_head.weight": (self.vocab_size, C)}

    @property
    def parameters(self) -> int:
        """Numbers in all tensors, tied ones once."""
        return sum(map(math.prod, self.tensors().values()))


@dataclass
class StoredModel:
    """A model in its folder, ready to be packed by an engine."""

    config: Any
    """A PlainConfig, or a GPT3Config."""
    weights: Mapping[str, Callable[[], Array]]
    """How each tensor is read, by the names of `GPT3ForCausalLM`; tied ones once."""
    tokenizer: PlainTokenizer | PreTrainedTokenizerFast
    eos_token_id: int | list[int] | None
    """What ends a text, by the model's generation settings."""
    parameters: int
    """Numbers in all tensors, tied ones once."""
    whole_config: Callable[[], Any]
    """Gives its GPT3Config, for what needs transformers all the same."""
    family: str = "gpt3"
    """As `gpt3.model_folder.load.Loaded` has it."""


def open_stored(folder: Path) -> StoredModel | None:
    """The model in a folder that `locate.check` has passed; None where it is not plainly one of this package."""
    try:
        if locate.is_adapter(folder):
            return None
        raw = locate.read_json(folder / locate.CONFIG)
        config = plain_config(raw)
        generation = folder / locate.GENERATION
        ends = locate.read_json(generation) if generation.is_file() else raw
        if config is None or "eos_token_id" not in ends:
            return None
        weights = _weights(folder, config)
    except (InputError, OSError, ValueError, KeyError):
        return None
    tokenizer = read_plain(folder, partial(_whole_tokenizer, folder)) if weights is not None else None
    if weights is None or tokenizer is None:
        return None
    whole_config = partial(_whole_config, folder)
    return StoredModel(config, weights, tokenizer, ends["eos_token_id"], config.parameters, whole_config)


def plain_config(raw: dict[str, Any]) -> PlainConfig | None:
    """What a config.json states; None where transformers has to read it: it has other names in it, or a fault."""
    known = {field.name: field for field in fields(PlainConfig)}
    if raw.get("model_type") != "gpt3" or not set(raw) <= {*known, *BESIDES}:
        return None
    given = {name: value for name, value in raw.items() if name in known and value is not None}
    bools = ("use_pre_layernorm", "tie_word_embeddings")
    texts, numbers = ("activation_function",), ("layer_norm_epsilon",)
    for name, value in given.items():
        kinds: Any = int
        if name in (*bools, *texts, *numbers, "layer_types"):
            kinds = bool if name in bools else str if name in texts else (int, float) if name in numbers else list
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            return None
        if kinds is int and value < (2 if name == "sliding_window" else 1):
            return None
    config = PlainConfig(**given)
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    if not config.head_dim and config.hidden_size % heads:
        return None
    filled = {
        "head_dim": config.head_dim or config.hidden_size // heads,
        "intermediate_size": config.intermediate_size or 4 * config.hidden_size,
        "layer_types": tuple(given.get("layer_types") or (ALTERNATING[layer % 2] for layer in range(layers))),
    }
    config = PlainConfig(**{**given, **filled})
    right = (
        len(config.layer_types) == layers
        and set(config.layer_types) <= set(ALTERNATING)
        and config.layer_norm_epsilon > 0
        and (config.real_vocab_size or 1) <= config.vocab_size
    )
    return config if right else None


def _weights(folder: Path, config: PlainConfig) -> dict[str, Callable[[], Array]] | None:
    files, pickled, placed = locate.weight_files(folder)
    if pickled:
        return None
    found: dict[str, StoredArray] = {}
    count = 0
    for file in files:
        tensors = mapped_arrays(file)
        count += len(tensors)
        found |= tensors
    wanted = config.tensors()
    right = (
        len(found) == count
        and {name: stored.shape for name, stored in found.items()} == wanted
        and (not placed or set(placed) == set(wanted))
        and all(stored.dtype in FORMATS for stored in found.values())
    )
    return {name: stored.read for name, stored in found.items()} if right else None


def mapped_arrays(file: Path) -> dict[str, StoredArray]:
    """The tensors of a safetensors file, which stays mapped into memory as long as they are used.

    Raises:
        ValueError, OSError: the file is missing, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as handle:  # checks the whole header
            names = handle.keys()
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
    content = np.asarray(np.memmap(file, np.uint8, "r"))[8 + length :] if names else np.empty(0, np.uint8)
    found = {}
    for name in names:
        dtype, shape, (begin, end) = (header[name][key] for key in ("dtype", "shape", "data_offsets"))
        found[name] = StoredArray(tuple(shape), dtype, partial(_read, content[begin:end], dtype, tuple(shape)))
    return found


def _read(content: Array, dtype: str, shape: tuple[int, ...]) -> Array:
    array: Array = content.view(FORMATS[dtype]).reshape(shape)
    return (array.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else array


def _whole_config(folder: Path) -> Any:
    import torch

    from gpt3.model import GPT3Config

    config: Any = GPT3Config.from_pretrained(folder)
    config._name_or_path, config.dtype = str(folder), torch.float32  # as a model's own, loaded for a CPU
    return config


def _whole_tokenizer(folder: Path) -> Any:
    from gpt3.tokenizer.loading import load_tokenizer

    return load_tokenizer(folder)
