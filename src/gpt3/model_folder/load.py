"""A transformers model and its tokenizer, from a folder or (through transformers) from the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch

from gpt3.device import choose_device
from gpt3.errors import InputError, one_line
from gpt3.model_folder.adapter import is_adapter
from gpt3.model_folder.locate import TRAIN_FIRST, locate, read_json
from gpt3.options import DType

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_transformers(
    path: str | Path | None = None, *, device: str = "auto", dtype: str = "auto"
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A model in evaluation mode and its tokenizer.

    Args:
        path: a model folder, a run folder, a run's name under ./runs, or a hub id; None: the newest run under ./runs.
        device: cpu, cuda, cuda:N, mps, or auto (cuda, then mps, then cpu).
        dtype: fp32, bf16, fp16, or auto (bf16 on cuda that has it, fp32 elsewhere).

    Raises:
        InputError: nothing there, an incomplete or damaged folder, an unknown model type, a device that is not here.

    Example:
        >>> model, tokenizer = load_transformers("runs/demo")
    """
    where = choose_device(device)
    number_format = choose_dtype(dtype, where)
    place = locate(path)
    with quiet_transformers():
        if isinstance(place, str):
            model, tokenizer = _load_hub(place, number_format)
        else:
            model, tokenizer = _load_folder(place, number_format)
    return model.to(where), tokenizer


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format called `name`; "auto" is bf16 on cuda devices that compute in it, fp32 elsewhere."""
    if name == "auto":
        bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if bf16 else torch.float32
    if name not in TORCH_DTYPES:
        raise InputError(f"--dtype is {name!r}; give one of {', '.join(get_args(DType))}")
    return TORCH_DTYPES[name]


def _load_folder(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    from gpt3.model_folder import FAMILIES, load_converted
    from gpt3.tokenizer.loading import load_tokenizer

    if is_adapter(folder):
        return _load_adapter(folder, dtype)
    model_type = read_json(folder / "config.json")["model_type"]
    if model_type in FAMILIES:
        return load_converted(folder, dtype)
    tokenizer = load_tokenizer(folder)
    try:
        model = from_pretrained(folder, model_type, dtype=dtype, local_files_only=True)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged folder makes transformers, safetensors or the configuration raise
        raise InputError(f"--model {folder} does not load ({one_line(error)}); copy or save it again") from error
    return model, tokenizer


def _load_adapter(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    from gpt3.model_folder.merge import load_merged

    try:
        merged = load_merged(folder)
    except InputError as error:
        raise InputError(f"--model {error}") from None
    return merged.model.to(dtype), merged.tokenizer


def _load_hub(name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    from huggingface_hub import constants
    from transformers import AutoTokenizer, PreTrainedConfig

    from gpt3.model_folder import FAMILIES, load_converted
    from gpt3.model_folder.fetch import adapter_from_hub

    try:
        if (adapter := adapter_from_hub(name)) is not None:
            return _load_adapter(adapter, dtype)
        model_type = PreTrainedConfig.get_config_dict(name)[0].get("model_type")
        if model_type in FAMILIES:
            return load_converted(name, dtype)
        model = from_pretrained(name, model_type, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # what transformers raises for an unknown id, no network, unsafe files
        raise InputError(
            f"--model {name}: no folder or run of that name is here, and {constants.ENDPOINT} "
            f"did not give it ({one_line(error)}); give a model or run folder, or {TRAIN_FIRST}"
        ) from error
    return model, tokenizer


def from_pretrained(place: Path | str, model_type: str | None, **options: Any) -> Any:
    """The model, no code of its own run, no pickle read, no tensor left to chance.

    Raises:
        InputError: unknown model type, tensors missing (transformers would fill in random numbers) or left over.
    """
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    import gpt3.model  # noqa: F401  # registers gpt3 with transformers

    if model_type not in CONFIG_MAPPING:
        raise InputError(
            f"--model {place}: config.json has model_type {model_type!r}, which neither gpt3 nor transformers knows "
            "(code that comes with a model is not run); use a gpt3, gpt2, gpt_neo or opt model"
        )
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        place, trust_remote_code=False, use_safetensors=True, output_loading_info=True, **options
    )
    model, report = loaded
    missing = report["missing_keys"]
    # in other models transformers itself passes over tensors of no use, such as GPT-2's mask buffers
    unexpected = report["unexpected_keys"] if model_type == "gpt3" else ()
    for names, fault in ((missing, "are missing from the weights"), (unexpected, "have no place in that model")):
        if names:
            shown = ", ".join(sorted(names)[:3]) + (", …" if len(names) > 3 else "")
            raise InputError(f"--model {place}: {len(names)} tensors {fault} ({shown}); copy or save it again")
    return model


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no advice from transformers while it loads: ours are the messages that name the remedy."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
