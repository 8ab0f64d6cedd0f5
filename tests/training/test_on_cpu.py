"""``--opt-state-on-cpu`` is the same optimizer, to the bit, with its state on the CPU, and its checkpoints are any other's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_case import make_model

from gpt3.errors import InputError
from gpt3.training.optimizers import OPTIMIZERS, make_optimizer
from gpt3.training.optimizers.on_cpu import OnCpu
from gpt3.training.options import TrainOptions
from gpt3.training.run import train


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_its_steps_are_the_optimizers_own(name: str) -> None:
    plain, ours = make_model(), make_model()
    optimizers = [
        make_optimizer(plain, TrainOptions(optimizer=name), 1e-2),
        make_optimizer(ours, TrainOptions(optimizer=name, opt_state_on_cpu=True), 1e-2),
    ]
    assert isinstance(optimizers[1], OnCpu)
    for step in range(4):
        tokens = torch.randint(33, (2, 16), generator=torch.Generator().manual_seed(step))
        for model, optimizer in zip((plain, ours), optimizers, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = group["lr_scale"] * 1e-2 / (step + 1)
            model(input_ids=tokens, labels=tokens).loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    for one, other in zip(plain.parameters(), ours.parameters(), strict=True):
        assert torch.equal(one, other)
        states = [optimizer.state[weight] for optimizer, weight in zip(optimizers, (one, other), strict=True)]
        assert states[0].keys() == states[1].keys()
        assert states[0]
        for key, value in states[0].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(states[1][key]))


def test_the_state_is_on_the_cpu() -> None:
    """The meta device stands for one with little memory."""
    model = make_model().to("meta")
    optimizer = make_optimizer(model, TrainOptions(optimizer="adamw", opt_state_on_cpu=True), 1e-2)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
        weight.grad.to = lambda device, shape=weight.shape: torch.zeros(shape)  # type: ignore[method-assign, assignment]
    with pytest.MonkeyPatch.context() as patch:
        copy = torch.Tensor.copy_
        patch.setattr(torch.Tensor, "copy_", lambda self, other: self if other.is_meta else copy(self, other))
        optimizer.step()
    assert {value.device.type for state in optimizer.state.values() for value in state.values()} == {"cpu"}
    assert len(optimizer.state) == len(list(model.parameters()))


def test_a_run_may_resume_with_its_state_elsewhere(tiny: Any, tmp_path: Path, capsys: Any) -> None:
    def weights(name: str) -> bytes:
        return (tmp_path / name / "model" / "model.safetensors").read_bytes()

    train(tiny(out=str(tmp_path / "plain")))
    for first, then in ((True, False), (False, True)):
        name = f"moved-{first}"
        train(tiny(out=str(tmp_path / name), opt_state_on_cpu=first, checkpoint_every=6))
        assert weights(name) == weights("plain")
        for path in ("model", "checkpoints/step-12"):
            shutil.rmtree(tmp_path / name / path)
        train(tiny(out=str(tmp_path / name), opt_state_on_cpu=then, checkpoint_every=6))
        assert weights(name) == weights("plain")
    assert "resuming from step-6" in capsys.readouterr().err


def test_with_split_matrices_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"^--tensor-parallel 2 does not work with --opt-state-on-cpu"):
        TrainOptions(parallel="fsdp", tensor_parallel=2, opt_state_on_cpu=True)
