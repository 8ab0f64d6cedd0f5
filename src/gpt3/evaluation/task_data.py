"""The files of a task's rows: those of --data-dir, else the hub's, fetched once into the user's cache.

    <cache>/tasks/NAME-DIGEST/test.jsonl.gz
                              shots.jsonl.gz   the first SHOT_ROWS rows of the demonstrations' split
                              source.json      repository, configuration, splits, and the commit that was read

What is in the cache is read without asking the hub. To fetch a newer state, remove the folder.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gpt3 import durable
from gpt3.corpus.prepare import cache_folder
from gpt3.errors import InputError, one_line
from gpt3.evaluation.items import HubData, Source
from gpt3.evaluation.rows import find
from gpt3.progress import Progress

SHOT_ROWS = 10_000
"""Rows of the demonstrations' split that are fetched; of WMT's 40 million pairs nobody wants them all."""


@dataclass(frozen=True)
class TaskData:
    """A task's files."""

    test: Path
    """Rows to be scored; rows with a field `split` of train, dev or validation are demonstrations."""
    shots: Path | None
    """More demonstrations."""
    origin: Mapping[str, Any]
    """For results.json."""


def locate(name: str, files: Sequence[str], hub: HubData | None, source: Source) -> TaskData:
    """The files of a task.

    Args:
        name: of the task.
        files: names that its file may have in --data-dir, without their endings.

    Raises:
        InputError: they are nowhere, or the hub does not give them.
    """
    if source.data_dir is not None:
        test = find(source.data_dir, files)
        if test is None:
            raise InputError(f"{name}: {source.data_dir} has no {_wanted(files)}")
        shots = find(source.data_dir, [f"{file}_train" for file in files])
        return TaskData(test, shots, {"file": str(test)} | ({} if shots is None else {"shots": str(shots)}))
    if hub is None:
        raise InputError(
            f"{name}: its owners hand out the rows on request; give --data-dir, a folder with {_wanted(files)}"
        )
    folder = folder_of(name, hub)
    if not (folder / "source.json").is_file():
        fetch(name, files, hub, folder)
    origin = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    shots = None if hub.shots is None else folder / "shots.jsonl.gz"
    return TaskData(folder / "test.jsonl.gz", shots, origin)


def folder_of(name: str, hub: HubData) -> Path:
    """The cache's folder of a task."""
    digest = hashlib.sha256(repr((hub, SHOT_ROWS)).encode()).hexdigest()[:8]
    return cache_folder() / "tasks" / f"{name}-{digest}"


def fetch(name: str, files: Sequence[str], data: HubData, folder: Path) -> None:
    """Write a task's rows into a folder, source.json last.

    Raises:
        InputError: no network, no such dataset, or one that cannot be read.
    """
    from gpt3.corpus.hub import Dataset, dataset_info, explained, is_passing, open_builder, retried, without_torch

    spec = f"{name} (dataset {data.repository})"
    remedy = (
        f"fetch it elsewhere (hf download --repo-type dataset {data.repository}; "
        f"https://huggingface.co/datasets/{data.repository}) and give --data-dir, a folder with {_wanted(files)}"
    )
    try:
        revision = dataset_info(data.repository, data.revision).sha
    except Exception as error:
        if is_passing(error) or type(error).__name__ == "OfflineModeIsEnabled":
            raise InputError(f"{spec}: the hub cannot be reached ({one_line(error, 60)}); {remedy}") from None
        raise explained(error, spec) from None

    def read(split: str, most: int | None) -> list[dict[str, Any]]:
        try:
            builder = open_builder(Dataset(data.repository, revision, data.config, split))
            with without_torch():
                stream = builder.as_streaming_dataset(split=split).select_columns(list(data.fields))
                return list(itertools.islice(stream, most))
        except (ValueError, FileNotFoundError, RuntimeError, KeyError) as error:  # what `datasets` cannot read
            if is_passing(error):
                raise
            raise InputError(f"{spec}: {one_line(error)}; {remedy}") from None

    splits = {"test": (data.test, None)} | ({} if data.shots is None else {"shots": (data.shots, SHOT_ROWS)})
    origin: dict[str, Any] = {"hub": data.repository, "config": data.config, "revision": revision}
    with Progress(f"fetching {name}", len(splits), "files") as progress:
        for role, (split, most) in splits.items():
            rows = retried(partial(read, split, most), spec, remedy)
            text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
            folder.mkdir(parents=True, exist_ok=True)
            durable.write_bytes(folder / f"{role}.jsonl.gz", gzip.compress(text.encode(), mtime=0))
            origin[role] = {"split": split, "rows": len(rows)}
            progress.advance(1)
    durable.write_text(folder / "source.json", json.dumps(origin, indent=1) + "\n")


def _wanted(files: Sequence[str]) -> str:
    return f"{files[0]}.jsonl (or .jsonl.gz, .csv, .parquet; layouts: docs/evaluation.md)"
