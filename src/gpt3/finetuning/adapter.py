"""LoRA and DoRA by PEFT: which layers get adapters."""

from __future__ import annotations

from typing import Any

from gpt3.finetuning.options import FinetuneOptions

LORA_LAYERS = {"gpt3": ["c_attn", "c_proj", "c_fc"], "gpt2": ["c_attn", "c_proj", "c_fc"]}
"""The matrices of the layers; of other models all linear layers but the head."""


def with_adapter(model: Any, options: FinetuneOptions, new_ids: list[int]) -> Any:
    """The model with PEFT's adapters; of the embeddings only new tokens' rows are trained."""
    from peft import LoraConfig, get_peft_model

    kind = model.config.model_type
    name = next(name for name, module in model.named_modules() if module is model.get_input_embeddings())
    config = LoraConfig(
        task_type="CAUSAL_LM", r=options.lora_rank, lora_alpha=options.lora_alpha, lora_dropout=options.lora_dropout,
        use_dora=options.dora, target_modules=LORA_LAYERS.get(kind, "all-linear"), fan_in_fan_out=kind == "gpt2",
        trainable_token_indices={name.rpartition(".")[2]: new_ids} if new_ids else None,
    )  # fmt: skip
    adapted = get_peft_model(model, config)
    head = model.get_output_embeddings()
    if not hasattr(head, "bias"):  # PEFT's wrapper around a tied head hides that it has none; TRL asks for it
        head.bias = None
    return adapted
