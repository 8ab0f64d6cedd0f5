"""Run by test_checkpoint_ranks: phases of one run, each by processes of their own, each resuming from the phase before.

Arguments: pairs of a folder and its phases, KIND:RANKS:STEPS,... with KIND single, ddp or fsdp. Phase i saves in FOLDER/i.
"""

import contextlib
import os
import random
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from checkpoint_case import average_of, make_model, make_optimizer, make_tokenizer, train_step
from torch.distributed.fsdp import fully_shard

from gpt3.training.checkpoint import load_checkpoint, newest_whole
from gpt3.training.checkpoint_writer import CheckpointWriter
from gpt3.training.distributed import World


def phase(folder: Path, number: int, kind: str, rank: int, size: int, steps: int) -> None:
    if kind != "single":
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{number}", rank=rank, world_size=size)
    model = make_model(seed=number)
    forward: torch.nn.Module = model
    if kind == "fsdp":
        for block in model.transformer.h:
            fully_shard(block)
        fully_shard(model)
    elif kind == "ddp":
        forward = torch.nn.parallel.DistributedDataParallel(model)
    optimizer, average = make_optimizer(model, fused=kind != "ddp", eps=1e-3), average_of(model)
    step = 0
    random.seed(rank), np.random.seed(rank), torch.manual_seed(rank)
    if number:
        path, passed_over = newest_whole(folder / str(number - 1))
        assert path is not None
        assert not passed_over
        step = load_checkpoint(path, model, optimizer, extra={"ema": average}, rank=rank)["step"]
    rows = slice(rank * 4 // size, (rank + 1) * 4 // size)
    for _ in range(steps):
        train_step(forward, model, optimizer, average, step, rows)
        step += 1
    world = World(rank, size)
    with CheckpointWriter(folder / str(number), model, make_tokenizer(), world=world, timeout=60) as writer:
        if kind != "single":
            dist.barrier()  # rank 0 has cleared the folder
        writer.save(optimizer, {"step": step}, extra={"ema": average})
    if kind != "single":
        dist.barrier()
        dist.destroy_process_group()


def main(folder: Path, phases: list[str]) -> None:
    for number, text in enumerate(phases):
        kind, size, steps = text.split(":")
        children = []
        for rank in range(int(size)):
            child = os.fork()
            if child == 0:
                with contextlib.ExitStack() as stack:
                    stack.callback(os._exit, 1)
                    try:
                        phase(folder, number, kind, rank, int(size), int(steps))
                    except BaseException:
                        import traceback

                        traceback.print_exc()
                        raise
                    os._exit(0)
            children.append(child)
        if any(os.waitpid(child, 0)[1] for child in children):
            sys.exit(f"phase {number}, {text}, failed")


if __name__ == "__main__":
    for folder, phases in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        main(Path(folder), phases.split(","))
