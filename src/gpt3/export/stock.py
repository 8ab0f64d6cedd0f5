"""Models of transformers' own classes made from ours, which need no remote code, and what of a GPT-3 they can hold.

GPT-2 has our names and arithmetic, but no banded layers; its Conv1D weights are the transposes of `nn.Linear`'s.

GPT-Neo alternates global and local layers as GPT-3 does, its window counted the same way. Its attention differs in two
things, both of which the weights can make up for:

- Scores are not divided by sqrt(D). So W_q is.
- Queries, keys and values have no biases.
  - b_k adds q.b_k to every score of a query: softmax does not see it. It is dropped.
  - b_v passes through the probabilities, which sum to 1: W_o b_v goes into the output's bias.
  - b_q goes into W_q, by means of ln_1. A layer norm's output x = gain * n + shift, where the entries of n sum to 0,
    lies in a hyperplane: u.x = 1 for u = (1 / gain) / sum(shift / gain). So W_q x + b_q = (W_q + b_q u^T) x. To keep
    that sum away from 0, ln_1's shift is first moved by its gain. What W_q, W_k and W_v make of the move is a constant
    again, and is taken back as a bias is: from q in the same way, from v in the output's bias, from k not at all. No
    matrix is inverted, and a W_q without an inverse does as well.

All of it is exact but for rounding; it is computed in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoConfig, GPTNeoForCausalLM, PreTrainedTokenizerFast

from gpt3.errors import InputError
from gpt3.model import GPT3Config, GPT3ForCausalLM
from gpt3.model_folder.families import VALUES, gpt2, gpt_neo
from gpt3.model_folder.load import quiet_transformers
from gpt3.tokenizer.chat_template import plain_jinja

TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
SMALLEST_GAIN = 1e-9  # as a share of the largest: below it a feature of ln_1 is constant in float32
ITSELF = "The model folder itself loads in Transformers with trust_remote_code=True"
GGUF_ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate")


def fit(config: GPT3Config, tokenizer: PreTrainedTokenizerFast, target: str, asked: int | None) -> tuple[int, int]:
    """How many positions and how many rows of the embedding to write: all but the padding ones.

    Args:
        target: gguf, gpt2 or gpt-neo.
        asked: positions. None: the model's; for GGUF of a banded model at most the window.

    Raises:
        InputError: naming every trait of the model that the target cannot hold; more positions than the model has, or than
            its banded layers see where the target has none of them; a tokenizer with more ids than the model.
    """
    faults = []
    if not config.use_pre_layernorm:
        faults.append("its norms come after each sum (use_pre_layernorm is false), GPT-2's before")
    if (width := config.num_attention_heads * config.head_dim) != config.hidden_size:
        faults.append(
            f"its {config.num_attention_heads} heads of {config.head_dim} make {width}, and hidden_size is {config.hidden_size}"
        )
    if target == "gguf" and config.activation_function not in GGUF_ACTIVATIONS:
        faults.append(f"its activation is {config.activation_function}, llama.cpp's gpt2 has GELU only")
    if faults:
        raise InputError(f"--format {target} cannot hold this model: {'; '.join(faults)}. {ITSELF}")
    rows, ids = config.real_vocab_size or config.vocab_size, 1 + max(tokenizer.get_vocab().values())
    if ids > rows:
        raise InputError(
            f"the tokenizer in the model folder has {ids:,} ids, the model {rows:,}: it belongs to another model. "
            "Put the model's own tokenizer there"
        )
    positions, window = config.max_position_embeddings, config.sliding_window
    if asked is not None and asked > positions:
        raise InputError(
            f"--context {asked:,} exceeds the model's {positions:,} positions. Use --context {positions} or less"
        )
    context = asked or positions
    if target == "gpt-neo" or window >= context or "sliding_attention" not in (config.layer_types or ()):
        return context, rows
    if target == "gguf" and asked is None:
        return window, rows
    what = {"gguf": "llama.cpp's gpt2 has", "gpt2": "GPT-2 has"}[target]
    wish = f"--context {asked:,}" if asked else f"the model's context of {positions:,}"
    raise InputError(
        f"--format {target}: {what} no banded layers, and this model's see only {window:,} tokens: {wish} would be "
        f"wrong. Use --context {window} or less, or --format gpt-neo, which has them. {ITSELF}"
    )


def to_gpt2(model: GPT3ForCausalLM, *, context: int, rows: int) -> GPT2LMHeadModel:
    """A `GPT2LMHeadModel` in evaluation mode whose logits are `model`'s, up to rounding, for contexts it sees as dense.

    Args:
        context: positions to keep.
        rows: ids to keep.
    """
    config = stock_config(GPT2Config, gpt2.NAMES, model.config, context, rows)
    return build(GPT2LMHeadModel, config, transposed(kept_weights(model, context, rows)), model)


def to_gpt_neo(model: GPT3ForCausalLM, *, context: int, rows: int) -> GPTNeoForCausalLM:
    """A `GPTNeoForCausalLM` in evaluation mode whose logits are `model`'s up to rounding.

    Args:
        context: positions to keep.
        rows: ids to keep.
    """
    state = kept_weights(model, context, rows)
    for layer in range(model.config.num_hidden_layers):
        prefix = f"transformer.h.{layer}."
        names = [f"{module}.{kind}" for module in ("ln_1", "attn.c_attn", "attn.c_proj") for kind in ("weight", "bias")]
        block = {name: state.pop(prefix + name) for name in names}
        state |= {prefix + name: value for name, value in fold_attention(block, model.config.head_dim).items()}
    theirs = {ours: kind for kind, ours in gpt_neo.KINDS.items()}
    kinds = [theirs[kind] for kind in model.config.layer_types or ()]
    config = stock_config(
        GPTNeoConfig, gpt_neo.NAMES, model.config, context, rows, attention_types=[[kinds, 1]],
        window_size=model.config.sliding_window,
    )  # fmt: skip
    return build(GPTNeoForCausalLM, config, state, model)


def fold_attention(block: dict[str, Tensor], head_dim: int) -> dict[str, Tensor]:
    """ln_1 and attention of one block, from our names to GPT-Neo's (see the module's text). Shapes: C, (C, C), (3 C, C)."""
    gain, shift = block["ln_1.weight"].double(), block["ln_1.bias"].double()
    w_q, w_k, w_v = block["attn.c_attn.weight"].double().chunk(3)
    b_q, _, b_v = block["attn.c_attn.bias"].double().chunk(3)
    w_o, b_o = block["attn.c_proj.weight"].double(), block["attn.c_proj.bias"].double()

    move, weights = gain, 1 / gain  # so that sum(weights * (x - shift)) = sum(n) = 0
    least = int(gain.abs().argmin())
    if gain[least].abs() <= SMALLEST_GAIN * gain.abs().max():  # a feature that is its shift, always
        move = weights = torch.zeros_like(gain).index_fill(0, torch.tensor([least]), 1.0)
    if (shift * weights).sum() < 0:
        move = -move
    moved = shift + move
    u = weights / (moved * weights).sum()
    b_q = b_q - w_q @ move
    b_v = b_v - w_v @ move

    folded = {
        "ln_1.weight": gain,
        "ln_1.bias": moved,
        "attn.attention.q_proj.weight": (w_q + torch.outer(b_q, u)) * head_dim**-0.5,
        "attn.attention.k_proj.weight": w_k,
        "attn.attention.v_proj.weight": w_v,
        "attn.attention.out_proj.weight": w_o,
        "attn.attention.out_proj.bias": b_o + w_o @ b_v,
    }
    dtype = block["ln_1.bias"].dtype
    return {name: value.to(dtype).contiguous() for name, value in folded.items()}


def transposed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with those of linear layers from (out, in) to Conv1D's (in, out)."""
    return {name: value.t().contiguous() if name.endswith(TRANSPOSED) else value for name, value in weights.items()}


def kept_weights(model: GPT3ForCausalLM, context: int, rows: int) -> dict[str, Tensor]:
    """The model's parameters by name, positions cut to `context`, ids to `rows`; a tied head is not repeated."""
    stop = {"transformer.wpe.weight": context, "transformer.wte.weight": rows, "lm_head.weight": rows}
    # a tied head is one parameter, under its first name
    return {name: value.detach()[: stop.get(name)] for name, value in model.named_parameters()}


def stock_config(kind: Any, names: Mapping[str, str], config: GPT3Config, context: int, rows: int, **more: Any) -> Any:
    """The same shape in the words of `kind`, a configuration class of transformers; `names` as in gpt3.model_folder.families."""
    values = {name: getattr(config, name) for name in VALUES}
    values |= {"max_position_embeddings": context, "vocab_size": rows}
    return kind(**{names.get(name, name): value for name, value in values.items()}, **more)


def build(kind: Any, config: Any, state: Mapping[str, Tensor], model: GPT3ForCausalLM | None = None) -> Any:
    """A model of transformers' class `kind` with the weights `state` and `model`'s generation settings, in evaluation mode.

    Raises:
        KeyError: a weight is missing or extra.
    """
    with quiet_transformers():
        stock, report = kind.from_pretrained(None, config=config, state_dict=state, output_loading_info=True)
    if wrong := [*report["missing_keys"], *report["unexpected_keys"]]:
        raise KeyError(f"{kind.__name__}: {', '.join(sorted(wrong))}")
    if model is not None:
        stock.generation_config = model.generation_config
    return stock.eval()


def save(stock: Any, tokenizer: PreTrainedTokenizerFast, folder: Path, dtype: torch.dtype) -> None:
    """Write a folder that `AutoModelForCausalLM` and `AutoTokenizer` load: weights in `dtype`, a plain Jinja template."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = plain_jinja(tokenizer.chat_template)
    with quiet_transformers():
        stock.to(dtype).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def reload(kind: Any, folder: Path) -> Any:
    """What is in `folder`, loaded by transformers' class `kind`, in float32."""
    with quiet_transformers():
        return kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
