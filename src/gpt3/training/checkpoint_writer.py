"""Writing checkpoints while training continues.

`CheckpointWriter.save` gives each rank its share of whole tensors (whole_tensors.py), copies it to the CPU and returns; a thread
writes the copy into files of the rank's own (tensor_files.py), in a folder of its own, and takes their sha256. Rank 0 moves the
files into its folder, writes the manifest, and renames the folder. The threads need no collective: a rank that fails leaves a
word for rank 0, one that dies makes it give up after a time-out, and none can hang training.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gpt3.durable import TEMPORARY_SUFFIX, discard, replacing, write_hashed
from gpt3.errors import RunError
from gpt3.model_folder.write import model_folder_files
from gpt3.progress import say
from gpt3.training import random_state
from gpt3.training.checkpoint import (
    FORMAT,
    MANIFEST,
    STATE,
    checkpoints,
    discard_partial,
    kind_of,
    manifest_text,
    named_tensors,
    optimizer_state,
    random_name,
    retained,
    step_of,
)
from gpt3.training.distributed import ALONE, PeersLostError, World, peers_lost
from gpt3.training.shared_folder import check_shared, polls
from gpt3.training.tensor_files import SHARD_BYTES, indices, plan_files, write_tensors
from gpt3.training.whole_tensors import Key, gathered

FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
"""What the system says when a file cannot grow: disk full, file-size limit, quota."""


@dataclass(frozen=True)
class Snapshot:
    """All that one checkpoint says, held apart from what training changes."""

    path: Path
    """Where it goes: …/step-N."""
    number: int
    """Number of this save in this session, the same on all ranks."""
    size: int
    """Bytes of all tensors of all ranks."""
    tensors: dict[str, dict[str, Tensor]]
    """The tensors that this rank writes, on the CPU, by file and name."""
    others: dict[str, bytes]
    """The files without tensors, which rank 0 writes: the model folder's, state.json, indices."""
    best_step: int | None
    """The step whose checkpoint is kept as the best."""


class CheckpointWriter:
    """Saves a run's checkpoints in ``folder/step-N``, written by a thread; at most one is being written.

    Every rank makes one and calls it alike; with several ranks `folder` is on a file system that all of them see. The run
    folder must be locked by this run: half-written checkpoints found at the start are taken for dead and removed.

    Args:
        folder: …/checkpoints.
        model: plain, the module inside DDP, or one under FSDP2's ``fully_shard``.
        tokenizer: saved with each checkpoint, so that it can be generated from.
        keep: how many of the newest stay.
        keep_every: checkpoints of steps that it divides are kept forever; None: none are.
        world: the processes of the run; by default this one alone. Those with a control group find out together whether
            `folder` is the same to all, and whether a checkpoint failed.
        timeout: seconds to wait for another rank's part of a checkpoint.
        shard_bytes: of tensors in a file, at most.
    """

    def __init__(
        self,
        folder: Path,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        keep: int = 2,
        keep_every: int | None = None,
        world: World = ALONE,
        timeout: float = 1800.0,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self.folder = folder
        self.model = model
        self.keep = keep
        self.keep_every = keep_every
        self.world = world
        self.timeout = timeout
        self.shard_bytes = shard_bytes
        self._saves = 0
        self._buffers: dict[Key, Tensor] = {}
        self._pending: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._files: dict[str, bytes] = {}
        if world.control is not None:
            check_shared(folder, world)
        if self.world.rank == 0:
            self._files = model_folder_files(model, tokenizer)
            discard_partial(folder)

    def save(
        self,
        optimizer: torch.optim.Optimizer,
        state: Mapping[str, Any],
        *,
        extra: Mapping[str, Mapping[str, Tensor]] | None = None,
        best_step: int | None = None,
    ) -> Path:
        """Take a copy of everything and start to write it; training may continue at once. Returns the path it will have.

        Args:
            optimizer: over the model's parameters; its `state` is saved by the parameter's name, whatever its kind.
            state: anything JSON knows, with "step" among it.
            extra: further tensors by set and name; ``{"ema": …}`` becomes ema.safetensors.
            best_step: the best checkpoint's step, which stays whatever its age.

        Raises:
            RunError: the checkpoint before this one could not be written (a full disk, a rank that failed); a rank was lost.
        """
        self._wait_together()
        path = self.folder / f"step-{state['step']}"
        tensors, numbers = optimizer_state(self.model, optimizer)
        described = {
            **state,
            "format": FORMAT,
            "world_size": self.world.size,
            "optimizer": {"class": kind_of(optimizer), "numbers": numbers},
        }
        sets = {"model": named_tensors(self.model), "optimizer": tensors, **(extra or {})}
        sizes = {stem: {name: of.numel() * of.itemsize for name, of in named.items()} for stem, named in sets.items()}
        plan = plan_files(sizes, self.world.size, self.shard_bytes)
        owners = {(stem, name): file.rank for stem, files in plan.items() for file in files for name in file.tensors}
        with peers_lost():
            copies = self._copies(sets, owners)
        mine = {
            file.name: {name: copies[stem, name] for name in file.tensors}
            for stem, files in plan.items()
            for file in files
            if file.rank == self.world.rank
        }
        mine[random_name(self.world.rank, self.world.size)] = random_state.capture()
        others = {**self._files, STATE: json.dumps(described, indent=1).encode(), **indices(sizes, plan)}
        self._saves += 1
        total = sum(sum(each.values()) for each in sizes.values())
        snapshot = Snapshot(path, self._saves, total, mine, others, best_step)
        self._pending = self._thread.submit(self._write, snapshot)
        return path

    def wait(self) -> None:
        """Wait until this rank's part of the last checkpoint is written; on rank 0, until the checkpoint is whole.

        Raises:
            RunError: it could not be written; the older ones are untouched.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _wait_together(self) -> None:
        """`wait`, on all ranks: none waits for a slow disk of another's in a collective of training, which loses patience."""
        failure: RunError | None = None
        try:
            self.wait()
        except RunError as error:
            failure = error
        failures = 0
        if self.world.control is not None:
            failures = int(self.world.all_reduce(torch.tensor(0 if failure is None else 1)))
        if failure is not None:
            raise failure
        if failures:
            raise PeersLostError("another process could not write its part of the last checkpoint")

    def close(self) -> None:
        """As `wait`, and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self._buffers.clear()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self.close()
        except RunError as failure:
            if error is None:
                raise
            say(str(failure))  # the first error is the one to raise

    def _copies(self, sets: Mapping[str, Mapping[str, Tensor]], owners: Mapping[Key, int]) -> dict[Key, Tensor]:
        """The tensors this rank writes, on the CPU, in buffers used again by each save; pinned for a GPU."""
        tensors = {(stem, name): tensor.detach() for stem, named in sets.items() for name, tensor in named.items()}
        self._buffers = {key: old for key, old in self._buffers.items() if owners.get(key) == self.world.rank}
        gpu = False
        for key, place, part in gathered(tensors, owners, self.world.rank):
            shape, on_gpu = tensors[key].shape, part.device.type == "cuda"
            buffer = self._buffers.get(key)
            if buffer is None or buffer.shape != shape or buffer.dtype != part.dtype:
                buffer = torch.empty(shape, dtype=part.dtype, device="cpu", pin_memory=on_gpu)
                self._buffers[key] = buffer
            buffer[place].copy_(part, non_blocking=on_gpu)
            gpu |= on_gpu
        if gpu:
            torch.cuda.synchronize()  # of the current device, which the run's is (`choose_compute`)
        return self._buffers

    def _write(self, snapshot: Snapshot) -> None:
        """The thread's work."""
        name, rank = snapshot.path.name, self.world.rank
        try:
            if rank == 0:
                self._lead(snapshot)
            else:
                self._follow(snapshot)
        except OSError as error:
            raise RunError(
                f"checkpoint {name} could not be written in {self.folder}: {describe(error, self.folder, snapshot.size)}; "
                "older checkpoints are untouched, --resume auto continues from the newest"
            ) from error

    def _lead(self, snapshot: Snapshot) -> None:
        """Rank 0's work: its own files and the others', the manifest, the rename, and what goes afterwards."""
        try:
            with replacing(snapshot.path) as temporary:
                temporary.mkdir()
                files = {name: write_hashed(temporary / name, [content]) for name, content in snapshot.others.items()}
                files |= write_files(temporary, snapshot)
                for rank in range(1, self.world.size):
                    files |= self._collect(self._part(snapshot, rank), temporary, rank)
                (temporary / MANIFEST).write_bytes(manifest_text(files).encode())
        except BaseException:
            for rank in range(1, self.world.size):
                for left in (part := self._part(snapshot, rank), failure_of(part)):
                    discard(left)
            raise
        steps = {step_of(path): path for path in checkpoints(self.folder)}
        stay = retained(
            steps, step_of(snapshot.path), keep=self.keep, keep_every=self.keep_every, best=snapshot.best_step
        )
        for step in sorted(steps.keys() - stay):  # renamed first: what is called step-N is whole
            leaving = steps[step].with_name(f"{steps[step].name}.removed{TEMPORARY_SUFFIX}")
            os.replace(steps[step], leaving)
            discard(leaving)

    def _part(self, snapshot: Snapshot, rank: int) -> Path:
        """Where another rank puts its files; numbered, so that two saves of one step do not mix."""
        return self.folder / f"{snapshot.path.name}.{snapshot.number}-{rank}{TEMPORARY_SUFFIX}"

    def _follow(self, snapshot: Snapshot) -> None:
        """Another rank's work: its files, with their sizes and sums, for rank 0."""
        part = self._part(snapshot, self.world.rank)
        try:
            with replacing(part) as temporary:
                temporary.mkdir()
                files = write_files(temporary, snapshot)
                (temporary / MANIFEST).write_text(json.dumps(files), encoding="utf-8")
        except OSError as error:
            with contextlib.suppress(OSError):  # then rank 0 waits until the time-out
                failure_of(part).touch()  # on a full disk the bare name may be all that fits
                failure_of(part).write_text(error.strerror or str(error), encoding="utf-8")
            raise

    def _collect(self, part: Path, folder: Path, rank: int) -> dict[str, tuple[int, str]]:
        """Move another rank's files to `folder` once they are there. Returns their (bytes, sha256).

        Raises:
            RunError: it failed, or has not come in time.
        """
        for _ in polls(self.timeout):
            if part.is_dir():
                files = json.loads((part / MANIFEST).read_text(encoding="utf-8"))
                for name in files:
                    os.replace(part / name, folder / name)
                discard(part)
                return {name: (size, digest) for name, (size, digest) in files.items()}
            if failure_of(part).exists():
                reason = failure_of(part).read_text(encoding="utf-8") or "no reason given"
                raise RunError(f"a checkpoint was given up: rank {rank} could not write its part ({reason})")
        raise RunError(f"a checkpoint was given up: rank {rank} did not write its part in {self.timeout:g} s")


def write_files(folder: Path, snapshot: Snapshot) -> dict[str, tuple[int, str]]:
    """Write this rank's tensors. Returns the files' (bytes, sha256)."""
    return {name: write_tensors(folder / name, tensors) for name, tensors in snapshot.tensors.items()}


def failure_of(part: Path) -> Path:
    """The file in which a rank says why it cannot write its part."""
    return part.with_name(f"{part.name}.failed{TEMPORARY_SUFFIX}")


def describe(error: OSError, folder: Path, need: int) -> str:
    """An error of the file system in words, with the room needed and the room there is when a file could not grow."""
    if error.errno not in FULL:
        return str(error)
    free = shutil.disk_usage(folder).free
    return f"it needs {need / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free ({error.strerror})"
