"""Selective checkpointing: the same bits as without, the bytes that the formula says, and products are not computed again."""

from __future__ import annotations

import collections
from typing import Any

import pytest
import torch
from checkpoint_case import VOCABULARY, make_model
from torch.utils._python_dispatch import TorchDispatchMode

from gpt3.ladder.memory import activation_bytes
from gpt3.ladder.presets import preset
from gpt3.training.options import TrainOptions
from gpt3.training.selective_checkpointing import enable_selective


class Products(TorchDispatchMode):
    """How often each operator ran."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = collections.Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func._schema.name.removeprefix("aten::")] += 1
        return func(*args, **(kwargs or {}))


def step(model: Any, dtype: torch.dtype, packed: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor], Products]:
    """Loss, gradients and operators of a training step."""
    tokens = torch.randint(1, VOCABULARY, (2, 17), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": tokens[:, :-1], "shift_labels": tokens[:, 1:]}
    if packed:
        batch["position_ids"] = torch.arange(8).repeat(2).expand(2, -1)
    torch.manual_seed(5)
    with Products() as products:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = model.train()(**batch, skip_logits=True, use_cache=False).loss
        loss.backward()
    return loss.detach(), {name: weight.grad for name, weight in model.named_parameters()}, products


@pytest.mark.parametrize(
    "changes", [{}, {"use_pre_layernorm": False}, {"resid_pdrop": 0.3, "attn_pdrop": 0.3}], ids=str
)
@pytest.mark.parametrize(("dtype", "packed"), [(torch.float32, False), (torch.bfloat16, False), (torch.float32, True)])
def test_losses_and_gradients_are_the_same_bits(changes: dict[str, Any], dtype: torch.dtype, packed: bool) -> None:
    plain, selective = make_model(**changes), make_model(**changes)
    enable_selective(selective)
    loss, gradients, products = step(plain, dtype, packed)
    other_loss, other_gradients, other_products = step(selective, dtype, packed)
    assert torch.equal(loss, other_loss)
    for name, gradient in gradients.items():
        assert torch.equal(gradient, other_gradients[name]), name
    for name, count in products.counts.items():
        if "mm" in name or "attention" in name:
            assert other_products.counts[name] == count, name
    assert other_products.counts["gelu"] == 2 * products.counts["gelu"]
    assert other_products.counts["native_layer_norm"] > products.counts["native_layer_norm"]


def test_the_command_knows_it() -> None:
    assert TrainOptions().checkpointing == "none"
    assert TrainOptions(selective_checkpointing=True).checkpointing == "selective"
    assert TrainOptions(gradient_checkpointing=True).checkpointing == "full"
    with pytest.raises(Exception, match="both say what is computed again; give one"):
        TrainOptions(gradient_checkpointing=True, selective_checkpointing=True)


def test_of_the_papers_models_it_takes_between_none_and_full() -> None:
    for name in ("125M", "1.3B", "175B"):
        none, selective, full = (
            activation_bytes(preset(name), "bfloat16", 4, checkpointing=kind) for kind in ("none", "selective", "full")
        )
        assert full < 0.75 * selective
        assert selective < 0.75 * none
