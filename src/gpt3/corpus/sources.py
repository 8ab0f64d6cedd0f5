"""What `--data` can name: the registry of sources, and the functions that open what a user names.

A new kind of source is a module with a `Source` (and perhaps a function of rows) and one line in `SOURCES`. The module is
imported when the source is used.
"""

from __future__ import annotations

import itertools
import os
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

from gpt3.corpus.documents import PART_BYTES, Source
from gpt3.corpus.files import find_files, open_files
from gpt3.corpus.formats import TEXT
from gpt3.corpus.manifest import is_shard_folder
from gpt3.corpus.records import WITH_FIELDS, Row, format_of, read_rows
from gpt3.corpus.shards import open_shards
from gpt3.corpus.slices import sliced, split_rows
from gpt3.errors import InputError


@dataclass(frozen=True)
class Kind:
    """A kind of source."""

    form: str
    """How it is written, such as ``hf:OWNER/NAME[:SPLIT]``."""
    summary: str
    """What it is, for people."""
    open: str
    """``MODULE:FUNCTION`` in this package: takes the name as given and the size of a part in bytes, returns a `Source`."""
    rows: str | None = None
    """``MODULE:FUNCTION`` too: takes the name as given, yields (place, row), for fine-tuning. None: documents without fields."""


SOURCES: dict[str, Kind] = {
    "wiki": Kind("wiki", "the embedded corpus: leads of Wikipedia's vital articles, 4.9 MB", "wiki:open_wiki"),
    "fineweb": Kind("fineweb[:CONFIG]", "HuggingFaceFW/fineweb, streamed", "hub:open_dataset"),
    "hf": Kind(
        "hf:OWNER/NAME[:CONFIG][:SPLIT][:FIELD]", "any Hub dataset, streamed", "hub:open_dataset", "hub:read_rows"
    ),
}
"""By what a name starts with, up to its first colon. Any other name is a path: a shard folder, files, a folder, a pattern."""


def known_sources() -> str:
    """What `--data` can name, in words."""
    names = ", ".join(kind.form.partition("[")[0] for kind in SOURCES.values())
    return f"{names}, a shard folder, files, folders or patterns"


def open_sources(
    specs: str | Sequence[str],
    *,
    part_bytes: int = PART_BYTES,
    tokenizer: str | Path | None = None,
    check: bool = True,
) -> list[Source]:
    """Open what `specs` names, in that order, and make sure that each source holds a document that can be read.

    Names are those of `SOURCES`, or else paths: a shard folder (both its splits, decoded), a file, a folder or a pattern,
    with ``#FIELD`` for the field or column that holds the text (default: "text", else the only one of strings). A file
    called wiki is ``./wiki``. A slice may follow (`gpt3.corpus.slices`): ``wiki@500``, ``novels.txt@20M``, ``web/@100MB~``.

    Args:
        specs: one name, several separated by commas, or a sequence of such.
        part_bytes: size of the parts that workers read; the fingerprints depend on it.
        tokenizer: name or folder, to count the tokens of slices.
        check: whether to read up to each source's first document.

    Raises:
        InputError: one line: what is missing, empty, unreadable or unknown, and what to do.
    """
    names = [name for spec in ([specs] if isinstance(specs, str) else specs) for name in split_names(os.fspath(spec))]
    if not names:
        raise InputError(f"--data names nothing. Use {known_sources()}.")
    counts = None if tokenizer is None else str(tokenizer)
    sources = [sliced(name, lambda whole: _open(whole, part_bytes), counts) for name in names]
    for source in sources if check else ():
        source.check()
    return sources


def split_names(spec: str) -> list[str]:
    """Cut a comma-separated list, unless a file of that very name exists."""
    if spec.strip() and os.path.lexists(Path(spec).expanduser()):
        return [spec]
    return [name.strip() for name in spec.split(",") if name.strip()]


def _open(name: str, part_bytes: int) -> Source:
    if kind := SOURCES.get(name.partition(":")[0]):
        return cast(Source, _function(kind.open)(name, part_bytes))
    if is_shard_folder(name):
        folder = open_shards(name)
        folder.tokenizer()  # refuses one that reads the ids as other text
        return folder
    return open_files(name, part_bytes, [kind.form for kind in SOURCES.values()])


def _function(name: str) -> Any:
    return pkgutil.resolve_name(f"gpt3.corpus.{name}")


def open_rows(name: str, others: Sequence[str] = ()) -> Iterator[tuple[str, Row]]:
    """The rows of what `name` names, as (place, row): of a source that has rows, or of all files with fields.

    ``NAME@500`` are the first 500 rows; slices by tokens, by text or at random are for training text.

    Args:
        name: one name or path.
        others: names that the caller knows besides, for the error message.

    Raises:
        InputError: nothing there, nothing with rows in it, damaged, or not UTF-8; the file and the line are named.
    """
    whole, most = split_rows(name)
    if most is not None:
        yield from islice(open_rows(whole, others), most)
        return
    kind = SOURCES.get(name.partition(":")[0])
    if kind is not None and kind.rows is not None:
        yield from _function(kind.rows)(name)
        return
    with_rows = [*others, *(each.form for each in SOURCES.values() if each.rows is not None)]
    if kind is not None:
        raise InputError(f"{name} is text without fields. Use {', '.join(with_rows)}, or files with fields.")
    paths = [path for path in find_files(name, with_rows)[0] if format_of(path) not in TEXT]
    if not paths:
        raise InputError(f"{name}: text files have no fields; readable are {' '.join(WITH_FIELDS)}, also compressed")
    rows = (row for path in paths for row in read_rows(path))
    first = next(rows, None)
    if first is None:
        raise InputError(f"{name}: no rows in it")
    yield from itertools.chain([first], rows)
