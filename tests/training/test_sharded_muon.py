"""Muon on rows of matrices that five processes hold is Muon on whole ones, in two exchanges."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback

import pytest
import torch
import torch.distributed as dist

from gpt3.training.optimizers.muon import Muon

RANKS = 5
SHAPES = [(3, 8), (16, 8), (7, 5), (12, 12), (1, 4), (6, 20), (20, 6)]
"""Fewer rows than ranks, rows that ranks do not divide, and more matrices than ranks."""


def optimizer_of(weights: list[torch.Tensor]) -> Muon:
    return Muon(weights, lr=1e-2, momentum=0.95, dtype=torch.float32, weight_decay=0.3)


def check(rank: int, folder: str) -> None:
    from torch.distributed.tensor import Shard, distribute_tensor

    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", RANKS), rank=rank, world_size=RANKS)
    mesh = dist.device_mesh.init_device_mesh("cpu", (RANKS,))
    exchanges: list[int] = []
    exchange = dist.all_to_all_single
    dist.all_to_all_single = lambda *args, **kwargs: exchanges.append(1) or exchange(*args, **kwargs)
    generator = torch.Generator().manual_seed(0)
    whole = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    sharded = [torch.nn.Parameter(distribute_tensor(weight.detach().clone(), mesh, [Shard(0)])) for weight in whole]
    reference, ours = optimizer_of(whole), optimizer_of(sharded)
    for _ in range(3):
        for weight, part in zip(whole, sharded, strict=True):
            weight.grad = torch.randn(weight.shape, generator=generator)
            part.grad = distribute_tensor(weight.grad.clone(), mesh, [Shard(0)])
        reference.step()
        ours.step()
    assert len(exchanges) == 3 * 2 * 2, exchanges  # seven matrices on five ranks: twice, there and back
    for weight, part in zip(whole, sharded, strict=True):
        torch.testing.assert_close(part.detach().full_tensor(), weight.detach(), rtol=1e-6, atol=1e-6)
        momentum = ours.state[part]["momentum_buffer"]
        assert torch.equal(momentum.full_tensor(), reference.state[weight]["momentum_buffer"])
    dist.destroy_process_group()


@pytest.mark.skipif(sys.platform != "linux", reason="forks; gloo with DTensor is tested on Linux")
def test_rows_on_five_ranks_are_whole_matrices(script) -> None:
    done = script(__file__)
    assert done.returncode == 0, done.stderr[-2000:]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as shared:
        children = []
        for number in range(RANKS):
            child = os.fork()
            if child == 0:
                try:
                    check(number, shared)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            children.append(child)
        sys.exit(any(os.waitpid(child, 0)[1] for child in children))
