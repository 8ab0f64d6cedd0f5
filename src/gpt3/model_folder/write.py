"""A model folder (docs/model.md) as training, importing and exporting write it: described in one place, weights as they come."""

from __future__ import annotations

import copy
import json
import re
import shutil
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gpt3 import __version__
from gpt3.durable import sha256_of, utf8
from gpt3.model_folder.convert import Checkpoint
from gpt3.model_folder.load import quiet_transformers
from gpt3.model_folder.locate import CARD, LICENCES, ORIGIN, WEIGHTS

SHARD_BYTES = 5_000_000_000
"""Weights larger than this are split over several files."""
LICENCE = re.compile(r"^license(?:_name|_link)?: *\S.*$", re.MULTILINE)


@quiet_transformers()  # a progress bar over "0 shards" says nothing
def model_folder_files(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> dict[str, bytes]:
    """The files of a model folder without the weights: configuration, modelling code, tokenizer (if there is one).

    They do not change while training, so they are made once. They are made from an empty model of the same class: FSDP2
    gives the modules of `model` a class of its own, whose source file transformers cannot find.
    """
    kind = next(c for c in type(model).__mro__ if not c.__name__.startswith("FSDP"))
    with tempfile.TemporaryDirectory() as name, torch.device("meta"):
        empty = kind(copy.deepcopy(model.config)).to(model.dtype)
        empty.generation_config = copy.deepcopy(model.generation_config)
        empty.save_pretrained(name, state_dict={})
        if tokenizer is not None:
            tokenizer.save_pretrained(name)
        paths = [path for path in Path(name).iterdir() if path.is_file() and ".safetensors" not in path.name]
        return {path.name: path.read_bytes() for path in paths}


def write_checkpoint(checkpoint: Checkpoint, folder: Path, source: str) -> None:
    """Write a checkpoint as a model folder of ours, with its origin, a card and its licence. `source` is what to call it."""
    folder.mkdir()
    for name, content in model_folder_files(checkpoint.empty_model(), checkpoint.tokenizer).items():
        (folder / name).write_bytes(content)
    write_weights(checkpoint, folder)
    origin = {
        "family": checkpoint.conversion.family,
        "source": source,
        "sha256": {file.name: sha256_of(file) for file in checkpoint.files},
        "notes": checkpoint.notes,
        "written_by": f"gpt3 {__version__}",
    }
    (folder / ORIGIN).write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")
    (folder / CARD).write_bytes(utf8(card(checkpoint, source)))
    for name in LICENCES:
        if (checkpoint.folder / name).is_file():
            shutil.copyfile(checkpoint.folder / name, folder / name)


def write_weights(checkpoint: Checkpoint, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a checkpoint's tensors as ``model.safetensors``, or as numbered files of about `shard_bytes` and their index.

    No more than one file's are held: a model larger than the memory can pass through.
    """
    # a tied head is one parameter, under its first name
    empty: dict[str, Tensor] = dict(checkpoint.empty_model().named_parameters())
    plan = split_torch_state_dict_into_shards(empty, max_shard_size=shard_bytes)
    for file, names in plan.filename_to_tensors.items():
        # a view of a mapped file shares its storage with others, which safetensors refuses
        tensors = {name: checkpoint.tensor(name).contiguous().clone() for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / WEIGHTS[1]).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def licence_lines(folder: Path) -> list[str]:
    """What the front matter of a model folder's card says of its licence, such as ``license: mit``; empty if nothing."""
    path = folder / CARD
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    matter = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    return LICENCE.findall(matter[1]) if matter else []


def card(checkpoint: Checkpoint, source: str) -> str:
    """The README.md of an imported model folder, with Hugging Face's front matter and the licence that the source names."""
    config = checkpoint.config
    banded = sum(kind == "sliding_attention" for kind in config.layer_types or ())
    window = f", window {config.sliding_window}" if banded else ""
    head = ["library_name: transformers", "pipeline_tag: text-generation", "tags: [gpt3]"]
    head += licence_lines(checkpoint.folder)
    notes = "".join(f"- {note}\n" for note in checkpoint.notes) or "- nothing had to change but names and layout\n"
    return card_text(
        "imported", head="\n".join(head), source=source, family=checkpoint.conversion.family, origin=ORIGIN, config=config,
        dense=config.num_hidden_layers - banded, banded=banded, window=window, notes=notes,
    )  # fmt: skip


def card_text(name: str, **values: Any) -> str:
    """A model card: the text of cards/NAME.md with its values."""
    return (resources.files("gpt3.model_folder") / "cards" / f"{name}.md").read_text(encoding="utf-8").format(**values)
