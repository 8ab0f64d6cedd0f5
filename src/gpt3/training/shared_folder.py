"""The folder that all ranks write checkpoints into: whether it is the same to all, and how one waits for another there."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gpt3.errors import InputError

if TYPE_CHECKING:
    from gpt3.training.distributed import World

SEEN_WITHIN = 90.0
"""Seconds in which what one machine writes must be seen by the others; NFS may remember for 60 that a file was not there."""


def polls(timeout: float) -> Iterator[None]:
    """Again and again for `timeout` seconds, with ever longer pauses of at most half a second."""
    pause, end = 0.002, time.monotonic() + timeout
    while True:
        yield
        if time.monotonic() > end:
            return
        time.sleep(pause)
        pause = min(0.5, pause * 1.5)


def check_shared(folder: Path, world: World, timeout: float = SEEN_WITHIN) -> None:
    """Refuse a folder that is not the same one to all ranks, such as one on each machine's own disk: each looks for a file.

    Raises:
        InputError: a rank does not find what rank 0 wrote there, or not within `timeout` seconds.
    """

    def write() -> str:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"shared-{uuid.uuid4().hex}"
        (folder / name).touch()
        return name

    name: str = world.agree(write)
    seen = any((folder / name).exists() for _ in polls(timeout))
    missing = int(world.all_reduce(torch.tensor(0 if seen else 1)))
    if world.first:
        (folder / name).unlink(missing_ok=True)
    if missing:
        where = "another process" if seen else f"process {world.rank} on {socket.gethostname()}"
        raise InputError(
            f"--out: {where} does not find what process 0 wrote into {folder}; put --out on storage that every machine sees"
        )
