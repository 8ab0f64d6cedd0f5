"""A PEFT adapter: written by fine-tuning, and merged into its base with every tensor checked and the logits compared.

Its folder holds ``adapter_config.json``, which names the base, and ``adapter_model.safetensors`` (gpt3.model_folder.locate).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from gpt3.errors import InputError, RunError, one_line
from gpt3.model.vocabulary import resize_vocabulary
from gpt3.model_folder.convert import Stored, mapped
from gpt3.model_folder.locate import ADAPTER_CONFIG, ADAPTER_WEIGHTS, counted

INSIDE = "base_model.model."
"""PEFT's prefix of every name in an adapter's file."""
TIED_TOKENS = ".token_adapter.trainable_tokens_delta"
"""New tokens' rows, which PEFT writes twice where the head is tied, and reads once."""
PROBE_TOKENS = 16
LARGEST = 1e-3
"""Change of a logit, as a share of the largest, that merging may make in float32."""


def kind_of(settings: Mapping[str, Any]) -> str:
    """An adapter's kind in words, from its adapter_config.json: LoRA of rank 16."""
    return f"{'DoRA' if settings.get('use_dora') else 'LoRA'} of rank {settings.get('r')}"


def save_adapter(adapted: Any, tokenizer: Any, folder: Path, base: str) -> None:
    """Write a PEFT model's adapter, its tokenizer and its EOS ids; `base` is the path or id of the model below it.

    New tokens have deltas of their own in it, so the embeddings are not written; nor is DPO's reference adapter.
    """
    for settings in adapted.peft_config.values():
        settings.base_model_name_or_path = base
    adapted.save_pretrained(folder, save_embedding_layers=False, selected_adapters=["default"])
    adapted.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def merge(adapted: Any) -> Any:
    """A PEFT model's base with its adapter merged into the weights: the same logits up to rounding.

    Raises:
        ValueError: the merged weights are not finite.
    """
    from peft.tuners.lora import LoraLayer

    base = adapted.get_base_model()
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    plain = [getattr(each, "base_layer", each) for each in (embedding, head)]
    tied = plain[0].weight is plain[1].weight
    if tied and isinstance(embedding, LoraLayer) != isinstance(head, LoraLayer):
        # merged into one of the two, it must not appear in the other
        plain[1].weight = torch.nn.Parameter(plain[1].weight.detach().clone())
    merged = adapted.merge_and_unload(safe_merge=True)
    weights = [each.weight for each in (merged.get_input_embeddings(), merged.get_output_embeddings())]
    merged.config.tie_word_embeddings = weights[0] is weights[1]
    return merged


def merged(folder: Path, settings: Mapping[str, Any], base: PreTrainedModel, tokenizer: Any) -> PreTrainedModel:
    """The model `base` with the adapter in `folder` merged into its weights, in evaluation mode.

    The embeddings of `base` are resized as the adapter was trained.

    Args:
        settings: the adapter's adapter_config.json.
        base: its base model, in float32 on the CPU, as the adapter's names ask.
        tokenizer: the adapter's, or else the base's.

    Raises:
        InputError: PEFT cannot apply it to that base; tensors of the adapter are missing, extra or misshapen (all of them in
            one line).
        RunError: merging changed the logits.
    """
    import peft

    weights = mapped(folder / ADAPTER_WEIGHTS)
    fit_vocabulary(base, tokenizer, weights, settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's advice to whoever trains
        try:
            config = peft.PeftConfig.from_pretrained(str(folder))
            config.inference_mode = True
            adapted = peft.get_peft_model(base, config)
            _check(folder, weights, adapted, peft.get_peft_model_state_dict(adapted, save_embedding_layers=False))
            extra = adapted.load_adapter(str(folder), "default").unexpected_keys
            if extra := [name for name in extra if not name.endswith(TIED_TOKENS)]:
                raise ValueError(f"{len(extra)} tensors have no place, such as {extra[0]}")
            return _merged(folder, adapted.eval())
        except (InputError, RunError):
            raise
        # PEFT's, of what it cannot apply
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise InputError(
                f"{folder}: PEFT cannot apply it to its base model ({one_line(error)}). Use the base it was trained on"
            ) from error


def fit_vocabulary(model: Any, tokenizer: Any, weights: Mapping[str, Stored], settings: Mapping[str, Any]) -> None:
    """Give the base as many rows as it had when the adapter was trained.

    That is what embeddings in the adapter have; without any, room for all of the tokenizer's and of the trained ids.
    """
    rows = model.get_input_embeddings().num_embeddings
    indices = settings.get("trainable_token_indices") or []
    real = getattr(model.config, "real_vocab_size", None) or rows
    ends = _ends(model)
    sizes = []
    for name, (shape, _, _) in weights.items():
        if name.startswith(ends) and name.endswith(".lora_embedding_A"):
            sizes.append(shape[1])
        elif name.startswith(ends) and name.endswith(".weight") and not name.endswith(".lora_A.weight"):
            sizes.append(shape[0])  # saved whole, or LoRA's B of the head
    if sizes:
        size, unchanged = max(sizes), rows
    else:
        trained = [i for group in (indices.values() if isinstance(indices, dict) else [indices]) for i in group]
        size, unchanged = max([real, *(number + 1 for number in (*trained, *tokenizer.get_vocab().values()))]), real
    if size != unchanged:
        new = range(min(real, size), size)
        resize_vocabulary(model, size, new)
        # as earlier versions trained it: a head of its own had the embedding's mean
        if isinstance(indices, dict) and len(indices) == 1:
            with torch.no_grad():
                embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
                head[list(new)] = embedding[list(new)]


def _ends(model: Any) -> tuple[str, ...]:
    """What the names of embedding and head begin with in an adapter."""
    both = (model.get_input_embeddings(), model.get_output_embeddings())
    return tuple(f"{INSIDE}{name}." for name, module in model.named_modules() if any(module is each for each in both))


def _check(folder: Path, weights: Mapping[str, Stored], adapted: Any, wanted: Mapping[str, torch.Tensor]) -> None:
    """Compare an adapter's file with what its configuration asks for.

    Raises:
        InputError: naming the first few of all tensors that are missing, extra or misshapen.
    """
    ends = _ends(adapted.get_base_model())  # PEFT may save the embeddings along
    kinds = {
        "missing": [name for name in wanted if name not in weights],
        "extra": [name for name in weights if name not in wanted and not name.startswith(ends)],
        "misshapen": [n for n, t in wanted.items() if n in weights and weights[n].shape != tuple(t.shape)],
    }
    if faults := counted(kinds):
        raise InputError(
            f"{folder}: its tensors are not what {ADAPTER_CONFIG} asks for on that base: {faults}. "
            "Save it again, or name the base it was trained on"
        )


def _merged(folder: Path, adapted: Any) -> Any:
    """The base with the adapter in its weights.

    Raises:
        RunError: its logits are not what they were.
    """
    config = adapted.get_base_model().config
    length = min(PROBE_TOKENS, getattr(config, "max_position_embeddings", PROBE_TOKENS))
    rows = getattr(config, "real_vocab_size", None) or config.vocab_size
    ids = torch.randint(rows, (1, length), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        before = adapted(input_ids=ids).logits[..., :rows]
        model = merge(adapted).eval()
        change = float((model(input_ids=ids).logits[..., :rows] - before).abs().max())
    largest = float(before.abs().max())
    if not change <= LARGEST * max(1.0, largest):
        raise RunError(
            f"{folder}: merging changed a logit by {change:.2g}, of at most {largest:.2g}. Use it with PEFT itself"
        )
    return model
