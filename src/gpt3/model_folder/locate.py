"""Which model folder `--model` names (a folder, a run, the newest run, a hub id), and whether all of its files are there.

Nothing heavy is imported, so that a wrong path is reported at once.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gpt3.errors import InputError, one_line
from gpt3.ladder.presets import PRESETS
from gpt3.model_folder.known import did_you_mean, hub_id
from gpt3.progress import say

RUNS = Path("runs")
TRAIN_FIRST = "train one first: gpt3 train"
STARTER = Path(__file__).parent / "starter"
"""The model that comes with the package: what `generate`, `chat` and `serve` use before any training."""
CONFIG, GENERATION, CARD, ORIGIN = "config.json", "generation_config.json", "README.md", "origin.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""Weights in one file, or the index of several."""
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
TOKENIZER, VOCABULARY, MERGES, ADDED = "tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json"
"""A tokenizer in one file; the others are GPT-2's older form of it."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

TOKENIZER_CONFIG, ROLES, TEMPLATE = "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"
LICENCES = ("LICENSE", "LICENSE.md", "LICENSE.txt")
SMALL_FILES = (TOKENIZER, VOCABULARY, MERGES, ADDED, TOKENIZER_CONFIG, ROLES, TEMPLATE, GENERATION, CARD, *LICENCES)
"""Files besides configuration and weights that a model's repository on the hub may have, and that are read here."""
TOKENIZER_FOLDER = (*SMALL_FILES, "NOTICE*", ".gitattributes", ".cache")
"""Patterns of the names in a folder with a tokenizer alone, whoever wrote it."""
MODEL_FOLDER = (
    CONFIG, ORIGIN, *TOKENIZER_FOLDER, "*.safetensors", "*.safetensors.index.json", *PICKLED, "pytorch_model-*.bin",
    "training_args.bin", "*.py", "__pycache__", "gpt3_export.json",
)  # fmt: skip
"""Patterns of the names in a model folder or an export, whoever wrote it."""

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE = "base_model_name_or_path"
PARENTS = 3
"""A relative path to an adapter's base may start in this many folders above it: up to the one that holds runs/NAME/adapter."""


def locate(model: str | Path | None, runs: Path = RUNS, *, or_starter: bool = False) -> Path | str:
    """The model folder that `model` names, complete; or a hub id. None: the newest run in `runs`.

    Args:
        or_starter: without a model and without a run, take the package's own, and say so.

    Raises:
        InputError: nothing is there, or the folder is not a complete model.
    """
    try:
        if model is None and or_starter and newest_run(runs) is None and STARTER.is_dir():
            say(f"./{runs} has no model yet: this is the package's starter model. Train your own: gpt3 train")
            return check(STARTER)
        place = find(model, runs)
        return place if isinstance(place, str) else check(place)
    except InputError as error:
        raise InputError(f"{'' if model is None else '--model '}{error}") from None


def find(model: str | Path | None, runs: Path = RUNS) -> Path | str:
    """The model folder that `model` names, complete or not; or a hub id, where no folder has that name.

    None is the newest run in `runs`. A folder is a model folder (config.json), an adapter (adapter_config.json), a run (its
    model/, else its adapter/, else its newest checkpoint) or a folder of runs (the newest). A name without a folder is that of a
    run in `runs`, ``starter``, or one of `gpt3.model_folder.known`.

    Raises:
        InputError: nothing is there, or no model is in the folder.
    """
    if model is None:
        if (folder := newest_run(runs)) is None:
            missing = f"no model is given and no trained model is in ./{runs}"
            raise InputError(f"{missing}. Give a model folder, or {TRAIN_FIRST}")
        return folder
    path = Path(model).expanduser()
    if path.is_file():
        if path.suffix.lower() == ".gguf":
            raise InputError(f"{model} is a GGUF file, for llama.cpp. Give the model folder that it was made from")
        raise InputError(f"{model} is a file. Give the folder that holds it: {path.parent}")
    places = [place for place in (path, runs / path) if place.is_dir()]
    for place in places:  # a folder of texts may have the name of the run that was trained on them
        if folder := model_folder(place) or newest_run(place):
            return folder
    if places:
        raise InputError(f"{model}: {_contents(places[0])}. Give a model or run folder, or {TRAIN_FIRST}")
    name = str(model)
    if name in PRESETS:
        raise InputError(f"{name} is a model size, not a trained model. {TRAIN_FIRST.capitalize()} --model {name}")
    if name == STARTER.name and STARTER.is_dir():
        return STARTER
    if known := hub_id(name):
        return known
    if HUB_ID.fullmatch(name) and path.parent != runs and not path.parent.is_dir():
        return name
    near = did_you_mean(name, [STARTER.name, *sorted(each.name for each in runs.glob("*") if each.is_dir())])
    raise InputError(
        f"{model}: no such folder, and no run of that name in ./{runs}. {near}Give a model or run folder, a hub id "
        f"(owner/name), a short name of gpt3 info --known, or {TRAIN_FIRST}"
    )


def model_folder(path: Path) -> Path | None:
    """`path` itself if it is a model folder or an adapter; a run's model/, else adapter/, else newest checkpoint; else None."""
    for folder in (path, path / "model", path / "adapter"):
        if (folder / CONFIG).is_file() or is_adapter(folder):
            return folder
    found = [
        (int(match[1]), folder)
        for folder in (*path.glob("checkpoints/step-*"), *path.glob("step-*"))
        if (match := re.fullmatch(r"step-(\d+)", folder.name)) and (folder / CONFIG).is_file()
    ]
    return max(found)[1] if found else None


def name_of(place: str | Path) -> str:
    """What a model is called: its run's name, or its own folder's; of a hub id the part after the owner."""
    parts = Path(os.path.abspath(place)).parts[1:]  # noqa: PTH100  # of a link its own name
    return next((part for part in reversed(parts) if part not in ("model", "adapter", "checkpoints")), "gpt3")


def newest_run(runs: Path) -> Path | None:
    """The model folder of the run in `runs` whose configuration was written last; None if there is none."""
    folders = [folder for run in sorted(runs.glob("*")) if run.is_dir() and (folder := model_folder(run)) is not None]
    return max(
        folders,
        key=lambda each: (each / (ADAPTER_CONFIG if is_adapter(each) else CONFIG)).stat().st_mtime_ns,
        default=None,
    )


def check(folder: Path) -> Path:
    """`folder`, if it holds a configuration, all safetensors weights and a tokenizer; or an adapter whose base does.

    Raises:
        InputError: naming what is missing or unreadable.
    """
    if is_adapter(folder):
        base_of(folder, adapter_settings(folder))
        return folder
    if not read_json(folder / CONFIG).get("model_type"):
        raise InputError(f"{folder}: {CONFIG} has no model_type. Save the model again, or {TRAIN_FIRST}")
    weight_files(folder)
    if not any(all((folder / name).is_file() for name in names) for names in ((TOKENIZER,), (VOCABULARY, MERGES))):
        raise InputError(f"{folder}: no tokenizer ({TOKENIZER}) in it. Save the model's tokenizer there")
    return folder


def weight_files(folder: Path, *, allow_pickle: bool = False) -> tuple[list[Path], bool, dict[str, str]]:
    """The files with weights, whether they are pickles, and the index's file name of each tensor (empty without an index).

    Raises:
        InputError: there are none, only pickles that are not allowed, or some that the index names are missing.
    """
    for whole, index in (WEIGHTS, PICKLED) if allow_pickle else (WEIGHTS,):
        if (folder / whole).is_file():
            return [folder / whole], whole == PICKLED[0], {}
        if (folder / index).is_file():
            placed = read_json(folder / index).get("weight_map")
            if not isinstance(placed, dict) or not placed or not all(map(is_file_name, placed.values())):
                raise InputError(f"{folder / index} names no weight files (weight_map). Copy the model again")
            names = sorted(set(placed.values()))
            if missing := [name for name in names if not (folder / name).is_file()]:
                raise InputError(
                    f"{folder}: {len(missing)} of {len(names)} weight files are missing ({some(missing)}). Copy them again"
                )
            return [folder / name for name in names], whole == PICKLED[0], placed
    if pickles := sorted(path.name for path in folder.glob("*.bin")):
        raise InputError(
            f"{folder}: {pickles[0]} is a pickle, which can hold code. Get the model as safetensors, or, if you trust it, "
            "convert it: gpt3 import --allow-pickle (only tensors are read; code is refused)"
        )
    raise InputError(f"{folder}: no weights ({WEIGHTS[0]}, or {WEIGHTS[1]} and its files) in it. Copy them there")


def is_file_name(name: object) -> bool:
    """Whether an index's entry is the plain name of a file in its own folder."""
    return isinstance(name, str) and bool(name) and Path(name).name == name and "\\" not in name


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter, and not a whole model next to one."""
    return (folder / ADAPTER_CONFIG).is_file() and not any((folder / name).is_file() for name in WEIGHTS)


def adapter_settings(folder: Path) -> dict[str, Any]:
    """The content of an adapter's adapter_config.json.

    Raises:
        InputError: it is not JSON, the adapter is of a kind that cannot be merged here, or its weights are missing.
    """
    settings = read_json(folder / ADAPTER_CONFIG)
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise InputError(
            f"{folder / ADAPTER_CONFIG}: peft_type is {kind!r}; only LoRA and DoRA adapters can be read. Merge it with PEFT "
            "(merge_and_unload) and give that model's folder"
        )
    if not (folder / ADAPTER_WEIGHTS).is_file():
        pickles = sorted(each.name for each in folder.glob("*.bin"))
        what = f"{pickles[0]} is a pickle and is never read" if pickles else "its weights are missing"
        raise InputError(f"{folder}: {what}. Save the adapter again as {ADAPTER_WEIGHTS}")
    return settings


def base_of(folder: Path, settings: dict[str, Any]) -> Path | str:
    """The folder of an adapter's base model, complete; or a hub id, where no folder has that name.

    A relative path may start in the working directory, in the adapter's folder, or in one of the `PARENTS` above that.

    Raises:
        InputError: no base is named; it is not found and is no hub id; it is not a complete model, or an adapter itself.
    """
    name = settings.get(BASE)
    if not isinstance(name, str) or not name:
        raise InputError(f"{folder}: {ADAPTER_CONFIG} names no base model ({BASE}). Write the path of its folder there")
    absolute = folder.absolute()
    for start in (Path(), absolute, *absolute.parents[:PARENTS]):
        found = model_folder(start / Path(name).expanduser())
        if found is None:
            continue
        if is_adapter(found):
            raise InputError(
                f"{folder}: its base model {name} is an adapter itself. Merge that first: gpt3 import {found} --out DIR"
            )
        try:
            return check(found)
        except InputError as error:
            raise InputError(f"{folder}: its base model {error}") from None
    if HUB_ID.fullmatch(name) or hub_id(name):
        return hub_id(name) or name
    raise InputError(
        f"{folder}: its base model {name} is not here. Write the path of its folder into {ADAPTER_CONFIG} ({BASE})"
    )


def fetch(name: str, *, allow_pickle: bool = False) -> Path:
    """The local folder with the files of the hub's model or adapter `name` (owner/name), downloaded unless they are there.

    Args:
        allow_pickle: take .bin files where there are no safetensors.

    Raises:
        InputError: the hub has no such model, or cannot be reached; its weights are pickles, and these are not allowed.
    """
    from huggingface_hub import constants

    try:
        folder = _file(name, CONFIG, reached=True) or _file(name, ADAPTER_CONFIG)
        if folder is None:
            raise OSError(f"it has neither {CONFIG} nor {ADAPTER_CONFIG}")
        say(f"{name}: from {constants.ENDPOINT}")
        if (folder / CONFIG).is_file():
            _weights(name, folder, allow_pickle)
        else:
            _file(name, ADAPTER_WEIGHTS)
        for each in SMALL_FILES:
            _file(name, each)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # the hub library's: unknown id, no network, no permission, a bad name
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(
            f"{name}: no such folder or run, and {constants.ENDPOINT} did not give it ({reason}). "
            "Download it where there is a network and give its folder"
        ) from error
    return folder


def _weights(name: str, folder: Path, allow_pickle: bool) -> None:
    """Download the weights.

    Raises:
        InputError: they are pickles only, and these are not allowed.
    """
    from huggingface_hub import file_exists

    for whole, index in (WEIGHTS, PICKLED) if allow_pickle else (WEIGHTS,):
        if _file(name, whole) is not None:
            return
        if _file(name, index) is not None:
            placed = read_json(folder / index).get("weight_map")
            for file in sorted(filter(is_file_name, set(placed.values()))) if isinstance(placed, dict) else ():
                _file(name, file)
            return
    if any(file_exists(name, file) for file in PICKLED):
        raise InputError(
            f"{name}: its weights are pickles only ({PICKLED[0]}), which can hold code. If you trust them, convert them and use "
            f"the new folder: gpt3 import {name} --out DIR --allow-pickle (only tensors are read; code is refused)"
        )


def _file(name: str, file: str, *, reached: bool = False) -> Path | None:
    """The local folder that a file of the repository is in; None where the repository has no such file.

    Raises:
        OSError: with `reached`, if the hub cannot be reached and the file is not here: asking again would only wait again.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    library = logging.getLogger("huggingface_hub")  # after the imports, which set its level
    level = library.level
    library.setLevel(logging.ERROR)  # it reports each of its attempts in several lines
    quiet = not file.endswith((".safetensors", ".bin")) and not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        return Path(hf_hub_download(name, file)).parent
    except EntryNotFoundError as error:
        if reached and isinstance(error, LocalEntryNotFoundError):
            raise
        return None
    finally:
        library.setLevel(level)
        if quiet:
            enable_progress_bars()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; InputError if it holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}). Save it again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object. Save it again")
    return content


def some(names: Iterable[str], shown: int = 3) -> str:
    """The first few of many, for a message of one line."""
    names = list(names)
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")


def counted(kinds: Mapping[str, list[str]]) -> str:
    """How many names there are of each kind, and the first few of them; "" where there are none."""
    return ", ".join(f"{len(names)} {kind} ({some(names)})" for kind, names in kinds.items() if names)


def _contents(folder: Path) -> str:
    if any(folder.glob("*.safetensors")):
        return f"it has weights but no {CONFIG}"
    names = sorted(path.name for path in folder.iterdir())
    return f"it is no model (it holds {some(names)})" if names else "it is empty"
