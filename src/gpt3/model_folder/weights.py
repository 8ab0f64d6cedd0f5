"""The tensors of a checkpoint: names, shapes and number formats from the files' headers, contents when they are asked for.

Files are safetensors, whole or sharded; and, only where it is allowed, torch's pickles, read with `weights_only=True`: tensors
and nothing that runs.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gpt3.errors import InputError, one_line
from gpt3.model_folder.locate import weight_files

FORMATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""safetensors' names of the number formats that weights may have."""


class Stored(NamedTuple):
    """A tensor that need not be in memory."""

    shape: tuple[int, ...]
    dtype: str
    """Its number format, as safetensors names it: F32, BF16, …"""
    read: Callable[[], Tensor]


def stored_weights(folder: Path, *, allow_pickle: bool = False) -> tuple[dict[str, Stored], list[str]]:
    """A model folder's tensors by name; and what is wrong with their files: a tensor in two of them, or not where the index says.

    Raises:
        InputError: no weights, a pickle that is not allowed or holds more than tensors, a damaged or missing file.
    """
    files, pickled, placed = weight_files(folder, allow_pickle=allow_pickle)
    found: dict[str, Stored] = {}
    faults = []
    for file in files:
        tensors = held(_unpickled(file)) if pickled else mapped(file)
        faults += [f"{name} is in two files" for name in tensors if name in found]
        found |= tensors
    return found, faults + [f"{name} is not in {file}" for name, file in placed.items() if name not in found]


def mapped(file: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file, which stays mapped into memory as long as they are used.

    Raises:
        InputError: the file is missing, or damaged.
    """
    try:
        handle = safe_open(file, "pt")
        views = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is not a complete safetensors file ({one_line(error)}). Copy it again") from error
    return {
        name: Stored(tuple(view.get_shape()), view.get_dtype(), lambda name=name: handle.get_tensor(name))  # type: ignore[misc]
        for name, view in views.items()
    }


def held(tensors: Mapping[str, Tensor]) -> dict[str, Stored]:
    """Tensors in memory, described as those in files are."""
    names = {dtype: name for name, dtype in FORMATS.items()}
    return {
        name: Stored(tuple(tensor.shape), names.get(tensor.dtype, str(tensor.dtype)), lambda tensor=tensor: tensor)  # type: ignore[misc]
        for name, tensor in tensors.items()
    }


def _unpickled(file: Path) -> dict[str, Tensor]:
    """The tensors of torch's pickle. Files from before torch 1.6 cannot be mapped and are read whole."""
    try:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise InputError(
            f"{file} cannot be read as tensors only ({one_line(error)}). Get the model as safetensors"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{file} does not hold tensors by name. Get the model as safetensors")
    return content
