"""GPT-3 (Brown et al. 2020, section 2.1): GPT-2's decoder, with dense and locally banded attention layers alternating.

Letters in shapes: B sequences, T tokens, S keys (T, and those in the cache), C = hidden_size, H heads of width D, V = vocab_size.
Parameter names are GPT-2's; the weights are `nn.Linear`'s (out, in), the transposes of GPT-2's Conv1D.
"""

# ruff: noqa: RUF012  (class attributes that transformers reads and copies are lists and dictionaries)
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .banded_attention import BANDED, has_windowed_flash
from .configuration_gpt3 import GPT3Config
from .loss import LossSteps, linear_cross_entropy

MASKS: dict[str, Callable] = {
    "full_attention": create_causal_mask,
    "sliding_attention": create_sliding_window_causal_mask,
}


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attention written out, the reference of the others: softmax(q k^T / sqrt(D) + mask) v."""
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling  # (B, H, T, S)
    if attention_mask is not None:
        scores = scores + attention_mask
    exact = torch.promote_types(query.dtype, torch.float32)
    probabilities = F.softmax(scores, dim=-1, dtype=exact).to(query.dtype)
    probabilities = F.dropout(probabilities, p=dropout, training=module.training)
    output = torch.matmul(probabilities, value)  # (B, H, T, D)
    return output.transpose(1, 2).contiguous(), probabilities


class GPT3Attention(nn.Module):
    """Causal self-attention over all keys so far (dense), or over the last `sliding_window` ones (locally banded)."""

    is_causal = True

    def __init__(self, config: GPT3Config, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.num_heads = config.num_attention_heads
        self.head_dim = config.head_dim
        self.scaling = self.head_dim**-0.5
        self.sliding_window = config.sliding_window if config.layer_types[layer_idx] == "sliding_attention" else None
        width = self.num_heads * self.head_dim  # need not be C
        self.c_attn = nn.Linear(config.hidden_size, 3 * width)
        self.c_proj = nn.Linear(width, config.hidden_size)
        self.c_proj.is_residual_projection = True  # type: ignore[assignment]
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        B, T, _ = hidden_states.shape
        qkv = self.c_attn(hidden_states).view(B, T, 3, self.num_heads, self.head_dim)  # (B, T, 3, H, D)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)  # (B, H, S, D)

        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.config.attn_pdrop if self.training else 0.0
        options = {"dropout": dropout, "scaling": self.scaling, "sliding_window": self.sliding_window}
        output, probabilities = attention(self, query, key, value, attention_mask, **options, **kwargs)  # (B, T, H, D)
        output = self.c_proj(output.reshape(B, T, -1))  # (B, T, C)
        return self.resid_dropout(output), probabilities


class GPT3MLP(nn.Module):
    """C -> 4 C -> C, a GELU between."""

    def __init__(self, config: GPT3Config) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.hidden_size, config.intermediate_size)
        self.c_proj = nn.Linear(config.intermediate_size, config.hidden_size)
        self.c_proj.is_residual_projection = True  # type: ignore[assignment]
        self.act = ACT2FN[config.activation_function]
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.dropout(self.c_proj(self.act(self.c_fc(hidden_states))))  # (B, T, C)


class GPT3Block(GradientCheckpointingLayer):
    """Attention and MLP, each added to the residual stream; layer norm before each (or, post-LN, after each sum)."""

    training_pass: Callable[..., Tensor | None] | None = None
    """What a training loop has the block computed with, of (block, hidden_states, **kwargs); where it returns None, as below."""

    def __init__(self, config: GPT3Config, layer_idx: int) -> None:
        super().__init__()
        self.use_pre_layernorm = config.use_pre_layernorm
        self.ln_1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.attn = GPT3Attention(config, layer_idx)
        self.ln_2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.mlp = GPT3MLP(config)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        if self.training_pass is not None and (found := self.training_pass(self, hidden_states, **kwargs)) is not None:
            return found
        x = hidden_states  # (B, T, C)
        if self.use_pre_layernorm:
            x = x + self.attn(self.ln_1(x), **kwargs)[0]
            return x + self.mlp(self.ln_2(x))
        x = self.ln_1(x + self.attn(x, **kwargs)[0])
        return self.ln_2(x + self.mlp(x))


class GPT3PreTrainedModel(PreTrainedModel):
    """Loading, saving, initial weights and the choice of attention, common to the models below."""

    config: GPT3Config
    config_class = GPT3Config
    base_model_prefix = "transformer"
    _input_embed_layer = "wte"
    supports_gradient_checkpointing = True
    _no_split_modules = ["GPT3Block"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": GPT3Block, "attentions": GPT3Attention}

    def get_correct_attn_implementation(self, requested_attention: str | None, *args: Any, **kwargs: Any) -> str:
        """`banded` where the caller asks for nothing."""
        return super().get_correct_attn_implementation(requested_attention or BANDED, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module, generator: torch.Generator | None = None) -> None:
        """Initial values, each tensor once. s = `initializer_range` (0.02), L = `num_hidden_layers`.

        | tensor                                                   | value              | source                      |
        |----------------------------------------------------------|--------------------|-----------------------------|
        | wte, wpe: weight                                         | N(0, s)            | GPT-2's code (its wpe 0.01) |
        | attn.c_attn, mlp.c_fc, an lm_head that is untied: weight | N(0, s)            | GPT-2's code                |
        | attn.c_proj, mlp.c_proj: weight                          | N(0, s / sqrt(2L)) | GPT-2's paper, 2L additions |
        | every linear layer's bias                                | 0                  | GPT-2's code                |
        | ln_1, ln_2, ln_f: weight, bias                           | 1, 0               | GPT-2's code                |
        """
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            if getattr(module, "is_residual_projection", False):
                std = std / math.sqrt(2 * self.config.num_hidden_layers)
            init.normal_(module.weight, mean=0.0, std=std, generator=generator)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=std, generator=generator)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)


class GPT3Model(GPT3PreTrainedModel):
    """Token and position embeddings, the blocks, the last layer norm (with post-LN, too)."""

    def __init__(self, config: GPT3Config) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        self.wpe = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList([GPT3Block(config, i) for i in range(config.num_hidden_layers)])
        self.ln_f = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | dict[str, Tensor] | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states of the tokens, (B, T, C), after the last layer norm.

        Args:
            input_ids: (B, T), or `inputs_embeds` (B, T, C) in their place.
            attention_mask: (B, S), 1 for real tokens, 0 for padding on either side; or (B, 1, T, S), or one per layer type.
            position_ids: (B, T). None: counted from each row's first real token. Restarting within a row, without
                `attention_mask` and cache: packed documents, which then do not see each other.
            past_key_values: keys and values of the tokens before these.
            use_cache: return keys and values; None: the configuration's.
            cu_seq_lens_q: with `position_ids` of packed documents, where each begins (`packed_documents.cumulative_lengths`).
                It may be given anywhere, and spares the masks where flash attention takes it.

        Raises:
            ValueError: positions beyond `max_position_embeddings`.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.wte(input_ids)  # (B, T, C)
        T, device = inputs_embeds.shape[1], inputs_embeds.device
        seen = past_key_values.get_seq_length() if past_key_values is not None else 0

        # The masks look at the caller's own positions alone: they would look for packed documents in counted ones, too, which
        # stalls a GPU, and while torch.compile traces, every layer would get a mask, and flash attention none.
        packed = position_ids
        if position_ids is None:
            if isinstance(attention_mask, Tensor) and attention_mask.ndim == 2:
                position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -T:].to(device)  # (B, T)
            else:
                position_ids = (torch.arange(T, device=device) + seen)[None]  # (1, T)
        limit = self.config.max_position_embeddings
        # Reading positions stalls a GPU: there only when there are more tokens than positions.
        check = not torch.compiler.is_compiling() and (device.type == "cpu" or seen + T > limit)
        if check and (last := int(position_ids.max())) >= limit:
            raise ValueError(
                f"the input reaches position {last + 1}, the model has {limit} (max_position_embeddings): "
                "shorten the prompt or generate fewer tokens"
            )

        masks: Any = attention_mask
        if not (masks is None and past_key_values is None and self._flash_takes_documents(kwargs, device)):
            kwargs.pop("cu_seq_lens_q", None)
        else:
            masks = dict.fromkeys(self.config.layer_types)
        if not isinstance(masks, dict):
            mask_kwargs = {"config": self.config, "inputs_embeds": inputs_embeds, "attention_mask": attention_mask}
            mask_kwargs |= {"past_key_values": past_key_values, "position_ids": packed}
            masks = {layer_type: MASKS[layer_type](**mask_kwargs) for layer_type in set(self.config.layer_types)}
        # Not before the masks, which look for packed documents where there is no cache.
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)

        hidden_states = self.drop(inputs_embeds + self.wpe(position_ids))  # (B, T, C)
        for block, layer_type in zip(self.h, self.config.layer_types, strict=True):
            layer_kwargs = {"attention_mask": masks[layer_type], "past_key_values": past_key_values}
            hidden_states = block(hidden_states, position_ids=position_ids, **layer_kwargs, **kwargs)
        return BaseModelOutputWithPast(self.ln_f(hidden_states), past_key_values)

    def _flash_takes_documents(self, kwargs: dict[str, Any], device: torch.device) -> bool:
        """Whether packed documents were given by their beginnings, and flash attention computes them from those."""
        if kwargs.get("cu_seq_lens_q") is None or self.config._attn_implementation != BANDED:
            return False
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else self.wte.weight.dtype
        dropout = self.training and self.config.attn_pdrop > 0
        return not dropout and has_windowed_flash(device, dtype, self.config.head_dim)


class GPT3ForCausalLM(GPT3PreTrainedModel, GenerationMixin):
    """GPT-3 with its output head, which is the token embedding again."""

    _tied_weights_keys = {"lm_head.weight": "transformer.wte.weight"}
    loss_steps: LossSteps | None = None
    """What a training loop has the loss computed with; None: torch's operators."""
    compiles_loss = False
    """Whether a training loop compiles block by block, and the loss is to be compiled, too."""

    def __init__(self, config: GPT3Config) -> None:
        super().__init__(config)
        self.transformer = GPT3Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, *args: Any, **kwargs: Any
    ) -> nn.Embedding:
        """As transformers', and rows added for `pad_to_multiple_of` are padding: never sampled."""
        real = new_num_tokens or self.config.real_vocab_size or self.config.vocab_size
        embeddings = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, *args, **kwargs)
        self.config.real_vocab_size = real if real < self.config.vocab_size else None
        return embeddings

    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        """As transformers', which knows its own attention implementations only."""
        if self.config._attn_implementation == BANDED:
            self.set_attn_implementation("sdpa")
        return super().init_continuous_batching(*args, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | dict[str, Tensor] | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        skip_logits: bool = False,
        shift_labels: Tensor | None = None,
        num_items_in_batch: int | Tensor | None = None,
        loss_reduction: str | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, V) of each token's successor, and with labels the mean cross-entropy in nats.

        Args:
            labels: (B, T), the tokens themselves: label t + 1 is what position t predicts; -100 does not count.
            shift_labels: (B, T), in place of `labels`: what each position predicts.
            logits_to_keep: logits of the last so many positions only (0: all), or of these positions.
            skip_logits: loss without logits, which are never held (see loss.py).
            num_items_in_batch: the loss is the sum over this batch divided by it, for token-weighted accumulation.
            loss_reduction: `none` for the loss of each position, (B T,), 0 where its label does not count.
        """
        outputs: BaseModelOutputWithPast = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_states: Any = outputs.last_hidden_state  # (B, T, C)
        real = self.config.real_vocab_size
        fused = skip_logits and isinstance(self.lm_head, nn.Linear)  # an adapter in its place has logits of its own

        logits: Tensor | None = None
        loss: Tensor | None = None
        if not fused:
            keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(hidden_states[:, keep])  # (B, T or fewer, V)
            if real is not None:
                logits[..., real:] = -torch.inf
        if labels is not None and shift_labels is None:
            shift_labels = F.pad(labels[:, 1:], (0, 1), value=-100)
        if shift_labels is not None:
            targets = shift_labels.reshape(-1).to(hidden_states.device)  # (B T,)
            reduction = loss_reduction or ("mean" if num_items_in_batch is None else "sum")
            if logits is not None:
                exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
                loss = F.cross_entropy(exact.flatten(0, 1), targets, reduction=reduction)
                loss = loss if num_items_in_batch is None else loss / num_items_in_batch
            else:
                options: Any = {"reduction": reduction, "divisor": num_items_in_batch, "real_vocab_size": real}
                options |= {"compiled": self.compiles_loss or torch.compiler.is_compiling(), "steps": self.loss_steps}
                loss = linear_cross_entropy(hidden_states.flatten(0, 1), self.lm_head.weight, targets, **options)

        return CausalLMOutputWithPast(
            loss=loss,
            logits=None if skip_logits else logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


__all__ = ["GPT3ForCausalLM", "GPT3Model", "GPT3PreTrainedModel"]
