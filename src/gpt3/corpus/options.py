"""What `gpt3 prepare` can be told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpt3.device import usable_cores
from gpt3.errors import InputError
from gpt3.options import Options, option

KEYS = 1 << 64
"""A document's key is a 64-bit hash of its text, see `gpt3.corpus.segments.document_key`; folds are equal ranges of keys."""
FEWEST_FOLDS, MOST_FOLDS = 2, 1000


@dataclass(frozen=True)
class PrepareOptions(Options):
    """Turn documents into token shards, ready to train on."""

    data: list[str] = option(["wiki"], known="gpt3.corpus.sources:known_sources", group="Data")
    """Sources, read in order: {known}."""
    out: str = "data"
    """Shard folder to make. Unfinished work is in OUT.preparing."""
    tokenizer: str = "gpt2"
    """gpt2, or a tokenizer folder."""
    decontaminate: list[str] = option([])
    """Files of benchmark rows whose 13-grams are cut out of the documents (paper, App. C)."""
    validation_fraction: float = option(0.005, least=0, below=1, group="Validation")
    """Share of documents held out for validation, chosen by a hash of their text; 0: none."""
    fold: str | None = None
    """K/N: hold out the K-th of N equal shares of the documents instead of --validation-fraction."""
    shard_tokens: int = option(100_000_000, above=0, group="Work")
    """Tokens per shard, at most; a longer document makes a longer shard."""
    workers: int | None = option(None, above=0)
    """Processes that read and tokenize; the shards do not depend on it. Default: one per core."""
    resume: Literal["auto", "never"] = "auto"
    """auto: resume an interrupted preparation of the same data; never: start again."""

    def errors(self) -> Iterator[str]:
        """Empty names, an invalid fold, missing benchmark files."""
        if not self.data:
            yield "--data is empty; name a source, such as wiki"
        if not Path(self.out).name:  # its working folder is next to it
            yield f"--out {self.out or repr('')} has no name of its own; name a new folder"
        if self.fold is not None:
            try:
                parse_fold(self.fold)
            except InputError as error:
                yield str(error)
        if missing := [name for name in self.decontaminate if not Path(name).expanduser().is_file()]:
            yield f"--decontaminate {' '.join(missing)}: no such file"

    def worker_count(self) -> int:
        """`workers`, or the cores this process may use."""
        return usable_cores() if self.workers is None else self.workers


def parse_fold(text: str) -> tuple[int, int]:
    """``"2/5"`` as (2, 5): the second of five folds.

    Raises:
        InputError: it is no such pair.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match:
        fold, folds = int(match[1]), int(match[2])
        if FEWEST_FOLDS <= folds <= MOST_FOLDS and 1 <= fold <= folds:
            return fold, folds
    raise InputError(
        f"--fold {text!r} must be K/N, the K-th of N folds, such as 2/5 (N from {FEWEST_FOLDS} to {MOST_FOLDS})"
    )
