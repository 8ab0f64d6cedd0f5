"""A model folder (docs/model.md) as training, importing and exporting write it: described in one place, weights as they come."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHARD_BYTES = 5_000_000_000
"""Weights larger than this are split over several files."""


def model_folder_files(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> dict[str, bytes]:
    """The files of a model folder without the weights: configuration, modelling code, tokenizer (where there is one).

    They do not change while training, so they are made once. An empty model of the same class stands in for `model`, since
    FSDP2 gives its modules a class of its own making, whose source file transformers could not find.
    """
    import torch
    from transformers.utils import logging

    kind = next(c for c in type(model).__mro__ if not c.__name__.startswith("FSDP"))
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # one over "0 shards" says nothing
    with tempfile.TemporaryDirectory() as name, torch.device("meta"):
        empty = kind(copy.deepcopy(model.config)).to(model.dtype)
        empty.generation_config = copy.deepcopy(model.generation_config)
        empty.save_pretrained(name, state_dict={})
        if tokenizer is not None:
            tokenizer.save_pretrained(name)
        if bars:
            logging.enable_progress_bar()
        paths = [path for path in Path(name).iterdir() if path.is_file() and ".safetensors" not in path.name]
        return {path.name: path.read_bytes() for path in paths}


def write_weights(folder: Path, tensors: Iterable[tuple[str, Tensor]], shard_bytes: int = SHARD_BYTES) -> None:
    """Write tensors as ``model.safetensors``, or as numbered files of about `shard_bytes` and the index of them.

    They are taken one by one, and no more than one file's are held: a model larger than the memory can pass through.
    """
    from safetensors.torch import save_file

    total = size = 0
    held: dict[str, Tensor] = {}
    placed: list[list[str]] = []  # names in each file

    def write() -> None:
        placed.append(list(held))
        save_file(held, folder / f"part-{len(placed)}", metadata={"format": "pt"})
        held.clear()

    for name, tensor in tensors:
        bytes_here = tensor.numel() * tensor.element_size()
        if held and size + bytes_here > shard_bytes:
            write()
            size = 0
        held[name] = tensor.contiguous().clone()  # a view of a mapped file shares its storage with others
        size, total = size + bytes_here, total + bytes_here
    write()
    if len(placed) == 1:
        (folder / "part-1").rename(folder / "model.safetensors")
        return
    names = [f"model-{n:05}-of-{len(placed):05}.safetensors" for n in range(1, len(placed) + 1)]
    for number, name in enumerate(names, start=1):
        (folder / f"part-{number}").rename(folder / name)
    index = {
        "metadata": {"total_size": total},
        "weight_map": {tensor: name for name, group in zip(names, placed, strict=True) for tensor in group},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
