"""A GGUF file read back: its weights, as the file's number format left them, in transformers' GPT-2."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt3.export.gguf import BLOCK, TOP, gguf_module

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

OUR_TOP = {theirs: ours for ours, theirs in TOP.items()}
OUR_BLOCK = {theirs: ours for ours, theirs in BLOCK.items()}


def parameter_name(name: str) -> str:
    """Our name of a GGUF tensor of the gpt2 architecture."""
    if name in OUR_TOP:
        return OUR_TOP[name]
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if match is None or match[2] not in OUR_BLOCK:
        raise KeyError(name)
    return f"transformer.h.{match[1]}.{OUR_BLOCK[match[2]]}.{match[3]}"


def read_gguf(path: Path | str) -> GPT2LMHeadModel:
    """What llama.cpp computes from the file, in float32: GPT-2 with tanh GELU.

    Raises:
        KeyError: a tensor that gpt2 has not, or one missing.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from gpt3.export.gpt2 import TRANSPOSED
    from gpt3.export.stock import build

    gguf = gguf_module()
    reader = gguf.GGUFReader(path)

    def field(name: str) -> Any:
        return reader.get_field(name).contents()

    state = {}
    for tensor in reader.tensors:
        name = parameter_name(tensor.name)
        value = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        state[name] = value.t().contiguous() if name.endswith(TRANSPOSED) else value
    config = GPT2Config(
        vocab_size=state["transformer.wte.weight"].shape[0],
        n_positions=field("gpt2.context_length"),
        n_embd=field("gpt2.embedding_length"),
        n_layer=field("gpt2.block_count"),
        n_head=field("gpt2.attention.head_count"),
        n_inner=field("gpt2.feed_forward_length"),
        layer_norm_epsilon=field("gpt2.attention.layer_norm_epsilon"),
        activation_function="gelu_new",
        bos_token_id=field("tokenizer.ggml.bos_token_id"),
        eos_token_id=field("tokenizer.ggml.eos_token_id"),
        tie_word_embeddings="lm_head.weight" not in state,
    )
    return build(GPT2LMHeadModel, config, state)
