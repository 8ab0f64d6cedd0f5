"""Optimizers and weight average on FSDP2's sharded weights (DTensor), held to the same on whole ones."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from gpt3.ladder.presets import preset
from gpt3.model import GPT3ForCausalLM
from gpt3.training.model_building import mixed_precision
from gpt3.training.optimizers import OPTIMIZERS, make_optimizer
from gpt3.training.options import TrainOptions
from gpt3.training.weight_average import WeightAverage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="gloo with DTensor is tested on Linux")


def tiny_model(sharded: bool) -> GPT3ForCausalLM:
    torch.manual_seed(0)
    model = GPT3ForCausalLM(
        preset("demo").config(num_hidden_layers=2, hidden_size=16, num_attention_heads=2, head_dim=8, vocab_size=64)
    )
    if sharded:
        mesh = dist.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),))
        for block in model.transformer.h:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
    return model


def take_steps(model: GPT3ForCausalLM, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    """Real steps on the same batch everywhere."""
    for seed in seeds:
        tokens = torch.randint(0, 64, (2, 17), generator=torch.Generator().manual_seed(seed))
        model(input_ids=tokens[:, :-1], shift_labels=tokens[:, 1:], skip_logits=True, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def whole_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: whole(weight) for name, weight in model.named_parameters()}


def check_optimizer(name: str) -> None:
    """Sharded steps are whole steps, and a state carried over by torch.distributed.checkpoint goes on bit for bit."""
    options = TrainOptions(optimizer=name)
    plain, sharded = tiny_model(False), tiny_model(True)
    take_steps(plain, make_optimizer(plain, options, lr=1e-3), range(3))
    optimizer = make_optimizer(sharded, options, lr=1e-3)
    take_steps(sharded, optimizer, range(3))
    # Muon computes in bf16, where another order of sums shows in the third digit of an update of size lr
    tolerance = 2e-4 if name == "muon" else 2e-5
    for key, weight in whole_weights(sharded).items():
        torch.testing.assert_close(weight, whole_weights(plain)[key], rtol=0, atol=tolerance)

    other = tiny_model(True)
    other.load_state_dict(sharded.state_dict())
    restored = make_optimizer(other, options, lr=1e-3)
    state = copy.deepcopy(get_optimizer_state_dict(sharded, optimizer))  # live tensors, and both go on
    set_optimizer_state_dict(other, restored, state)
    take_steps(sharded, optimizer, range(3, 5))
    take_steps(other, restored, range(3, 5))
    expected = whole_weights(sharded)
    assert all(torch.equal(weight, expected[key]) for key, weight in whole_weights(other).items())


def check_average() -> None:
    """The average of sharded weights is that of whole ones, and neither forward pass sees the other's weights."""
    model = tiny_model(True)
    optimizer = make_optimizer(model, TrainOptions(optimizer="adamw"), lr=1e-2)
    average, sums = WeightAverage(model, 0.5), dict.fromkeys(whole_weights(model), 0.0)
    for step in range(1, 4):
        take_steps(model, optimizer, range(step, step + 1))
        average.update(step)
        sums = {name: 0.5 * sums[name] + 0.5 * weight for name, weight in whole_weights(model).items()}
    assert all(isinstance(tensor, DTensor) for tensor in average.tensors.values())
    for name, tensor in average.tensors.items():
        torch.testing.assert_close(whole(tensor), sums[name] / (1 - 0.5**3), rtol=1e-5, atol=1e-6)
    tokens = torch.arange(16)[None]
    with torch.no_grad():
        before = model(tokens).logits
        with average.swapped_in():
            inside = model(tokens).logits
        after = model(tokens).logits
        reference = tiny_model(False)
        reference.load_state_dict({name: whole(tensor) for name, tensor in average.tensors.items()}, strict=False)
        torch.testing.assert_close(inside, reference(tokens).logits, rtol=1e-5, atol=1e-5)
    assert torch.equal(before, after)
    assert not torch.equal(before, inside)


@pytest.fixture(scope="module")
def one_process():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_on_sharded_weights(one_process, name: str) -> None:
    check_optimizer(name)


def test_the_average_of_sharded_weights(one_process) -> None:
    check_average()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_residual_stream_of_sharded_weights_is_float32(one_process, dtype: torch.dtype, monkeypatch) -> None:
    """Also beyond what fp16 holds: each of two layers adds 60,000."""
    original = torch.nn.functional.layer_norm

    def layer_norm(x, shape, weight, bias, eps):  # as autocast on CUDA computes it; on a CPU it wants one format
        return original(x.float(), shape, weight.float(), bias.float(), eps)

    monkeypatch.setattr(torch.nn.functional, "layer_norm", layer_norm)
    model = tiny_model(False)
    for block in model.transformer.h:
        torch.nn.init.constant_(block.mlp.c_proj.bias, 6e4)
    policy = mixed_precision(model, dtype)
    mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
    streams: list[torch.Tensor] = []
    for block in model.transformer.h:
        fully_shard(block, mesh=mesh, mp_policy=policy)
        block.register_forward_hook(lambda module, inputs, output: streams.append(output))
    fully_shard(model, mesh=mesh, mp_policy=policy)
    tokens = torch.arange(16)[None]
    with torch.autocast("cpu", dtype=dtype):
        loss = model(tokens, shift_labels=tokens, skip_logits=True, use_cache=False).loss
    loss.backward()
    assert [stream.dtype for stream in streams] == [torch.float32] * 2
    assert float(streams[1].detach().mean()) == pytest.approx(1.2e5, rel=0.01)
    assert torch.isfinite(loss)
    assert all(bool(torch.isfinite(weight.grad.full_tensor()).all()) for weight in model.parameters())


def _two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", 2), rank=rank, world_size=2)
    for name in OPTIMIZERS:
        check_optimizer(name)
    check_average()
    dist.destroy_process_group()


@pytest.mark.slow
def test_the_same_on_two_processes(tmp_path) -> None:
    torch.multiprocessing.spawn(_two, (str(tmp_path),), nprocs=2)
