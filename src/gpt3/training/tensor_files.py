"""Sets of named tensors as safetensors files. One process writes a file, from its first byte to its last.

Which process writes which tensors follows from their names and sizes alone, so every rank works out the same files without a word
to the others. No two ranks write into one file: on NFS a rank would write back with its own bytes of a page what a neighbour's
were before. Files hold whole tensors, so that other programs read them (`whole_tensors.gathered` brings the shards together), and
are what safetensors itself would write, byte for byte. Several files of a set have numbers and an index, as transformers does it.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gpt3.durable import write_hashed
from gpt3.errors import InputError
from gpt3.training.tensor_parallel import held_of, parts_of

SHARD_BYTES = 5_000_000_000
"""A file has no more bytes of tensors than this, unless one tensor has."""
FORMATS = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.float16: "F16",
    torch.bfloat16: "BF16", torch.int32: "I32", torch.float32: "F32", torch.float64: "F64", torch.int64: "I64",
}  # fmt: skip
"""safetensors' names of number formats, in the order in which it lays them out: the last come first."""
DTYPES = {name: dtype for dtype, name in FORMATS.items()}


@dataclass(frozen=True)
class File:
    """A file of a set of tensors."""

    name: str
    rank: int
    """Who writes it."""
    tensors: tuple[str, ...]


def plan_files(
    sets: Mapping[str, Mapping[str, int]], ranks: int = 1, limit: int = SHARD_BYTES
) -> dict[str, list[File]]:
    """Share the tensors of all sets out over `ranks`, as evenly in bytes as whole tensors allow.

    Args:
        sets: each tensor's bytes, by set and name; the same on every rank.
        limit: bytes of tensors in a file, at most.

    Returns:
        Each set's files, with the tensors in the order given: ``STEM.safetensors`` or ``STEM-00001-of-0000N.safetensors``, ….
    """
    loads, owners = [(0, rank) for rank in range(ranks)], dict[tuple[str, str], int]()
    every = [(size, (stem, name)) for stem, sizes in sets.items() for name, size in sizes.items()]
    for size, key in sorted(every, key=lambda each: (-each[0], each[1])):  # each to the rank with the least so far
        load, owners[key] = loads[0]
        heapq.heapreplace(loads, (load + size, owners[key]))
    files: dict[str, list[File]] = {}
    for stem, sizes in sets.items():
        groups: list[tuple[int, list[str]]] = []
        filled = 0
        for name in sorted(sizes, key=lambda name: owners[stem, name]):
            rank, size = owners[stem, name], sizes[name]
            if not groups or groups[-1][0] != rank or filled + size > limit:
                groups.append((rank, []))
                filled = 0
            groups[-1][1].append(name)
            filled += size
        groups = groups or [(0, [])]
        numbers = [f"-{n:05}-of-{len(groups):05}" for n in range(1, len(groups) + 1)] if len(groups) > 1 else [""]
        files[stem] = [
            File(f"{stem}{number}.safetensors", rank, tuple(names))
            for number, (rank, names) in zip(numbers, groups, strict=True)
        ]
    return files


def indices(sets: Mapping[str, Mapping[str, int]], files: Mapping[str, list[File]]) -> dict[str, bytes]:
    """The index file of each set that has several files, by its name: which tensor is where."""
    found = {}
    for stem, parts in files.items():
        if len(parts) > 1:
            places = {name: part.name for part in parts for name in part.tensors}
            content = {"metadata": {"total_size": sum(sets[stem].values())}, "weight_map": places}
            found[f"{stem}.safetensors.index.json"] = (json.dumps(content, indent=2) + "\n").encode()
    return found


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> tuple[int, str]:
    """Write a new file of tensors on the CPU, flushed to the disk. Returns its bytes and its sha256. Other threads can run."""
    order = list(FORMATS)
    names = sorted(tensors, key=lambda name: (-order.index(tensors[name].dtype), name.encode()))
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].nbytes
        kind, shape = FORMATS[tensors[name].dtype], list(tensors[name].shape)
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)

    def contents() -> Iterator[Any]:
        yield len(header).to_bytes(8, "little") + header
        for name in names:
            yield memoryview(tensors[name].contiguous().view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]

    return write_hashed(path, contents())


@dataclass(frozen=True)
class Entry:
    """A tensor on disk."""

    path: Path
    """The file it is in."""
    dtype: torch.dtype
    """Its number format."""
    shape: tuple[int, ...]
    """Its shape."""

    def __str__(self) -> str:
        return described(self.shape, self.dtype)


def described(shape: tuple[int, ...], dtype: torch.dtype) -> str:
    """A shape and a number format in words, such as ``300 × 32 float32``."""
    return f"{' × '.join(map(str, shape)) or 'scalar'} {str(dtype).removeprefix('torch.')}"


def entries_of(folder: Path, stem: str) -> dict[str, Entry]:
    """The tensors of the set `stem` in `folder`, by name; none if there is no such set.

    Raises:
        InputError: a file is missing, is no safetensors file, or holds a number format not known here.
    """
    index = folder / f"{stem}.safetensors.index.json"
    try:
        if index.exists():
            order = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            paths = sorted({folder / name for name in order.values()})
        else:
            order, paths = {}, [path] if (path := folder / f"{stem}.safetensors").exists() else []
        entries = {}
        for path in paths:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  # it is no dict
                    part = file.get_slice(name)
                    entries[name] = Entry(path, DTYPES[part.get_dtype()], tuple(part.get_shape()))
        return {name: entries[name] for name in order or entries}
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(f"{folder}: its {stem} tensors cannot be read ({error}); use another checkpoint") from None


def write_set(folder: Path, stem: str, entries: Mapping[str, Entry]) -> None:
    """Write tensors that are on disk as the set `stem` in `folder`, in one process's files, one file in memory at a time."""
    sizes = {stem: {name: entry.dtype.itemsize * math.prod(entry.shape) for name, entry in entries.items()}}
    files = plan_files(sizes)
    for file in files[stem]:
        tensors = {name: torch.empty(entries[name].shape, dtype=entries[name].dtype) for name in file.tensors}
        read_into(tensors, entries)
        write_tensors(folder / file.name, tensors)
    for name, content in indices(sizes, files).items():
        write_hashed(folder / name, [content])


@torch.no_grad()
def read_into(tensors: Mapping[str, Tensor], entries: Mapping[str, Entry]) -> None:
    """Fill tensors in place from those of their names on disk; of a DTensor the part that this process holds is read."""
    by_file: dict[Path, list[str]] = {}
    for name in tensors:
        by_file.setdefault(entries[name].path, []).append(name)
    for path, names in by_file.items():
        with safe_open(path, framework="pt") as file:
            for name in names:
                for place, part in parts_of(tensors[name], held_of(tensors[name], name)):
                    whole = part.shape == entries[name].shape
                    part.copy_(file.get_tensor(name) if whole else file.get_slice(name)[place])
