"""The training text of a run, or the text that `--data` names: parts of documents to stream."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from gpt3.corpus.documents import Part
from gpt3.corpus.manifest import is_shard_folder
from gpt3.corpus.shards import ShardFolder, ShardSource, open_shards
from gpt3.corpus.sources import open_sources
from gpt3.errors import InputError
from gpt3.model_folder.locate import RUNS
from gpt3.training.data import open_shard_folders, source_sizes
from gpt3.training.options import TrainOptions
from gpt3.training.plan import shape_of

PART_BYTES = 16 << 20
"""Size of the parts of large files: several per core even for little text."""


def parts_of_data(data: Sequence[str]) -> list[Part]:
    """The parts of sources; of a shard folder its training split."""
    parts: list[Part] = []
    for name in data:
        if is_shard_folder(name):
            parts += parts_of_shards(open_shards(Path(name).expanduser()))
        else:
            parts += [part for source in open_sources(name, part_bytes=PART_BYTES) for part in source.parts()]
    return parts


def parts_of_shards(folder: ShardFolder) -> list[Part]:
    """The shards of the training split, read back as text."""
    folder.tokenizer()  # refuses one that reads the ids as other text
    return ShardSource(str(folder.path), folder.path, folder.manifest).parts_of("train")


def find_run(model: str | None) -> Path:
    """The run folder that `--model` means: itself, the run whose model or checkpoint it is, or the newest in ./runs.

    Raises:
        InputError: there is none.
    """
    if model is None:
        runs = [path.parent for path in RUNS.glob("*/config.yaml")]
        if not runs:
            raise InputError("there is no --model, no --data and no run in ./runs. Name the training text with --data.")
        return max(runs, key=lambda run: (run / "config.yaml").stat().st_mtime_ns)
    for place in (Path(model).expanduser(), RUNS / model):
        for folder in (place, place.parent, place.parent.parent):
            if place.is_dir() and (folder / "config.yaml").is_file():
                return folder
    raise InputError(
        f"--model {model} is not a run of gpt3 train, so its training text is unknown. Name it with --data."
    )


def parts_of_run(run: Path) -> list[Part]:
    """The documents that a run was trained on, from its shards: those named, or those in the cache, made again if necessary.

    Raises:
        InputError: the data has changed since (data.json has its size), or no longer exists.
    """

    try:
        saved = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        known = {field.name for field in dataclasses.fields(TrainOptions)}
        options = TrainOptions(**{name: value for name, value in saved.items() if name in known})
        recorded = json.loads((run / "data.json").read_text(encoding="utf-8"))["sources"]
        counts = [(row["name"], row["tokens"]) for row in recorded]
    except (OSError, yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(
            f"--model {run}: its config.yaml and data.json cannot be read ({error}). Name the training text with --data."
        ) from None
    opened = open_shard_folders(options, shape_of(options))
    now = [(row["name"], row["tokens"]) for spec, folder in opened for row in source_sizes(spec, folder)]
    if now != counts:
        raise InputError(
            f"--model {run}: its data has changed since it was trained. Name the text it read with --data."
        )
    return [part for _, folder in opened for part in parts_of_shards(folder)]
