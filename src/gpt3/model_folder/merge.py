"""A PEFT adapter on its base model: every tensor checked, merged into the weights, and the logits compared."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gpt3.errors import InputError, RunError, one_line, require
from gpt3.model_folder.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_settings, base_of, kind_of, merge
from gpt3.model_folder.locate import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from gpt3.model_folder.weights import Weights

INSIDE = "base_model.model."
"""PEFT's prefix of every name in an adapter's file."""
OURS = re.compile(
    r"(transformer\.(wte|wpe|ln_f|h\.\d+\.(ln_1|ln_2|attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj))|lm_head)\..*"
)
"""Names in an adapter that was trained on a model of ours."""
TIED_TOKENS = ".token_adapter.trainable_tokens_delta"
"""New tokens' rows, which PEFT writes twice where the head is tied, and reads once."""
PROBE_TOKENS = 16
LARGEST = 1e-3
"""Change of a logit, as a share of the largest, that merging may make in float32."""


@dataclass(frozen=True)
class Merged:
    """An adapter's model."""

    model: Any
    """The base with the adapter in its weights, in float32 on the CPU, in evaluation mode."""
    tokenizer: PreTrainedTokenizerFast
    """The adapter's, else the base's."""
    dtype: torch.dtype
    """The base's own number format."""
    family: str
    """What it is, in words."""
    notes: list[str]
    """What a user should know of the base's conversion, a line each."""
    files: list[Path]
    """What it was made from."""


def load_merged(folder: Path) -> Merged:
    """Load an adapter onto its base and merge it.

    The base is loaded as the adapter's names ask: as our model, or, of another family, as transformers' own class, which
    becomes ours after the merge. Embeddings are resized as the adapter was trained.

    Raises:
        InputError: PEFT is not installed; see `gpt3.model_folder.adapter`; the base does not load; tensors of the adapter are
            missing, left over or misshapen (all of them in one line).
        RunError: merging changed the logits.
    """
    from gpt3.model_folder import FAMILIES
    from gpt3.model_folder.convert import checkpoint_of, generation_ids
    from gpt3.model_folder.fetch import GENERATION
    from gpt3.model_folder.weights import Weights
    from gpt3.tokenizer.loading import load_tokenizer

    settings = adapter_settings(folder)
    base = base_of(folder, settings)
    peft = require("peft", extra="finetune", purpose="reading a PEFT adapter")
    weights = Weights(folder, file=ADAPTER_WEIGHTS)
    try:
        loaded = _base(base, settings, weights)
    except InputError as error:
        raise InputError(f"{folder}: its base model, {str(error).removeprefix('--model ')}") from None
    model, tokenizer = loaded.model, loaded.tokenizer
    if (folder / "tokenizer.json").is_file():
        tokenizer = load_tokenizer(folder)
    fit_vocabulary(model, tokenizer, weights, settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's advice to whoever trains
        try:
            config = peft.PeftConfig.from_pretrained(str(folder))
            config.inference_mode = True
            adapted = peft.get_peft_model(model, config)
            _check(folder, weights, adapted, peft.get_peft_model_state_dict(adapted, save_embedding_layers=False))
            left = adapted.load_adapter(str(folder), "default").unexpected_keys
            if left := [name for name in left if not name.endswith(TIED_TOKENS)]:
                raise ValueError(f"{len(left)} tensors have no place, such as {left[0]}")
            model = _merged(folder, adapted.eval())
        except (InputError, RunError):
            raise
        except (
            ValueError,
            TypeError,
            KeyError,
            RuntimeError,
            AttributeError,
        ) as error:  # PEFT's, of a config it cannot apply
            raise InputError(
                f"{folder}: PEFT cannot apply it to its base model, {base} ({one_line(error)}); use the base it was trained on"
            ) from error
    for name, value in generation_ids(folder / GENERATION).items():
        setattr(model.generation_config, name, value)
    notes = loaded.notes
    if model.config.model_type in FAMILIES:
        converted = checkpoint_of(model, tokenizer, folder)
        model, notes = converted.model(torch.float32), converted.blueprint.notes
    files = [folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS, *loaded.files]
    family = f"{kind_of(settings)} merged into {loaded.family}"
    return Merged(model.eval(), tokenizer, loaded.dtype, family, notes, files)


def fit_vocabulary(model: Any, tokenizer: Any, weights: Weights, settings: Mapping[str, Any]) -> None:
    """Give the base as many rows as it had when the adapter was trained.

    That is what embeddings in the adapter have; without any, room for all of the tokenizer's and of the trained ids.
    """
    from gpt3.model.vocabulary import resize_vocabulary

    rows = model.get_input_embeddings().num_embeddings
    real = getattr(model.config, "real_vocab_size", None) or rows
    sizes = [size for name in weights if (size := _rows(model, name, weights.shapes[name])) is not None]
    if sizes:
        size = max(sizes)
        if size == rows:
            return
    else:
        indices = settings.get("trainable_token_indices") or []
        trained = [i for group in (indices.values() if isinstance(indices, dict) else [indices]) for i in group]
        size = max([real, *(number + 1 for number in (*trained, *tokenizer.get_vocab().values()))])
        if size == real:
            return
    resize_vocabulary(model, size, range(min(real, size), size))


def _rows(model: Any, name: str, shape: tuple[int, ...]) -> int | None:
    """How many ids a tensor of an adapter has something for, None where it is no matter of ids."""
    if not name.startswith(_ends(model)) or name.endswith(".lora_A.weight"):
        return None
    if name.endswith(".lora_embedding_A"):
        return shape[1]
    return shape[0] if name.endswith(".weight") else None  # saved whole, or LoRA's B of the head


def _ends(model: Any) -> tuple[str, ...]:
    """What the names of embedding and head begin with in an adapter."""
    both = (model.get_input_embeddings(), model.get_output_embeddings())
    return tuple(f"{INSIDE}{name}." for name, module in model.named_modules() if any(module is each for each in both))


def _base(base: Path | str, settings: Mapping[str, Any], weights: Weights) -> Merged:
    """The base model as the adapter knew it, not merged with anything."""
    from transformers import CONFIG_MAPPING, PreTrainedConfig

    from gpt3.model_folder import FAMILIES, open_checkpoint
    from gpt3.model_folder.load import from_pretrained, load_transformers

    raw = read_json(base / "config.json") if isinstance(base, Path) else PreTrainedConfig.get_config_dict(base)[0]
    model_type = raw.get("model_type")
    plain = torch.float32
    if model_type not in FAMILIES and model_type != "gpt3":
        model, tokenizer = load_transformers(base, device="cpu", dtype="fp32")
        return Merged(model, tokenizer, plain, str(model_type), [], [])
    checkpoint = open_checkpoint(base, allow_ours=True)
    if checkpoint.tokenizer is None:
        raise InputError(f"{base}: no tokenizer (tokenizer.json) in it; put the model's tokenizer there")
    ours = not settings.get("fan_in_fan_out") and all(OURS.fullmatch(name.removeprefix(INSIDE)) for name in weights)
    if ours or model_type not in CONFIG_MAPPING or model_type == "gpt3":
        model = checkpoint.model(plain)
    else:
        model = from_pretrained(checkpoint.folder, model_type, dtype=plain)
    family = checkpoint.blueprint.family
    return Merged(model, checkpoint.tokenizer, checkpoint.dtype, family, checkpoint.blueprint.notes, checkpoint.files)


def _check(folder: Path, weights: Weights, adapted: Any, wanted: Mapping[str, torch.Tensor]) -> None:
    """Compare an adapter's file with what its configuration asks for.

    Raises:
        InputError: naming the first few of all tensors that are missing, left over or misshapen.
    """
    from gpt3.model_folder.weights import some

    ends = _ends(adapted.get_base_model())  # PEFT may save the embeddings along
    kinds = {
        "missing": [name for name in wanted if name not in weights],
        "left over": [name for name in weights if name not in wanted and not name.startswith(ends)],
        "misshapen": [n for n, t in wanted.items() if n in weights and weights.shapes[n] != tuple(t.shape)],
    }
    if faults := [f"{len(found)} {kind} ({some(found)})" for kind, found in kinds.items() if found]:
        raise InputError(
            f"{folder}: its tensors are not what {ADAPTER_CONFIG} asks for on that base: {', '.join(faults)}; "
            "save it again, or name the base it was trained on"
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
            f"{folder}: merging changed a logit by {change:.2g}, of at most {largest:.2g}; use it with PEFT itself"
        )
    return model
