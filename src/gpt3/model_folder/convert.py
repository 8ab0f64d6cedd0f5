"""A foreign checkpoint, checked before anything is read, as a model of ours: `convert`, `load_converted`, `Checkpoint`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from gpt3.errors import InputError
from gpt3.model_folder.adapter import is_adapter
from gpt3.model_folder.families.blueprint import HEAD, Blueprint, Shape
from gpt3.model_folder.families.registry import blueprint_of
from gpt3.model_folder.fetch import CONFIG, GENERATION, local_folder
from gpt3.model_folder.locate import read_json
from gpt3.model_folder.tokenizer import read_tokenizer
from gpt3.model_folder.weights import FORMATS, HeldWeights, Weights, some

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from gpt3.model import GPT3Config, GPT3ForCausalLM

PREFIX = "transformer."
"""Before every name of ours but the head's."""
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


class Converted(NamedTuple):
    """What `convert` returns."""

    config: GPT3Config
    """The configuration, with the source's number format in `dtype`."""
    state_dict: dict[str, Tensor]
    """Our model's weights by name, in the source's number format; without a tied head."""
    tokenizer: PreTrainedTokenizerFast | None
    """Its tokenizer, None where none lies beside it."""
    notes: list[str]
    """What a user should know, a line each."""


@dataclass
class Checkpoint:
    """A checkpoint whose every tensor is there, in the right shape; nothing is read yet."""

    place: str
    """The folder or hub id that was asked for."""
    folder: Path
    """Where its files are."""
    blueprint: Blueprint
    """What becomes of its tensors."""
    weights: Weights | HeldWeights
    """Its tensors."""
    names: dict[str, str]
    """The blueprint's names to those in the files, which may have a prefix."""
    dtype: torch.dtype
    """Its number format; of several the one that holds all of them."""
    tokenizer: PreTrainedTokenizerFast | None
    """Its tokenizer, None where none lies beside it."""
    files: list[Path]
    """Configuration and weights on the disk."""
    generation: dict[str, Any]
    """Ids that begin and end texts; other settings of generation are a way of sampling, not the model's."""

    @property
    def config(self) -> GPT3Config:
        """Our configuration of it."""
        return self.blueprint.config

    @property
    def notes(self) -> list[str]:
        """What a user should know, a line each."""
        missing = [] if self.tokenizer else ["no tokenizer files lie beside it: the model is imported without"]
        return self.blueprint.notes + missing

    def tensors(self, dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
        """Name and value of each of our tensors, made one at a time, in the wider of `dtype` and the source's number format."""
        wide = torch.promote_types(dtype or self.dtype, self.dtype)  # so that nothing is rounded before it must be
        for ours, source in self.blueprint.sources.items():
            value = source.make(*(self.weights[self.names[name]].to(wide) for name in source.shapes))
            yield PREFIX + ours, value.to(wide)
        if not self.config.tie_word_embeddings:
            yield HEAD, self.weights[self.names[HEAD]].to(wide)

    def empty_model(self) -> GPT3ForCausalLM:
        """Our model without weights (on torch's meta device), its generation settings the source's token ids."""
        from gpt3.model import GPT3ForCausalLM

        with torch.device("meta"):
            model: Any = GPT3ForCausalLM(self.config)
        model = model.to(self.dtype)
        for name, value in self.generation.items():
            setattr(model.generation_config, name, value)
        empty: GPT3ForCausalLM = model
        return empty

    def model(self, dtype: torch.dtype | None = None) -> GPT3ForCausalLM:
        """Our model with its weights, in evaluation mode on the CPU, in `dtype` or the source's number format."""
        from gpt3.model import GPT3ForCausalLM

        weights, dtype = dict(self.tensors(dtype)), dtype or self.dtype
        loaded: Any = GPT3ForCausalLM.from_pretrained(None, config=self.config, state_dict=weights, dtype=dtype)
        for name, value in self.generation.items():
            setattr(loaded.generation_config, name, value)
        model: GPT3ForCausalLM = loaded.eval()
        return model


def open_checkpoint(source: str | Path, *, allow_pickle: bool = False, allow_ours: bool = False) -> Checkpoint:
    """Find a checkpoint and compare what it holds with what its configuration asks for.

    Args:
        source: a folder, or a hub id (owner/name), whose files are downloaded.
        allow_pickle: read .bin files, with `weights_only=True`, where there is no safetensors file.
        allow_ours: take a model that is of this package already, too.

    Raises:
        InputError: no such model; a family that is not read, or a model that ours cannot be; damaged weights, or pickles;
            all missing, left-over and misshapen tensors together; a tokenizer that is not the model's.
    """
    place = str(source)
    folder = local_folder(source, allow_pickle=allow_pickle)
    if is_adapter(folder):
        return _merged_checkpoint(folder, place)
    blueprint = blueprint_of(read_json(folder / CONFIG), place, allow_ours=allow_ours)
    weights = Weights(folder, allow_pickle=allow_pickle)
    names = _checked(blueprint, weights, place)
    dtype = reduce(torch.promote_types, {FORMATS[weights.dtypes[name]] for name in names.values()})
    blueprint.config.dtype = dtype
    tokenizer = read_tokenizer(folder, blueprint.config, starts_with_bos=blueprint.starts_with_bos)
    files = [folder / CONFIG, *weights.files]
    return Checkpoint(
        place, folder, blueprint, weights, names, dtype, tokenizer, files, generation_ids(folder / GENERATION)
    )


def generation_ids(path: Path) -> dict[str, Any]:
    """What a generation_config.json, if it is there, says of the ids that begin and end texts."""
    settings = read_json(path) if path.is_file() else {}
    return {name: settings[name] for name in TOKEN_IDS if settings.get(name) is not None}


def checkpoint_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None, folder: Path) -> Checkpoint:
    """A model in memory, of ours or of a family that is read; `folder` is what it was made from.

    Raises:
        InputError: it is of another family.
    """
    place = str(folder)
    blueprint = blueprint_of(model.config.to_dict(), place, allow_ours=True)
    weights = HeldWeights(model.state_dict())
    names = _checked(blueprint, weights, place)
    settings = model.generation_config
    generation = {name: value for name in TOKEN_IDS if (value := getattr(settings, name, None)) is not None}
    blueprint.config.dtype = model.dtype
    return Checkpoint(place, folder, blueprint, weights, names, model.dtype, tokenizer, [], generation)


def _merged_checkpoint(folder: Path, place: str) -> Checkpoint:
    """An adapter merged into its base, in the base's number format."""
    from gpt3.model_folder.merge import load_merged

    merged = load_merged(folder)
    checkpoint = checkpoint_of(merged.model.to(merged.dtype), merged.tokenizer, folder)
    checkpoint.place, checkpoint.files = place, merged.files
    checkpoint.blueprint.family = merged.family
    checkpoint.blueprint.notes += merged.notes
    return checkpoint


def convert(source: str | Path, *, allow_pickle: bool = False) -> Converted:
    """A checkpoint of another family as ours: configuration, weights, tokenizer, notes. See `open_checkpoint`.

    Example:
        >>> config, weights, tokenizer, notes = convert("path/of/a/gpt2/folder")
    """
    checkpoint = open_checkpoint(source, allow_pickle=allow_pickle)
    return Converted(checkpoint.config, dict(checkpoint.tensors()), checkpoint.tokenizer, checkpoint.notes)


def load_converted(source: str | Path, dtype: torch.dtype) -> tuple[GPT3ForCausalLM, PreTrainedTokenizerFast]:
    """What ``--model`` takes: a foreign checkpoint's model and tokenizer, converted in memory.

    Raises:
        InputError: as `open_checkpoint`; and where there is no tokenizer, without which no text can be made.
    """
    try:
        checkpoint = open_checkpoint(source)
    except InputError as error:
        raise InputError(f"--model {error}") from None
    if checkpoint.tokenizer is None:
        raise InputError(f"--model {source}: no tokenizer (tokenizer.json) in it; put the model's tokenizer there")
    return checkpoint.model(dtype), checkpoint.tokenizer


def _checked(blueprint: Blueprint, weights: Weights | HeldWeights, place: str) -> dict[str, str]:
    """The blueprint's names to the files' names, every tensor there and in shape. Settles whether the head is tied.

    Raises:
        InputError: naming the first few of all tensors that are missing, left over, misshapen or of a strange number format.
    """
    names: dict[str, str] = {}
    twice = list(weights.index_faults)
    for name in weights:
        plain = name.removeprefix(blueprint.prefix)
        if plain in names:
            twice.append(f"{name} is also there as {names[plain]}")
        names[plain] = name
    wanted: dict[str, Shape] = {}
    for source in blueprint.sources.values():
        wanted |= source.shapes
    head_shape = wanted[blueprint.embedding]
    if HEAD in names or not blueprint.config.tie_word_embeddings:
        wanted[HEAD] = head_shape

    missing = [name for name in wanted if name not in names]
    extra = [names[n] for n in names if n not in wanted and not blueprint.passed_over.fullmatch(n)]
    there = {name: shape for name, shape in wanted.items() if name in names}
    misshapen = [
        f"{names[name]} is {_shown(weights.shapes[names[name]])}, not {_shown(shape)}"
        for name, shape in there.items()
        if weights.shapes[names[name]] != shape
    ]
    strange = [f"{names[n]} is {weights.dtypes[names[n]]}" for n in there if weights.dtypes[names[n]] not in FORMATS]
    kinds = {"missing": missing, "left over": extra, "misshapen": misshapen, "no floats": strange, "misplaced": twice}
    if faults := [f"{len(found)} {kind} ({some(found)})" for kind, found in kinds.items() if found]:
        count = sum(map(len, kinds.values()))
        raise InputError(
            f"{place}: {count} tensor{'s' if count > 1 else ''} of its weights "
            f"{'are' if count > 1 else 'is'} not what config.json asks for: {', '.join(faults)}; copy or save it again"
        )
    if HEAD in there and blueprint.config.tie_word_embeddings and not _head_is_tied(blueprint, weights, names):
        blueprint.config.tie_word_embeddings = False
        blueprint.notes.append("its output head differs from its token embedding: both are kept, untied")
    return {name: names[name] for name in there}


def _head_is_tied(blueprint: Blueprint, weights: Weights | HeldWeights, names: dict[str, str]) -> bool:
    return torch.equal(weights[names[HEAD]], weights[names[blueprint.embedding]])


def _shown(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "a single number"
