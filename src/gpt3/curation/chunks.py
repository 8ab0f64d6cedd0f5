"""A corpus as it is worked on: every source's documents written once, in parquet files of bounded size, verdicts next to them.

A *chunk* is one such file, ``PART-NUMBER.parquet``, where the part is the source's (`gpt3.corpus.documents.Part`). Results of
stages about a chunk's documents are arrays with a row for each, in files of the same name in the stage's folder.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpt3.corpus.documents import Part, Source, not_blank
from gpt3.corpus.pool import Report
from gpt3.corpus.segments import document_key
from gpt3.corpus.skipped import Skipped, add, take
from gpt3.curation.stages import Engine, place
from gpt3.durable import replacing
from gpt3.progress import Progress

VERSION = 3
"""Counts changes in what a chunk holds."""
CHUNK_BYTES = 32 << 20
"""Text of a chunk, about: what a kill costs each worker at most, and what it holds in memory."""
GROUP_BYTES = 4 << 20
"""Text of a row group: what is decoded at a time."""
SUFFIX = ".parquet"
KEY = b"gpt3"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Chunk:
    """One file of documents."""

    path: Path
    source: int
    """Number of its source."""
    documents: int
    text_bytes: int
    last: bool
    """Whether its part ends with it."""
    skipped: Mapping[str, Skipped] = field(default_factory=dict)
    """What its part's reader left out, by reason."""

    @property
    def name(self) -> str:
        """``PART-NUMBER``."""
        return self.path.stem

    def texts(self) -> Iterator[list[str]]:
        """The documents, some at a time."""
        from gpt3.corpus.records import open_parquet

        with open_parquet(self.path) as table:
            for group in range(table.metadata.num_row_groups):
                yield table.read_row_group(group, columns=["text"]).column(0).to_pylist()

    def keys(self) -> Array:
        """(documents,) uint64: a hash of each text, see `gpt3.corpus.segments.document_key`."""
        return self._column("key")

    def sizes(self) -> Array:
        """(documents,) uint64: bytes of each text."""
        return self._column("bytes")

    def _column(self, name: str) -> Array:
        import pyarrow.parquet

        return np.asarray(pyarrow.parquet.read_table(self.path, columns=[name]).column(0).to_numpy())


def read_chunk(path: Path, source: int) -> Chunk:
    """A chunk by what its file's footer says."""
    import pyarrow.parquet

    known = json.loads(pyarrow.parquet.read_metadata(path).metadata[KEY])
    skipped = {reason: Skipped(*found) for reason, found in known["skipped"].items()}
    return Chunk(path, source, known["documents"], known["text_bytes"], known["last"], skipped)


class ChunkWriter:
    """Writes parts as chunks into a folder; what one process does. Chunks that are there are not written again.

    Args:
        folder: of the chunks.
        chunk_bytes: text of a chunk.
    """

    def __init__(self, folder: Path, chunk_bytes: int, report: Report) -> None:
        self.folder, self.chunk_bytes, self.report = folder, chunk_bytes, report

    def __call__(self, item: tuple[int, int, Part]) -> list[Chunk]:
        """All chunks of a part, given its source's number, its own through all sources, and itself."""
        source, number, part = item
        done: list[Chunk] = []
        while (path := self._path(number, len(done))).exists() and not (done and done[-1].last):
            done.append(read_chunk(path, source))
        if not (done and done[-1].last):
            take()  # of other readers
            texts = not_blank(part.read(sum(chunk.documents for chunk in done)))
            while not (done and done[-1].last):
                path = self._path(number, len(done))
                write_chunk(path, texts, self.chunk_bytes, self.report)
                done.append(read_chunk(path, source))
        return done

    def _path(self, part: int, number: int) -> Path:
        return self.folder / f"{part:06d}-{number:05d}{SUFFIX}"


def write_chunk(path: Path, texts: Iterator[str], chunk_bytes: int, report: Report) -> None:
    """Write the next texts as a chunk, until it is full or they end."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([("text", pyarrow.string()), ("key", pyarrow.uint64()), ("bytes", pyarrow.uint64())])
    documents = total = 0
    last = False
    with (
        replacing(path) as temporary,
        pyarrow.parquet.ParquetWriter(
            temporary, schema, compression="lz4", use_dictionary=False, write_statistics=False
        ) as writer,
    ):
        while total < chunk_bytes and not last:
            group: list[str] = []
            keys: list[bytes] = []
            sizes: list[int] = []
            size = 0
            while size < min(GROUP_BYTES, chunk_bytes):
                text = next(texts, None)
                if text is None:
                    last = True
                    break
                data = text.encode("utf-8")
                keys.append(document_key(data))
                group.append(text)
                sizes.append(len(data))
                size += len(data)
            if group:
                columns = {"text": group, "key": np.frombuffer(b"".join(keys), dtype="<u8"), "bytes": sizes}
                writer.write_table(pyarrow.table(columns, schema=schema))
            documents, total = documents + len(group), total + size
            report(size / 1e6)
        skipped = {reason: [found.count, found.places] for reason, found in take().items()}
        known = {"documents": documents, "text_bytes": total, "last": last, "skipped": skipped}
        writer.add_key_value_metadata({KEY: json.dumps(known).encode()})


def read_sources(
    work: Path, sources: Sequence[Source], engine: Engine, chunk_bytes: int = CHUNK_BYTES
) -> tuple[list[Chunk], str, list[dict[str, Skipped]]]:
    """The chunks of some sources, in order, written now as far as they are not.

    Returns:
        The chunks; a hash of the sources; of each source what its reader left out, by reason.

    Raises:
        InputError: a source cannot be read.
    """
    identity = {"version": VERSION, "bytes": chunk_bytes, "sources": [source.fingerprint() for source in sources]}
    folder = place(work, "documents", identity)
    numbered = [(index, part) for index, source in enumerate(sources) for part in source.parts()]
    items = [(index, number, part) for number, (index, part) in enumerate(numbered)]
    sizes = [source.size_bytes() for source in sources]
    total = None if None in sizes else sum(size or 0 for size in sizes) / 1e6
    with Progress("reading", total, "MB") as progress:
        found = engine.run(ChunkWriter, (folder, chunk_bytes), items, progress)
    skipped: list[dict[str, Skipped]] = [{} for _ in sources]
    for chunk in (chunk for part in found for chunk in part):
        add(skipped[chunk.source], chunk.skipped)
    return [chunk for part in found for chunk in part if chunk.documents], folder.name, skipped


def write_array(path: Path, array: Array) -> None:
    """A NumPy file, whole or not at all."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array)


def chosen_texts(chunk: Chunk, rows: Array) -> Iterator[str]:
    """The texts of some rows, rising."""
    start = 0
    for texts in chunk.texts():
        low, high = np.searchsorted(rows, [start, start + len(texts)])
        yield from (texts[row - start] for row in rows[low:high].tolist())
        start += len(texts)


def over_chunks(
    folder: Path, make: Callable[..., Any], arguments: tuple[Any, ...], chunks: Sequence[Chunk], suffixes: Iterable[str],
    engine: Engine, label: str,
) -> None:  # fmt: skip
    """Have ``make(folder, *arguments, report)(chunk)`` write the files of each chunk that are not there yet.

    Args:
        suffixes: of the files, whose names begin with the chunk's.
        label: what the progress is called.
    """
    missing = [c for c in chunks if not all((folder / f"{c.name}{suffix}").exists() for suffix in suffixes)]
    with Progress(label, sum(chunk.text_bytes for chunk in chunks) / 1e6, "MB") as progress:
        progress.update(progress.total - sum(chunk.text_bytes for chunk in missing) / 1e6)  # type: ignore[operator]
        if missing:
            engine.run(functools.partial(make, folder), arguments, missing, progress)


@dataclass(frozen=True)
class KeptPart(Part):
    """The documents of a chunk that are kept."""

    name: str
    size: int | None
    chunk: Chunk
    kept: Path
    """Of an array: (documents,) bool."""

    def documents(self) -> Iterator[str]:
        """Yield them in order."""
        rows = np.flatnonzero(np.load(self.kept))
        if len(rows):
            yield from chosen_texts(self.chunk, rows)


@dataclass(frozen=True)
class KeptSource(Source):
    """What a corpus keeps of a source."""

    name: str
    key: str
    """A hash of all that the kept documents depend on."""
    items: tuple[Part, ...]
    about: dict[str, Any]
    """What the manifest says."""

    def parts(self) -> list[Part]:
        """One for each chunk."""
        return list(self.items)

    def fingerprint(self) -> str:
        """The key."""
        return self.key

    def describe(self) -> dict[str, Any]:
        """The source's own description and what curated it."""
        return dict(self.about)
