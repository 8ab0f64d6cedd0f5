"""Which model `--model` means: a model folder, a run, the newest run, or a hub id; and whether the folder is whole.

Nothing heavy is imported, so that a wrong path is answered at once.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gpt3.errors import InputError
from gpt3.model_folder.adapter import ADAPTER_CONFIG, adapter_settings, base_of, is_adapter

RUNS = Path("runs")
TRAIN_FIRST = "train one first: gpt3 train"
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""Files that make a tokenizer; the older kind, GPT-2's, lies beside models of other families."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def locate(model: str | Path | None, runs: Path = RUNS) -> Path | str:
    """The model folder that `model` means, checked; or `model` itself, a hub id, where nothing of that name is here.

    Looked at in this order: no name: the newest run in `runs`; a folder: a model folder (config.json), an adapter's
    (adapter_config.json), a run folder (its model/, else its adapter/, else its newest checkpoint), a folder of runs (the
    newest); a name: the run of that name in `runs`.

    Raises:
        InputError: nothing there, or a folder that is not a whole model.
    """
    if model is None:
        folder = newest_run(runs)
        if folder is None:
            raise InputError(f"no --model is given and no trained model is in ./{runs}; {TRAIN_FIRST}")
        return check(folder)
    path = Path(model).expanduser()
    if path.is_file():
        raise InputError(f"--model {model} is a file; give the folder it is in: {path.parent}")
    for place in (path, runs / path):
        if place.is_dir():
            folder = model_folder(place) or newest_run(place)
            if folder is not None:
                return check(folder)
            raise InputError(f"--model {model}: {_what_is_in(place)}; give a model or run folder, or {TRAIN_FIRST}")
    name = str(model)
    if is_preset(name):
        raise InputError(f"--model {name} is a shape, not a trained model; {TRAIN_FIRST} --model {name}")
    if HUB_ID.fullmatch(name) and path.parent != runs and not path.parent.is_dir():
        return name
    raise InputError(
        f"--model {model}: no such folder, nor a run in ./{runs}; give a model or run folder, a hub id (owner/name), "
        f"or {TRAIN_FIRST}"
    )


def model_folder(path: Path) -> Path | None:
    """`path` itself if it is a model folder or an adapter's; a run's model/, else adapter/, else newest checkpoint; else None."""
    for folder in (path, path / "model", path / "adapter"):
        if (folder / "config.json").is_file() or is_adapter(folder):
            return folder
    found = [
        (int(match[1]), folder)
        for folder in (*path.glob("checkpoints/step-*"), *path.glob("step-*"))
        if (match := re.fullmatch(r"step-(\d+)", folder.name)) and (folder / "config.json").is_file()
    ]
    return max(found)[1] if found else None


def newest_run(runs: Path) -> Path | None:
    """The model folder of the run in `runs` whose weights were written last; None where there is none."""
    folders = [folder for run in sorted(runs.glob("*")) if run.is_dir() and (folder := model_folder(run)) is not None]
    return max(folders, key=_written, default=None)


def _written(folder: Path) -> int:
    return (folder / (ADAPTER_CONFIG if is_adapter(folder) else "config.json")).stat().st_mtime_ns


def check(folder: Path) -> Path:
    """`folder`, if it holds a configuration, all of its safetensors weights, and a tokenizer; or an adapter whose base does.

    Raises:
        InputError: naming what is missing or unreadable.
    """
    if is_adapter(folder):
        try:
            base_of(folder, adapter_settings(folder))
        except InputError as error:
            raise InputError(f"--model {error}") from None
        return folder
    config = read_json(folder / "config.json")
    if not config.get("model_type"):
        raise InputError(f"--model {folder}: config.json has no model_type; {TRAIN_FIRST}")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(read_json(index).get("weight_map", {}).values()))
        missing = ", ".join(name for name in shards if not (folder / name).is_file())
        if missing or not shards:
            raise InputError(
                f"--model {folder}: weights are missing ({missing or 'the index is empty'}); copy them again"
            )
    elif not (folder / "model.safetensors").is_file():
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        if pickles:
            raise InputError(
                f"--model {folder}: {pickles[0]} is a pickle and never read here; save it as model.safetensors, or, if you trust "
                "it, make a model folder of it: gpt3 import --allow-pickle"
            )
        raise InputError(f"--model {folder}: no weights (model.safetensors) in it; copy them there, or {TRAIN_FIRST}")
    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZERS):
        raise InputError(f"--model {folder}: no tokenizer (tokenizer.json) in it; save the model's tokenizer there")
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; InputError where it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); save the model again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object; save the model again")
    return content


def is_preset(name: str) -> bool:
    """Whether `name` is a shape of `gpt3 ladder`."""
    from gpt3.ladder.presets import PRESETS

    return name in PRESETS


def _what_is_in(folder: Path) -> str:
    if any(folder.glob("*.safetensors")):
        return "it has weights but no config.json"
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return "it is empty"
    return f"it is no model (it holds {', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
