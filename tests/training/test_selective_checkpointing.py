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
        if name in ("mm", "addmm") or "attention" in name:  # with dropout a CPU has no fused attention
            assert other_products.counts[name] == count, name
    assert other_products.counts["gelu"] == 2 * products.counts["gelu"]
    assert other_products.counts["native_layer_norm"] > products.counts["native_layer_norm"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_has_one_graph_and_computes_the_same() -> None:
    """By AOTAutograd, whose partitioner keeps what the policy says: in the graph of the backward pass no product is forward's."""
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch.partitioners import min_cut_rematerialization_partition

    products: list[int] = []

    def count(graph: torch.fx.GraphModule, inputs: object) -> Any:
        products.append(sum(str(node.target).startswith(("aten.mm", "aten.addmm")) for node in graph.graph.nodes))
        return make_boxed_func(graph.forward)

    def counted(kind: str) -> tuple[torch.Tensor, dict[str, torch.Tensor], list[int]]:
        model = make_model()
        if kind == "selective":
            enable_selective(model)
        elif kind == "full":
            model.gradient_checkpointing_enable()
        products.clear()
        torch._dynamo.reset()
        backend = aot_autograd(fw_compiler=count, bw_compiler=count, partition_fn=min_cut_rematerialization_partition)
        forward = torch.compile(model.train().transformer, backend=backend, dynamic=False, fullgraph=True)
        tokens = torch.randint(1, VOCABULARY, (2, 16), generator=torch.Generator().manual_seed(0))
        hidden = forward(tokens, use_cache=False).last_hidden_state
        hidden.square().sum().backward()
        return hidden.detach(), {name: weight.grad for name, weight in model.named_parameters()}, list(products)

    hidden, gradients, plain = counted("none")
    other, other_gradients, selective = counted("selective")
    full = counted("full")[2]
    assert len(plain) == len(selective) == len(full) == 2  # a graph forward, a graph backward
    assert plain == selective
    assert full[1] > plain[1]
    torch.testing.assert_close(hidden, other, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, other_gradients[name], rtol=1e-4, atol=1e-5)


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
