"""Whether another program's architecture holds a GPT-3, and how much of its context and vocabulary goes there."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from gpt3.errors import InputError
from gpt3.model import GPT3Config

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
    return _context(config, target, asked), rows


def _context(config: GPT3Config, target: str, asked: int | None) -> int:
    positions, window = config.max_position_embeddings, config.sliding_window
    if asked is not None and asked > positions:
        raise InputError(
            f"--context {asked:,} exceeds the model's {positions:,} positions. Use --context {positions} or less"
        )
    context = asked or positions
    if target == "gpt-neo" or window >= context or "sliding_attention" not in (config.layer_types or ()):
        return context
    if target == "gguf" and asked is None:
        return window
    what = {"gguf": "llama.cpp's gpt2 has", "gpt2": "GPT-2 has"}[target]
    wish = f"--context {asked:,}" if asked else f"the model's context of {positions:,}"
    raise InputError(
        f"--format {target}: {what} no banded layers, and this model's see only {window:,} tokens: {wish} would be "
        f"wrong. Use --context {window} or less, or --format gpt-neo, which has them. {ITSELF}"
    )
