"""The named validation sets of ``--val``: prepared, and compared with the training text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpt3.corpus.mixture import NAME
from gpt3.corpus.prepare import open_or_prepare
from gpt3.corpus.shards import TOKENIZER_FOLDER, ShardFolder, TokenSplit, documents
from gpt3.errors import InputError

MOST_SEARCHED = 1 << 29
"""Up to this many training tokens are searched for validation documents before a run: about half a minute."""


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

    A shard folder is taken as it is: its validation split, or its train split if that is empty. Of any other source every
    document is scored.

    Args:
        specs: NAME=SOURCE each; a source is what ``--data`` takes.
        shards: the run's; their tokenizer makes the ids.
        workers: processes that prepare.

    Raises:
        InputError: see `parse_val` and gpt3.corpus; a shard folder of another tokenizer.
    """
    sets = {}
    for name, source in parse_val(specs).items():
        folder = open_or_prepare([source], shards.path / TOKENIZER_FOLDER, validation_fraction=0, workers=workers)
        folder.check_tokenizer(shards.tokenizer(), f"of the run, for --val {name}={source},")
        split = folder.split("validation")
        sets[name] = split if len(split) > 1 else folder.split("train")
    return sets


def set_rows(sets: Mapping[str, TokenSplit], training: Sequence[TokenSplit] | None) -> list[dict[str, Any]]:
    """What data.json holds of named sets: name, tokens, documents, and how many of these are trained on (`trained_on`)."""
    counts = trained_on(sets, training) or {}
    return [
        {"name": name, "tokens": len(split), "documents": split.documents, "trained_on": counts.get(name)}
        for name, split in sets.items()
    ]


def trained_on(sets: Mapping[str, TokenSplit], training: Sequence[TokenSplit] | None) -> dict[str, int] | None:
    """How many documents of each set are also in the training text, byte for byte.

    All are of one tokenizer, so equal texts have equal ids and only they. Training documents are hashed only where a validation
    document is of their length.

    Returns:
        Documents by the set's name; None where the training text is unknown (None) or above `MOST_SEARCHED` and was not searched.
    """
    if not sets:
        return {}
    if training is None or sum(map(len, training)) > MOST_SEARCHED:
        return None
    keys = {name: [_digest(ids) for ids in documents(split)] for name, split in sets.items()}
    wanted = {key for each in keys.values() for key in each}
    lengths = np.unique(np.concatenate([_lengths(split) for split in sets.values()]))
    found = set()
    for split in training:
        ends, own = split.document_ends(), _lengths(split)
        for number in np.flatnonzero(np.isin(own, lengths)).tolist():
            key = _digest(split.read(int(ends[number] - own[number]), int(ends[number]) - 1))
            if key in wanted:
                found.add(key)
    return {name: sum(key in found for key in each) for name, each in keys.items()}


def warning(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """A line on the sets of `set_rows` that hold training documents; None where none does."""
    texts = [
        f"{row['trained_on']:,} of the {row['documents']:,} documents of --val {row['name']}"
        for row in rows
        if row["trained_on"]
    ]
    return f"warning: {', '.join(texts)} are also in the training text, word for word" if texts else None


def _digest(ids: np.ndarray) -> bytes:
    """A document's hash, of its ids."""
    return hashlib.blake2b(np.ascontiguousarray(ids, dtype="<u4").data, digest_size=16).digest()


def _lengths(split: TokenSplit) -> np.ndarray:
    """Tokens of each document, end-of-text included: (documents,) int64."""
    return np.diff(split.document_ends(), prepend=0)
