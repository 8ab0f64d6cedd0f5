"""What `--data` names: `open_sources` turns names, paths and patterns into sources of documents."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gpt3.corpus.documents import PART_BYTES, Part, Source
from gpt3.corpus.files import open_files
from gpt3.corpus.shard_source import is_shard_folder, open_shard_source
from gpt3.corpus.wiki import WikiSource
from gpt3.errors import InputError

__all__ = ["PART_BYTES", "Part", "Source", "open_sources"]


def open_sources(
    specs: str | Sequence[str], *, text_field: str | None = None, part_bytes: int = PART_BYTES
) -> list[Source]:
    """Open what `specs` names, in that order, and make sure that each source holds a document that can be read.

    ============================================  ==================================================================
    ``wiki``                                      the embedded corpus
    ``fineweb[:CONFIG]``                          HuggingFaceFW/fineweb, ``sample-10BT`` unless told otherwise
    ``hf:OWNER/NAME[:CONFIG][:SPLIT][:FIELD]``    any dataset of the hub, streamed; split ``train`` unless told otherwise
    a file, a folder, a pattern                   .txt .md .jsonl .ndjson .json .csv .tsv .parquet, also .gz .xz .bz2 .zst
    ``PATH#FIELD``                                the same, with the field or column that holds the text
    a shard folder of ``gpt3 prepare``            the documents of both its splits, decoded
    ============================================  ==================================================================

    A name is a source's name first, then a path: a file called wiki is ``./wiki``.

    Args:
        specs: one name, several separated by commas, or a sequence of such.
        text_field: the field of the text in JSON and tables where a name does not tell it itself. Without it: "text",
            else the only one of strings.
        part_bytes: size of the parts that workers read; the fingerprints depend on it.

    Raises:
        InputError: one line: what is missing, empty, unreadable or unknown, and what to do.
    """
    names = [name for spec in ([specs] if isinstance(specs, str) else specs) for name in split(os.fspath(spec))]
    if not names:
        raise InputError("--data names nothing; give wiki, fineweb, hf:owner/name, or a file, a folder or a pattern")
    sources = [open_source(name, text_field, part_bytes) for name in names]
    for source in sources:
        source.check()
    return sources


def split(spec: str) -> list[str]:
    """Cut a comma-separated list, unless a file of that very name exists."""
    if spec.strip() and os.path.lexists(Path(spec).expanduser()):
        return [spec]
    return [name.strip() for name in spec.split(",") if name.strip()]


def open_source(name: str, text_field: str | None, part_bytes: int) -> Source:
    """Open one source by its name."""
    if name == "wiki":
        return WikiSource()
    if name.partition(":")[0] in ("fineweb", "hf"):
        from gpt3.corpus.hub import open_dataset

        return open_dataset(name, text_field, part_bytes)
    if is_shard_folder(name):
        return open_shard_source(name)
    return open_files(name, text_field, part_bytes)
