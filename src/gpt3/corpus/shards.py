"""Token shards on disk: the writer that makes them and the folder that reads them through memory maps.

A shard folder holds, for each split, ``train-00000.bin``, ``train-00001.bin`` …: token ids one after the other,
little-endian uint16 (uint32 above 65,536 ids), every document followed by end-of-text. Each has an index,
``train-00000.idx``: little-endian uint64, the end of every document in tokens from the shard's start. ``tokenizer/``
is the tokenizer that made the ids, ``manifest.json`` counts and hashes it all.
"""

from __future__ import annotations

import bisect
import copy
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from gpt3 import durable
from gpt3.corpus.documents import Part, Source
from gpt3.corpus.manifest import ITEM_BYTES, SPLITS, Manifest, Shard, read_manifest
from gpt3.corpus.mixture import WindowOrder
from gpt3.errors import InputError
from gpt3.tokenizer.loading import load_tokenizer, tokenizer_hash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from gpt3.corpus.blocks import BlockOrder

INDEX_DTYPE = "<u8"
TOKENIZER_FOLDER = "tokenizer"
SCAN_TOKENS = 1 << 24
"""Tokens checked at a time: bounds the memory."""
BATCH_TOKENS = 1 << 18
"""Tokens decoded at a time."""


def shard_name(split: str, number: int) -> str:
    """``train-00000.bin``, ``train-00001.bin``, …"""
    return f"{split}-{number:05d}.bin"


class ShardWriter:
    """Writes one shard, hashing and counting as it goes. Nothing shows under the final names before `close`.

    Args:
        folder: where the two files go.
        name: name of the token file.
        dtype: ``"<u2"`` or ``"<u4"``.
    """

    def __init__(self, folder: Path, name: str, dtype: str) -> None:
        self.folder, self.name, self.dtype = folder, name, np.dtype(dtype)
        self.tokens = self.documents = self.text_bytes = 0
        self._max = 0
        self._ends: list[np.ndarray] = []
        self._sha256 = hashlib.sha256()
        self._temporary = folder / (name + durable.TEMPORARY_SUFFIX)
        self._file: BinaryIO = open(self._temporary, "wb")  # noqa: SIM115 (`close` closes it)

    def append(self, tokens: np.ndarray, lengths: np.ndarray, text_bytes: int) -> None:
        """Add whole documents.

        Args:
            tokens: ids of the documents one after the other, end-of-text included; any integer type.
            lengths: (documents,) tokens of each, end-of-text included; they sum to ``len(tokens)``.
            text_bytes: UTF-8 bytes of the documents' text.
        """
        data = np.ascontiguousarray(tokens, dtype=self.dtype)
        self._file.write(data.data)
        self._sha256.update(data.data)
        self._max = max(self._max, int(data.max()))
        self._ends.append(self.tokens + np.cumsum(lengths, dtype=np.uint64))
        self.tokens += len(data)
        self.documents += len(lengths)
        self.text_bytes += text_bytes

    def abandon(self) -> None:
        """Leave nothing of it."""
        self._file.close()
        durable.discard(self._temporary)

    def close(self) -> Shard:
        """Flush both files to the disk and give them their names."""
        index = np.concatenate(self._ends).astype(INDEX_DTYPE).tobytes()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self.folder / self.name)
        shard = Shard(
            file=self.name,
            tokens=self.tokens,
            documents=self.documents,
            text_bytes=self.text_bytes,
            max_token=self._max,
            sha256=self._sha256.hexdigest(),
            index_sha256=hashlib.sha256(index).hexdigest(),
        )
        durable.write_bytes(self.folder / shard.index, index)
        return shard


class TokenSplit:
    """The tokens of one split as one long sequence, whatever the number of shards. Cheap to pickle, safe to fork."""

    def __init__(self, folder: Path, name: str, shards: Iterable[Shard], manifest: Manifest) -> None:
        self.name, self.dtype = name, manifest.dtype
        self.vocab_size, self.end_of_text = manifest.vocab_size, manifest.end_of_text
        self._set_shards([(folder, shard) for shard in shards])

    @classmethod
    def joined(cls, splits: Sequence[TokenSplit]) -> TokenSplit:
        """Splits of one tokenizer, one after another, as one: the held-out text of a mixture."""
        whole = copy.copy(splits[0])
        whole._set_shards([shard for split in splits for shard in split.shards])
        return whole

    def _set_shards(self, shards: list[tuple[Path, Shard]]) -> None:
        self.shards = shards
        self.documents = sum(shard.documents for _, shard in shards)
        self.text_bytes = sum(shard.text_bytes for _, shard in shards)
        self.starts = np.cumsum([0] + [shard.tokens for _, shard in shards])  # (shards + 1,)
        self._maps: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        """Tokens, end-of-text included."""
        return int(self.starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # a pickled memory map would carry the whole file's content

    def read(self, start: int, stop: int) -> np.ndarray:
        """The tokens from `start` to `stop` (exclusive), across shards.

        Returns:
            (stop - start,) int64.

        Raises:
            IndexError: outside the split.
            InputError: an id outside the vocabulary, named with its shard and position.
        """
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"tokens {start}:{stop} of split {self.name!r}, which has {len(self)}")
        pieces = [np.zeros(0, dtype=np.int64)]
        shard = int(np.searchsorted(self.starts, start, side="right")) - 1
        while start < stop:
            first, end = int(self.starts[shard]), min(stop, int(self.starts[shard + 1]))
            piece = self._map(shard)[start - first : end - first]
            if int(piece.max()) >= self.vocab_size:  # an embedding given such an id fails far from here, and unreadably
                self.check_vocabulary(shard)
            pieces.append(piece)
            start, shard = end, shard + 1
        return np.concatenate(pieces)

    def document_ends(self) -> np.ndarray:
        """Where every document ends, in tokens from the split's start, end-of-text included: (documents,) int64, rising."""
        ends = [np.zeros(0, np.int64)]
        for (folder, shard), start in zip(self.shards, self.starts[:-1], strict=True):
            ends.append(np.fromfile(folder / shard.index, dtype=INDEX_DTYPE).astype(np.int64) + start)
        return np.concatenate(ends)

    def check_vocabulary(self, shard: int) -> None:
        """Look at every token of a shard.

        Raises:
            InputError: naming the shard and the position of the first id outside the vocabulary.
        """
        tokens = self._map(shard)
        folder, entry = self.shards[shard]
        for start in range(0, len(tokens), SCAN_TOKENS):
            wrong = np.flatnonzero(tokens[start : start + SCAN_TOKENS] >= self.vocab_size)
            if len(wrong):
                position = start + int(wrong[0])
                raise InputError(
                    f"{folder / entry.file}: token {int(tokens[position])} at position {position:,} is "
                    f"outside the vocabulary of {self.vocab_size:,} ids; prepare the data again"
                )

    def _map(self, shard: int) -> np.ndarray:
        if shard not in self._maps:
            folder, entry = self.shards[shard]
            self._maps[shard] = np.memmap(folder / entry.file, dtype=self.dtype, mode="r", shape=(entry.tokens,))
        return self._maps[shard]


@dataclass(frozen=True)
class ShardPart(Part):
    """The documents of one shard, read back as text."""

    name: str
    size: int | None
    folder: Path
    split: TokenSplit
    """With this shard alone."""

    def documents(self) -> Iterator[str]:
        """Yield the documents' texts, decoded.

        Raises:
            InputError: the tokenizer does not give back the bytes that it was made from.
        """
        backend = load_tokenizer(self.folder / TOKENIZER_FOLDER).backend_tokenizer
        ends = [0, *self.split.document_ends().tolist()]
        text_bytes = first = 0
        while first < self.split.documents:
            last = max(first + 1, bisect.bisect_right(ends, ends[first] + BATCH_TOKENS) - 1)
            tokens = self.split.read(ends[first], ends[last]).tolist()
            cuts = itertools.pairwise(end - ends[first] for end in ends[first : last + 1])
            texts = backend.decode_batch([tokens[start : end - 1] for start, end in cuts], skip_special_tokens=False)
            text_bytes += sum(len(text.encode("utf-8")) for text in texts)
            yield from texts
            first = last
        if text_bytes != self.split.text_bytes:
            raise InputError(
                f"{self.folder}: its tokenizer does not give the text back byte for byte ({Path(self.name).name}: "
                f"{text_bytes:,} bytes, {self.split.text_bytes:,} went in); prepare from the original text"
            )


class ShardFolder(Source):
    """An opened shard folder; see `open_shards`. As a source it is both splits, shard by shard, read back as text.

    Attributes:
        ended: whether all of it is here; False while `gpt3.corpus.blocks` prepares more.
        stop: asked while a window waits for data that is being prepared; True raises KeyboardInterrupt.
    """

    ended = True
    stop: Callable[[], bool] = staticmethod(lambda: False)

    def __init__(self, name: str, manifest: Manifest) -> None:
        self.name, self.manifest = name, manifest
        self.path = Path(name).expanduser()
        self.vocab_size = manifest.vocab_size
        self.end_of_text = manifest.end_of_text

    def split(self, name: str) -> TokenSplit:
        """``"train"`` or ``"validation"``; the latter may be empty."""
        if name not in SPLITS:
            raise InputError(f"no split {name!r} in {self.path}; there are {', '.join(SPLITS)}")
        return TokenSplit(self.path, name, self.manifest.splits[name].shards, self.manifest)

    @property
    def known_tokens(self) -> int | None:
        """Training tokens; None where data is prepared while training, even if that has been done: nothing may depend on when."""
        return len(self.split("train"))

    def order(self, context: int, seed: int) -> WindowOrder | BlockOrder:
        """The order of the training windows.

        Raises:
            InputError: fewer tokens than a window has.
        """
        return WindowOrder(self.split("train"), context, seed)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Name, training tokens and documents: of the source `name` of a mixture, or ("") of each source here, with licence.

        Of a source that `gpt3 corpus` made also its funnel: documents, kept ones, those dropped by reason.
        """
        if name:
            split, (first, *more) = self.split("train"), self.manifest.sources
            row = {"name": name, "tokens": len(split), "documents": split.documents}
            return [row if more else row | _funnel(first)]
        return [
            {"name": str(source["name"]), **{key: source["splits"]["train"][key] for key in ("tokens", "documents")}}
            | {"licence": source.get("licence")}
            | _funnel(source)
            for source in self.manifest.sources
        ]

    def close(self) -> None:
        """End what prepares it."""

    def parts(self, splits: Sequence[str] = SPLITS) -> list[Part]:
        """A part for each shard of the splits."""
        parts: list[Part] = []
        for split in splits:
            for shard in self.manifest.splits[split].shards:
                alone = TokenSplit(self.path, split, [shard], self.manifest)
                parts.append(ShardPart(str(self.path / shard.file), shard.text_bytes, self.path, alone))
        return parts

    def fingerprint(self) -> str:
        """Of the shards' hashes and the tokenizer's, wherever the folder is."""
        digest = hashlib.sha256(self.manifest.tokenizer_sha256.encode())
        for split in SPLITS:
            for shard in self.manifest.splits[split].shards:
                digest.update(f"{split} {shard.sha256} {shard.index_sha256}".encode())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """The folder and what it says of its own sources."""
        return {"kind": "shards", "spec": self.name, "sources": self.manifest.sources}

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer saved with the shards.

        Raises:
            InputError: it is missing, or not the one that made the shards.
        """
        place = str(self.path / TOKENIZER_FOLDER)
        tokenizer = load_tokenizer(place)
        self.check_tokenizer(tokenizer, place)
        return tokenizer

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerFast, name: str) -> None:
        """Refuse a tokenizer that would read these ids as other text.

        Args:
            name: what to call it in the message, e.g. its path.

        Raises:
            InputError: its hash is not the manifest's.
        """
        found = tokenizer_hash(tokenizer)
        if found != self.manifest.tokenizer_sha256:
            raise InputError(
                f"{name} ({len(tokenizer):,} ids, hash {found[:12]}) is not the tokenizer that made the shards in "
                f"{self.path} ({self.vocab_size:,} ids, hash {self.manifest.tokenizer_sha256[:12]}); "
                "prepare the data with the same tokenizer"
            )


def open_shards(path: Path | str, *, verify: bool = False) -> ShardFolder:
    """Open a shard folder, checking what can be checked without reading it through.

    Args:
        path: the folder that `gpt3 prepare` made.
        verify: also read every byte: sha256 of each file, every id within the vocabulary.

    Raises:
        InputError: not a shard folder; a file missing, cut short or damaged; an id outside the vocabulary.
    """
    folder = ShardFolder(str(path), read_manifest(Path(path).expanduser()))
    item_bytes, index_bytes = ITEM_BYTES[folder.manifest.dtype], np.dtype(INDEX_DTYPE).itemsize
    for name in SPLITS:
        split = folder.split(name)
        for number, (_, shard) in enumerate(split.shards):
            tokens = (shard.file, shard.tokens * item_bytes, shard.sha256)
            index = (shard.index, shard.documents * index_bytes, shard.index_sha256)
            for file, size, sha256 in (tokens, index):
                _check_size(folder.path / file, size)
                if verify and durable.sha256_of(folder.path / file) != sha256:
                    damage = "is damaged: its sha256 is not the manifest's; prepare the data again"
                    raise InputError(f"{folder.path / file} {damage}")
            if verify or shard.max_token >= folder.vocab_size:
                split.check_vocabulary(number)  # finds the position
    return folder


def documents(split: TokenSplit) -> Iterator[np.ndarray]:
    """The documents of a split in order: int64 ids without their end-of-text."""
    start = 0
    for end in split.document_ends().tolist():
        yield split.read(start, end - 1)
        start = end


def _check_size(path: Path, expected: int) -> None:
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        remedy = "copy the folder whole or prepare the data again"
        raise InputError(f"{path} is missing, though the manifest lists it; {remedy}") from None
    if found != expected:
        state = f"{'cut short' if found < expected else 'too long'}: {found:,} bytes, the manifest says {expected:,}"
        raise InputError(f"{path} is {state}; copy it again or prepare the data again")


def _funnel(source: Mapping[str, Any]) -> dict[str, Any]:
    return {"funnel": source["funnel"]} if "funnel" in source else {}
