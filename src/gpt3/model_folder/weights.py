"""The tensors of a checkpoint: names, shapes and number formats at once, contents when asked for.

Read are safetensors, whole or sharded; and, only where it is allowed, torch's pickles, with `weights_only=True`: tensors and
nothing that runs.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gpt3.errors import InputError, one_line
from gpt3.model_folder.locate import read_json

SAFE, SAFE_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
FORMATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""safetensors' names of the number formats that weights may have."""


class Weights(Mapping[str, Tensor]):
    """All tensors of a model folder by name. The files stay mapped into memory as long as this lives.

    Args:
        folder: holds model.safetensors, or shards and their index; or, with `allow_pickle`, the same as .bin.
        allow_pickle: read .bin files where there is no safetensors file.
        file: the safetensors file in `folder` that holds them, where its name is another.

    Attributes:
        files: the files that hold them.
        shapes: of each.
        dtypes: of each, as safetensors names them (F32, BF16, …).
        index_faults: tensors that an index places in a file that has them not, or that two files have.

    Raises:
        InputError: no weights, a pickle that is not allowed or holds more than tensors, a damaged or missing file.
    """

    def __init__(self, folder: Path, *, allow_pickle: bool = False, file: str | None = None) -> None:
        if file is None:
            self.files, pickled, placed = weight_files(folder, allow_pickle=allow_pickle)
        else:
            self.files, pickled, placed = [folder / file], False, {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self.index_faults: list[str] = []
        self._read: dict[str, Any] = {}
        for each in self.files:
            for name, shape, dtype, read in _pickled(each) if pickled else _mapped(each):
                if name in self.shapes:
                    self.index_faults.append(f"{name} is in two files")
                self.shapes[name], self.dtypes[name], self._read[name] = shape, dtype, read
        self.index_faults += [f"{name} is not in {shard}" for name, shard in placed.items() if name not in self.shapes]

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._read[name]()
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


class HeldWeights(dict[str, Tensor]):
    """Tensors in memory, told of as `Weights` tells of those in files."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors)
        names = {dtype: name for name, dtype in FORMATS.items()}
        self.files: list[Path] = []
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self.dtypes = {name: names.get(tensor.dtype, str(tensor.dtype)) for name, tensor in tensors.items()}
        self.index_faults: list[str] = []


def weight_files(folder: Path, *, allow_pickle: bool) -> tuple[list[Path], bool, dict[str, str]]:
    """The files with weights, whether they are pickles, and an index's file name of each tensor (empty without one).

    Raises:
        InputError: there are none, only pickles that are not allowed, or some that the index names are missing.
    """
    kinds = [(SAFE, SAFE_INDEX, False)] + ([(PICKLED, PICKLED_INDEX, True)] if allow_pickle else [])
    for whole, index, pickled in kinds:
        if (folder / whole).is_file():
            return [folder / whole], pickled, {}
        if (folder / index).is_file():
            placed = read_json(folder / index).get("weight_map")
            if not isinstance(placed, dict) or not placed or not all(map(is_file_name, placed.values())):
                raise InputError(f"{folder / index} names no weight files (weight_map); copy the checkpoint again")
            names = sorted(set(placed.values()))
            if missing := [name for name in names if not (folder / name).is_file()]:
                raise InputError(
                    f"{folder}: {len(missing)} of {len(names)} weight files are missing ({some(missing)}); copy them again"
                )
            return [folder / name for name in names], pickled, placed
    if pickles := sorted(path.name for path in folder.glob("*.bin")):
        raise InputError(
            f"{folder}: {pickles[0]} is a pickle, which can hold code; get the model as safetensors, or, if you trust "
            "where it comes from: gpt3 import --allow-pickle (tensors are taken from it, code is refused)"
        )
    raise InputError(f"{folder}: no weights in it ({SAFE}, or {SAFE_INDEX} and its shards); copy them there")


def some(names: Iterable[str], shown: int = 3) -> str:
    """The first few of many, for a message of one line."""
    names = list(names)
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")


def is_file_name(name: object) -> bool:
    """Whether an index's entry is the plain name of a file in its own folder."""
    return isinstance(name, str) and bool(name) and Path(name).name == name and "\\" not in name


def _mapped(file: Path) -> Iterator[tuple[str, tuple[int, ...], str, Any]]:
    """Name, shape, number format and reader of each tensor of a safetensors file."""
    try:
        handle = safe_open(file, "pt")
        for name in handle.keys():  # noqa: SIM118  # no mapping
            view = handle.get_slice(name)
            yield name, tuple(view.get_shape()), view.get_dtype(), lambda n=name: handle.get_tensor(n)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is no whole safetensors file ({one_line(error)}); copy it again") from error


def _pickled(file: Path) -> Iterator[tuple[str, tuple[int, ...], str, Any]]:
    """The same of torch's pickle. Files before torch 1.6 cannot be mapped and are read whole."""
    try:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise InputError(
            f"{file} is not read as weights alone ({one_line(error)}); get the model as safetensors"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{file} does not hold tensors by name; get the model as safetensors")
    names = {dtype: name for name, dtype in FORMATS.items()}
    for name, tensor in content.items():
        yield name, tuple(tensor.shape), names.get(tensor.dtype, str(tensor.dtype)), lambda t=tensor: t
