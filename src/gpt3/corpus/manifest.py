"""The manifest of a shard folder: what its binary files hold, counted and hashed. Written last, read first."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3 import durable
from gpt3.errors import InputError

FILE_NAME = "manifest.json"
FORMAT = "gpt3-shards"
VERSION = 1
SPLITS = ("train", "validation")
COUNTS = ("tokens", "documents", "text_bytes")
"""What is counted of a shard, a split and a source."""
ITEM_BYTES = {"<u2": 2, "<u4": 4}
"""The two types of a token, as numpy spells them: little-endian, unsigned, 2 or 4 bytes."""


def token_dtype(vocab_size: int) -> str:
    """The smallest of the two types that holds every id: ``"<u2"`` up to 65,536 ids, ``"<u4"`` above."""
    return "<u2" if vocab_size <= 1 << 16 else "<u4"


@dataclass(frozen=True)
class Shard:
    """One token file and its index."""

    file: str
    """Name of the token file in the folder; the index has the same name, ending in ``.idx``."""
    tokens: int
    """Tokens in the file, end-of-text tokens included."""
    documents: int
    """Whole documents in the file: none is spread over two shards."""
    text_bytes: int
    """UTF-8 bytes of the documents' text; end-of-text counts 0."""
    max_token: int
    """The largest id in the file."""
    sha256: str
    """Of the token file."""
    index_sha256: str
    """Of the index."""

    @property
    def index(self) -> str:
        """Name of the index file."""
        return self.file.removesuffix(".bin") + ".idx"


@dataclass(frozen=True)
class Split:
    """The shards of one split, in order, and their sums."""

    tokens: int
    documents: int
    text_bytes: int
    shards: tuple[Shard, ...]

    @classmethod
    def of(cls, shards: list[Shard]) -> Split:
        """The split that these shards make."""
        tokens, documents, text_bytes = (sum(getattr(shard, name) for shard in shards) for name in COUNTS)
        return cls(tokens, documents, text_bytes, tuple(shards))


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``."""

    dtype: str
    """Type of a token in the shards: ``"<u2"`` or ``"<u4"``."""
    vocab_size: int
    """Ids run from 0 to this, exclusive."""
    end_of_text: int
    """The id that ends every document."""
    tokenizer_sha256: str
    """`gpt3.tokenizer.loading.tokenizer_hash` of the tokenizer in the folder."""
    validation_fraction: float
    """The requested share of validation documents."""
    validation_below: str
    """A document is validation when its key (64-bit BLAKE2b of its text, little-endian) is below this, in hexadecimal …"""
    splits: dict[str, Split]
    """``"train"`` and ``"validation"``."""
    sources: list[dict[str, Any]]
    """For each source, in order: name, kind, licence, documents dropped as empty, and counts by split."""
    preparation: dict[str, Any]
    """All that the bytes depend on: two folders with equal preparations hold equal bytes."""
    created_by: str
    """Program and version."""
    validation_from: str = "0" * 16
    """… and not below this: above 0 for the folds of a cross-validation. Older manifests have no such entry."""

    def write(self, folder: Path) -> None:
        """Write ``manifest.json`` into `folder`, durably: from then on the folder counts as finished."""
        content = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        durable.write_text(folder / FILE_NAME, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def is_shard_folder(name: str | Path) -> bool:
    """Whether `name` is a folder with a manifest; `read_manifest` checks it."""
    return (Path(name).expanduser() / FILE_NAME).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``manifest.json`` of a shard folder.

    Raises:
        InputError: no manifest there, not one of ours, another version, an unknown type of token, or numbers that contradict.
    """
    path = folder / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        make = f"gpt3 prepare --data … --out {folder}"
        raise InputError(f"{folder} is not a shard folder (it has no {FILE_NAME}); make one with: {make}") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); prepare the data again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f'{path} is not the manifest of a shard folder: "format" must be "{FORMAT}"')
    if content.get("version") != VERSION:
        raise InputError(
            f"{path} is of version {content.get('version')!r}, this program reads version {VERSION}; upgrade gpt3 or prepare "
            "the data again"
        )
    try:
        manifest = _from_json(content)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged (missing or wrong entry: {error}); prepare the data again") from None
    _check(manifest, path)
    return manifest


def _from_json(content: Mapping[str, Any]) -> Manifest:
    splits = {}
    for name in SPLITS:
        entry = content["splits"][name]
        splits[name] = Split(**{**entry, "shards": tuple(Shard(**shard) for shard in entry["shards"])})
    names = {field.name for field in dataclasses.fields(Manifest)} & content.keys()
    return Manifest(**{name: content[name] for name in names} | {"splits": splits})


def _check(manifest: Manifest, path: Path) -> None:
    dtype, vocab_size, end = manifest.dtype, manifest.vocab_size, manifest.end_of_text
    if dtype not in ITEM_BYTES:
        known = " or ".join(map(repr, ITEM_BYTES))
        raise InputError(f"{path}: tokens of type {dtype!r} cannot be read; shards are little-endian, {known}")
    if vocab_size > 1 << 8 * ITEM_BYTES[dtype]:
        raise InputError(f"{path}: a vocabulary of {vocab_size:,} ids does not fit tokens of type {dtype!r}")
    if not 0 <= end < vocab_size:
        raise InputError(f"{path}: end-of-text id {end} is outside the vocabulary of {vocab_size:,} ids")
    for name, split in manifest.splits.items():
        if split != Split.of(list(split.shards)):
            raise InputError(f"{path}: the sums of split {name!r} contradict its shards; prepare the data again")
