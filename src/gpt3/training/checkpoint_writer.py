"""Writing checkpoints while training continues.

`CheckpointWriter.save` copies what must be saved to the CPU and returns; a thread writes the copy. Each rank writes the rows that
it holds into the same files (tensor_files.py). The ranks' writers meet in the half-written folder, by marker files, not in a
collective: a rank that fails or dies makes the others give up after a message or a time-out, and can hang nobody's training.

    rank 0: make the folder and its files at full size ┐
    all:    write own rows, fsync                       ├ meet: "written"
    all:    sha256 of every world_size-th file          ├ meet: "hashed"
    rank 0: manifest.json, fsync, rename, remove what is no longer kept
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gpt3.durable import TEMPORARY_SUFFIX, discard, fsync_file, replacing, sha256_of
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
from gpt3.training.distributed import ALONE, PeersLostError, World
from gpt3.training.rendezvous import Rendezvous, check_shared, polls
from gpt3.training.tensor_files import SHARD_BYTES, Layout, Piece, piece_of, plan_layout

FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
"""What the system says when a file cannot grow: disk full, file-size limit, quota."""


@dataclass(frozen=True)
class Snapshot:
    """All that one checkpoint says, held apart from what training changes."""

    path: Path
    """Where it goes: …/step-N."""
    number: int
    """Number of this save in this session, the same on all ranks."""
    layouts: dict[str, Layout]
    """Each set's files, by its name (model, optimizer, …)."""
    pieces: dict[str, dict[str, tuple[Piece, Tensor]]]
    """Each set's pieces that this rank writes, and their values on the CPU."""
    generators: dict[str, Tensor]
    """This rank's random generators."""
    state: str
    """state.json."""
    best_step: int | None
    """The step whose checkpoint is kept as the best."""

    @property
    def bytes(self) -> int:
        """The size of the whole, configuration and tokenizer left out."""
        return sum(sum(layout.sizes.values()) for layout in self.layouts.values())


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
        shard_bytes: a set of tensors larger than this is split over several files.
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
        self._buffers: dict[str, Tensor] = {}
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
            RunError: the checkpoint before this one could not be written (a full disk, a rank that failed).
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
        pieces = {
            stem: {name: piece_of(tensor, self.world.rank, name) for name, tensor in named.items()}
            for stem, named in sets.items()
        }
        layouts = {stem: plan_layout(stem, held, self.shard_bytes) for stem, held in pieces.items()}
        self._saves += 1
        snapshot = Snapshot(
            path, self._saves, layouts, self._copies(pieces), random_state.capture(), json.dumps(described, indent=1),
            best_step,
        )  # fmt: skip
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

    def _copies(self, pieces: dict[str, dict[str, Piece]]) -> dict[str, dict[str, tuple[Piece, Tensor]]]:
        """The pieces this rank writes and their values on the CPU, in buffers used again by each save; pinned for a GPU."""
        copies: dict[str, dict[str, tuple[Piece, Tensor]]] = {}
        gpu = False
        for stem, held in pieces.items():
            copies[stem] = {}
            for name, piece in held.items():
                if not piece.owned:
                    continue
                data, key = piece.data, f"{stem}/{name}"
                on_gpu = data.device.type == "cuda"
                buffer = self._buffers.get(key)
                if buffer is None or buffer.shape != data.shape or buffer.dtype != data.dtype:
                    buffer = torch.empty(data.shape, dtype=data.dtype, device="cpu", pin_memory=on_gpu)
                    self._buffers[key] = buffer
                buffer.copy_(data, non_blocking=on_gpu)
                copies[stem][name] = piece, buffer
                gpu |= on_gpu
        if gpu:
            torch.cuda.synchronize()  # of the current device, which the run's is (`choose_compute`)
        return copies

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
                f"checkpoint {name} could not be written in {self.folder}: {describe(error, self.folder, snapshot.bytes)}; "
                "older checkpoints are untouched, --resume auto continues from the newest"
            ) from error

    def _lead(self, snapshot: Snapshot) -> None:
        """Rank 0's part: the folder, the manifest, the rename, and what goes afterwards."""
        with replacing(snapshot.path) as temporary:
            temporary.mkdir()
            for name, content in self._files.items():
                (temporary / name).write_bytes(content)
            (temporary / STATE).write_text(snapshot.state, encoding="utf-8")
            for layout in snapshot.layouts.values():
                layout.create(temporary)
            rendezvous = Rendezvous(temporary / rendezvous_name(snapshot), 0, self.world.size, self.timeout)
            rendezvous.folder.mkdir()
            files = self._write_part(snapshot, temporary, rendezvous)
            discard(rendezvous.folder)
            for name in files:
                fsync_file(temporary / name)
            (temporary / MANIFEST).write_text(manifest_text(files), encoding="utf-8")
        steps = {step_of(path): path for path in checkpoints(self.folder)}
        stay = retained(
            steps, step_of(snapshot.path), keep=self.keep, keep_every=self.keep_every, best=snapshot.best_step
        )
        for step in sorted(steps.keys() - stay):  # renamed first: what is called step-N is whole
            leaving = steps[step].with_name(f"{steps[step].name}.removed{TEMPORARY_SUFFIX}")
            os.replace(steps[step], leaving)
            discard(leaving)

    def _follow(self, snapshot: Snapshot) -> None:
        """Another rank's part: to write its rows into the folder that rank 0 makes."""
        pattern = re.compile(re.escape(snapshot.path.name) + r"\.\d+" + re.escape(TEMPORARY_SUFFIX))
        for _ in polls(self.timeout):
            for temporary in self.folder.glob(f"{snapshot.path.name}.*{TEMPORARY_SUFFIX}"):
                folder = temporary / rendezvous_name(snapshot)
                if pattern.fullmatch(temporary.name) and folder.is_dir():
                    rendezvous = Rendezvous(folder, self.world.rank, self.world.size, self.timeout)
                    try:
                        self._write_part(snapshot, temporary, rendezvous)
                    except FileNotFoundError as error:  # the folder went while this rank wrote
                        name = snapshot.path.name
                        raise RunError(f"checkpoint {name} was given up by rank 0, whose message says why") from error
                    return
        raise RunError(f"checkpoint {snapshot.path.name}: rank 0 did not begin to write it within {self.timeout:g} s")

    def _write_part(self, snapshot: Snapshot, temporary: Path, rendezvous: Rendezvous) -> dict[str, tuple[int, str]]:
        """Write this rank's rows and generators, then hash its share of the files; all files' (bytes, sha256) on rank 0."""
        rank, size = self.world.rank, self.world.size
        try:
            for stem, layout in snapshot.layouts.items():
                layout.write(temporary, snapshot.pieces[stem])
            generators = temporary / random_name(rank, size)
            save_file(snapshot.generators, generators, metadata={"format": "pt"})
            fsync_file(generators)
            rendezvous.arrive("written")
            rendezvous.wait("written")
            names = sorted(path.name for path in temporary.iterdir() if path.is_file())
            mine = {n: ((temporary / n).stat().st_size, sha256_of(temporary / n)) for n in names[rank::size]}
            rendezvous.arrive("hashed", json.dumps(mine))
        except OSError as error:
            rendezvous.fail(error.strerror or str(error))
            raise
        if rank > 0:
            return mine
        parts = rendezvous.wait("hashed")
        return {n: (entry[0], entry[1]) for part in parts for n, entry in json.loads(part).items()}


def rendezvous_name(snapshot: Snapshot) -> str:
    """The rendezvous's folder name; numbered, so that two saves of one step do not mix."""
    return f"ranks-{snapshot.number}"


def describe(error: OSError, folder: Path, need: int) -> str:
    """An error of the file system in words, with the room needed and the room there is when a file could not grow."""
    if error.errno not in FULL:
        return str(error)
    free = shutil.disk_usage(folder).free
    return f"it needs {need / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free ({error.strerror})"
