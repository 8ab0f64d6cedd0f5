"""The text that a run was trained on, or that `--data` names: parts of documents to stream."""

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

RUNS = Path("runs")
PART_BYTES = 16 << 20
"""Large files are cut into such stretches: several a core even where there is little text."""


def parts_of_data(data: Sequence[str]) -> list[Part]:
    """What sources hold; of a shard folder what is trained on, its training split."""
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
            raise InputError(
                "no --model and no --data are given and no run is in ./runs; name what to read with --data"
            )
        return max(runs, key=lambda run: (run / "config.yaml").stat().st_mtime_ns)
    for place in (Path(model).expanduser(), RUNS / model):
        for folder in (place, place.parent, place.parent.parent):
            if place.is_dir() and (folder / "config.yaml").is_file():
                return folder
    raise InputError(f"--model {model} is no run of gpt3 train, so its training data is unknown; name it with --data")


def parts_of_run(run: Path) -> list[Part]:
    """The documents a run trains on, from its shards: those named, or those in the cache, made again where they are gone.

    Raises:
        InputError: the data has changed since (data.json counts it), or is gone.
    """
    from gpt3.training.data import open_mixture
    from gpt3.training.options import TrainOptions
    from gpt3.training.run import shape_of
    from gpt3.training.run_data import open_data

    try:
        saved = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        known = {field.name for field in dataclasses.fields(TrainOptions)}
        options = TrainOptions(**{name: value for name, value in saved.items() if name in known})
        recorded = json.loads((run / "data.json").read_text(encoding="utf-8"))["sources"]
        counts = [(row["name"], row["tokens"]) for row in recorded]
    except (OSError, yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(f"--model {run}: its config.yaml and data.json do not tell its data ({error})") from None
    preset = shape_of(options)
    if options.mixture is not None:
        folders = list(open_mixture(options.mixture, options, preset).shards)
        now = [(name, len(f.split("train"))) for (name, _), f in zip(counts, folders, strict=False)]
    else:
        folders = [open_data(options, preset)]
        now = [(str(s["name"]), s["splits"]["train"]["tokens"]) for s in folders[0].manifest.sources]
    if now != counts:
        raise InputError(f"--model {run}: its data has changed since it was trained; name the text it read with --data")
    return [part for folder in folders for part in parts_of_shards(folder)]
