"""Named validation sets: ``--val NAME=SOURCE``, each prepared with the run's tokenizer and scored whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gpt3.corpus.manifest import is_shard_folder
from gpt3.corpus.mixture import NAME
from gpt3.corpus.prepare import prepare_cached
from gpt3.corpus.shards import TOKENIZER_FOLDER, ShardFolder, TokenSplit, documents, open_shards
from gpt3.errors import InputError

MOST_TOKENS = 1 << 29
"""So many training tokens are searched for validation documents before a run: half a minute or so."""


def parse_val(specs: Sequence[str]) -> dict[str, str]:
    """``["wiki=wiki", "mine=notes.txt"]`` as names and what they read.

    Raises:
        InputError: no NAME=SOURCE, a name of other characters than a-z 0-9 _ -, or the same name twice.
    """
    sources: dict[str, str] = {}
    for spec in specs:
        name, equals, source = spec.partition("=")
        if not equals or not source.strip():
            raise InputError(f"--val {spec!r} must be NAME=SOURCE, such as books=books.jsonl")
        if not NAME.fullmatch(name):
            raise InputError(f"--val {spec!r}: the name {name!r} may hold a-z, 0-9, _ and - only")
        if name in sources:
            raise InputError(f"--val {spec!r}: {name} is the name of {sources[name]} already; choose another")
        sources[name] = source.strip()
    return sources


def val_sets(specs: Sequence[str], shards: ShardFolder, workers: int | None = None) -> dict[str, TokenSplit]:
    """The named sets of ``--val``, prepared into the cache where they are not shards yet.

    A shard folder is taken as it is: its validation split, or where that is empty its train split. Of any other source every
    document is scored. Whether a document also stands in the training data `trained_on` tells.

    Args:
        specs: NAME=SOURCE each; a source is what ``--data`` takes.
        shards: the run's; their tokenizer makes the ids.
        workers: processes that prepare.

    Raises:
        InputError: see `parse_val` and gpt3.corpus; a shard folder of another tokenizer.
    """
    sets = {}
    for name, source in parse_val(specs).items():
        if is_shard_folder(source):
            folder = open_shards(source)
            folder.check_tokenizer(shards.tokenizer(), f"of the run, for --val {name}={source},")
            split = folder.split("validation")
            sets[name] = split if len(split) > 1 else folder.split("train")
        else:
            tokenizer = shards.path / TOKENIZER_FOLDER
            sets[name] = open_shards(prepare_cached(source, tokenizer, validation_fraction=0, workers=workers)).split(
                "train"
            )
    return sets


def trained_on(sets: Mapping[str, TokenSplit], training: Sequence[TokenSplit]) -> dict[str, int] | None:
    """How many documents of each set also stand in the training text, to the byte.

    All are of one tokenizer, so equal texts have equal ids and only they. Training documents are hashed only where a validation
    document is of their length.

    Args:
        sets: named validation sets.
        training: the training splits of all sources.

    Returns:
        Documents by the set's name; None where the training text is above `MOST_TOKENS` and was not searched.
    """
    if not sets:
        return {}
    if sum(len(split) for split in training) > MOST_TOKENS:
        return None
    keys = {name: [digest(ids) for ids in documents(split)] for name, split in sets.items()}
    wanted = {key for each in keys.values() for key in each}
    lengths = np.unique(np.concatenate([document_lengths(split) for split in sets.values()]))
    found = {key for split in training for key in map(digest, documents_of(split, lengths)) if key in wanted}
    return {name: sum(key in found for key in each) for name, each in keys.items()}


def set_rows(sets: Mapping[str, TokenSplit], training: Sequence[TokenSplit]) -> list[dict[str, Any]]:
    """What data.json holds of named sets: name, tokens, documents, and how many of these are trained on (`trained_on`)."""
    counts = trained_on(sets, training)
    return [
        {"name": name, "tokens": len(split), "documents": split.documents}
        | {"trained_on": None if counts is None else counts[name]}
        for name, split in sets.items()
    ]


def warning(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """One line on the sets of `set_rows` that hold training documents; None where none does."""
    texts = [
        f"{row['trained_on']:,} of the {row['documents']:,} documents of --val {row['name']}"
        for row in rows
        if row["trained_on"]
    ]
    return f"warning: {', '.join(texts)} are also in the training text, word for word" if texts else None


def digest(ids: np.ndarray) -> bytes:
    """A document's hash, of its ids."""
    return hashlib.blake2b(np.ascontiguousarray(ids, dtype="<u4").data, digest_size=16).digest()


def document_lengths(split: TokenSplit) -> np.ndarray:
    """Tokens of each document, end-of-text included: (documents,) int64."""
    return np.diff(split.document_ends(), prepend=0)


def documents_of(split: TokenSplit, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """The ids of the documents that are of one of these `lengths`, end-of-text left out."""
    ends, own = split.document_ends(), document_lengths(split)
    for number in np.flatnonzero(np.isin(own, lengths)).tolist():
        yield split.read(int(ends[number] - own[number]), int(ends[number]) - 1)
