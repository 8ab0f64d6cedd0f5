"""What a run computes on: its device and number format, and its processes.

Every process (rank) runs the same program; model_building.py spreads the model over them. A step's loss is a mean over its tokens
on all ranks, so that the result does not depend on their number but for the order of floating-point sums. Without torchrun's
variables there is one rank, and nothing here costs anything.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist

from gpt3.adaptive_threads import AdaptiveThreads, set_threads
from gpt3.device import choose_device, machine_memory, ran_out_of_memory
from gpt3.errors import InputError, RunError
from gpt3.inference.device_check import check_device
from gpt3.options import DType
from gpt3.progress import say
from gpt3.tables import counted
from gpt3.training.lean.products import has_onednn, onednn_linear
from gpt3.training.options import TrainOptions

DTYPES: dict[DType, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BF16_WORTH = 1.5
"""bf16 is used on a CPU whose bf16 products measure this many times faster than fp32's (AVX512-BF16 or AMX: 4; AVX2: 0.5)."""
GEMM_SHAPE = (2048, 768, 3072)
PATIENCE = datetime.timedelta(minutes=10)
"""How long a rank waits for others in a collective of training."""
LONG_PATIENCE = datetime.timedelta(days=2)
"""How long ranks wait for work that only rank 0 does: preparing data."""

FLIGHT_RECORDER = {"TORCH_FR_BUFFER_SIZE": "2000", "TORCH_NCCL_DUMP_ON_TIMEOUT": "1"}
"""NCCL's record of its last collectives, which it writes to /tmp/nccl_trace_rank_N where one waits in vain."""


@dataclass(frozen=True)
class Compute:
    """A device, a dtype for matrix products, and the measured peak of those products."""

    device: torch.device
    dtype: torch.dtype
    peak_flops: float
    """FLOP/s of a plain matrix product of GEMM_SHAPE in `dtype`, the median of a short measurement at start."""
    adaptive: AdaptiveThreads | None = None
    """What changes the number of threads as the machine is used for other things; None: it stays."""
    onednn: tuple[str, ...] | None = None
    """Products that oneDNN computes in a lean step (gpt3.training.lean); None: steps go through torch's operators."""

    @property
    def dtype_name(self) -> DType:
        """`dtype` as ``--dtype`` names it."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.dtype)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context that forward passes run in: weights stay fp32, products are computed in `dtype`."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def synchronize(self) -> None:
        """Wait for the device, so that a clock read next is true."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    def memory(self) -> int | None:
        """Bytes of memory of the device; for a CPU of this machine, or what its container allows. None where nobody says."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_properties(self.device).total_memory
        if self.device.type == "mps":
            return torch.mps.recommended_max_memory()
        return machine_memory()


def agree_on_compute(options: TrainOptions, world: World) -> Compute:
    """`choose_compute` with the dtype of rank 0: it is measured, and ranks might differ. Sets the number of threads.

    Raises:
        InputError: no such device, or one that does not compute what the CPU does.
    """
    name = options.device if world.size == 1 else device_of_ranks(options.device)
    if name != options.device and world.first and torch.backends.mps.is_available():
        say("Several processes train on the CPU: Apple's GPU takes one process.")
    alone = world.size == 1 and choose_device(name).type == "cpu"
    adaptive = set_threads(options.threads, adapt=alone)
    compute = choose_compute(name, options.dtype)
    agreed = world.agree(lambda: compute.dtype_name)
    if agreed != compute.dtype_name:
        compute = choose_compute(name, agreed)
    check_trusted(compute.device, options.trust_device, world)
    return replace(compute, adaptive=adaptive)


def check_trusted(device: torch.device, trust: bool, world: World) -> None:
    """Refuse devices that do not compute what the CPU does, on all ranks where one has such a device.

    Raises:
        InputError: this rank's device is one, and `trust` is not given.
        PeersLostError: another's is.
    """
    error: InputError | None = None
    try:
        check_device(device, trust)
    except InputError as found:
        error = found
    failures = int(world.all_reduce(torch.tensor(0 if error is None else 1)))
    if error is not None:
        raise error
    if failures:
        raise PeersLostError("the device of another process does not compute what the CPU does")


def device_of_ranks(name: str) -> str:
    """What ``--device NAME`` means to one of several processes: each has a GPU of its own (`open_world`), or the CPU.

    Raises:
        InputError: one GPU is named, or Apple's, which processes cannot exchange gradients on.
    """
    if ":" in name:
        raise InputError(f"--device {name} names one GPU, of several processes each has its own; give --device cuda")
    if name == "mps":
        raise InputError("--device mps takes one process; leave out --nproc, or give --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def choose_compute(device_name: str, dtype_name: DType) -> Compute:
    """Choose device and dtype, and measure the peak of that dtype's matrix products (about 0.2 s)."""
    device = choose_device(device_name)
    if device.type == "cuda":
        if device.index is not None:  # streams, synchronization and the random generator are the current device's
            torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")  # TF32 where fp32 is asked for
        if sys.platform == "linux" and not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & os.environ.keys():
            allocator: Any = torch._C
            allocator._accelerator_setAllocatorSettings("expandable_segments:True")  # less is lost to fragmentation
    dtype = torch.float32
    if dtype_name != "auto":
        dtype = DTYPES[dtype_name]
    elif device.type == "cuda":
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    elif device.type == "cpu":
        plain, half = gemm_flops(device, torch.float32), gemm_flops(device, torch.bfloat16)
        faster = half > BF16_WORTH * plain
        return Compute(device, torch.bfloat16 if faster else torch.float32, half if faster else plain)
    return Compute(device, dtype, gemm_flops(device, dtype))


def gemm_flops(device: torch.device, dtype: torch.dtype, seconds: float = 0.1) -> float:
    """FLOP/s of a product of GEMM_SHAPE, the median over about `seconds`; in fp32 on a CPU of the faster library's."""
    if device.type == "cpu" and dtype == torch.float32 and has_onednn():
        return max(_flops_of(device, dtype, seconds / 2, onednn) for onednn in (False, True))
    return _flops_of(device, dtype, seconds, False)


def _flops_of(device: torch.device, dtype: torch.dtype, seconds: float, onednn: bool) -> float:
    """FLOP/s of `F.linear`, or of oneDNN's."""
    m, k, n = GEMM_SHAPE if device.type == "cpu" else tuple(4 * size for size in GEMM_SHAPE)
    left = torch.randn(m, k, device=device).to(dtype)
    right = torch.randn(n, k, device=device).to(dtype)
    compute = Compute(device, dtype, 0.0)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 4 or time.perf_counter() - began < seconds:
        compute.synchronize()
        start = time.perf_counter()
        if onednn:
            onednn_linear(left, right)
        else:
            torch.nn.functional.linear(left, right)
        compute.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * m * k * n / statistics.median(times[1:])


class PeersLostError(RunError):
    """Another process was lost; that process, or who started it, reports what happened."""


@dataclass(frozen=True)
class World:
    """The processes of one run."""

    rank: int = 0
    size: int = 1
    control: Any = None
    """A process group for small messages between CPUs."""
    tensor: int = 1
    """Neighbouring ranks that split each matrix among them (tensor parallelism); they compute the same sequences."""

    @property
    def data_size(self) -> int:
        """Among how many a batch's sequences are shared out."""
        return self.size // self.tensor

    @property
    def data_rank(self) -> int:
        """This rank's number among those."""
        return self.rank // self.tensor

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
        """What `work` returns on rank 0, which alone does it.

        Raises:
            InputError, RunError: as `work` does, on every rank; rank 0's is the one to report.
        """
        if self.size == 1:
            return work()
        outcome: list[Any] = [None, None]
        if self.first:
            try:
                outcome[0] = work()
            except (InputError, RunError) as error:
                outcome[1] = error
        with peers_lost():
            dist.broadcast_object_list(outcome, 0, group=self.control)
        found, failure = outcome
        if failure is not None:
            raise failure if self.first or isinstance(failure, InputError) else PeersLostError(str(failure))
        return found

    def gather(self, value: Any) -> list[Any]:
        """Every rank's `value`, by rank."""
        values = [value] * self.size
        if self.size > 1:
            with peers_lost():
                dist.all_gather_object(values, value, group=self.control)
        return values


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
        text = str(error).lower()  # gloo raises plain RuntimeErrors of its own
        if not isinstance(error, dist.DistError) and not any(
            word in text for word in ("gloo", "connection", "timed out")
        ):
            raise
        reason = re.sub(r"^\[[^\]]*\] *", "", str(error).strip().splitlines()[0]).split(". ")[0][:120]
        rank = os.environ.get("RANK", "0")
        raise PeersLostError(
            f"process {rank}: another process was lost ({reason}). Run the same command to resume from the last checkpoint."
        ) from None


@contextlib.contextmanager
def open_world(device: str, tensor: int = 1) -> Iterator[World]:
    """Join the processes that torchrun (or ``gpt3 train --nproc``) started; one rank where nobody did.

    Args:
        device: ``--device``: gloo for cpu, NCCL for CUDA.
        tensor: ``--tensor-parallel``.

    Raises:
        InputError: more processes than GPUs, or `tensor` does not divide the processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size % tensor:
        raise InputError(f"--tensor-parallel {tensor} does not divide the {counted(size, 'process')}; give a divisor")
    if size == 1:
        yield ALONE
        return
    cuda = device_of_ranks(device) == "cuda"
    if cuda:
        here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", size)), torch.cuda.device_count()
        if here > gpus:
            raise InputError(f"{here} ranks on a machine of {gpus} GPUs: start one a GPU, or give --device cpu")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        for name, value in FLIGHT_RECORDER.items():
            os.environ.setdefault(name, value)
    nccl = cuda and dist.is_nccl_available()  # not on Windows, where gloo exchanges what DDP needs
    with peers_lost():
        dist.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo", timeout=PATIENCE)
        control = dist.new_group(backend="gloo", timeout=LONG_PATIENCE)
    try:
        yield World(int(os.environ["RANK"]), size, control, tensor)
    except BaseException:
        if not nccl:  # NCCL would wait for the others, who wait for this process: its end tells them
            leave()
        raise
    else:
        leave()


def leave() -> None:
    """Leave the process group; a lost peer must not hide the error that is on its way."""
    with contextlib.suppress(Exception):
        dist.destroy_process_group()


def is_sharded(options: TrainOptions, world: World) -> bool:
    """Whether the ranks hold parts of the model: then all of them compute each forward pass together."""
    return options.parallel == "fsdp" and world.size > 1


def shards_of(options: TrainOptions, world: World) -> int:
    """The ranks that share one copy of the model's rows; 1: each has all of them. Ranks that split matrices count as one.

    Raises:
        InputError: ``--shards`` does not divide the ranks.
    """
    if not is_sharded(options, world):
        return 1
    shards = options.shards or world.data_size
    if world.data_size % shards:
        pairs = "" if world.tensor == 1 else f" / {world.tensor} of --tensor-parallel"
        raise InputError(
            f"--shards {shards} does not divide the {world.size} processes{pairs}; give a divisor, such as the GPUs of a machine"
        )
    return shards


@contextlib.contextmanager
def full_machine() -> Iterator[None]:
    """A full disk, a file-size limit or full GPU memory as one line.

    Raises:
        RunError: in place of the OSError or OutOfMemoryError.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, RunError) or not ran_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0].split(". ")[0]
        reason = reason if "out of memory" in reason else f"out of memory ({reason})"
        raise RunError(f"{reason}; use a smaller --micro-batch, --gradient-checkpointing or --parallel fsdp") from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise RunError(
            f"cannot write {error.filename or 'the run folder'}: {error.strerror}. Free some space, then run the same command to "
            "resume from the last checkpoint."
        ) from None
