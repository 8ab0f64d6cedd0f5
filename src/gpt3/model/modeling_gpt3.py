"""GPT-3 (Brown et al. 2020, section 2.1): GPT-2's decoder, with dense and locally banded attention layers alternating.

Shapes in comments: B sequences, T tokens, C = hidden_size, H heads of width D, V = vocab_size.
Parameter names are GPT-2's; the weights are `nn.Linear`'s (out, in), the transposes of GPT-2's Conv1D.
"""

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

from .configuration_gpt3 import GPT3Config
from .loss import linear_cross_entropy


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
    probabilities = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    probabilities = F.dropout(probabilities, p=dropout, training=module.training)
    output = torch.matmul(probabilities, value)  # (B, H, T, D)
    return output.transpose(1, 2).contiguous(), probabilities


class GPT3Attention(nn.Module):
    """Causal self-attention over all earlier keys (dense) or over the last `sliding_window` ones (locally banded)."""

    is_causal = True

    def __init__(self, config: GPT3Config, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.num_heads = config.num_attention_heads
        self.head_dim = config.head_dim
        self.scaling = self.head_dim**-0.5
        self.sliding_window = config.sliding_window if config.layer_types[layer_idx] == "sliding_attention" else None
        width = self.num_heads * self.head_dim
        self.c_attn = nn.Linear(config.hidden_size, 3 * width)
        self.c_proj = nn.Linear(width, config.hidden_size)
        self.c_proj.is_residual_projection = True
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        B, T, _ = hidden_states.shape
        qkv = self.c_attn(hidden_states)  # (B, T, 3 H D)
        query, key, value = qkv.view(B, T, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)  # (B, H, S, D), S keys so far

        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, probabilities = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.config.attn_pdrop if self.training else 0.0,
            scaling=self.scaling,
            sliding_window=self.sliding_window,
            **kwargs,
        )  # (B, T, H, D)
        output = self.c_proj(output.reshape(B, T, -1))  # (B, T, C)
        return self.resid_dropout(output), probabilities


class GPT3MLP(nn.Module):
    """C -> 4 C -> C with a GELU between."""

    def __init__(self, config: GPT3Config) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.hidden_size, config.intermediate_size)
        self.c_proj = nn.Linear(config.intermediate_size, config.hidden_size)
        self.c_proj.is_residual_projection = True
        self.act = ACT2FN[config.activation_function]
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.dropout(self.c_proj(self.act(self.c_fc(hidden_states))))


class GPT3Block(GradientCheckpointingLayer):
    """Attention and MLP, each added to the residual stream; layer norm before each (or, post-LN, after each sum)."""

    def __init__(self, config: GPT3Config, layer_idx: int) -> None:
        super().__init__()
        self.use_pre_layernorm = config.use_pre_layernorm
        self.ln_1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.attn = GPT3Attention(config, layer_idx)
        self.ln_2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.mlp = GPT3MLP(config)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        if self.use_pre_layernorm:
            hidden_states = hidden_states + self.attn(self.ln_1(hidden_states), **kwargs)[0]
            return hidden_states + self.mlp(self.ln_2(hidden_states))
        hidden_states = self.ln_1(hidden_states + self.attn(hidden_states, **kwargs)[0])
        return self.ln_2(hidden_states + self.mlp(hidden_states))


class GPT3PreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation, common to the models below."""

    config: GPT3Config
    config_class = GPT3Config
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _no_split_modules = ["GPT3Block"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": GPT3Block, "attentions": GPT3Attention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            if getattr(module, "is_residual_projection", False):
                std = std / math.sqrt(2 * self.config.num_hidden_layers)
            init.normal_(module.weight, mean=0.0, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=std)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)


class GPT3Model(GPT3PreTrainedModel):
    """Token and position embeddings, the blocks, the final layer norm."""

    def __init__(self, config: GPT3Config) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        self.wpe = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList([GPT3Block(config, i) for i in range(config.num_hidden_layers)])
        self.ln_f = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.wte

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.wte = value

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.wte(input_ids)  # (B, T, C)
        B, T, _ = inputs_embeds.shape
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        seen = past_key_values.get_seq_length() if past_key_values is not None else 0

        if position_ids is None:
            if attention_mask is not None and not isinstance(attention_mask, dict) and attention_mask.ndim == 2:
                position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -T:]  # (B, T)
            else:
                position_ids = (torch.arange(T, device=inputs_embeds.device) + seen).unsqueeze(0)  # (1, T)

        if isinstance(attention_mask, dict):
            masks = attention_mask
        else:
            mask_kwargs = {
                "config": self.config,
                "inputs_embeds": inputs_embeds,
                "attention_mask": attention_mask,
                "past_key_values": past_key_values,
                "position_ids": position_ids,
            }
            masks = {
                "full_attention": create_causal_mask(**mask_kwargs),
                "sliding_attention": create_sliding_window_causal_mask(**mask_kwargs),
            }

        hidden_states = self.drop(inputs_embeds + self.wpe(position_ids))  # (B, T, C)
        for block, layer_type in zip(self.h, self.config.layer_types):
            hidden_states = block(
                hidden_states,
                attention_mask=masks[layer_type],
                past_key_values=past_key_values,
                position_ids=position_ids,
                **kwargs,
            )
        hidden_states = self.ln_f(hidden_states)
        return BaseModelOutputWithPast(last_hidden_state=hidden_states, past_key_values=past_key_values)


class GPT3ForCausalLM(GPT3PreTrainedModel, GenerationMixin):
    """GPT-3 with its output head, the token embedding again."""

    _tied_weights_keys = {"lm_head.weight": "transformer.wte.weight"}

    def __init__(self, config: GPT3Config) -> None:
        super().__init__(config)
        self.transformer = GPT3Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        skip_logits: bool = False,
        shift_labels: Tensor | None = None,
        num_items_in_batch: int | Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        outputs: BaseModelOutputWithPast = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state  # (B, T, C)

        logits = None
        if not skip_logits:
            keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(hidden_states[:, keep])  # (B, T', V)
            real = self.config.real_vocab_size
            if real is not None and real < logits.shape[-1]:
                logits[..., real:] = float("-inf")

        loss = None
        if labels is not None and shift_labels is None:
            shift_labels = F.pad(labels[..., 1:], (0, 1), value=-100)
        if shift_labels is not None:
            targets = shift_labels.reshape(-1).to(hidden_states.device)
            reduction = "mean" if num_items_in_batch is None else "sum"
            if skip_logits:
                loss = linear_cross_entropy(
                    hidden_states.reshape(-1, hidden_states.shape[-1]),
                    self.lm_head.weight,
                    targets,
                    reduction=reduction,
                    real_vocab_size=self.config.real_vocab_size,
                )
            else:
                loss = F.cross_entropy(logits.float().view(-1, logits.shape[-1]), targets, reduction=reduction)
            if num_items_in_batch is not None:
                loss = loss / num_items_in_batch

        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


__all__ = ["GPT3ForCausalLM", "GPT3Model", "GPT3PreTrainedModel"]
