"""A model and its tokenizer from whatever `--model` names. This file alone tells an adapter, a known family's model, a gpt3
model and other transformers models apart.

    adapter        its base, loaded as its names ask ─▶ merged ─▶ ours, if it is of a known family
    known family   checked and converted (convert.py)
    gpt3, others   loaded by transformers, without remote code and without pickles
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from gpt3.device import choose_device
from gpt3.errors import InputError, one_line, require
from gpt3.model_folder import locate
from gpt3.model_folder.adapter import INSIDE, kind_of, merged
from gpt3.model_folder.convert import Checkpoint, checkpoint_of, generation_ids, mapped, read_checkpoint, with_ids
from gpt3.model_folder.families import FAMILIES, HEAD, OURS, PREFIX
from gpt3.model_folder.stored import StoredModel
from gpt3.options import DType
from gpt3.tokenizer.loading import load_tokenizer

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OUR_NAMES = re.compile(
    r"(transformer\.(wte|wpe|ln_f|h\.\d+\.(ln_1|ln_2|attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj))|lm_head)\..*"
)
"""Names in an adapter that was trained on a model of ours."""


class Loaded(NamedTuple):
    """A model in memory."""

    model: Any
    """In evaluation mode, on the CPU."""
    tokenizer: PreTrainedTokenizerFast
    family: str
    """What it is: gpt3, GPT-2, LoRA of rank 8 merged into gpt3, …"""
    dtype: torch.dtype
    """The number format in its files."""
    files: list[Path]
    """The files that it is made of."""
    notes: list[str]
    """What a user should know of its conversion, one line each."""


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no advice from transformers while it loads: ours are the messages that name the fix."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load_transformers(
    path: str | Path | None = None, *, device: str = "auto", dtype: str = "auto"
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A model in evaluation mode and its tokenizer. `model.family` says what its files are: gpt3, GPT-2, LoRA of rank 8 …

    Args:
        path: a model folder, a run folder, a run's name under ./runs, or a hub id; None: the newest run under ./runs.
        device: cpu, cuda, cuda:N, mps, or auto (cuda, then mps, then cpu).
        dtype: fp32, bf16, fp16, or auto (bf16 on a CUDA device that has it, fp32 elsewhere).

    Raises:
        InputError: nothing there, an incomplete or damaged folder, an unknown model type, a device that is not available.

    Example:
        >>> model, tokenizer = load_transformers("runs/demo")
    """
    where = choose_device(device)
    number_format = choose_dtype(dtype, where)
    place = locate.locate(path)
    return load_model(place if isinstance(place, Path) else locate.fetch(place), where, number_format)


def load_model(folder: Path, device: Any, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The model in a folder on a device, and its tokenizer, as `load_transformers`."""
    loaded = load_folder(folder, dtype)
    loaded.model.family = loaded.family
    return loaded.model.to(str(device)), loaded.tokenizer


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format called `name`; "auto" is bf16 on CUDA devices that compute in it, fp16 on older ones, fp32 elsewhere."""
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if name not in TORCH_DTYPES:
        raise InputError(f"--dtype {name!r} must be one of {', '.join(get_args(DType))}")
    return TORCH_DTYPES[name]


@quiet_transformers()
def load_folder(folder: Path, dtype: torch.dtype) -> Loaded:
    """The model in a folder, in `dtype` on the CPU.

    Raises:
        InputError: the folder is not a complete model of a kind that runs here.
    """
    if locate.is_adapter(folder):
        loaded = _load_adapter(folder)
        return loaded._replace(model=loaded.model.to(dtype))
    model_type = locate.read_json(folder / locate.CONFIG).get("model_type")
    if model_type in FAMILIES:
        return _converted(read_checkpoint(folder), dtype)
    tokenizer = load_tokenizer(folder)
    model = from_pretrained(folder, model_type, dtype)
    return Loaded(model, tokenizer, str(model_type), dtype, [], [])


@quiet_transformers()
def open_converted(folder: Path) -> StoredModel | None:
    """The model of a known family in a folder, converted tensor by tensor as an engine reads it; None where it is of no such one.

    Raises:
        InputError: as `load_folder`.
    """
    if locate.is_adapter(folder) or locate.read_json(folder / locate.CONFIG).get("model_type") not in FAMILIES:
        return None
    checkpoint = read_checkpoint(folder)
    config, tokenizer = checkpoint.config, tokenizer_of(checkpoint)
    names = [PREFIX + name for name in checkpoint.conversion.sources]
    weights = {
        name: partial(_array, checkpoint, name) for name in names + ([] if config.tie_word_embeddings else [HEAD])
    }
    ends = checkpoint.generation.get("eos_token_id", config.eos_token_id)
    count = checkpoint.empty_model().num_parameters()
    return StoredModel(config, weights, tokenizer, ends, count, lambda: config, checkpoint.conversion.family)


def _array(checkpoint: Checkpoint, name: str) -> Any:
    return checkpoint.tensor(name, torch.float32).numpy()


def tokenizer_of(checkpoint: Checkpoint) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint.

    Raises:
        InputError: it has none.
    """
    if checkpoint.tokenizer is None:
        raise InputError(
            f"{checkpoint.folder}: no tokenizer ({locate.TOKENIZER}) in it. Put the model's tokenizer there"
        )
    return checkpoint.tokenizer


@quiet_transformers()
def open_checkpoint(source: str | Path, *, allow_pickle: bool = False) -> Checkpoint:
    """The model of another family, or the adapter, that `source` names: a folder, a run, a hub id. Checked, ready to convert.

    Args:
        allow_pickle: read .bin files, with `weights_only=True`, where there is no safetensors file.

    Raises:
        InputError: no such model; see `gpt3.model_folder.convert.read_checkpoint` and `gpt3.model_folder.adapter.merged`.

    Example:
        >>> checkpoint = open_checkpoint("path/of/a/gpt2/folder")
        >>> model, tokenizer, notes = checkpoint.model(), checkpoint.tokenizer, checkpoint.notes
    """
    place = locate.find(source)
    folder = place if isinstance(place, Path) else locate.fetch(place, allow_pickle=allow_pickle)
    if not locate.is_adapter(folder):
        return read_checkpoint(folder, str(place), allow_pickle=allow_pickle)
    loaded = _load_adapter(folder)
    checkpoint = checkpoint_of(loaded.model.to(loaded.dtype), loaded.tokenizer, folder, loaded.files)
    checkpoint.conversion.family = loaded.family
    checkpoint.conversion.notes += loaded.notes
    return checkpoint


def _converted(checkpoint: Checkpoint, dtype: torch.dtype, their_class: str | None = None) -> Loaded:
    """A checkpoint's model: ours, or that of transformers' class for the model type `their_class`."""
    tokenizer = tokenizer_of(checkpoint)
    model = from_pretrained(checkpoint.folder, their_class, dtype) if their_class else checkpoint.model(dtype)
    family, notes = checkpoint.conversion.family, checkpoint.conversion.notes
    return Loaded(model, tokenizer, family, checkpoint.dtype, checkpoint.files, notes)


def _load_adapter(folder: Path) -> Loaded:
    """An adapter's model in float32: its base with the adapter merged into it, ours if it is of a known family."""
    settings = locate.adapter_settings(folder)
    require("peft", extra="finetune", purpose="reading a PEFT adapter")
    place = locate.base_of(folder, settings)
    names = mapped(folder / locate.ADAPTER_WEIGHTS)
    try:
        base = _load_base(place if isinstance(place, Path) else locate.fetch(place), settings, names)
    except InputError as error:
        raise InputError(f"{folder}: its base model {error}") from None
    tokenizer = load_tokenizer(folder) if (folder / locate.TOKENIZER).is_file() else base.tokenizer
    model: Any = merged(folder, settings, base.model, tokenizer)
    with_ids(model, generation_ids(folder / locate.GENERATION))
    notes = base.notes
    if model.config.model_type in FAMILIES:
        converted = checkpoint_of(model, tokenizer, folder, [])
        model, notes = converted.model(torch.float32), converted.conversion.notes
    files = [folder / locate.ADAPTER_CONFIG, folder / locate.ADAPTER_WEIGHTS, *base.files]
    family = f"{kind_of(settings)} merged into {base.family}"
    return Loaded(model.eval(), tokenizer, family, base.dtype, files, notes)


def _load_base(folder: Path, settings: Mapping[str, Any], names: Mapping[str, Any]) -> Loaded:
    """An adapter's base in float32, as the adapter knew it: our model, or transformers' own class of another family."""
    model_type = locate.read_json(folder / locate.CONFIG).get("model_type")
    if model_type not in FAMILIES and model_type != OURS:
        return load_folder(folder, torch.float32)
    ours = not settings.get("fan_in_fan_out") and all(OUR_NAMES.fullmatch(name.removeprefix(INSIDE)) for name in names)
    theirs = None if ours or model_type == OURS or model_type not in CONFIG_MAPPING else model_type
    return _converted(read_checkpoint(folder, allow_ours=True), torch.float32, theirs)


def from_pretrained(folder: Path, model_type: str | None, dtype: torch.dtype) -> Any:
    """The model of transformers' class for `model_type`: no code of its own run, no pickle read, no tensor left to chance.

    Raises:
        InputError: unknown model type, a damaged folder, tensors missing (transformers would fill in random numbers) or extra.
    """
    if model_type not in CONFIG_MAPPING:
        raise InputError(
            f"{folder}: config.json has model_type {model_type!r}, which neither gpt3 nor transformers knows "
            "(code that comes with a model is not run). Use a gpt3 model, or one of the known families: "
            f"{', '.join(FAMILIES)}"
        )
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            dtype=dtype,
            local_files_only=True,
        )
    except Exception as error:  # whatever a damaged folder makes transformers, safetensors or the configuration raise
        raise InputError(f"{folder} does not load ({one_line(error)}). Copy or save it again") from error
    model, report = loaded
    # in other models transformers itself ignores tensors of no use, such as GPT-2's mask buffers
    extra = report["unexpected_keys"] if model_type == OURS else ()
    for names, fault in (
        (report["missing_keys"], "are missing from the weights"),
        (extra, "have no place in the model"),
    ):
        if names:
            raise InputError(
                f"{folder}: {len(names)} tensors {fault} ({locate.some(sorted(names))}). Copy or save it again"
            )
    return model
