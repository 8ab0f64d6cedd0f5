"""A shard folder read back as text, so that its documents can be prepared anew: split otherwise, or for another tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt3.corpus.documents import Part, Source
from gpt3.corpus.manifest import FILE_NAME, SPLITS, Manifest, Split
from gpt3.corpus.shards import TOKENIZER_FOLDER, TokenSplit, documents, open_shards
from gpt3.errors import InputError

BATCH_TOKENS = 1 << 18


def is_shard_folder(name: str | Path) -> bool:
    """Whether a manifest lies there; whether it is a good one, reading it says."""
    return (Path(name).expanduser() / FILE_NAME).is_file()


def open_shard_source(name: str) -> ShardSource:
    """The documents of the shard folder `name`.

    Raises:
        InputError: it is damaged, see `gpt3.corpus.shards.open_shards`.
    """
    folder = open_shards(Path(name).expanduser())
    folder.tokenizer()
    return ShardSource(name, folder.path, folder.manifest)


@dataclass(frozen=True)
class ShardPart(Part):
    """The documents of one shard."""

    name: str
    size: int | None
    folder: Path
    split: str
    number: int
    manifest: Manifest

    def documents(self) -> Iterator[str]:
        """Yield the documents' texts, decoded.

        Raises:
            InputError: the tokenizer does not give back the bytes that it was made from.
        """
        from gpt3.tokenizer.loading import load_tokenizer

        shard = self.manifest.splits[self.split].shards[self.number]
        backend = load_tokenizer(self.folder / TOKENIZER_FOLDER).backend_tokenizer
        text_bytes = 0
        for batch in batches(TokenSplit(self.folder, self.split, Split.of([shard]), self.manifest)):
            texts = backend.decode_batch([ids.tolist() for ids in batch], skip_special_tokens=False)
            text_bytes += sum(len(text.encode("utf-8")) for text in texts)
            yield from texts
        if text_bytes != shard.text_bytes:
            raise InputError(
                f"{self.folder}: its tokenizer does not give the text back byte for byte ({shard.file}: "
                f"{text_bytes:,} bytes, {shard.text_bytes:,} went in); prepare from the original text"
            )


def batches(split: TokenSplit) -> Iterator[list[np.ndarray]]:
    """The documents of a split, about `BATCH_TOKENS` at a time."""
    batch: list[np.ndarray] = []
    size = 0
    for ids in documents(split):
        batch.append(ids)
        size += len(ids)
        if size >= BATCH_TOKENS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@dataclass(frozen=True)
class ShardSource(Source):
    """A shard folder, both splits; the order is that of the shards."""

    name: str
    folder: Path
    manifest: Manifest

    def parts(self) -> list[Part]:
        """A part a shard."""
        return [
            ShardPart(str(self.folder / shard.file), shard.text_bytes, self.folder, split, number, self.manifest)
            for split in SPLITS
            for number, shard in enumerate(self.manifest.splits[split].shards)
        ]

    def fingerprint(self) -> str:
        """Of the shards' hashes and the tokenizer's; where the folder lies does not matter."""
        digest = hashlib.sha256(self.manifest.tokenizer_sha256.encode())
        for split in SPLITS:
            for shard in self.manifest.splits[split].shards:
                digest.update(f"{split} {shard.sha256} {shard.index_sha256}".encode())
        return digest.hexdigest()

    def size_bytes(self) -> int | None:
        """Exactly."""
        return sum(split.text_bytes for split in self.manifest.splits.values())

    def describe(self) -> dict[str, Any]:
        """The folder and what it says of its own sources."""
        return {"kind": "shards", "spec": self.name, "sources": self.manifest.sources}
