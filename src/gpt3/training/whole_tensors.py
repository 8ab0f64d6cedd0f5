"""Whole tensors from the shards that processes hold of them, each on the one process that writes it.

A process sends its shard to that process alone, and one tensor of each process is on its way at a time. So each sends and
receives about its share of the model, and holds one tensor more than before. Copies of the model (HSDP) exchange nothing with
each other: who writes a tensor has it from its own copy. A tensor that every process holds whole (DDP) is not sent at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from gpt3.training.tensor_parallel import Place, held_of, parts_of

Key = tuple[str, str]
"""A tensor's set and name."""


def gathered(
    tensors: Mapping[Key, Tensor], owners: Mapping[Key, int], rank: int
) -> Iterator[tuple[Key, Place, Tensor]]:
    """The parts of this rank's tensors, each with its place in the whole tensor, on the tensor's device.

    A collective, if there are DTensors: every rank calls it with the same keys and owners and takes all that it yields.

    Args:
        tensors: plain ones, the same on all ranks, or DTensors over a mesh of all ranks.
        owners: the rank that gets each.
        rank: this process's.
    """
    queues: dict[int, list[Key]] = {}
    for key in tensors:
        queues.setdefault(owners[key], []).append(key)
    for together in itertools.zip_longest(*queues.values()):
        messages: list[dist.P2POp] = []
        parts: list[tuple[Key, Place, Tensor]] = []
        for key in filter(None, together):
            tensor, owner = tensors[key], owners[key]
            if isinstance(tensor, DTensor):
                sent, received = _exchange(tensor, key[1], owner, rank)
                messages += sent
            else:
                received = parts_of(tensor, held_of(tensor, key[1])) if owner == rank else []
            parts += [(key, place, part) for place, part in received]
        for message in dist.batch_isend_irecv(messages) if messages else ():
            message.wait()
        yield from parts


def _exchange(tensor: DTensor, name: str, owner: int, rank: int) -> tuple[list[dist.P2POp], list[tuple[Place, Tensor]]]:
    """What `rank` sends or receives so that `owner` gets a tensor; and on the owner all parts, there once that is done."""
    mesh, held = tensor.device_mesh, tensor.to_local()
    here, there = tuple(mesh.get_coordinate() or ()), (mesh.mesh == owner).nonzero()[0].tolist()
    copied = [placement.is_replicate() for placement in tensor.placements]
    if owner != rank:
        near = all(a == b for a, b, copy in zip(here, there, copied, strict=True) if copy)
        return [dist.P2POp(dist.isend, held.contiguous(), owner)] if near and held.numel() else [], []
    messages, parts = [], []
    choices = [[at] if copy else range(size) for at, copy, size in zip(there, copied, mesh.mesh.shape, strict=True)]
    for coordinate in itertools.product(*choices):
        places, part = held_of(tensor, name, coordinate), held
        if coordinate != here:
            sizes = [[cut.stop - cut.start for cut in place] for place in places]
            part = held.new_empty(sum(size[0] for size in sizes), *(sizes[0][1:] if sizes else ()))
            if part.numel():
                messages.append(dist.P2POp(dist.irecv, part, int(mesh.mesh[coordinate])))
        parts += parts_of(part, places)
    return messages, parts
