"""Several processes: which device each has, how one that fails leaves, and whether all see the run folder."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from checkpoint_case import make_model, make_optimizer, make_tokenizer

from gpt3.errors import InputError, RunError
from gpt3.training import checkpoint, checkpoint_writer, distributed
from gpt3.training.checkpoint import newest_whole
from gpt3.training.checkpoint_writer import CheckpointWriter
from gpt3.training.distributed import (
    PeersLostError,
    World,
    choose_compute,
    device_of_ranks,
    open_world,
    shards_of,
)
from gpt3.training.options import TrainOptions
from gpt3.training.shared_folder import check_shared


class Exchange:
    """What two threads give each other, in place of a process group."""

    def __init__(self) -> None:
        self.barrier, self.given = threading.Barrier(2), dict[int, Any]()

    def swap(self, rank: int, value: Any) -> list[Any]:
        self.given[rank] = value
        self.barrier.wait(60)
        both = [self.given[0], self.given[1]]
        self.barrier.wait(60)
        return both


@dataclass(frozen=True)
class Threads(World):
    """A rank that is a thread."""

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        return sum(self.control.swap(self.rank, tensor.clone()), torch.zeros_like(tensor))

    def agree(self, work: Callable[[], Any]) -> Any:
        return self.control.swap(self.rank, work() if self.first else None)[0]

    def gather(self, value: Any) -> list[Any]:
        return self.control.swap(self.rank, value)


def on_two(work: Callable[[World], Any]) -> list[Any]:
    """What `work` returns or raises on each of two ranks."""
    exchange, found = Exchange(), {}

    def run(rank: int) -> None:
        try:
            found[rank] = work(Threads(rank, 2, exchange))
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [found[0], found[1]]


def test_a_folder_on_each_machines_own_disk_is_refused_at_the_start(tmp_path: Path) -> None:
    assert on_two(lambda world: check_shared(tmp_path / "shared", world)) == [None, None]
    assert list((tmp_path / "shared").iterdir()) == []
    errors = on_two(lambda world: check_shared(tmp_path / str(world.rank), world, timeout=0.1))
    assert all(isinstance(error, InputError) for error in errors)
    assert "another process does not find what process 0 wrote into" in str(errors[0])
    assert str(errors[1]).startswith("--out: process 1 on ")


def test_a_failed_write_stops_all_ranks_at_the_next_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path, contents: object) -> None:
        raise OSError(5, "Input/output error")

    def work(world: World) -> None:
        model = make_model()
        writer = CheckpointWriter(tmp_path, model, make_tokenizer(), world=world, timeout=5)
        monkeypatch.setattr(checkpoint_writer, "write_hashed", fails)
        writer.save(make_optimizer(model), {"step": 1})
        if not world.first:  # its own part was written
            writer._pending = None
        writer.save(make_optimizer(model), {"step": 2})

    first, second = on_two(work)
    assert isinstance(first, RunError)
    assert "step-1 could not be written" in str(first)
    assert isinstance(second, PeersLostError)


def test_each_rank_checks_its_share_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    with CheckpointWriter(tmp_path, model, make_tokenizer()) as writer:
        path = writer.save(make_optimizer(model), {"step": 1})
    files = sorted(file for file in path.iterdir() if file.name != "manifest.json")
    real, hashed = checkpoint.sha256_of, list[Path]()
    monkeypatch.setattr(checkpoint, "sha256_of", lambda file: hashed.append(file) or real(file))
    assert on_two(lambda world: newest_whole(tmp_path, world)) == [(path, [])] * 2
    assert sorted(hashed) == files
    for file in files[:2]:  # neighbours are different ranks'
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        reason = f"{file.name} is damaged: its sha256 is not the one in manifest.json"
        assert on_two(lambda world: newest_whole(tmp_path, world)) == [(None, [(path, reason)])] * 2
        file.write_bytes(content)


def test_the_device_of_one_of_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of_ranks("auto") == "cpu"  # also where there is an MPS
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [device_of_ranks(name) for name in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]
    with pytest.raises(InputError, match=r"^--device cuda:1 names one GPU"):
        device_of_ranks("cuda:1")
    with pytest.raises(InputError, match=r"^--device mps takes one process"):
        device_of_ranks("mps")


def test_copies_of_the_model_share_the_processes_evenly() -> None:
    options = TrainOptions(parallel="fsdp", shards=4)
    assert [shards_of(options, World(0, size)) for size in (1, 4, 8)] == [1, 4, 4]
    assert shards_of(TrainOptions(parallel="fsdp"), World(0, 6)) == 6
    assert shards_of(TrainOptions(), World(0, 6)) == 1
    with pytest.raises(InputError, match=r"^--shards 4 does not divide the 6 processes; give a divisor"):
        shards_of(options, World(0, 6))
    assert shards_of(TrainOptions(parallel="fsdp", tensor_parallel=2), World(0, 8, tensor=2)) == 4
    assert shards_of(options, World(0, 16, tensor=2)) == 4
    for other in ({"dropout": 0.1}, {"compile": True}):
        with pytest.raises(InputError, match=r"^--tensor-parallel 2 does not work with --"):
            TrainOptions(parallel="fsdp", tensor_parallel=2, **other)
    for name, value in (("shards", 2), ("tensor_parallel", 2), ("regather", False), ("reduce_once", True)):
        with pytest.raises(InputError, match=rf"^--{name.replace('_', '-')} is for --parallel fsdp"):
            TrainOptions(**{name: value})


def test_a_named_gpu_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    named = torch.device("cuda", 1)
    chosen: list[torch.device] = []
    settings: list[str] = []
    monkeypatch.setattr(distributed, "choose_device", lambda name: named)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", settings.append)
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    choose_compute("cuda:1", "bf16")
    assert chosen == [named]
    assert settings == ["expandable_segments:True"]
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:128")
    choose_compute("cuda:1", "bf16")
    assert len(settings) == 1  # the user's own stay


@pytest.mark.parametrize("nccl", [True, False])
def test_a_rank_that_fails_does_not_wait_for_nccl(nccl: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("TORCH_NCCL_DUMP_ON_TIMEOUT", "0")
    monkeypatch.setenv("TORCH_FR_BUFFER_SIZE", "")
    monkeypatch.delenv("TORCH_FR_BUFFER_SIZE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(dist, "is_nccl_available", lambda: nccl)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **options: calls.append(backend))
    monkeypatch.setattr(dist, "new_group", lambda **options: options["backend"])
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("destroyed"))
    backend = "cpu:gloo,cuda:nccl" if nccl else "gloo"  # Windows has no NCCL
    with pytest.raises(RunError, match="full disk"), open_world("auto"):
        raise RunError("full disk")
    assert calls == ([backend] if nccl else [backend, "destroyed"])
    assert os.environ["TORCH_FR_BUFFER_SIZE"] == "2000"
    assert os.environ["TORCH_NCCL_DUMP_ON_TIMEOUT"] == "0"  # the user's
    calls.clear()
    with open_world("cuda") as world:
        assert world.control == "gloo"
    assert calls == [backend, "destroyed"]
