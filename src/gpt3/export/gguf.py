"""GGUF (llama.cpp's file format) of a GPT-3 whose context is dense, as its `gpt2` architecture.

llama.cpp's `gpt2` graph is GPT-2's: learned positions, norms first, fused query-key-value matrix, tanh GELU, and every layer
sees the whole context. So a model with banded layers is written with no more positions than its window, where the two are
the same. Names and layout: the `gguf` package's constants (MODEL_ARCH.GPT2); matrices are (out, in), as `nn.Linear`'s.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from gpt3 import __version__
from gpt3.durable import replacing
from gpt3.errors import InputError, require
from gpt3.export.comparison import check, comparison_line, difference, logits, probe, tanh_gelu
from gpt3.export.stock import build, fit, kept_weights, transposed
from gpt3.inference import four_bit
from gpt3.model import GPT3ForCausalLM
from gpt3.tokenizer.chat_template import plain_jinja

gguf = require("gguf", extra="export", purpose="--format gguf")

MARK = "gpt3.version"
"""A key at the beginning of our files, which tells them from others."""
OUTER = ("token_embd.weight", "output.weight")  # q8_0 where the rest is q4_0, as with --quantize int4


def tensor_names(names: Iterable[str], layers: int) -> dict[str, str]:
    """GPT-2's parameter names, which are ours, to GGUF's."""
    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, layers)
    return {name: known.get_name(name, try_suffixes=(".weight", ".bias")) for name in names}


def number_format(name: str, value: Tensor, dtype: str) -> Any:
    """In what a tensor is written: matrices as asked, the rest in f32. Where rows do not divide into blocks, f16."""
    if value.ndim < 2 or name == "position_embd.weight":
        dtype = "f32"
    elif dtype == "q4_0" and (name in OUTER or not four_bit.divides(*value.shape)):
        dtype = "q8_0"
    if dtype == "q8_0" and value.shape[-1] % four_bit.BLOCK:
        dtype = "f16"
    return gguf.GGMLQuantizationType[dtype.upper()]


def write_gguf(
    model: GPT3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    path: Path | str,
    *,
    dtype: str = "f32",
    context: int | None = None,
    name: str | None = None,
) -> int:
    """Write `model` and `tokenizer` as one GGUF file, whole or not at all. Returns its context length in tokens.

    Args:
        dtype: of the matrices: f32, f16, bf16, q8_0 or q4_0 (8- or 4-bit integers, a 16-bit scale for each 32). q4_0's are those
            of `--quantize int4`, with embedding and head in q8_0.
        context: positions to write; None: the model's, for banded models at most `sliding_window`.
        name: the model's name in the file; None: the file's.

    Raises:
        InputError: a shape, context or tokenizer that llama.cpp's gpt2 architecture cannot hold; `gguf` is not installed.
    """
    context, rows = fit(model.config, tokenizer, "gguf", context)
    path = Path(path)

    with replacing(path) as temporary:
        writer = gguf.GGUFWriter(temporary, "gpt2")
        try:
            _write_metadata(writer, model, name or path.stem, dtype, context)
            _write_tokenizer(writer, model, tokenizer, rows)
            kept = kept_weights(model, context, rows)
            names = tensor_names(kept, model.config.num_hidden_layers)
            weights = {names[key]: value for key, value in kept.items()}
            kinds = {key: number_format(key, value, dtype) for key, value in weights.items()}
            for key, value in weights.items():  # first what comes where, then one tensor at a time
                block, size = gguf.GGML_QUANT_SIZES[kinds[key]]
                plain = np.dtype(np.float32)  # of no effect: the kind decides
                writer.add_tensor_info(key, list(value.shape), plain, value.numel() // block * size, kinds[key])
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for key, value in weights.items():
                array = value.float().cpu().numpy()
                four = kinds[key] == gguf.GGMLQuantizationType.Q4_0
                writer.write_tensor_data(four_bit.q4_0(array) if four else gguf.quantize(array, kinds[key]))
        finally:
            writer.close()
    return context


def _write_metadata(writer: Any, model: GPT3ForCausalLM, name: str, dtype: str, context: int) -> None:
    config = model.config
    writer.add_string(MARK, __version__)
    writer.add_type("model")
    writer.add_name(name)
    writer.add_size_label(gguf.size_label(model.num_parameters(), 0, 0, 0))
    if context < config.max_position_embeddings:
        writer.add_description(
            f"GPT-3 of {config.max_position_embeddings} positions, exact up to the {context} of this file"
        )
    writer.add_context_length(context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_file_type(gguf.LlamaFileType["ALL_F32" if dtype == "f32" else f"MOSTLY_{dtype.upper()}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _write_tokenizer(writer: Any, model: GPT3ForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: int) -> None:
    """Tokens, merges, special ids, chat template. llama.cpp's `gpt-2` split is ours."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    check_split(content)
    kinds, tokens = gguf.TokenType, [f"[PAD{i}]" for i in range(rows)]
    types = [kinds.UNUSED] * rows
    for token, i in tokenizer.get_vocab().items():
        tokens[i], types[i] = token, kinds.NORMAL
    for i, added in tokenizer.added_tokens_decoder.items():
        tokens[i], types[i] = added.content, kinds.CONTROL if added.special else kinds.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    merges = content["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])

    configured = model.generation_config.eos_token_id if model.generation_config else None
    ends = [tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])]
    first, *others = dict.fromkeys(i for i in ends if i is not None)
    writer.add_eos_token_id(first)
    if others:  # llama.cpp ends at either
        writer.add_eot_token_id(others[0])
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(tokenizer("")["input_ids"] == [tokenizer.bos_token_id])
    writer.add_add_space_prefix(False)
    template = plain_jinja(tokenizer.chat_template)
    if isinstance(template, dict):
        template = [{"name": key, "template": text} for key, text in template.items()]
    if template:
        writer.add_chat_template(template)


def check_split(content: dict[str, Any]) -> None:
    """Refuse a tokenizer (a ``tokenizer.json``'s content) that is no byte-level BPE with GPT-2's split into words.

    Raises:
        InputError: naming what differs.
    """
    split = content["pre_tokenizer"] or {}
    kind = (content["model"]["type"], split.get("type"), split.get("use_regex", True), split.get("add_prefix_space"))
    if kind != ("BPE", "ByteLevel", True, False) or content["normalizer"] is not None:
        raise InputError(
            f"--format gguf: the tokenizer is {kind[0]} over {kind[1] or 'no'} split, not a byte-level BPE with GPT-2's split "
            "into words, as llama.cpp's gpt-2 tokenizer is. Export the weights with --format gpt2 or gpt-neo"
        )


def read_gguf(path: Path | str) -> GPT2LMHeadModel:
    """What llama.cpp computes from a file of ours, in float32: GPT-2 with tanh GELU.

    Raises:
        KeyError: a tensor that gpt2 does not have, or one missing.
    """
    reader = gguf.GGUFReader(path)

    def field(name: str) -> Any:
        return reader.get_field(name).contents()

    tensors = {tensor.name: tensor for tensor in reader.tensors}
    config = GPT2Config(
        vocab_size=len(tensors["token_embd.weight"].data),
        n_positions=field("gpt2.context_length"),
        n_embd=field("gpt2.embedding_length"),
        n_layer=field("gpt2.block_count"),
        n_head=field("gpt2.attention.head_count"),
        n_inner=field("gpt2.feed_forward_length"),
        layer_norm_epsilon=field("gpt2.attention.layer_norm_epsilon"),
        activation_function="gelu_new",
        bos_token_id=field("tokenizer.ggml.bos_token_id"),
        eos_token_id=field("tokenizer.ggml.eos_token_id"),
        tie_word_embeddings="output.weight" not in tensors,
    )
    with torch.device("meta"):
        names = tensor_names((name for name, _ in GPT2LMHeadModel(config).named_parameters()), config.n_layer)
    if extra := set(tensors) - set(names.values()):
        raise KeyError(f"gpt2 has no tensor {min(extra)}")
    values = {ours: gguf.dequantize(tensors[name].data, tensors[name].tensor_type) for ours, name in names.items()}
    return build(GPT2LMHeadModel, config, transposed({name: torch.from_numpy(v.copy()) for name, v in values.items()}))


def compare_gguf(model: Any, tokenizer: Any, path: Path, dtype: str, context: int, rows: int) -> list[str]:
    """How far a file of ours, in the number format `dtype`, is from its model: loaded as GPT-2, and in llama.cpp.

    Raises:
        RunError: too far.
    """
    ids = probe(model.config, context, rows)
    ours, theirs = logits(model, ids, rows), logits(read_gguf(path), ids, rows)
    line = f"reloaded as GPT-2: {difference(ours, theirs)}"
    if model.config.activation_function == "gelu":
        with tanh_gelu(model):
            tanh = logits(model, ids, rows)
        line += f"; {float((ours - tanh).abs().max()):.2g} of it from GELU by tanh, llama.cpp's only one"
        ours = tanh
    check(difference(ours, theirs), dtype, "the GGUF file")
    return [line, comparison_line(path, model, tokenizer, ids, rows, context)]
