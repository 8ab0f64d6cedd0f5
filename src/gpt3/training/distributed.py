"""One run on many devices: who takes part, what they agree on, and how the model is spread over them.

Every rank runs the same program. Data-parallel (`ddp`): each holds the whole model. Fully sharded (`fsdp`, FSDP2): each holds a
part of every tensor. A step's loss is a mean over its tokens on all ranks, so that the result does not depend on their number but
for the order of floating-point sums. Without torchrun's variables there is one rank, and nothing here costs anything.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from gpt3.errors import InputError, RunError
from gpt3.training.initial_weights import fill

if TYPE_CHECKING:
    from gpt3.model import GPT3ForCausalLM

PATIENCE = datetime.timedelta(minutes=10)
"""How long a rank waits for others in a collective of training."""
LONG_PATIENCE = datetime.timedelta(days=2)
"""How long ranks wait for work that only rank 0 does: preparing data."""


class PeersLostError(RunError):
    """Another rank went away; what happened there is told there, or by who started the ranks."""


class Silent(Exception):  # noqa: N818 - it reports nothing
    """Raised on the other ranks when rank 0 has an error of the user's to report."""


@dataclass(frozen=True)
class World:
    """The processes of one run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: Any = None
    """A process group for small messages between CPUs."""

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes and speaks."""
        return self.rank == 0

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of `tensor` over all ranks, in place."""
        if self.size > 1:
            with peers_lost():
                dist.all_reduce(tensor, group=self.control if tensor.device.type == "cpu" else None)
        return tensor

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            with peers_lost():
                dist.barrier(group=self.control)

    def agree(self, work: Callable[[], Any]) -> Any:
        """What `work` returns on rank 0, which alone does it; JSON values only.

        Raises:
            InputError, RunError: as `work` does, on rank 0; `Silent` on the others.
        """
        if self.size == 1:
            return work()
        message: dict[str, Any] = {}
        error: Exception | None = None
        if self.first:
            try:
                message = {"value": work()}
            except (InputError, RunError) as raised:
                error, message = raised, {"failed": True}
        message = self._broadcast(message)
        if error is not None:
            raise error
        if message.get("failed"):
            raise Silent
        return message["value"]

    def _broadcast(self, message: dict[str, Any]) -> dict[str, Any]:
        data = torch.frombuffer(bytearray(json.dumps(message).encode()), dtype=torch.uint8)
        size = torch.tensor([len(data)])
        with peers_lost():
            dist.broadcast(size, 0, group=self.control)
            if not self.first:
                data = torch.empty(int(size), dtype=torch.uint8)
            dist.broadcast(data, 0, group=self.control)
        return dict(json.loads(bytes(data.tolist())))


ALONE = World()
"""One process."""


@contextlib.contextmanager
def peers_lost() -> Iterator[None]:
    """Turn the error of a collective whose other side went away into one line.

    Raises:
        RunError: another rank was lost, or did not come in time.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, RunError):
            raise
        if not isinstance(error, dist.DistError) and not is_connection_error(error):
            raise
        reason = re.sub(r"^\[[^\]]*\] *", "", str(error).strip().splitlines()[0]).split(". ")[0][:120]
        rank = os.environ.get("RANK", "0")
        raise PeersLostError(
            f"rank {rank}: another rank was lost ({reason}); the same command goes on from the last checkpoint"
        ) from None


def is_connection_error(error: RuntimeError) -> bool:
    """Whether a collective failed for its peers (gloo raises plain RuntimeErrors of its own)."""
    text = str(error).lower()
    return "gloo" in text or "connection" in text or "timed out" in text


@contextlib.contextmanager
def open_world(device: str) -> Iterator[World]:
    """Join the processes that torchrun (or ``gpt3 train --nproc``) started; one rank where nobody did.

    Args:
        device: ``--device``: gloo for cpu, NCCL for CUDA.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if cuda:
        here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", size)), torch.cuda.device_count()
        if here > gpus:
            raise InputError(f"{here} ranks on a machine of {gpus} GPUs: start one a GPU, or give --device cpu")
        if ":" in device:
            raise InputError(f"--device {device} names one GPU, of several ranks each has its own; give --device cuda")
        torch.cuda.set_device(local_rank)
    with peers_lost():
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
        control = dist.new_group(backend="gloo", timeout=LONG_PATIENCE)
    try:
        yield World(rank, size, local_rank, control)
    finally:
        with contextlib.suppress(Exception):  # a lost peer must not hide the error that is on its way
            dist.destroy_process_group()


def spread(
    model: GPT3ForCausalLM, seed: int, device: torch.device, parallel: str, world: World, compute_dtype: torch.dtype
) -> torch.nn.Module:
    """Give `model`, which is on the meta device, its fresh weights; returns what forward passes go through.

    One rank: the model itself. `ddp`: its wrapper. `fsdp`: the model sharded in place, block by block, so that no rank ever
    holds more than one block's weights whole, nor the token embedding beside one.
    """
    if world.size == 1 or parallel == "ddp":
        fill(model, model, seed, device)
        if world.size == 1:
            return model
        ids = [device.index] if device.type == "cuda" else None
        return torch.nn.parallel.DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (world.size,))
    narrow = device.type == "cuda" and compute_dtype != torch.float32
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype if narrow else None, reduce_dtype=torch.float32)
    for block in model.transformer.h:
        fill(model, block, seed, device)
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fill(model, model, seed, device)  # what is left
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return model


@contextlib.contextmanager
def gradients_stay(forward: torch.nn.Module, stay: bool) -> Iterator[None]:
    """With `stay`, DDP's backward passes inside keep their gradients on each rank: only the last micro-batch's are exchanged.

    FSDP exchanges after each one: to keep whole gradients on every rank would undo what sharding saves.
    """
    inner = getattr(forward, "_orig_mod", forward)  # of a compiled module
    if stay and isinstance(inner, torch.nn.parallel.DistributedDataParallel):
        with inner.no_sync():
            yield
    else:
        yield
