"""Configuration of GPT-3 (Brown et al. 2020, section 2.1)."""
# No `from __future__ import annotations` here: `@strict` checks values against the fields' types, not against strings.

from typing import TYPE_CHECKING, Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

LAYER_TYPES = ("full_attention", "sliding_attention")
LEAST = {
    "vocab_size": 1,
    "max_position_embeddings": 1,
    "hidden_size": 1,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "head_dim": 1,
    "intermediate_size": 1,
    "sliding_window": 2,  # transformers' caches keep window - 1 keys
}


@strict
class GPT3Config(PreTrainedConfig):
    r"""Shape and switches of a GPT-3 model. The defaults are the paper's 125M ("Small") model.

    GPT-2's names of the same things (`n_embd`, `n_layer`, `n_head`, `n_positions`, `n_ctx`, `n_inner`) are accepted and readable.

    Args:
        vocab_size: rows of the token embedding. 50,257 is GPT-2's vocabulary.
        real_vocab_size: ids from here on are padding rows of the embedding (a rounder matrix is faster on some devices):
            their logits are -inf, so they are never sampled and do not count in the loss. None: all rows are real.
        max_position_embeddings: longest context in tokens; positions are learned (2,048 in the paper).
        hidden_size: width of the residual stream, d_model.
        num_hidden_layers: blocks, n_layers.
        num_attention_heads: heads per attention layer, n_heads.
        head_dim: width of a head, d_head; free of `hidden_size`. None: `hidden_size / num_attention_heads`.
        intermediate_size: width of the MLP, d_ff. None: 4 x `hidden_size`, as in the paper.
        activation_function: `gelu` (exact) or `gelu_new` (GPT-2's tanh form), or another name transformers knows.
        layer_types: per layer `full_attention` (dense) or `sliding_attention` (locally banded).
            None: alternating, dense first (the paper says "alternating", not which comes first).
        sliding_window: keys a query of a banded layer sees, itself included (the paper names no width).
        use_pre_layernorm: True: layer norm at the input of each sub-block (GPT-2, GPT-3).
            False: after each residual sum (GPT-1).
        layer_norm_epsilon: added to the variance in every layer norm.
        initializer_range: standard deviation of the initial weights.
        resid_pdrop, embd_pdrop, attn_pdrop: dropout of the sub-blocks' outputs, of the embeddings' sum and of the
            attention probabilities. 0: the paper names none.
        use_cache: return keys and values for decoding.
        bos_token_id, eos_token_id: `<|endoftext|>`, 50,256 in GPT-2's vocabulary; it begins and ends documents.
        pad_token_id: None: the paper's batches have no padding.
        tie_word_embeddings: the output head is the token embedding.

    Raises:
        huggingface_hub.errors.StrictDataclassError: a value of the wrong type or out of its range; all are named at once.
    """

    model_type = "gpt3"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    attribute_map: ClassVar[dict[str, str]] = {
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_positions": "max_position_embeddings",
        "n_ctx": "max_position_embeddings",
        "n_inner": "intermediate_size",
    }

    vocab_size: int = 50257
    real_vocab_size: int | None = None
    max_position_embeddings: int = 2048
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    if TYPE_CHECKING:  # None stands for a default, which __post_init__ fills in
        head_dim: int = 0
        intermediate_size: int = 0
        layer_types: list[str] = []
    else:
        head_dim: int | None = None
        intermediate_size: int | None = None
        layer_types: list[str] | None = None
    activation_function: str = "gelu"
    sliding_window: int = 256
    use_pre_layernorm: bool = True
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    resid_pdrop: float | int = 0.0
    embd_pdrop: float | int = 0.0
    attn_pdrop: float | int = 0.0
    use_cache: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256
    pad_token_id: int | None = None
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        width, heads, layers = self.hidden_size, self.num_attention_heads, self.num_hidden_layers
        if self.head_dim is None and heads > 0 and width % heads == 0:
            self.head_dim = width // heads
        if self.intermediate_size is None:
            self.intermediate_size = 4 * width
        if self.layer_types is None:
            self.layer_types = [LAYER_TYPES[layer % 2] for layer in range(layers)]

    def validate_architecture(self) -> None:
        """Part of `@strict`'s validation: every value that makes no model, all named at once."""
        wrong = []
        for name, least in LEAST.items():
            if (value := getattr(self, name)) is not None and value < least:
                wrong.append(f"{name} must be at least {least}, got {value}")
        if self.head_dim is None and self.num_attention_heads > 0:
            wrong.append(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}: "
                "choose others, or give head_dim"
            )
        for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
            if not 0 <= getattr(self, name) < 1:
                wrong.append(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        for name in ("initializer_range", "layer_norm_epsilon"):
            if not getattr(self, name) > 0:
                wrong.append(f"{name} must be above 0, got {getattr(self, name)}")
        if self.real_vocab_size is not None and not 1 <= self.real_vocab_size <= self.vocab_size:
            wrong.append(f"real_vocab_size must be from 1 to vocab_size {self.vocab_size}, got {self.real_vocab_size}")
        if self.activation_function not in ACT2FN:
            wrong.append(
                f"activation_function {self.activation_function!r} is unknown: gelu, gelu_new, relu, silu, ..."
            )
        if wrong:
            raise ValueError("; ".join(wrong))

    def validate_layer_type(self) -> None:
        """Part of `@strict`'s validation: the layers' kinds."""
        if unknown := sorted(set(self.layer_types) - set(LAYER_TYPES)):
            raise ValueError(f"layer_types may hold {' and '.join(LAYER_TYPES)}, not {', '.join(unknown)}")
        if (count := len(self.layer_types)) != self.num_hidden_layers:
            entries = "1 entry" if count == 1 else f"{count} entries"
            raise ValueError(f"layer_types has {entries} for {self.num_hidden_layers} layers")
