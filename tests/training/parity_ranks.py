"""Run by test_parity.py: the real trainer's steps in one process and in several, whose losses and checkpoints are compared.

Argument: a JSON file of {"folder": …, "jobs": [{"name": …, "kind": …, …}]}. Jobs run in the order given; those in a row with as
many processes share them. Each writes FOLDER/NAME.json, its losses, and FOLDER/NAME/step-N, its checkpoints.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from checkpoint_case import make_tokenizer

from gpt3.ladder.presets import preset
from gpt3.training.checkpoint import load_checkpoint
from gpt3.training.checkpoint_writer import CheckpointWriter
from gpt3.training.distributed import ALONE, Compute, World
from gpt3.training.fitting import choose_exchange
from gpt3.training.model_building import build_model
from gpt3.training.options import TrainOptions
from gpt3.training.plan import make_plan
from gpt3.training.trainer import Trainer

KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "single": (1, {}),
    "ddp": (2, {"parallel": "ddp"}),
    "fsdp": (2, {"parallel": "fsdp"}),
    "fsdp, reduced once": (2, {"parallel": "fsdp", "reduce_once": True, "regather": False}),
    "hsdp": (4, {"parallel": "fsdp", "shards": 2}),
    "hsdp, reduced once": (4, {"parallel": "fsdp", "shards": 2, "reduce_once": True}),
    "tensor": (2, {"parallel": "fsdp", "tensor_parallel": 2}),
    "tensor, fsdp": (4, {"parallel": "fsdp", "tensor_parallel": 2}),
}
"""Processes and options of each way to train."""
SEQUENCES = 8
"""Of a step; one at a time in each process, so that all of them accumulate."""
SHAPE = dataclasses.replace(
    preset("demo"), n_layers=2, d_model=24, n_heads=2, d_head=12, vocab_size=33, context=16, window=4, batch_tokens=128
)


class Sequences:
    """Training sequences that depend on their number alone."""

    def batch(self, numbers: list[int]) -> np.ndarray:
        rows = [np.random.default_rng(number).integers(33, size=6).repeat(3)[:17] for number in numbers]
        return np.stack(rows).astype(np.int64)


def trainer_of(job: dict[str, Any], world: World) -> Trainer:
    """A trainer whose weights, gradients and state are in the job's format."""
    torch.set_default_dtype(getattr(torch, job.get("dtype", "float64")))
    options = TrainOptions(
        steps=20, batch_tokens=SEQUENCES * SHAPE.context, micro_batch=1, context=SHAPE.context, dtype="fp32", lr=1e-2, clip=0.5,
        spike_sigmas=0, device="cpu", **{"ema": 0.9, "recipe": "paper", **KINDS[job["kind"]][1], **job.get("options", {})},
    )  # fmt: skip
    compute = Compute(torch.device("cpu"), torch.float32, 1e9)  # no autocast: products in the weights' own format
    model, forward = build_model(options, SHAPE, 0, compute, world)
    plan = make_plan(options, 10**9, shape=SHAPE)
    exchange = choose_exchange(plan, options, SHAPE, compute, world)
    return Trainer(options, plan, model, forward, Sequences(), 0, compute, world, exchange)  # type: ignore[arg-type]


def run(job: dict[str, Any], world: World, folder: Path) -> None:
    """Steps up to the job's last; a checkpoint after each of its ``save``, and before the first where it resumes at one."""
    trainer, losses, norms = trainer_of(job, world), [], []
    if "resume" in job:
        path = folder / job["resume"]
        trainer.load(load_checkpoint(path, trainer.model, trainer.optimizer, extra=trainer.averages(), rank=world.rank))
    trainer.model.train()
    with CheckpointWriter(
        folder / job["name"], trainer.model, make_tokenizer(), keep=9, world=world, timeout=60
    ) as writer:
        if world.size > 1:
            dist.barrier()
        if trainer.step in job.get("save", ()):
            writer.save(trainer.optimizer, trainer.state(), extra=trainer.averages())
        while trainer.step < job.get("steps", 20):
            record = trainer.one_step()
            losses.append(record["loss"])
            norms.append(record["grad_norm"])
            if trainer.step in job.get("save", ()):
                writer.save(trainer.optimizer, trainer.state(), extra=trainer.averages())
    if world.size > 1:
        dist.barrier()
    if world.first:
        (folder / f"{job['name']}.json").write_text(json.dumps({"losses": losses, "norms": norms}))


def process(rank: int, size: int, jobs: list[dict[str, Any]], folder: Path) -> None:
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/meet-{jobs[0]['name']}", rank=rank, world_size=size
        )
    for job in jobs:
        if backend := job.get("backend"):
            torch.compile = functools.partial(torch.compile, backend=backend)  # type: ignore[assignment]
        tensor = KINDS[job["kind"]][1].get("tensor_parallel", 1)
        run(job, World(rank, size, None, tensor) if size > 1 else ALONE, folder)
    if size > 1:
        dist.destroy_process_group()


def main(jobs: list[dict[str, Any]], folder: Path) -> None:
    for size, group in itertools.groupby(jobs, key=lambda job: KINDS[job["kind"]][0]):
        together, children = list(group), []
        for rank in range(size):
            child = os.fork()
            if child == 0:
                try:
                    process(rank, size, together, folder)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            children.append(child)
        failed = [os.waitpid(child, 0)[1] for child in children]
        if any(failed):
            sys.exit(f"one of {[job['name'] for job in together]} failed")


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    main(given["jobs"], Path(given["folder"]))
