"""A PEFT adapter's folder (``adapter_config.json``, ``adapter_model.safetensors``), as fine-tuning writes it and all read it.

It holds what was learned on top of a base model, which it names in ``base_model_name_or_path``. Nothing heavy is imported
here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpt3.errors import InputError

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE = "base_model_name_or_path"
OLD_IDS = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}
"""Hub ids from before they had owners, which many adapters name."""
AROUND = 3
"""Folders around an adapter's own where a relative path to its base may begin: of runs/NAME/adapter, the one that holds runs."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder is an adapter's, and not a whole model's that one was left in."""
    whole = any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json"))
    return (folder / ADAPTER_CONFIG).is_file() and not whole


def adapter_settings(folder: Path) -> dict[str, Any]:
    """What adapter_config.json says.

    Raises:
        InputError: it is not JSON, its adapter is none that is merged here, or its weights are missing.
    """
    path = folder / ADAPTER_CONFIG
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); save the adapter again") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("peft_type"), str):
        raise InputError(f"{path} names no kind of adapter (peft_type); save the adapter again")
    if settings["peft_type"] != "LORA":
        raise InputError(
            f"{folder} is a {settings['peft_type']} adapter, and LoRA and DoRA are read; merge it with PEFT "
            "(merge_and_unload) and give that model's folder"
        )
    if not (folder / ADAPTER_WEIGHTS).is_file():
        pickles = sorted(each.name for each in folder.glob("*.bin"))
        what = f"{pickles[0]} is a pickle and never read here" if pickles else "its weights are missing"
        raise InputError(f"{folder}: {what}; save the adapter again as {ADAPTER_WEIGHTS}")
    return settings


def kind_of(settings: dict[str, Any]) -> str:
    """An adapter's kind in words: LoRA of rank 16."""
    return f"{'DoRA' if settings.get('use_dora') else 'LoRA'} of rank {settings.get('r')}"


def base_of(folder: Path, settings: dict[str, Any]) -> Path | str:
    """The base model's folder, checked; or a hub id, where no folder of that name is here.

    A relative path begins in the working directory, in the adapter's folder, or in one of the `AROUND` around that.

    Raises:
        InputError: no base is named, it is not here and no hub id, it is no whole model, or an adapter itself.
    """
    from gpt3.model_folder.locate import HUB_ID, check, model_folder

    name = settings.get(BASE)
    if not isinstance(name, str) or not name:
        raise InputError(f"{folder}: {ADAPTER_CONFIG} names no base model ({BASE}); write the path of its folder there")
    absolute = folder.absolute()
    for start in (Path(), absolute, *absolute.parents[:AROUND]):
        place = start / Path(name).expanduser()
        found = model_folder(place) if place.is_dir() else None
        if found is None:
            continue
        if is_adapter(found):
            raise InputError(
                f"{folder}: its base model {name} is an adapter itself; merge that first: gpt3 import {found} --out DIR"
            )
        try:
            return check(found)
        except InputError as error:
            raise InputError(f"{folder}: its base model, {str(error).removeprefix('--model ')}") from None
    if HUB_ID.fullmatch(name) or name in OLD_IDS:
        return OLD_IDS.get(name, name)
    raise InputError(
        f"{folder}: its base model {name} is not here; write the path of its folder into {ADAPTER_CONFIG} ({BASE})"
    )


def save_adapter(adapted: Any, tokenizer: Any, folder: Path, base: str) -> None:
    """Write a PEFT model's adapter, its tokenizer and where its texts end; `base` is the path or id of the model below it.

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
    import torch
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
