"""Sets of named tensors as safetensors files that many processes write into at once and read slices of.

Where each tensor lies follows from the names, shapes and number formats alone. So every rank works out the same `Layout`
without a word to the others, and writes the rows it holds straight to their place: FSDP2 shards the first dimension, whose rows
are contiguous. The files are what one process would have written with safetensors, byte for byte; a set larger than
`SHARD_BYTES` is split into numbered files with an index, as transformers does. Writing goes through Python's files, which let
other threads run.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gpt3.errors import InputError
from gpt3.training.tensor_parallel import held_of

SHARD_BYTES = 5_000_000_000
"""A set of tensors larger than this is split over several files."""
FORMATS = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.float16: "F16",
    torch.bfloat16: "BF16", torch.int32: "I32", torch.float32: "F32", torch.float64: "F64", torch.int64: "I64",
}  # fmt: skip
"""safetensors' names of number formats, in the order in which it lays them out: the last come first."""
DTYPES = {name: dtype for dtype, name in FORMATS.items()}


@dataclass(frozen=True)
class Piece:
    """The part of a tensor that this process holds: all of it, or its shard of a DTensor."""

    data: Tensor
    """The values, on their device."""
    shape: tuple[int, ...]
    """The whole tensor's shape."""
    offsets: tuple[int, ...]
    """Where in the whole tensor `data` begins."""
    owned: bool
    """Whether this process is the one to write it: replicas are written once."""
    rows: tuple[tuple[int, int], ...] | None = None
    """Where `data` is several stretches of the whole tensor's rows: first row and number of each, in the order of `data`."""

    @property
    def stretches(self) -> list[Piece]:
        """The piece as pieces of neighbouring rows."""
        if self.rows is None:
            return [self]
        counts = [count for _, count in self.rows]
        parts = zip(self.rows, self.data.split(counts), strict=True)
        return [Piece(part, self.shape, (first, *self.offsets[1:]), self.owned) for (first, _), part in parts]

    @property
    def slices(self) -> tuple[slice, ...]:
        """The piece as an index of the whole tensor."""
        return tuple(slice(o, o + n) for o, n in zip(self.offsets, self.data.shape, strict=True))

    def runs(self, data: Tensor) -> Iterator[tuple[int, memoryview]]:
        """(byte offset in the whole row-major tensor, bytes) of each run of `data`, the values on the CPU."""
        if self.rows is not None:
            counts = [count for _, count in self.rows]
            for stretch, part in zip(self.stretches, data.split(counts), strict=True):
                yield from stretch.runs(part)
            return
        size, shape = self.data.shape, self.shape
        cut = max((d for d in range(len(shape)) if size[d] != shape[d]), default=0)  # all dimensions after it are whole
        strides = [math.prod(shape[d + 1 :]) for d in range(len(shape))]
        run = math.prod(size[cut:])
        flat = memoryview(data.contiguous().view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        width, start = data.element_size(), sum(o * s for o, s in zip(self.offsets, strides, strict=True))
        for index, place in enumerate(itertools.product(*(range(n) for n in size[:cut]))):
            at = start + sum(i * s for i, s in zip(place, strides, strict=False))
            yield at * width, flat[index * run * width : (index + 1) * run * width]


def piece_of(tensor: Tensor, rank: int = 0, name: str = "") -> Piece:
    """What this process, of this rank, holds of the `tensor` of this name: a plain tensor is all there and rank 0's to write."""
    tensor = tensor.detach()
    if not hasattr(tensor, "device_mesh"):
        return Piece(tensor, tuple(tensor.shape), (0,) * tensor.dim(), owned=rank == 0)
    sharded: Any = tensor  # a DTensor; torch.distributed.checkpoint uses its chunk list
    chunk = sharded.__create_chunk_list__()[0]
    copies = [i for i, placement in enumerate(sharded.placements) if placement.is_replicate()]
    first = all(sharded.device_mesh.get_coordinate()[i] == 0 for i in copies)
    if "tensor" in (sharded.device_mesh.mesh_dim_names or ()):
        rows, columns = held_of(sharded, name)
        offsets = (0, columns) if tensor.dim() > 1 else (0,)
        return Piece(sharded.to_local(), tuple(sharded.shape), offsets, first, rows)
    return Piece(sharded.to_local(), tuple(sharded.shape), tuple(chunk.offsets), owned=first)


@dataclass(frozen=True)
class Layout:
    """Where the tensors of one set lie on disk."""

    headers: dict[str, bytes]
    """Each file's safetensors header, its length in front."""
    sizes: dict[str, int]
    """Each file's bytes."""
    places: dict[str, tuple[str, int]]
    """Each tensor's file and the byte at which it begins there."""
    index: tuple[str, str] | None
    """Name and content of the index file of a set that is split."""

    def create(self, folder: Path) -> None:
        """The files at their full sizes, with headers and without values; and the index, if there is one."""
        for name, header in self.headers.items():
            with open(folder / name, "wb") as file:
                file.write(header)
                file.truncate(self.sizes[name])
        if self.index is not None:
            (folder / self.index[0]).write_text(self.index[1], encoding="utf-8")

    def write(self, folder: Path, pieces: Mapping[str, tuple[Piece, Tensor]]) -> None:
        """Write pieces, each with its values on the CPU, into the files that `create` made; flushed to the disk."""
        by_file: dict[str, list[str]] = {}
        for name in pieces:
            by_file.setdefault(self.places[name][0], []).append(name)
        for file_name, names in by_file.items():
            # For writing alone: of a file that is open for reading, too, NFS reads whole pages, and writes back with its own
            # rows what the neighbours' were before they wrote them.
            descriptor = os.open(folder / file_name, os.O_WRONLY | getattr(os, "O_BINARY", 0))
            with open(descriptor, "wb") as file:
                for name in names:
                    piece, data = pieces[name]
                    for offset, content in piece.runs(data):
                        file.seek(self.places[name][1] + offset)
                        file.write(content)
                file.flush()
                os.fsync(file.fileno())


def plan_layout(stem: str, pieces: Mapping[str, Piece], limit: int = SHARD_BYTES) -> Layout:
    """Lay `pieces` out over ``STEM.safetensors``, or beyond `limit` bytes over ``STEM-00001-of-0000N.safetensors``.

    The same on every rank: it depends on names (in the order given), whole shapes and number formats.
    """
    groups: list[list[str]] = [[]]
    filled = 0
    for name, piece in pieces.items():
        size = _bytes(piece)
        if groups[-1] and filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    headers: dict[str, bytes] = {}
    sizes: dict[str, int] = {}
    places: dict[str, tuple[str, int]] = {}
    order = list(FORMATS)
    for number, names in enumerate(groups, 1):
        file = f"{stem}.safetensors" if len(groups) == 1 else f"{stem}-{number:05}-of-{len(groups):05}.safetensors"
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        begin = 0
        starts = {}
        for name in sorted(names, key=lambda n: (-order.index(pieces[n].data.dtype), n.encode())):
            piece = pieces[name]
            end = begin + _bytes(piece)
            entries[name] = {
                "dtype": FORMATS[piece.data.dtype],
                "shape": list(piece.shape),
                "data_offsets": [begin, end],
            }
            starts[name], begin = begin, end
        header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
        header += b" " * (-len(header) % 8)
        headers[file] = len(header).to_bytes(8, "little") + header
        sizes[file] = len(headers[file]) + begin
        places |= {name: (file, len(headers[file]) + start) for name, start in starts.items()}
    index = None
    if len(groups) > 1:
        total = sum(_bytes(piece) for piece in pieces.values())
        content = {"metadata": {"total_size": total}, "weight_map": {n: places[n][0] for n in pieces}}
        index = (f"{stem}.safetensors.index.json", json.dumps(content, indent=2) + "\n")
    return Layout(headers, sizes, places, index)


def _bytes(piece: Piece) -> int:
    return math.prod(piece.shape) * piece.data.element_size()


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
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            paths = sorted({folder / name for name in weight_map.values()})
        else:
            paths = [path] if (path := folder / f"{stem}.safetensors").exists() else []
        entries = {}
        for path in paths:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  # it is no dict
                    part = file.get_slice(name)
                    entries[name] = Entry(path, DTYPES[part.get_dtype()], tuple(part.get_shape()))
        return entries
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(f"{folder}: its {stem} tensors cannot be read ({error}); use another checkpoint") from None


@torch.no_grad()
def read_into(pieces: Mapping[str, Piece], entries: Mapping[str, Entry]) -> None:
    """Fill the pieces in place from the tensors of their names on disk; only the bytes of each piece are read."""
    by_file: dict[Path, list[str]] = {}
    for name in pieces:
        by_file.setdefault(entries[name].path, []).append(name)
    for path, names in by_file.items():
        with safe_open(path, framework="pt") as file:
            for name in names:
                for piece in pieces[name].stretches:
                    if piece.data.shape == piece.shape:
                        piece.data.copy_(file.get_tensor(name))
                    elif piece.data.numel():
                        piece.data.copy_(file.get_slice(name)[piece.slices])
