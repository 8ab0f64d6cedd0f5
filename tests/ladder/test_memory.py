"""The memory formulas against what torch allocates: a real forward and backward, real shards of FSDP2."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from gpt3.ladder.memory import (
    BYTES,
    CHECKPOINTING_KINDS,
    Checkpointing,
    activation_bytes,
    block_parameters,
    gathered_bytes,
    loss_bytes,
    parameter_shapes,
    running_memory,
    shard_numbers,
    training_memory,
)
from gpt3.ladder.presets import PRESETS, Preset, preset
from gpt3.training.selective_checkpointing import enable_selective

SMALL = dataclasses.replace(
    preset("demo"), n_layers=4, d_model=64, n_heads=2, d_head=32, context=512, batch_tokens=4 * 512, window=64, vocab_size=1001
)  # fmt: skip
SHAPES = {
    "banded": SMALL,
    "wide heads": dataclasses.replace(SMALL, n_layers=3, d_head=64, context=768, batch_tokens=768, window=100),
    "narrow heads": dataclasses.replace(SMALL, d_head=16, context=1024, batch_tokens=1024, window=512),
    "dense": dataclasses.replace(SMALL, window=512),
}


def measured(entry: Preset, dtype: str, sequences: int, checkpointing: Checkpointing) -> tuple[int, int]:
    """Bytes of all live tensors but weights after a forward pass of the trunk, and at the peak of its backward pass, weights'
    gradients left out; counted allocation by allocation."""
    from torch.distributed._tools.mem_tracker import MemTracker

    from gpt3.model import GPT3ForCausalLM

    cpu = torch.device("cpu")
    model = GPT3ForCausalLM(entry.config()).train()
    if checkpointing == "full":
        model.gradient_checkpointing_enable()
    elif checkpointing == "selective":
        enable_selective(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tracker = MemTracker()
        tracker.track_external(model)
        ids = torch.randint(entry.vocab_size, (sequences, entry.context))
        with tracker:
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                hidden = model.transformer(ids, use_cache=False).last_hidden_state
            kept = {str(kind): size for kind, size in tracker.get_tracker_snapshot("current")[cpu].items()}
            hidden.sum().backward()
        peak = {str(kind): size for kind, size in tracker.get_tracker_snapshot("peak")[cpu].items()}
    (weights,) = (size for kind, size in kept.items() if "PARAM" in kind)
    (gradients,) = (size for kind, size in peak.items() if "GRAD" in kind)
    return kept["Total"] - weights, peak["Total"] - weights - gradients


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("checkpointing", CHECKPOINTING_KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("shape", "sequences"), [("banded", 2), ("wide heads", 2), ("narrow heads", 1), ("dense", 3)])
def test_activations_are_what_a_step_allocates(
    shape: str, sequences: int, dtype: str, checkpointing: Checkpointing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt3.model.banded_attention.EXACT_BELOW_KEYS", 0)  # a CPU's habit at short contexts
    entry = SHAPES[shape]
    _, peak = measured(entry, dtype, sequences, checkpointing)
    cast_blocks = entry.n_layers if checkpointing == "none" else 1
    casts = 2 * block_parameters(entry) * cast_blocks * (dtype == "bfloat16")
    assert activation_bytes(entry, dtype, sequences, checkpointing=checkpointing) + casts == pytest.approx(
        peak, rel=0.07
    )


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_checkpointing_keeps_one_input_a_layer() -> None:
    kept, _ = measured(SMALL, "float32", 2, "full")
    token = 4 * SMALL.d_model
    assert kept == pytest.approx(2 * SMALL.context * token * (SMALL.n_layers + 2), rel=0.02)


def test_the_loss_peaks_where_the_formula_says() -> None:
    """In float32, at GPU's chunk of 4,096 rows: the logits, the gradients of weight and input."""
    from torch.distributed._tools.mem_tracker import MemTracker

    from gpt3.model import linear_cross_entropy

    tokens, cpu = 4 * SMALL.context, torch.device("cpu")
    hidden = torch.randn(tokens, SMALL.d_model, requires_grad=True)
    weight = torch.randn(SMALL.vocab_size, SMALL.d_model, requires_grad=True)
    targets = torch.randint(SMALL.vocab_size, (tokens,))
    tracker = MemTracker()
    tracker.track_external(hidden, weight, targets)
    before = sum(x.nbytes for x in (hidden, weight, targets))
    with tracker:
        linear_cross_entropy(hidden, weight, targets, chunk=4096)
    peak = tracker.get_tracker_snapshot("peak")[cpu]["Total"] - before
    assert loss_bytes(SMALL, "float32", 4) == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize("name", PRESETS)
def test_parameter_shapes_make_the_model(name: str) -> None:
    entry = preset(name)
    assert shard_numbers(entry, 1) == entry.parameters
    assert sum(count for _, count in parameter_shapes(entry)) == 4 + 12 * entry.n_layers
    outside = (entry.vocab_size + entry.context + 2) * entry.d_model
    assert block_parameters(entry) * entry.n_layers + outside == entry.parameters


@pytest.mark.parametrize("shards", [2, 3, 100])
def test_shards_are_those_of_fsdp2(shards: int) -> None:
    """Rank 0's part, by a process group that only pretends to communicate."""
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from gpt3.model import GPT3ForCausalLM

    dist.init_process_group("fake", rank=0, world_size=shards, store=FakeStore())
    try:
        mesh = dist.init_device_mesh("cpu", (shards,))
        model = GPT3ForCausalLM(SMALL.config())
        for block in model.transformer.h:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        numbers = sum(parameter.to_local().numel() for parameter in model.parameters())
    finally:
        dist.destroy_process_group()
    assert shard_numbers(SMALL, shards) == numbers


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gathered_blocks_are_those_of_fsdp2(dtype: str) -> None:
    """A step on CPU tensors: weights of one block and the root, a block's two buffers. Not seen here: gradients of a block and
    the root, which the tracker counts as temporary."""
    import torch.distributed as dist
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from gpt3.model import GPT3ForCausalLM

    entry = dataclasses.replace(SMALL, d_model=256, d_head=128, context=64, batch_tokens=64, window=32)
    dist.init_process_group("fake", rank=0, world_size=8, store=FakeStore())
    try:
        mesh = dist.init_device_mesh("cpu", (8,))
        policy = MixedPrecisionPolicy(param_dtype=getattr(torch, dtype), reduce_dtype=torch.float32)
        model = GPT3ForCausalLM(entry.config()).train()
        for block in model.transformer.h:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh, mp_policy=policy)
        ids = torch.randint(entry.vocab_size, (1, 64))
        tracker = FSDPMemTracker(model)
        tracker.track_inputs((ids,))
        with warnings.catch_warnings(), tracker:
            warnings.simplefilter("ignore")
            model(input_ids=ids, shift_labels=ids, skip_logits=True, use_cache=False).loss.backward()
        peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    finally:
        dist.destroy_process_group()
    sizes = {getattr(kind, "name", kind): size for kind, size in peak.items()}
    seen = sizes["UNSHARDED_PARAM"] + sizes["ALL_GATHER"] + sizes["REDUCE_SCATTER"]
    number, block = BYTES[dtype], block_parameters(entry)
    root = entry.parameters - entry.n_layers * block
    unseen = number * (block + root)
    assert gathered_bytes(entry, dtype) - unseen == pytest.approx(seen, rel=0.02)


RANK = """
import sys, json, torch, torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from tests.ladder.test_memory import SMALL
from gpt3.model import GPT3ForCausalLM
rank, meeting = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
model = GPT3ForCausalLM(SMALL.config())
for block in model.transformer.h:
    fully_shard(block)
fully_shard(model)
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
ids = torch.randint(SMALL.vocab_size, (1, 128))
model(input_ids=ids, labels=ids, skip_logits=True, use_cache=False).loss.backward()
optimizer.step()
local = lambda x: x.to_local().nbytes
moments = sum(local(x) for s in optimizer.state.values() for x in s.values() if x.ndim)
print(json.dumps([sum(map(local, model.parameters())), sum(local(p.grad) for p in model.parameters()), moments]))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_hold_half_each(tmp_path: Path) -> None:
    """Weights, gradients and moments of a real step on gloo, byte for byte on the fuller rank, never more on the other."""
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "src")]), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "meeting")],
            stdout=subprocess.PIPE, text=True, env=environment, cwd=root,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        found = [json.loads(process.communicate(timeout=240)[0].splitlines()[-1]) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    memory = training_memory(SMALL, "float32", shards=2)
    assert found[0] == [memory.weights, memory.gradients, memory.optimizer]
    assert sum(found[1]) < sum(found[0])
    assert [a + b for a, b in zip(*found, strict=True)] == [n * SMALL.parameters for n in (4, 4, 8)]


def test_memory_adds_up() -> None:
    entry = preset("175B")
    memory = training_memory(entry)
    assert memory.weights + memory.gradients + memory.optimizer == 16 * entry.parameters
    assert training_memory(entry, moments=4.0).optimizer == 4 * entry.parameters  # one moment in place of two
    assert memory.copies == 0
    assert training_memory(entry, "bfloat16").copies == 2 * entry.parameters  # autocast's
    sharded = training_memory(entry, "bfloat16", shards=96)
    assert sharded.weights == pytest.approx(memory.weights / 96, rel=1e-3)
    # a block: 12 C^2 + 13 C; its bf16 weights once for use and once in a buffer, bf16 gradients and their float32 buffer
    block = 12 * 12288**2 + 13 * 12288
    root = (50257 + 2048 + 2) * 12288
    assert sharded.copies == gathered_bytes(entry, "bfloat16") == 10 * block + 4 * root
    # 96 layers of 2,048 (dense) or 256 (banded) keys and values of 12,288 numbers
    cache = 2 * 12288 * (48 * 2048 + 48 * 256)
    assert running_memory(entry, "bfloat16") == 2 * entry.parameters + 2 * cache
    assert running_memory(entry, "int8") == entry.parameters + 2 * cache
    layers = 96 * 12 * 12288**2  # the matrices, in 4.5 bits; the rest is int8
    assert running_memory(entry, "int4") == 4.5 / 8 * layers + (entry.parameters - layers) + 2 * cache
