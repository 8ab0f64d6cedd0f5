"""A run's model: built without memory, filled with weights part by part, spread over the processes, compiled.

Data-parallel (`ddp`): each process holds the whole model. Fully sharded (`fsdp`, FSDP2): each holds a part of every tensor. With
``--shards N`` (hybrid, HSDP) N processes share the parts of one copy of the model, and there are as many copies as there are N's.
With ``--tensor-parallel N`` the matrices are split over N processes before (tensor_parallel.py).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from gpt3.errors import InputError
from gpt3.ladder.presets import Preset
from gpt3.model import GPT3ForCausalLM
from gpt3.progress import say
from gpt3.training import lean
from gpt3.training.compilation import chooses_compile, compile_block, is_compiled
from gpt3.training.distributed import Compute, World, is_sharded, peers_lost, shards_of
from gpt3.training.lean.products import has_onednn
from gpt3.training.options import TrainOptions
from gpt3.training.selective_checkpointing import enable_selective
from gpt3.training.tensor_parallel import split_block, split_rest

Weights = Callable[[str], torch.Tensor]
"""A tensor by its parameter's name, such as ``transformer.h.0.ln_1.weight``."""


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
    elif options.selective_checkpointing:
        enable_selective(model)
    forward: Any = model
    with peers_lost():
        if is_sharded(options, world):
            if device.type == "cuda" and not dist.is_nccl_available():
                raise InputError(
                    "--parallel fsdp needs NCCL, which torch does not have on this system; use --parallel ddp"
                )
            if shape.n_heads % world.tensor:
                raise InputError(
                    f"--tensor-parallel {world.tensor} does not divide the {shape.n_heads} heads of {shape.name}; give a divisor"
                )
            data, tensor = meshes_of(options, device.type, world)
            compiled = chooses_compile(options, device, world)
            narrow = device.type != "cpu" and compute.dtype != torch.float32
            policy = mixed_precision(model, compute.dtype if narrow else None)
            offload = (
                CPUOffloadPolicy(pin_memory=device.type == "cuda") if options.opt_state_on_cpu else OffloadPolicy()
            )
            for block in model.transformer.h:
                fill(model, block, options.seed, device, weights)
                if tensor is not None:
                    split_block(block, tensor)
                if compiled:
                    compile_block(block)
                if data is not None:
                    fully_shard(block, mesh=data, mp_policy=policy, offload_policy=offload)
            fill(model, model, options.seed, device, weights)  # what is left
            if tensor is not None:
                split_rest(model, tensor)
            if data is not None:
                fully_shard(model, mesh=data, mp_policy=policy, offload_policy=offload)
            model.compiles_loss = compiled
        else:
            fill(model, model, options.seed, device, weights)
            if world.size > 1:
                ids = [device.index] if device.type == "cuda" else None
                forward = torch.nn.parallel.DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)
            if chooses_compile(options, device, world):
                forward = torch.compile(forward, dynamic=False)
    return model, forward


def meshes_of(options: TrainOptions, device_type: str, world: World) -> tuple[DeviceMesh | None, DeviceMesh | None]:
    """The mesh of FSDP2, and the one of tensor parallelism; None where there is one process in each.

    Copies of the model are farthest apart, then the parts of its rows (``shard``), and the processes that split matrices
    (``tensor``), which exchange most, are neighbours.

    Raises:
        InputError: ``--shards`` does not divide the processes.
    """
    shards = shards_of(options, world)
    sizes = {"replicate": world.data_size // shards, "shard": shards, "tensor": world.tensor}
    sizes = {name: size for name, size in sizes.items() if size > 1}
    mesh = init_device_mesh(device_type, tuple(sizes.values()), mesh_dim_names=tuple(sizes))
    if {"shard", "tensor"} <= sizes.keys():
        mesh["shard", "tensor"]._flatten()  # so that a norm is summed over both in one exchange, the same on all
    data = tuple(name for name in sizes if name != "tensor")
    return mesh[data] if data else None, mesh["tensor"] if world.tensor > 1 else None


def choose_step(
    model: GPT3ForCausalLM,
    forward: nn.Module,
    options: TrainOptions,
    rows: int,
    compute: Compute,
    world: World,
    recorded: Mapping[str, Any] | None,
) -> Compute:
    """`compute` with the kind of step that `model` takes from now on: lean where it fits, else through torch's operators.

    Args:
        model, forward: as `build_model` gave them.
        rows: tokens of a micro-batch.
        recorded: what decided the order of sums in the run that is resumed (`Trainer.computed`), which is repeated.
    """
    before = None if recorded is None else recorded.get("onednn")
    if recorded is not None and before is None:
        return compute
    other = is_compiled(forward) or is_sharded(options, world) or options.selective_checkpointing
    if other or not lean.fits(model, compute.device, compute.dtype):
        return compute
    onednn = world.agree(lambda: lean.choose(model, rows, compute.dtype) if before is None else before)
    if onednn and not has_onednn():
        if world.first:
            say("this torch has no oneDNN, which the run used: MKL computes its products, and the last bits may differ")
        onednn = []
    lean.install(model, onednn, compute.dtype)
    return replace(compute, onednn=tuple(onednn))


def mixed_precision(model: GPT3ForCausalLM, dtype: torch.dtype | None) -> MixedPrecisionPolicy:
    """FSDP2's policy: weights are gathered in `dtype` and gradients summed in float32; None: both in the weights' own format.

    The residual stream stays float32, as it does under autocast on one GPU or DDP: sums over many layers keep their small parts,
    and float16's range, which ends at 65,504, is no limit. FSDP2's default would round it at each block.
    """
    if dtype is not None:
        model.transformer.drop.register_forward_hook(lambda module, inputs, output: output.float())
    reduced = None if dtype is None else torch.float32
    return MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=reduced, cast_forward_inputs=False)


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


@contextlib.contextmanager
def gradients_stay(forward: torch.nn.Module, stay: bool, whole: bool = False) -> Iterator[None]:
    """With `stay`, backward passes inside leave an exchange of gradients to the last micro-batch's.

    Under DDP all of it. Under FSDP2 only that between copies of the model (HSDP): gradients are reduced to each rank's part
    after every backward pass.

    Args:
        whole: under FSDP2, too, each rank keeps whole gradients until the last: one reduction per step, and memory for them.
    """
    inner: Any = getattr(forward, "_orig_mod", forward)  # of a compiled module
    if not isinstance(inner, FSDPModule):
        no_sync = stay and isinstance(inner, torch.nn.parallel.DistributedDataParallel)
        with inner.no_sync() if no_sync else contextlib.nullcontext():
            yield
        return
    inner.set_requires_gradient_sync(not (stay and whole))
    inner.set_requires_all_reduce(not stay)
    yield
