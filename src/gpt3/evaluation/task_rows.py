"""The rows of a task: from its file in --data-dir, else from the hub, fetched once into the user's cache.

    <cache>/tasks/NAME-DIGEST/test.jsonl.gz
                              shots.jsonl.gz   the first SHOT_ROWS rows of the split for few-shot examples
                              source.json      repository, configuration, splits, and the commit that was read

Rows in the cache are read without asking the hub. To fetch a newer state, remove the folder.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from gpt3 import durable
from gpt3.corpus import records
from gpt3.corpus.formats import READERS, fault_of
from gpt3.corpus.hub import Dataset, dataset_info, explained, is_passing, retried
from gpt3.corpus.prepare import cache_folder
from gpt3.corpus.slices import split_rows
from gpt3.errors import InputError, one_line
from gpt3.evaluation import HubData, Item, Source
from gpt3.progress import Progress

FIRST = (".jsonl", ".jsonl.gz", ".csv", ".parquet")
ENDINGS = dict.fromkeys((*FIRST, *(kind + packed for kind in READERS for packed in ("", *records.RATIOS))))
"""Of a task's file; the first that exists is read."""
FOLDERS = ("", "gpt3_synthetic")
SHOT_ROWS = 10_000
"""Rows fetched for few-shot examples; nobody needs all 40 million pairs of WMT."""
SHOT_SPLITS = ("train", "dev", "validation", "auxiliary_train")
Make = Callable[[dict[str, Any]], "Item | Sequence[Item]"]


class Row(records.Row):
    """A row in which an empty field (JSON's null) or half a character (a lone surrogate) is an error when it is used."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if value is None:
            raise ValueError(f"the field {name!r} is empty")
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and (fault := fault_of(text)):
                raise ValueError(f"the field {name!r}: {fault}")
        return value


def read_items(path: Path, make: Make) -> tuple[list[Item], list[Item]]:
    """Items that `make` makes of the scored rows, and of those for few-shot examples. ``PATH@500``: of the first 500 rows.

    Raises:
        InputError: a file that cannot be read, or a row that `make` cannot use; file, line and field are named.
    """
    test: list[Item] = []
    shots: list[Item] = []
    whole, most = split_rows(str(path))
    for place, row in _read_rows(Path(whole), most, Path(whole).stat().st_mtime_ns):
        try:
            made = make(row)
        except KeyError as error:
            raise InputError(f"{place}: no field {error}; it has {', '.join(map(str, row))}") from None
        except (TypeError, ValueError, IndexError) as error:
            raise InputError(f"{place}: {one_line(error)}") from None
        except AttributeError as error:
            raise InputError(f"{place}: a field is of the wrong kind ({one_line(error)})") from None
        (shots if row.get("split") in SHOT_SPLITS else test).extend([made] if isinstance(made, Item) else made)
    return test, shots


@lru_cache(maxsize=2)
def _read_rows(path: Path, most: int | None, changed: int) -> list[tuple[str, Row]]:
    """Rows with their places, read once for all tasks of a file."""
    rows = [(place, Row(row)) for place, row in itertools.islice(records.read_rows(path), most)]
    if not rows:
        raise InputError(f"{path} has no rows. Give a file with at least one.")
    return rows


def check_folder(data_dir: str) -> None:
    """Refuse a --data-dir that is no folder.

    Raises:
        InputError: it is none.
    """
    if not Path(split_rows(data_dir)[0]).is_dir():
        raise InputError(f"--data-dir {data_dir} is not a folder. Give the folder with the tasks' files.")


def locate(files: Sequence[str], hub: HubData | None, source: Source) -> tuple[Path, Path | None, Mapping[str, Any]]:
    """The files of a task: rows to score, further rows for few-shot examples, and for results.json where they are from.

    Args:
        files: names that its file may have in --data-dir, without endings; the first also names it in the cache.

    Raises:
        InputError: they are nowhere, or the hub does not give them.
    """
    wanted = f"{files[0]}.jsonl (or .jsonl.gz, .csv, .parquet; layouts: docs/evaluation.md)"
    if source.data_dir is not None:
        data_dir, rows = split_rows(source.data_dir)
        part = "" if rows is None else f"@{rows}"
        test, shots = (_find(data_dir, part, [file + role for file in files]) for role in ("", "_train"))
        if test is None:
            raise InputError(f"{files[0]}: {data_dir} has no {wanted}")
        return test, shots, {"file": str(test)} | ({} if shots is None else {"shots": str(shots)})
    if hub is None:
        raise InputError(
            f"{files[0]}: the hub has no such rows (docs/evaluation.md). Use --data-dir with a folder that has {wanted}."
        )
    digest = hashlib.sha256(repr((hub, SHOT_ROWS)).encode()).hexdigest()[:8]
    folder = cache_folder() / "tasks" / f"{files[0]}-{digest}"
    if not (folder / "source.json").is_file():
        _fetch(files[0], wanted, hub, folder)
    origin = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    return folder / "test.jsonl.gz", None if hub.shots is None else folder / "shots.jsonl.gz", origin


def _find(data_dir: str, part: str, names: Sequence[str]) -> Path | None:
    """The first file of these names, without their endings, and `part`, a slice, after it."""
    paths = (Path(data_dir, folder, name + ending) for name in names for folder in FOLDERS for ending in ENDINGS)
    return next((path.with_name(path.name + part) for path in paths if path.is_file()), None)


def _fetch(name: str, wanted: str, data: HubData, folder: Path) -> None:
    """Write a task's rows into a folder, source.json last.

    Raises:
        InputError: no network, no such dataset, or one that cannot be read.
    """

    spec = f"{name} (dataset {data.repository})"
    remedy = (
        f"fetch it elsewhere (hf download --repo-type dataset {data.repository}; "
        f"https://huggingface.co/datasets/{data.repository}) and use --data-dir with a folder that has {wanted}"
    )
    try:
        revision = dataset_info(data.repository, data.revision).sha
    except Exception as error:
        if is_passing(error) or type(error).__name__ == "OfflineModeIsEnabled":
            raise InputError(f"{spec}: the hub cannot be reached ({one_line(error, 60)}); {remedy}") from None
        raise explained(error, spec) from None

    def read(split: str, most: int | None) -> list[dict[str, Any]]:
        try:
            stream = Dataset(data.repository, revision, data.config, split).stream(data.fields)
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
