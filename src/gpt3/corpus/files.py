"""Local files as a source: a file, a folder, a pattern; cut into parts that workers share."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gpt3.corpus import formats, page_parser, records
from gpt3.corpus.documents import PART_BYTES, Part, Source, not_blank
from gpt3.corpus.formats import TEXT
from gpt3.corpus.records import KNOWN, PARQUET, RATIOS, explained, format_of, open_stream
from gpt3.corpus.slices import HOW
from gpt3.errors import InputError

SEARCH_BYTES = 1024 * 1024
"""How far after a text file's even cut a better place is looked for."""


# ---- which files


ADVICE = {
    "it holds token ids; give the text that they were made from": (".bin", ".idx", ".npy", ".npz", ".pt"),
    "save it as plain text, UTF-8": (".azw3", ".doc", ".mobi", ".odt", ".pages", ".rtf"),
}
"""What to do with files of other kinds that people give."""


def find_files(pattern: str, sources: Sequence[str] = ()) -> tuple[list[Path], list[Path]]:
    """The files a path or pattern names, sorted, each once; and those in folders that are of no known format.

    Args:
        sources: names that could have been given instead of files, for the error message.

    Raises:
        InputError: nothing is there, or nothing of a known format.
    """
    path = Path(pattern).expanduser()
    if os.path.lexists(path):
        matches = [path]
    elif glob.has_magic(pattern):
        matches = list(_below(path)) if "**" in path.parts else [Path(match) for match in glob.glob(str(path))]  # noqa: PTH207
        if not matches:
            raise InputError(f"{pattern}: no file matches this pattern")
    else:
        whole, at, _ = pattern.rpartition("@")
        if at and os.path.lexists(Path(whole).expanduser()):
            raise InputError(f"{pattern}: no such file or folder. For a slice of {whole} {HOW}")
        known = f", and no source has this name; known sources are {', '.join(sources)}" if sources else ""
        raise InputError(f"{pattern}: no such file or folder{known}")
    if matches == [path] and not path.is_dir():
        if format_of(path) is None:
            told = f"{advice([path])}; " * bool(advice([path]))
            raise InputError(
                f"{pattern}: unknown kind of file {''.join(path.suffixes[-2:])!r}; {told}known are {KNOWN}"
            )
        return matches, []
    found: set[Path] = set()
    for match in matches:
        found.update(_walk(match) if match.is_dir() else [match])
    readable = sorted(path for path in found if format_of(path) is not None)
    others = sorted(found.difference(readable))
    if not readable:
        told = f"{advice(others)}; " * bool(advice(others))
        what = f"none of {len(found)} files is of a known kind; {told}known are {KNOWN}"
        raise InputError(f"{pattern}: {what if found else 'the folder is empty'}")
    return readable, others


def advice(paths: Sequence[Path]) -> str:
    """What to do with the first of these files for which that is known; else an empty text."""
    for path in paths:
        for what, kinds in ADVICE.items():
            if path.suffix.lower() in kinds:
                return f"{path.name}: {what}"
    return ""


def _below(pattern: Path) -> Iterator[Path]:
    """The files that a pattern with ``**`` matches, or that are in a folder that it matches.

    glob's own ``**`` goes around and around where two links lead to a folder above.
    """
    fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    base, parts = Path(*fixed), pattern.parts[len(fixed) :]
    for path in _walk(base) if base.is_dir() else ():
        names = path.relative_to(base).parts
        if any(_fits(names[:count], parts) for count in range(1, len(names) + 1)):
            yield path


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether a path is of a pattern, part by part; ``**`` is any number of folders."""
    if not parts:
        return not names
    if parts[0] == "**":
        return any(_fits(names[count:], parts[1:]) for count in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatch(names[0], parts[0]) and _fits(names[1:], parts[1:])


def _walk(folder: Path) -> Iterator[Path]:
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
class File:
    """A file as it was found: path, bytes on disk, time of its last change (ns)."""

    path: Path
    size: int
    changed: int

    @property
    def format(self) -> str:
        """The suffix of its format, a known one."""
        return str(format_of(self.path))


# ---- stretches of files


@dataclass(frozen=True)
class Stretch:
    """A file or a stretch of one.

    Attributes:
        file: the file.
        field: the field or column of the text, if its format has fields.
        start: first byte of a plain file that is cut, first row group of parquet.
        stop: the byte or row group to stop before; None: the file's end.
        size: bytes of text, estimated for compressed files.
    """

    file: File
    field: str | None
    start: int
    stop: int | None
    size: int

    def documents(self) -> Iterator[str]:
        """Yield the texts in it."""
        plain = self.file.format in (PARQUET, *TEXT)  # each record is a text, or null
        with explained(self.file.path, 0 if self.file.format == PARQUET else self.start):
            found = records.read_records(self.file.path, self.field, self.start, self.stop)
            yield from not_blank((text for _, text in found) if plain else formats.texts(found, self.field))


@dataclass(frozen=True)
class FilePart(Part):
    """What one worker reads: a stretch of a large file, or several small files."""

    name: str
    size: int | None
    stretches: tuple[Stretch, ...]

    @classmethod
    def of(cls, stretches: list[Stretch]) -> FilePart:
        """Some stretches, named after the first."""
        first = stretches[0]
        name = str(first.file.path)
        if first.stop is not None and (first.start or len(stretches) > 1 or first.file.format != PARQUET):
            name += f"[{first.start}:{first.stop}]"
        if len(stretches) > 1:
            name += f" and {len(stretches) - 1} more"
        return cls(name, sum(stretch.size for stretch in stretches), tuple(stretches))

    def documents(self) -> Iterator[str]:
        """Yield the texts of all stretches."""
        for stretch in self.stretches:
            yield from stretch.documents()


def cut_file(file: File, field: str | None, part_bytes: int) -> Iterator[Stretch]:
    """Cut a file into stretches of at most about `part_bytes`; one that cannot be cut is one stretch."""
    if file.format == PARQUET:
        yield from _cut_parquet(file, field, part_bytes)
    elif file.path.suffix.lower() not in RATIOS and file.format in formats.BY_LINE and file.size > part_bytes:
        with explained(file.path):
            cuts = [0, *_find_cuts(file, part_bytes), file.size]
        for start, stop in itertools.pairwise(cuts):
            yield Stretch(file, field, start, stop, stop - start)
    else:
        yield Stretch(file, field, 0, None, int(file.size * RATIOS.get(file.path.suffix.lower(), 1.0)))


def _cut_parquet(file: File, field: str | None, part_bytes: int) -> Iterator[Stretch]:
    """Cut a parquet file into ranges of row groups."""
    with explained(file.path), records.open_parquet(file.path) as table:
        column = records.text_column(table, field)
        sizes = [size for _, size in records.row_groups(table, column)]
    start = size = 0
    for index, group in enumerate(sizes, 1):
        size += group
        if index == len(sizes) or (size and size + sizes[index] > part_bytes):
            yield Stretch(file, column, start, index, size)
            start, size = index, 0


def _find_cuts(file: File, part_bytes: int) -> list[int]:
    """Byte offsets, increasing, at which to cut a plain file: at ends of lines, in text files at the ends of documents."""
    count = -(-file.size // part_bytes)
    cuts: list[int] = []
    with open_stream(file.path) as stream:
        for even in (file.size * index // count for index in range(1, count)):
            if cuts and even <= cuts[-1]:  # within a long line that the last cut left whole
                continue
            stream.seek(even - 1)  # a line may end just there
            cut = even - 1 + (_to_text_cut(stream) if file.format in TEXT else len(stream.readline()))
            if cut < file.size:
                cuts.append(cut)
    return cuts


def _to_text_cut(stream: BinaryIO) -> int:
    """Bytes to where a text is best cut: after a separator line, a blank line, a line, a character, in this order.

    If the file ends within `SEARCH_BYTES` and has no separator there, it is not cut: the rest is only a little more.
    """
    data = stream.read(SEARCH_BYTES)
    marks = [b"\n" + formats.SEPARATOR + b"\n", b"\n" + formats.SEPARATOR + b"\r\n"]
    if len(data) == SEARCH_BYTES:
        marks += [b"\n\n", b"\n\r\n", b"\n"]
    for mark in marks:
        if (found := data.find(mark)) >= 0:
            return found + len(mark)
    cut = len(data) if len(data) < SEARCH_BYTES else 1
    while cut < len(data) and data[cut] & 0xC0 == 0x80:
        cut += 1
    return cut


# ---- the source


def split_field(spec: str) -> tuple[str, str | None]:
    """A path or pattern without its ``#FIELD``, and the field; None where it has none. A path that really ends so is a path."""
    if "#" not in spec or os.path.lexists(Path(spec).expanduser()):
        return spec, None
    pattern, _, field = spec.rpartition("#")
    return pattern, field


def open_files(spec: str, part_bytes: int = PART_BYTES, sources: Sequence[str] = ()) -> FileSource:
    """Open the files a path or a pattern names.

    Args:
        spec: a file, a folder or a pattern (``**`` for any folders); ``#FIELD`` after it names the field of the text.
        part_bytes: size of a part.
        sources: see `find_files`.

    Raises:
        InputError: nothing is there, nothing of a known format, nothing to read, or no telling which field is the text.
    """
    pattern, field = split_field(spec)
    paths, skipped = find_files(pattern, sources)
    if pattern != spec and any(format_of(path) in TEXT for path in paths):
        raise InputError(f"{spec}: text files have no field {field!r}; leave out the '#{field}'")
    files = []
    for path in paths:
        with explained(path):
            stat = path.stat()
        files.append(File(path, stat.st_size, stat.st_mtime_ns))
    if not any(file.size for file in files):
        what = "no text, the file is empty" if len(files) == 1 else "all files are empty"
        raise InputError(f"{pattern}: {what}")
    return FileSource(spec, tuple(files), tuple(skipped), field, part_bytes)


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
    skipped: tuple[Path, ...]
    field: str | None
    part_bytes: int

    def parts(self) -> list[Part]:
        """Large files in stretches; small ones together, up to a quarter of a part, so that workers still share them."""
        fields: dict[str, str | None] = {}  # one answer per format, from the first file that has a record
        parts: list[Part] = []
        group: list[Stretch] = []
        size = 0
        for file in self.files:
            if not file.size:
                continue
            if fields.get(file.format) is None:
                fields[file.format] = self.field or _find_field(file)
            for stretch in cut_file(file, fields[file.format], self.part_bytes):
                if group and size + stretch.size > self.part_bytes // 4:
                    parts.append(FilePart.of(group))
                    group, size = [], 0
                group.append(stretch)
                size += stretch.size
        return [*parts, FilePart.of(group)] if group else parts

    def fingerprint(self) -> str:
        """Of paths, sizes and times."""
        digest = hashlib.sha256(repr(("files", 1, self.field, self.part_bytes)).encode())
        for file in self.files:
            digest.update(repr((file.path.absolute().as_posix(), file.size, file.changed)).encode())
            if file.format in formats.PAGES:
                digest.update(repr(("pages", page_parser.VERSION)).encode())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Counts of files, formats and bytes."""
        kinds = Counter(file.format.removeprefix(".") for file in self.files)
        return {
            "kind": "files",
            "spec": self.name,
            "files": len(self.files),
            "formats": dict(sorted(kinds.items())),
            "bytes_on_disk": sum(file.size for file in self.files),
            "skipped_files": len(self.skipped),
            "licence": None,
        }


def _find_field(file: File) -> str | None:
    """The field of a file's text, from its first record."""
    if file.format not in formats.READERS:
        return None
    with explained(file.path):
        return formats.find_field(records.read_records(file.path))
