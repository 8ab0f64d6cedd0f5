"""Documents that share a band of their signatures, joined on disk, and the rule of near-duplicates inside each cluster.

Keys of bands are sorted a range at a time, so that memory does not grow with the corpus; documents with equal keys are joined
(union-find in a mapped file). No document of one cluster has a candidate in another, so the sequential rule over all documents
is the sequential rule in each cluster: documents in order, each compared with the *kept* ones before it that share a band with
it; if one of them is similar enough it is dropped, and the earliest such one is its witness.
"""

# numba compiles the functions marked so: types are in the docstrings, and loops are plain loops.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc"
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from gpt3.corpus.ngram_kernels import mix
from gpt3.curation.near_duplicates import KEPT, Duplicates

Array = np.ndarray[Any, Any]

MOST_COMPARED = 1000
"""Kept documents of one band's bucket with which a document is compared, the earliest ones. Reached only in huge clusters."""
FEWEST_TABLE = 1 << 10
BYTES_PER_KEY = 64
"""Memory for sorting one key."""
BYTES_PER_MEMBER = 1024
"""Memory for one document of a cluster: signature, keys, the lists of its buckets."""


@dataclass(frozen=True)
class Block:
    """The documents of one chunk of a corpus."""

    keys: Array
    """(bands, documents) uint64: hashes of their signatures' bands."""
    signatures: Array
    """(documents, hashes) uint32."""
    alive: Array | None = None
    """(documents,) bool: those that take part; None: all."""

    def __len__(self) -> int:
        return len(self.signatures)


@njit(cache=True, nogil=True)
def _find(parents, d):
    while parents[d] != d:
        parents[d] = parents[parents[d]]
        d = parents[d]
    return d


@njit(cache=True, nogil=True)
def _join(parents, keys, documents):
    """Join the documents with equal `keys`, which are sorted. The least document of a cluster is its root."""
    for i in range(1, len(keys)):
        if keys[i] == keys[i - 1]:
            a, b = _find(parents, documents[i - 1]), _find(parents, documents[i])
            if a < b:
                parents[b] = a
            elif b < a:
                parents[a] = b


@njit(cache=True, nogil=True)
def _roots(parents):
    """Replace every parent by the root, which is never a later document."""
    for d in range(len(parents)):
        parents[d] = parents[parents[d]]


def join_buckets(blocks: Sequence[Block], parents: Array, memory: int) -> None:
    """Write each document's cluster, named by its first document, into `parents`: (documents,) int64.

    Args:
        memory: bytes for sorting keys; with fewer the keys are read more often.
    """
    parents[:] = np.arange(len(parents))
    passes = max(1, -(-len(parents) * BYTES_PER_KEY // memory))
    for band in range(len(blocks[0].keys) if blocks else 0):
        for number in range(passes):
            found, owners, start = [], [], 0
            for block in blocks:
                keys = np.asarray(block.keys[band])
                chosen = np.ones(len(keys), dtype=bool) if block.alive is None else np.array(block.alive)
                if passes > 1:
                    chosen &= keys % np.uint64(passes) == number
                (mine,) = np.nonzero(chosen)
                found.append(keys[mine])
                owners.append(mine + start)
                start += len(block)
            together = np.concatenate(found)
            order = np.argsort(together)
            _join(parents, together[order], np.concatenate(owners)[order])
    _roots(parents)


@njit(cache=True, nogil=True)
def _slot(keys, owners, key, mask):
    slot = np.int64(key) & mask
    while owners[slot] >= 0 and keys[slot] != key:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, nogil=True, fastmath=False)
def _agreement(a, b):
    count = 0
    for k in range(len(a)):
        count += a[k] == b[k]
    return np.float32(count / len(a))


@njit(cache=True, nogil=True, fastmath=False)
def _jaccard(a, b):
    """Of two rising lists of hashes."""
    i = j = both = 0
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            both += 1
        i, j = i + (a[i] <= b[j]), j + (b[j] <= a[i])
    return np.float32(both / max(1, len(a) + len(b) - both))


@njit(cache=True, nogil=True, fastmath=False)
def _judge(keys, signatures, shingles, places, at_least, most, witnesses, similarities):
    """The sequential rule among the documents of one cluster, in order.

    Args:
        keys: (bands, documents) uint64.
        signatures: (documents, hashes) uint32.
        shingles, places: rising hashes of each document's shingles and where each begins, to compare them exactly; else empty.
        at_least: similarity from which a document is dropped.
        most: kept documents of a bucket that are compared.
        witnesses, similarities: (documents,) int64 and float32, to be written: the witness' number among these, or KEPT.

    Returns:
        Comparisons left out because a bucket had more than `most` kept documents.
    """
    exact = len(places) > 0
    capacity = FEWEST_TABLE
    table, heads = np.empty(capacity, dtype=np.uint64), np.full(capacity, -1, dtype=np.int64)
    tails = np.empty(capacity, dtype=np.int64)
    nodes, following, used, buckets = np.empty(capacity, np.int64), np.full(capacity, -1, dtype=np.int64), 0, 0
    compared = np.full(keys.shape[1], -1, dtype=np.int64)
    left_out = 0
    for d in range(keys.shape[1]):
        witness, similarity = keys.shape[1], np.float32(0)
        for band in range(len(keys)):
            slot = _slot(table, heads, mix(keys[band, d] + np.uint64(band)), capacity - 1)
            node, count = heads[slot], 0
            while node >= 0 and nodes[node] < witness:
                if count == most:
                    left_out += 1
                    break
                other = nodes[node]
                if compared[other] != d:
                    compared[other] = d
                    if exact:
                        a, b = shingles[places[d] : places[d + 1]], shingles[places[other] : places[other + 1]]
                        found = _jaccard(a, b)
                    else:
                        found = _agreement(signatures[d], signatures[other])
                    if found >= at_least:
                        witness, similarity = other, found
                        break
                node = following[node]
                count += 1
        if witness < keys.shape[1]:
            witnesses[d], similarities[d] = witness, similarity
            continue
        witnesses[d], similarities[d] = -1, 0
        for band in range(len(keys)):  # it is kept: enter it into its buckets
            key = mix(keys[band, d] + np.uint64(band))
            slot = _slot(table, heads, key, capacity - 1)
            if used == len(nodes):
                nodes = np.concatenate((nodes, np.empty(used, dtype=np.int64)))
                following = np.concatenate((following, np.full(used, -1, dtype=np.int64)))
            nodes[used] = d
            if heads[slot] < 0:
                table[slot], heads[slot] = key, used
                buckets += 1
            else:
                following[tails[slot]] = used
            tails[slot] = used
            used += 1
            if 2 * buckets > capacity:
                old_table, old_heads, old_tails = table, heads, tails
                capacity *= 2
                table, tails = np.empty(capacity, dtype=np.uint64), np.empty(capacity, dtype=np.int64)
                heads = np.full(capacity, -1, dtype=np.int64)
                for s in range(len(old_heads)):
                    if old_heads[s] >= 0:
                        slot = _slot(table, heads, old_table[s], capacity - 1)
                        table[slot], heads[slot], tails[slot] = old_table[s], old_heads[s], old_tails[s]
    return left_out


@njit(cache=True, nogil=True)
def _judge_all(starts, keys, signatures, shingles, places, at_least, most, witnesses, similarities):
    """`_judge` for several clusters, whose documents begin at `starts`; witnesses are numbered through all of them."""
    left_out = 0
    for c in range(len(starts) - 1):
        a, b = starts[c], starts[c + 1]
        mine = places[a : b + 1] if len(places) else places
        left_out += _judge(
            keys[:, a:b], signatures[a:b], shingles, mine, at_least, most, witnesses[a:b], similarities[a:b]
        )
        for d in range(a, b):
            if witnesses[d] >= 0:
                witnesses[d] += a
    return left_out


def clusters(parents: Array, memory: int) -> Iterator[tuple[Array, Array]]:
    """The clusters of two documents or more, several at a time, in an order that depends on the documents alone.

    Args:
        parents: see `join_buckets`.
        memory: bytes that the documents of one yield may take, unless it is a single cluster.

    Yields:
        The documents, cluster by cluster and rising in each; where each cluster begins and the last ends among them.
    """
    sizes = np.bincount(parents, minlength=len(parents))  # of the cluster whose first document this is
    members = np.flatnonzero(sizes[parents] > 1)
    if not len(members):
        return
    roots = parents[members]
    order = np.argsort(roots, kind="stable")
    members, roots = members[order], roots[order]
    starts = np.append(np.flatnonzero(np.diff(roots, prepend=-1)), len(members))
    most, first = max(1, memory // BYTES_PER_MEMBER), 0
    while first < len(starts) - 1:
        last = int(np.searchsorted(starts, starts[first] + most, side="right")) - 1
        last = max(last, first + 1)
        yield members[starts[first] : starts[last]], starts[first : last + 1] - starts[first]
        first = last


def gather(blocks: Sequence[Block], members: Array) -> tuple[Array, Array]:
    """Keys (bands, members) and signatures (members, hashes) of some documents, numbered through all blocks."""
    keys = np.empty((len(blocks[0].keys), len(members)), dtype=np.uint64)
    signatures = np.empty((len(members), blocks[0].signatures.shape[1]), dtype=np.uint32)
    ends = np.cumsum([len(block) for block in blocks])
    owner = np.searchsorted(ends, members, side="right")
    for number in np.unique(owner).tolist():
        (mine,) = np.nonzero(owner == number)
        rows = members[mine] - (ends[number] - len(blocks[number]))
        keys[:, mine] = blocks[number].keys[:, rows]
        signatures[mine] = blocks[number].signatures[rows]
    return keys, signatures


def judge(
    blocks: Sequence[Block],
    parents: Array,
    at_least: float,
    memory: int,
    shingles: Callable[[Array], tuple[Array, Array]] | None = None,
    most: int = MOST_COMPARED,
) -> Duplicates:
    """The rule in every cluster.

    Args:
        blocks: the documents' keys and signatures.
        parents: see `join_buckets`.
        at_least: similarity from which a document is dropped: of signatures, or exact with `shingles`.
        memory: bytes to use.
        shingles: gives, of documents by number, the different shingles of each, rising, one document's after the other's, and
            where each document's begin and the last ones end; to compare exactly.
        most: see `MOST_COMPARED`.
    """
    count = len(parents)
    found = Duplicates(
        np.full(count, KEPT, dtype=np.int64), np.zeros(count, dtype=np.float32), np.zeros(0, np.int64), 0
    )
    sizes = [np.zeros(0, dtype=np.int64)]
    for members, starts in clusters(parents, memory):
        keys, signatures = gather(blocks, members)
        flat, places = np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
        if shingles is not None:
            flat, places = shingles(members)
        witnesses, similarities = np.empty(len(members), dtype=np.int64), np.empty(len(members), dtype=np.float32)
        found.left_out += _judge_all(
            starts, keys, signatures, flat, places, np.float32(at_least), most, witnesses, similarities
        )
        dropped = witnesses >= 0
        found.witnesses[members[dropped]] = members[witnesses[dropped]]
        found.similarities[members] = similarities
        sizes.append(np.diff(starts))
    found.sizes = np.concatenate(sizes)
    return found


def parents_file(folder: Path, documents: int) -> Array:
    """A mapped file for `join_buckets`, which the disk holds in place of memory.

    Raises:
        OSError: there is no room for it.
    """
    size = 8 * max(1, documents)
    with open(
        folder / "parents", "wb"
    ) as file:  # written whole: a mapped hole without room for it would end the process
        while left := size - file.tell():
            file.write(bytes(min(left, 1 << 20)))
    return np.memmap(folder / "parents", dtype=np.int64, mode="r+", shape=(size // 8,))[:documents]
