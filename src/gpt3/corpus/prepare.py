"""`gpt3 prepare`: sources to a shard folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gpt3.corpus.hash_folds import parse_fold
from gpt3.errors import InputError


@dataclass(frozen=True)
class PrepareOptions:
    """Turn documents into token shards, ready to train on."""

    data: list[str] = field(default_factory=lambda: ["wiki"])
    """What to read: sources (wiki, fineweb, hf:owner/name, files, folders, globs); several are read one after another."""
    out: str = "data"
    """The shard folder to make. Until it is complete the work lies beside it, in OUT.preparing."""
    tokenizer: str = "gpt2"
    """gpt2, or a tokenizer folder."""
    validation_fraction: float = 0.005
    """The share of documents held out, chosen by a hash of their text; 0 holds out none."""
    fold: str | None = None
    """K/N: hold out the K-th of N equal shares of the documents, by the same hash, in place of --validation-fraction."""
    shard_tokens: int = 100_000_000
    """Tokens in a shard, at most (a longer document makes a longer shard)."""
    decontaminate: list[str] = field(default_factory=list)
    """Benchmark files (.jsonl) whose 13-grams are cut out of the documents, as the paper did (App. C)."""
    workers: int | None = None
    """Processes that read and tokenise. Default: one a core. The shards do not depend on it."""
    resume: Literal["auto", "never"] = "auto"
    """auto: go on with an interrupted preparation of the same data; never: begin again."""

    def __post_init__(self) -> None:
        problems = []
        if not self.data:
            problems.append("--data is empty; name a source, such as wiki")
        if not str(self.out):
            problems.append("--out is empty; name a folder")
        if not 0 <= self.validation_fraction < 1:
            problems.append(f"--validation-fraction {self.validation_fraction} must be at least 0 and below 1")
        if self.fold is not None:
            try:
                parse_fold(self.fold)
            except InputError as error:
                problems.append(str(error))
        if self.shard_tokens < 1:
            problems.append(f"--shard-tokens {self.shard_tokens} must be above 0")
        if missing := [name for name in self.decontaminate if not Path(name).expanduser().is_file()]:
            problems.append(f"--decontaminate {' '.join(missing)}: no such file; give benchmark files (.jsonl)")
        if self.workers is not None and self.workers < 1:
            problems.append(f"--workers {self.workers} must be above 0")
        if self.resume not in ("auto", "never"):
            problems.append(f"--resume {self.resume!r} must be auto or never")
        if problems:
            raise InputError("; ".join(problems))

    def worker_count(self) -> int:
        """`workers`, or the cores this process may use."""
        if self.workers is not None:
            return self.workers
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(options: PrepareOptions) -> Path:
    """Make the shard folder `options.out` and return its path.

    A killed preparation goes on where it stopped when it is asked for again, and ends in the same bytes. One that is
    finished is not repeated. Two processes asked for the same folder do the work once: the second waits. Processes are
    spawned for inputs above `gpt3.corpus.preparation.POOL_BYTES`, so a script that calls this needs the usual
    ``if __name__ == "__main__":``.

    Raises:
        InputError: no such data, unreadable or empty data, a folder that holds something else, no room on the disk.
    """
    from gpt3.corpus.preparation import Preparation

    return Preparation(options).run(Path(options.out))


def run(options: PrepareOptions) -> None:
    """The command: prepare, then print what there is."""
    from gpt3.corpus.shards import open_shards

    folder = open_shards(prepare(options))
    for name, split in folder.manifest.splits.items():
        print(f"{name}: {split.documents:,} documents, {split.text_bytes:,} bytes of text, {split.tokens:,} tokens")
    print(f"shards: {folder.path}\nnext: gpt3 train --data {folder.path}")
