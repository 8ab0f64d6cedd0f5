"""What a run computes on: its device and number format, its processes, and the model spread over them.

Every process (rank) runs the same program. Data-parallel (`ddp`): each holds the whole model. Fully sharded (`fsdp`, FSDP2): each
holds a part of every tensor. A step's loss is a mean over its tokens on all ranks, so that the result does not depend on their
number but for the order of floating-point sums. Without torchrun's variables there is one rank, and nothing here costs anything.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from gpt3.adaptive_threads import AdaptiveThreads, set_threads
from gpt3.device import choose_device, memory_limit, ran_out_of_memory
from gpt3.errors import InputError, RunError
from gpt3.ladder.presets import Preset
from gpt3.model import GPT3ForCausalLM
from gpt3.options import DType
from gpt3.progress import say
from gpt3.training.compilation import chooses_compile
from gpt3.training.options import TrainOptions

DTYPES: dict[DType, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BF16_WORTH = 1.5
"""bf16 is used on a CPU whose bf16 products measure this many times faster than fp32's (AVX512-BF16 or AMX: 4; AVX2: 0.5)."""
Weights = Callable[[str], torch.Tensor]
"""A tensor by its parameter's name, such as ``transformer.h.0.ln_1.weight``."""
GEMM_SHAPE = (2048, 768, 3072)
PATIENCE = datetime.timedelta(minutes=10)
"""How long a rank waits for others in a collective of training."""
LONG_PATIENCE = datetime.timedelta(days=2)
"""How long ranks wait for work that only rank 0 does: preparing data."""


@dataclass(frozen=True)
class Compute:
    """A device, a dtype for matrix products, and the measured peak of those products."""

    device: torch.device
    dtype: torch.dtype
    peak_flops: float
    """FLOP/s of a plain matrix product of GEMM_SHAPE in `dtype`, the median of a short measurement at start."""
    adaptive: AdaptiveThreads | None = None
    """What changes the number of threads as the machine is used for other things; None: it stays."""

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
        try:
            here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError, OSError):  # Windows
            return None
        return min(here, memory_limit() or here)


def agree_on_compute(options: TrainOptions, world: World) -> Compute:
    """`choose_compute` with the dtype of rank 0: it is measured, and ranks might differ. Sets the number of threads."""
    name = options.device if world.size == 1 else device_of_ranks(options.device)
    if name != options.device and world.first and torch.backends.mps.is_available():
        say("Several processes train on the CPU: Apple's GPU takes one process.")
    alone = world.size == 1 and choose_device(name).type == "cpu"
    adaptive = set_threads(options.threads, adapt=alone)
    compute = choose_compute(name, options.dtype)
    agreed = world.agree(lambda: compute.dtype_name)
    if agreed != compute.dtype_name:
        compute = choose_compute(name, agreed)
    return replace(compute, adaptive=adaptive)


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
        if device.index is not None:  # streams, synchronisation and the random generator are the current device's
            torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")  # TF32 where fp32 is asked for
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
    """FLOP/s of `F.linear` at GEMM_SHAPE, the median over about `seconds`."""
    m, k, n = GEMM_SHAPE if device.type == "cpu" else tuple(4 * size for size in GEMM_SHAPE)
    left = torch.randn(m, k, device=device).to(dtype)
    right = torch.randn(n, k, device=device).to(dtype)
    compute = Compute(device, dtype, 0.0)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 4 or time.perf_counter() - began < seconds:
        compute.synchronize()
        start = time.perf_counter()
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
def open_world(device: str) -> Iterator[World]:
    """Join the processes that torchrun (or ``gpt3 train --nproc``) started; one rank where nobody did.

    Args:
        device: ``--device``: gloo for cpu, NCCL for CUDA.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    cuda = device_of_ranks(device) == "cuda"
    if cuda:
        here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", size)), torch.cuda.device_count()
        if here > gpus:
            raise InputError(f"{here} ranks on a machine of {gpus} GPUs: start one a GPU, or give --device cpu")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    nccl = cuda and dist.is_nccl_available()  # not on Windows, where gloo exchanges what DDP needs
    with peers_lost():
        dist.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo", timeout=PATIENCE)
        control = dist.new_group(backend="gloo", timeout=LONG_PATIENCE)
    try:
        yield World(int(os.environ["RANK"]), size, control)
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


def build_model(
    options: TrainOptions,
    shape: Preset,
    end_of_text: int,
    compute: Compute,
    world: World,
    weights: Weights | None = None,
) -> tuple[GPT3ForCausalLM, torch.nn.Module]:
    """A model of this shape with its fresh weights, or `weights`, on the device, and what forward passes go through.

    One rank: the model itself. `ddp`: its wrapper. `fsdp`: the model sharded in place, block by block, so that no rank ever
    holds more than one block's weights whole, nor the token embedding beside one. Where it is compiled,
    it is so for each shape that it meets (gpt3.training.compilation keeps them few).
    """
    rate, device = options.dropout, compute.device
    config = shape.config(
        bos_token_id=end_of_text, eos_token_id=end_of_text, resid_pdrop=rate, embd_pdrop=rate, attn_pdrop=rate,
        use_pre_layernorm=options.pre_layernorm,
    )  # fmt: skip
    with torch.device("meta"):
        model = GPT3ForCausalLM(config)
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    forward: Any = model
    with peers_lost():
        if is_sharded(options, world):
            if device.type == "cuda" and not dist.is_nccl_available():
                raise InputError(
                    "--parallel fsdp needs NCCL, which torch does not have on this system; use --parallel ddp"
                )
            mesh = init_device_mesh(device.type, (world.size,))
            narrow = device.type == "cuda" and compute.dtype != torch.float32
            policy = mixed_precision(model, compute.dtype if narrow else None)
            for block in model.transformer.h:
                fill(model, block, options.seed, device, weights)
                fully_shard(block, mesh=mesh, mp_policy=policy)
            fill(model, model, options.seed, device, weights)  # what is left
            fully_shard(model, mesh=mesh, mp_policy=policy)
        else:
            fill(model, model, options.seed, device, weights)
            if world.size > 1:
                ids = [device.index] if device.type == "cuda" else None
                forward = torch.nn.parallel.DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)
    if chooses_compile(options, device, world):
        forward = torch.compile(forward, dynamic=False)
    return model, forward


def mixed_precision(model: GPT3ForCausalLM, dtype: torch.dtype | None) -> MixedPrecisionPolicy:
    """FSDP2's policy: weights are gathered in `dtype` (None: as they are), gradients summed in float32.

    The residual stream stays float32, as it does under autocast on one GPU or DDP: sums over many layers keep their small parts,
    and float16's range, which ends at 65,504, is no limit. FSDP2's default would round it at each block.
    """
    if dtype is not None:
        model.transformer.drop.register_forward_hook(lambda module, inputs, output: output.float())
    return MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)


def fill(
    model: GPT3ForCausalLM, part: nn.Module, seed: int, device: torch.device, weights: Weights | None = None
) -> None:
    """Give every tensor of `part` that is on the meta device its memory on `device` and its initial value.

    The values are those of the model's own table (`GPT3PreTrainedModel._init_weights`), drawn on the CPU: as many modules at a
    time as there are threads, each from a generator of its own.

    Args:
        model: what `part` belongs to; its tied head follows the token embedding.
        weights: values by the parameters' names, in place of the initial ones.
    """
    names = {id(module): name for name, module in model.named_modules()}
    head, table = model.lm_head, model.transformer.wte
    tied = model.config.tie_word_embeddings

    def draw(module: nn.Module) -> None:
        module.to_empty(device="cpu", recurse=False)
        name = names[id(module)]
        if weights is None:
            digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8, person=b"gpt3 init").digest()
            model._init_weights(module, torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1))
        else:
            with torch.no_grad():
                for own_name, parameter in module.named_parameters(recurse=False):
                    parameter.copy_(weights(f"{name}.{own_name}"))

    own = {module: next(iter(module.parameters(recurse=False)), None) for module in part.modules()}
    empty = [module for module, first in own.items() if first is not None and first.is_meta]
    empty = [module for module in empty if not (module is head and tied)]
    at_once = torch.get_num_threads() if weights is None else 1
    with ThreadPoolExecutor(at_once) as threads:
        for begin in range(0, len(empty), at_once):
            list(threads.map(draw, empty[begin : begin + at_once]))
            for module in empty[begin : begin + at_once]:
                module.to(device)
    if tied and head.weight is not table.weight:
        head.weight = table.weight


def gradients_stay(forward: torch.nn.Module, stay: bool) -> contextlib.AbstractContextManager[None]:
    """With `stay`, DDP's backward passes inside keep their gradients on each rank: only the last micro-batch's are exchanged.

    FSDP exchanges after each one: to keep whole gradients on every rank would undo what sharding saves.
    """
    inner = getattr(forward, "_orig_mod", forward)  # of a compiled module
    if stay and isinstance(inner, torch.nn.parallel.DistributedDataParallel):
        return inner.no_sync()
    return contextlib.nullcontext()


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
