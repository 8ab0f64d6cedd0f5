"""Where the threads that write one checkpoint wait for one another: in a folder that all ranks see, not in a collective.

And whether all ranks see it.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gpt3.errors import InputError, RunError

if TYPE_CHECKING:
    from gpt3.training.distributed import World

SEEN_WITHIN = 90.0
"""Seconds in which what one machine writes must be seen by the others; NFS may remember for 60 that a file was not there."""


@dataclass(frozen=True)
class Rendezvous:
    """Where the ranks' writers wait for one another: a folder of marker files, which rank 0 makes and removes."""

    folder: Path
    rank: int
    size: int
    timeout: float

    def arrive(self, stage: str, content: str = "") -> None:
        """Tell the others that this rank has done `stage`."""
        beginning = self.folder / f"{self.rank}.beginning"
        beginning.write_text(content, encoding="utf-8")
        os.replace(beginning, self.folder / f"{self.rank}.{stage}")

    def fail(self, reason: str) -> None:
        """Tell the others that this rank gives up. On a full disk the bare name may be all that fits."""
        try:
            failed = self.folder / f"{self.rank}.failed"
            failed.touch()
            failed.write_text(reason, encoding="utf-8")
        except OSError:
            pass  # they will wait until the time-out

    def wait(self, stage: str) -> list[str]:
        """Wait until every rank has done `stage`; returns what each said, by rank.

        Raises:
            RunError: a rank failed, or has not come in time.
        """
        missing = list(range(self.size))
        for _ in polls(self.timeout):
            missing = [rank for rank in missing if not (self.folder / f"{rank}.{stage}").exists()]
            if not missing:
                return [(self.folder / f"{r}.{stage}").read_text(encoding="utf-8") for r in range(self.size)]
            for failed in self.folder.glob("*.failed"):
                reason = failed.read_text(encoding="utf-8") or "no reason given"
                raise RunError(f"a checkpoint was given up: rank {failed.stem} could not write its part ({reason})")
            if not self.folder.exists():
                raise RunError("a checkpoint was given up: rank 0 failed, its message says why")
        raise RunError(
            f"a checkpoint was given up: rank {', '.join(map(str, missing))} did not come to it in {self.timeout:g} s"
        )


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
