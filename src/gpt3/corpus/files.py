"""Local files as a source: a file, a folder, a pattern; cut into parts that workers share."""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3.corpus import formats
from gpt3.corpus.documents import PART_BYTES, Part, Source
from gpt3.corpus.file_parts import File, FilePart, Piece, cut_file, describe_file, find_field, format_of
from gpt3.errors import InputError

KNOWN = ".txt .md .jsonl .ndjson .json .csv .tsv .parquet, all but .parquet also with .gz .xz .bz2 .zst"

SOURCES = "wiki, fineweb and hf:owner/name"


def open_files(spec: str, text_field: str | None = None, part_bytes: int = PART_BYTES) -> FileSource:
    """Open the files a path or a pattern names.

    Args:
        spec: a file, a folder or a pattern (``**`` for any folders); ``#FIELD`` behind it names the field of the text.
        text_field: the field of the text where `spec` names none.
        part_bytes: size of a part.

    Raises:
        InputError: nothing is there, nothing of a known format, nothing to read, or no telling which field is the text.
    """
    pattern, field = spec, text_field
    if "#" in spec and not os.path.lexists(Path(spec).expanduser()):
        pattern, field = spec.rsplit("#", 1)
    paths, skipped = find_files(pattern)
    if pattern != spec and any(format_of(path) in formats.WITHOUT_FIELDS for path in paths):
        raise InputError(f"{spec}: text files have no field {field!r}; leave out the '#{field}'")
    files = [describe_file(path) for path in paths]
    if not any(file.size for file in files):
        raise InputError(
            f"{pattern}: no text, the file is empty" if len(files) == 1 else f"{pattern}: all files are empty"
        )
    return FileSource(spec, tuple(files), skipped, field, part_bytes)


def find_files(pattern: str, sources: str = SOURCES) -> tuple[list[Path], int]:
    """The files a path or pattern names, sorted, each once; and how many in folders are of no known format.

    `sources`: what else could have been named, for the message where nothing is there.
    """
    path = Path(pattern).expanduser()
    if os.path.lexists(path):
        matches = [path]
    elif glob.has_magic(pattern):
        matches = [Path(match) for match in glob.glob(str(path), recursive=True)]  # noqa: PTH207  # absolute ones too
        if not matches:
            raise InputError(f"{pattern}: no file matches this pattern")
    else:
        raise InputError(f"{pattern}: no such file or folder (nor a source's name: those are {sources})")
    if matches == [path] and not path.is_dir():
        if format_of(path) is None:
            raise InputError(f"{pattern}: unknown kind of file {''.join(path.suffixes[-2:])!r}; known are {KNOWN}")
        return matches, 0
    found: set[Path] = set()
    for match in matches:
        found.update(walk(match) if match.is_dir() else [match])
    known = sorted(path for path in found if format_of(path) is not None)
    if not known:
        what = (
            "the folder is empty" if not found else f"none of {len(found)} files is of a known kind; known are {KNOWN}"
        )
        raise InputError(f"{pattern}: {what}")
    return known, len(found) - len(known)


def walk(folder: Path) -> Iterator[Path]:
    """All files under a folder, hidden ones (a dot first) left out, links followed."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot read the folder ({error.strerror})") from None

    seen = set()
    for root, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in files if not name.startswith("."))


@dataclass(frozen=True)
class FileSource(Source):
    """Local files in the order of their paths.

    Attributes:
        name: the path or pattern as it was given.
        files: what was found.
        skipped: files in the folder that are of no known format.
        field: the field of the text, None to find it.
        part_bytes: size of a part.
    """

    name: str
    files: tuple[File, ...]
    skipped: int
    field: str | None
    part_bytes: int

    def parts(self) -> list[Part]:
        """Large files in stretches; small ones together, up to a quarter of a part, so that workers still share them."""
        fields: dict[str, str | None] = {}  # one answer per format, from the first file that has a record
        parts: list[Part] = []
        group: list[Piece] = []
        size = 0
        for file in self.files:
            if not file.size:
                continue
            if fields.get(file.format) is None:
                fields[file.format] = self.field or find_field(file)
            for piece in cut_file(file, fields[file.format], self.part_bytes):
                if group and size + piece.size > self.part_bytes // 4:
                    parts.append(as_part(group))
                    group, size = [], 0
                group.append(piece)
                size += piece.size
        return [*parts, as_part(group)] if group else parts

    def fingerprint(self) -> str:
        """As `Source.fingerprint`."""
        digest = hashlib.sha256(repr(("files", 1, self.field, self.part_bytes)).encode())
        for file in self.files:
            digest.update(repr((file.path.absolute().as_posix(), file.size, file.changed)).encode())
        return digest.hexdigest()

    def size_bytes(self) -> int | None:
        """As `Source.size_bytes`."""
        return sum(int(file.size * file.ratio) for file in self.files)

    def describe(self) -> dict[str, Any]:
        """As `Source.describe`."""
        kinds = Counter(file.format.removeprefix(".") for file in self.files)
        return {
            "kind": "files",
            "spec": self.name,
            "files": len(self.files),
            "formats": dict(sorted(kinds.items())),
            "bytes_on_disk": sum(file.size for file in self.files),
            "skipped_files": self.skipped,
            "licence": None,
        }


def as_part(pieces: list[Piece]) -> FilePart:
    """Name and size of some pieces."""
    first = pieces[0]
    name = str(first.file.path)
    if first.stop is not None and (first.start or len(pieces) > 1 or first.file.format != ".parquet"):
        name += f"[{first.start}:{first.stop}]"
    if len(pieces) > 1:
        name += f" and {len(pieces) - 1} more"
    return FilePart(name, sum(piece.size for piece in pieces), tuple(pieces))
