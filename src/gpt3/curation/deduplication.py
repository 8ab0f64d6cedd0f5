"""Near-duplicates of a corpus on disk: signatures of every chunk, clusters, verdicts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt3.corpus.documents import Source
from gpt3.corpus.pool import Report
from gpt3.curation.chunks import Chunk, KeptPart, KeptSource, chosen_texts, over_chunks, read_sources, write_array
from gpt3.curation.documents import Documents, Judgment
from gpt3.curation.near_duplicates import Duplicates, NearDuplicateOptions
from gpt3.curation.stages import Engine, digest, place
from gpt3.durable import TEMPORARY_SUFFIX, discard, replacing, write_text
from gpt3.progress import Progress, say
from gpt3.work_folder import locked

VERSION = 1
"""Counts changes in which documents are dropped."""
MEMORY = 1 << 28
"""Bytes for sorting keys and for the documents of some clusters."""
SIGNATURES, KEYS, ROWS, SETS, PLACES = ".signatures.npy", ".keys.npy", ".rows.npy", ".sets.npy", ".places.npy"
WITNESSES, SIMILARITIES, SIZES, COMPLETE = "witnesses.npy", "similarities.npy", "sizes.npy", "left_out"

DUPLICATES = "duplicates.parquet"
REASON = "near-duplicate"

Array = np.ndarray[Any, Any]


class SignatureWriter:
    """Writes signatures and keys of chunks; what one process does."""

    def __init__(self, folder: Path, options: NearDuplicateOptions, report: Report) -> None:
        self.folder, self.options, self.report = folder, options, report

    def __call__(self, chunk: Chunk) -> None:
        """Both files of a chunk."""
        rows = [np.zeros((0, self.options.hashes), dtype=np.uint32)]
        for texts in chunk.texts():
            rows.append(self.options.signatures(texts))
            self.report(chunk.text_bytes * len(texts) / chunk.documents / 1e6)
        signatures = np.concatenate(rows)
        write_array(self.folder / f"{chunk.name}{SIGNATURES}", signatures)
        group = 0 if self.options.across else chunk.source
        write_array(self.folder / f"{chunk.name}{KEYS}", self.options.keys(signatures, group))


class SetWriter:
    """Writes the shingles of chosen documents of chunks, whose rows are in a file for each; what one process does."""

    def __init__(self, folder: Path, size: int, report: Report) -> None:
        self.folder, self.size, self.report = folder, size, report

    def __call__(self, chunk: Chunk) -> None:
        """The shingles, and where each document's begin; documents that are not chosen have none."""
        from gpt3.curation.shingles import shingle_sets

        rows = np.load(self.folder / f"{chunk.name}{ROWS}")
        sets = [shingle_sets([text], self.size)[0] for text in chosen_texts(chunk, rows)]
        lengths = np.zeros(chunk.documents, dtype=np.int64)
        lengths[rows] = [len(each) for each in sets]
        write_array(self.folder / f"{chunk.name}{SETS}", np.concatenate([np.zeros(0, dtype=np.uint64), *sets]))
        write_array(self.folder / f"{chunk.name}{PLACES}", np.concatenate([[0], np.cumsum(lengths)]))
        self.report(chunk.text_bytes / 1e6)


def judge(documents: Documents, options: NearDuplicateOptions) -> Judgment:
    """Drop near-duplicates, and write which they are."""
    chunks = documents.chunks
    inputs = digest({"inputs": documents.inputs, "owners": [chunk.source for chunk in chunks]})
    if options.rule == "paper":
        say(
            "near_duplicates: the paper's rule compares every two documents with a word's hash in common, up to a bound"
        )
    found = find_duplicates(
        documents.work, chunks, inputs, options, documents.engine, documents.by_chunk(documents.kept), documents.key,
        documents.memory,
    )  # fmt: skip
    say_left_out(found)
    write_duplicates(documents, found)
    edges = [2, 3, 5, 10, 100, 1000, 10_000]
    report = {
        "clusters": len(found.sizes),
        "largest_cluster": int(found.sizes.max(initial=0)),
        "cluster_sizes": {f"{edge} or more": int((found.sizes >= edge).sum()) for edge in edges},
        "comparisons_left_out": found.left_out,
    }
    return Judgment({REASON: found.dropped}, found.key, report)


def say_left_out(found: Duplicates) -> None:
    """Say how much was not compared."""
    if found.left_out:
        say(
            f"near-duplicates: {found.left_out:,} comparisons left out in huge clusters; some near-duplicates may remain"
        )


def write_duplicates(documents: Documents, found: Duplicates) -> None:
    """Write duplicates.parquet: each dropped document, the kept one, their similarity."""
    import pyarrow
    import pyarrow.parquet

    names = np.array([source.name for source in documents.sources])
    (dropped,) = np.nonzero(found.dropped)
    kept = found.witnesses[dropped]
    table = pyarrow.table(
        {
            "dropped_source": names[documents.owners[dropped]], "dropped_document": documents.places[dropped],
            "kept_source": names[documents.owners[kept]], "kept_document": documents.places[kept],
            "similarity": found.similarities[dropped],
        }
    )  # fmt: skip
    with replacing(documents.out / DUPLICATES) as temporary:
        pyarrow.parquet.write_table(table, temporary)


def find_duplicates(
    work: Path,
    chunks: Sequence[Chunk],
    inputs: str,
    options: NearDuplicateOptions,
    engine: Engine,
    alive: Sequence[Array] | None = None,
    alive_key: str = "",
    memory: int = MEMORY,
) -> Duplicates:
    """The near-duplicates among the documents of `chunks`, in their order.

    Args:
        work: folder of the stages.
        inputs: a hash of the documents.
        options: what a near-duplicate is.
        engine: shares the work.
        alive: (documents,) bool for each chunk: those that take part; None: all.
        alive_key: a hash of what `alive` depends on.
        memory: bytes, about, that the work takes in one process.
    """
    from gpt3.curation import clusters

    identity = {"version": VERSION, "inputs": inputs, **options.shape(), "across": options.across}
    folder = place(work, "signatures", identity)
    over_chunks(folder, SignatureWriter, (options,), chunks, (SIGNATURES, KEYS), engine, "signatures")
    identity |= {
        "at_least": options.at_least,
        "verify": options.verify,
        "alive": alive_key,
        "most": clusters.MOST_COMPARED,
    }
    out = place(work, "near_duplicates", identity)
    if not (out / COMPLETE).exists():
        loaded = [
            [np.load(folder / f"{c.name}{suffix}", mmap_mode="r") for c in chunks] for suffix in (KEYS, SIGNATURES)
        ]
        masks: Sequence[Array | None] = alive or [None] * len(chunks)
        blocks = [clusters.Block(*each) for each in zip(*loaded, masks, strict=True)]
        parents = clusters.parents_file(out, sum(chunk.documents for chunk in chunks))
        with Progress("clusters", None):
            clusters.join_buckets(blocks, parents, memory)
        shingles = None
        if options.verify == "exact":
            sets = place(work, "shingles", identity)
            counts = np.bincount(parents, minlength=len(parents))
            needed, start = [], 0
            for chunk in chunks:
                rows = np.flatnonzero(counts[parents[start : start + chunk.documents]] > 1)
                start += chunk.documents
                if len(rows):
                    write_array(sets / f"{chunk.name}{ROWS}", rows)
                    needed.append(chunk)
            over_chunks(sets, SetWriter, (options.shingle,), needed, (SETS, PLACES), engine, "shingles")
            shingles = functools.partial(gather_sets, sets, chunks)
        found = clusters.judge(blocks, parents, options.at_least, memory, shingles)
        for name, array in ((WITNESSES, found.witnesses), (SIMILARITIES, found.similarities), (SIZES, found.sizes)):
            write_array(out / name, array)
        del parents
        discard(out / "parents")
        write_text(out / COMPLETE, str(found.left_out))
    witnesses, similarities, sizes = (np.load(out / name) for name in (WITNESSES, SIMILARITIES, SIZES))
    left_out = int((out / COMPLETE).read_text(encoding="utf-8"))
    return Duplicates(witnesses, similarities, sizes, left_out, out.name)


def gather_sets(folder: Path, chunks: Sequence[Chunk], members: Array) -> tuple[Array, Array]:
    """The shingles of some documents, as `gpt3.curation.clusters.judge` wants them."""
    ends = np.cumsum([chunk.documents for chunk in chunks])
    owners = np.searchsorted(ends, members, side="right")
    found: list[Array] = [np.zeros(0, dtype=np.uint64)] * len(members)
    for number in np.unique(owners).tolist():
        chunk = chunks[number]
        sets, places = (np.load(folder / f"{chunk.name}{suffix}", mmap_mode="r") for suffix in (SETS, PLACES))
        for index in np.flatnonzero(owners == number).tolist():
            row = members[index] - (ends[number] - chunk.documents)
            found[index] = np.asarray(sets[places[row] : places[row + 1]])
    lengths = np.array([len(each) for each in found], dtype=np.int64)
    return np.concatenate(found), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def without_near_duplicates(
    sources: Sequence[Source], cache: Path, options: NearDuplicateOptions, workers: int
) -> list[Source]:
    """The sources without the near-duplicates in all of them, in their order; the first use reads and compares everything.

    Args:
        cache: a folder for the documents and what is found out about them.

    Raises:
        InputError: a source cannot be read.
    """
    key = digest({"sources": [source.fingerprint() for source in sources]})
    work, engine = cache / key, Engine(workers)
    with locked(cache / f"{key}.lock", "another process looks for near-duplicates here; waiting for it", wait=True):
        for left in work.rglob(f"*{TEMPORARY_SUFFIX}"):  # of a killed process
            discard(left)
        chunks, inputs, _ = read_sources(work, sources, engine)
        found = find_duplicates(work, chunks, inputs, options, engine)
        kept = write_kept(work, chunks, ~found.dropped, found.key)
    dropped = int(found.dropped.sum())
    say(f"near-duplicates: {dropped:,} of {len(found.witnesses):,} documents dropped")
    say_left_out(found)
    made: list[Source] = []
    for number, source in enumerate(sources):
        mine = [part for chunk, part in zip(chunks, kept, strict=True) if chunk.source == number]
        count = sum(int(np.load(part.kept).sum()) for part in mine)
        about = source.describe() | {"near_duplicates": options.shape() | {"at_least": options.at_least}, "kept": count}
        made.append(KeptSource(source.name, f"{found.key}-{number}", tuple(mine), about))
    return made


def write_kept(work: Path, chunks: Sequence[Chunk], kept: Array, key: str) -> list[KeptPart]:
    """Parts of the documents that are kept.

    Args:
        kept: (documents,) bool through all chunks.
        key: a hash of what it depends on.
    """
    folder = place(work, "kept", {"key": key})
    parts, start = [], 0
    for chunk in chunks:
        path = folder / f"{chunk.name}.npy"
        mask = kept[start : start + chunk.documents]
        start += chunk.documents
        if not path.exists():
            write_array(path, mask)
        size = int(chunk.text_bytes * mask.mean()) if chunk.documents else 0
        parts.append(KeptPart(chunk.name, size, chunk, path))
    return parts
