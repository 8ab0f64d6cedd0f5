"""A checkpoint of any known family, checked from its files' headers before any tensor is read, as a model of ours.

Files are safetensors, whole or sharded; and, only where it is allowed, torch's pickles, read with `weights_only=True`: tensors
and nothing that runs.

A tokenizer's files are tokenizer.json, or GPT-2's older vocab.json with merges.txt and added_tokens.json. The roles of special
tokens come from special_tokens_map.json and tokenizer_config.json; where they do not say, from the model's configuration, or
they are GPT-2's, as in transformers' own classes.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from gpt3.errors import InputError, one_line
from gpt3.model import GPT3Config, GPT3ForCausalLM
from gpt3.model_folder import locate
from gpt3.model_folder.families import HEAD, PREFIX, Conversion, conversion_of
from gpt3.model_folder.locate import CONFIG, GENERATION, counted, read_json, weight_files
from gpt3.tokenizer.gpt2 import END_OF_TEXT

FORMATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""safetensors' names of the number formats that weights may have."""


class Stored(NamedTuple):
    """A tensor that need not be in memory."""

    shape: tuple[int, ...]
    dtype: str
    """Its number format, as safetensors names it: F32, BF16, …"""
    read: Callable[[], Tensor]


TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FURTHER = ("additional_special_tokens", "extra_special_tokens")
"""Lists of special tokens without a role, by their older and newer name."""


@dataclass
class Checkpoint:
    """A checkpoint whose every tensor is there, in the right shape; nothing is read yet."""

    folder: Path
    """Where its files are."""
    files: list[Path]
    """The files with its configuration and weights."""
    conversion: Conversion
    """What becomes of its tensors."""
    stored: dict[str, Stored]
    """Its tensors, by the conversion's names."""
    tokenizer: PreTrainedTokenizerFast | None
    """Its tokenizer, None if its folder has none."""
    generation: dict[str, Any]
    """Ids that begin and end texts; other generation settings are a way of sampling, not the model's."""
    dtype: torch.dtype
    """Its number format; of several, the one that holds all of them."""

    @property
    def config(self) -> GPT3Config:
        """Our configuration of it."""
        return self.conversion.config

    @property
    def notes(self) -> list[str]:
        """What a user should know, one line each."""
        missing = [] if self.tokenizer else ["it has no tokenizer files: the model is imported without a tokenizer"]
        return self.conversion.notes + missing

    def tensor(self, ours: str, dtype: torch.dtype | None = None) -> Tensor:
        """One of our tensors, in the wider of `dtype` and the checkpoint's number format, so that nothing is rounded early."""
        wide = torch.promote_types(dtype or self.dtype, self.dtype)
        if ours == HEAD:
            return self.stored[HEAD].read().to(wide)
        source = self.conversion.sources[ours.removeprefix(PREFIX)]
        return source.make(*(self.stored[name].read().to(wide) for name in source.shapes)).to(wide)

    def empty_model(self) -> GPT3ForCausalLM:
        """Our model without weights (on torch's meta device), its generation settings the checkpoint's token ids."""
        with torch.device("meta"):
            model: Any = GPT3ForCausalLM(self.config)
        return with_ids(model.to(self.dtype), self.generation)

    def model(self, dtype: torch.dtype | None = None) -> GPT3ForCausalLM:
        """Our model with its weights, in evaluation mode on the CPU, in `dtype` or the checkpoint's number format."""
        weights = {name: self.tensor(name, dtype) for name, _ in self.empty_model().named_parameters()}
        model: Any = GPT3ForCausalLM.from_pretrained(
            None, config=self.config, state_dict=weights, dtype=dtype or self.dtype
        )
        return with_ids(model, self.generation).eval()


def with_ids(model: Any, generation: Mapping[str, Any]) -> Any:
    """The model, with the ids that begin and end texts in its generation settings."""
    for name, value in generation.items():
        setattr(model.generation_config, name, value)
    return model


def read_checkpoint(
    folder: Path, place: str | None = None, *, allow_pickle: bool = False, allow_ours: bool = False
) -> Checkpoint:
    """Compare what a model folder holds with what its configuration asks for.

    Args:
        place: what to call it in messages. Default: its folder.
        allow_pickle: read .bin files, with `weights_only=True`, where there is no safetensors file.
        allow_ours: take a model that is of this package already, too.

    Raises:
        InputError: an unknown family, or a model that ours cannot be; damaged weights, or pickles; all missing, extra and
            misshapen tensors together; a tokenizer that is not the model's.
    """
    place = place or str(folder)
    conversion = conversion_of(read_json(folder / CONFIG), place, allow_ours=allow_ours)
    weights, faults = stored_weights(folder, allow_pickle=allow_pickle)
    stored = _checked(conversion, weights, faults, place)
    dtype = reduce(torch.promote_types, {FORMATS[tensor.dtype] for tensor in stored.values()})
    conversion.config.dtype = dtype
    tokenizer = read_tokenizer(folder, conversion.config, starts_with_bos=conversion.starts_with_bos)
    files = [folder / CONFIG, *weight_files(folder, allow_pickle=allow_pickle)[0]]
    return Checkpoint(folder, files, conversion, stored, tokenizer, generation_ids(folder / GENERATION), dtype)


def checkpoint_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None, folder: Path, files: list[Path]
) -> Checkpoint:
    """A model in memory, of ours or of a known family, that was made from `files` in `folder`.

    Raises:
        InputError: it is of another family.
    """
    conversion = conversion_of(model.config.to_dict(), str(folder), allow_ours=True)
    stored = _checked(conversion, held(model.state_dict()), [], str(folder))
    conversion.config.dtype = model.dtype
    settings = model.generation_config
    generation = {name: value for name in TOKEN_IDS if (value := getattr(settings, name, None)) is not None}
    return Checkpoint(folder, files, conversion, stored, tokenizer, generation, model.dtype)


def generation_ids(path: Path) -> dict[str, Any]:
    """What a generation_config.json, if it is there, says of the ids that begin and end texts."""
    settings = read_json(path) if path.is_file() else {}
    return {name: settings[name] for name in TOKEN_IDS if settings.get(name) is not None}


def _checked(conversion: Conversion, weights: dict[str, Stored], faults: list[str], place: str) -> dict[str, Stored]:
    """The tensors that a conversion needs, by its names, all there and in shape. Decides whether the head is tied.

    Args:
        weights: all tensors, by name with or without the prefix.
        faults: what is wrong with where they are.

    Raises:
        InputError: naming the first few of all tensors that are missing, extra, misshapen, misplaced or no floats.
    """
    tied = conversion.config.tie_word_embeddings
    full: dict[str, str] = {}  # names without the prefix to those in the files
    misplaced = list(faults)
    for name in weights:
        plain = name.removeprefix(conversion.prefix)
        if plain in full:
            misplaced.append(f"{name} is also there as {full[plain]}")
        full[plain] = name
    if tied and HEAD in full:  # one matrix, which some programs save under the head's name alone
        full.setdefault(conversion.embedding, full[HEAD])
    wanted = {name: shape for source in conversion.sources.values() for name, shape in source.shapes.items()}
    if HEAD in full or not tied:
        wanted[HEAD] = wanted[conversion.embedding]
    there = {name: weights[full[name]] for name in wanted if name in full}
    kinds = {
        "missing": [name for name in wanted if name not in full],
        "extra": [full[n] for n in full if n not in wanted and not re.fullmatch(conversion.ignored, n)],
        "misshapen": [
            f"{full[name]} is {_shown(tensor.shape)}, not {_shown(wanted[name])}"
            for name, tensor in there.items()
            if tensor.shape != wanted[name]
        ],
        "not floats": [f"{full[n]} is {tensor.dtype}" for n, tensor in there.items() if tensor.dtype not in FORMATS],
        "misplaced": misplaced,
    }
    if found := counted(kinds):
        count = sum(map(len, kinds.values()))
        raise InputError(
            f"{place}: {count} of its tensors {'are' if count > 1 else 'is'} not what config.json asks for: {found}. "
            "Copy or save it again"
        )
    if tied and HEAD in there and not torch.equal(there[HEAD].read(), there[conversion.embedding].read()):
        conversion.config.tie_word_embeddings = False
        conversion.notes.append("its output head differs from its token embedding: both are kept, untied")
    return there


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


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


def read_tokenizer(
    folder: Path, config: GPT3Config, *, starts_with_bos: bool = False
) -> PreTrainedTokenizerFast | None:
    """The tokenizer in `folder`, None if there is none.

    Args:
        config: the model's, for roles that the files leave open and for the number of its ids.
        starts_with_bos: whether each text begins with the BOS token, where the files do not say (OPT's do).

    Raises:
        InputError: the files do not make a tokenizer, or one with more ids than the model.
    """
    settings, roles = (
        read_json(folder / name) if (folder / name).is_file() else {}
        for name in (locate.TOKENIZER_CONFIG, locate.ROLES)
    )
    if "added_tokens_decoder" not in settings:  # from before it: then the other file has the last word
        settings = settings | roles
    further = [token for name in FURTHER for token in _listed(settings.get(name))]
    special = {*filter(None, (_content(settings.get(role)) for role in SPECIAL)), *further}
    try:
        backend = _backend(folder, settings, special)
    except Exception as error:  # tokenizers raises plain Exception on a file it cannot read
        raise InputError(
            f"{folder}: its tokenizer files do not make a tokenizer ({one_line(error)}). Copy them again"
        ) from error
    if backend is None:
        return None
    tokens: dict[str, Any] = {}
    for role in SPECIAL:
        by_id = getattr(config, f"{role}_id", None)
        number = by_id[0] if isinstance(by_id, list) and by_id else by_id
        default = backend.id_to_token(number) if isinstance(number, int) else None
        if default is None and role in SPECIAL[:3] and backend.token_to_id(END_OF_TEXT) is not None:
            default = END_OF_TEXT
        if token := _content(settings.get(role)) or _content(roles.get(role)) or default:
            tokens[role] = token
    if settings.get("add_bos_token", starts_with_bos) and "bos_token" in tokens:
        _start_with(backend, tokens["bos_token"])
    template = settings.get("chat_template")
    if (folder / locate.TEMPLATE).is_file():
        template = (folder / locate.TEMPLATE).read_text(encoding="utf-8")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        split_special_tokens=bool(settings.get("split_special_tokens", False)),
        extra_special_tokens=further,
        **tokens,
        **({"chat_template": template} if isinstance(template, str) else {}),
    )
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= config.vocab_size:
        raise InputError(
            f"{folder}: its tokenizer has {largest + 1:,} ids, its model {config.vocab_size:,}. Put the model's own "
            "tokenizer there, or remove the tokenizer files"
        )
    return tokenizer


def _backend(folder: Path, settings: dict[str, Any], special: set[str]) -> Tokenizer | None:
    if (folder / locate.TOKENIZER).is_file():
        backend = Tokenizer.from_file(str(folder / locate.TOKENIZER))
        backend.no_truncation()
        backend.no_padding()
        return backend
    if not ((folder / locate.VOCABULARY).is_file() and (folder / locate.MERGES).is_file()):
        return None
    backend = Tokenizer(models.BPE.from_file(str(folder / locate.VOCABULARY), str(folder / locate.MERGES)))
    prefix_space = bool(settings.get("add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    numbers = read_json(folder / locate.ADDED) if (folder / locate.ADDED).is_file() else {}
    added = {number: {"content": token, "special": token in special} for token, number in numbers.items()}
    for number, token in sorted(settings.get("added_tokens_decoder", added).items(), key=lambda item: int(item[0])):
        if isinstance(token, dict):
            values = {k: token[k] for k in ("single_word", "lstrip", "rstrip", "normalized", "special") if k in token}
            backend.add_tokens([AddedToken(token["content"], **values)])
            if (got := backend.token_to_id(token["content"])) != int(number):
                raise ValueError(f"the added token {token['content']} has the id {number} there, and would get {got}")
    return backend


def _content(token: object) -> str | None:
    """A special token's text, from a string or from AddedToken's fields."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _listed(tokens: object) -> list[str]:
    """The texts of further special tokens, from a list or from an object of names."""
    each = tokens.values() if isinstance(tokens, dict) else tokens if isinstance(tokens, list) else ()
    return [content for content in map(_content, each) if content]


def _start_with(backend: Tokenizer, token: str) -> None:
    """Make each text begin with `token`, unless the tokenizer does that already."""
    number = backend.token_to_id(token)
    if number is None or backend.encode("a").ids[:1] == [number]:
        return
    backend.post_processor = TemplateProcessing(
        single=f"{token}:0 $A:0", pair=f"{token}:0 $A:0 {token}:1 $B:1", special_tokens=[(token, number)]
    )
