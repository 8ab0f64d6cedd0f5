"""What torch.compile makes of a training step: one graph, in which dense layers are causal and banded ones come in blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import WINDOW, random_ids, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from gpt3.model import GPT3ForCausalLM


def captured(model: GPT3ForCausalLM, batches: list[dict[str, torch.Tensor]]) -> list[torch.fx.GraphModule]:
    """The graphs that Dynamo captures of these training batches."""
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: object) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    forward = torch.compile(model.train(), backend=keep, dynamic=False)
    for batch in batches:
        forward(**batch, num_items_in_batch=64, skip_logits=True, use_cache=False).loss.backward()
    return graphs


def batch_of(sequences: int, length: int = 4 * WINDOW) -> dict[str, torch.Tensor]:
    windows = random_ids(sequences, length + 1)
    return {"input_ids": windows[:, :-1], "shift_labels": windows[:, 1:]}


def attentions(graph: torch.fx.GraphModule) -> list[tuple[tuple[int, ...] | None, bool]]:
    """(shape of the mask, is_causal) of each fused attention, in order."""
    found = []
    for node in graph.graph.nodes:
        if "scaled_dot_product_attention" in str(node.target):
            mask = node.kwargs.get("attn_mask")
            shape = None if mask is None else tuple(mask.meta["example_value"].shape)
            found.append((shape, bool(node.kwargs.get("is_causal", False))))
    return found


def test_one_graph_without_a_mask_on_dense_layers() -> None:
    graphs = [graph for graph in captured(tiny_model(), [batch_of(2)]) if attentions(graph)]
    assert len(graphs) == 1  # the vocabulary loss comes after it
    dense, first, blocks = (None, True), (None, True), ((WINDOW, 2 * WINDOW), False)
    assert attentions(graphs[0]) == [dense, first, blocks, dense]


def test_positions_of_the_caller_still_keep_packed_documents_apart() -> None:
    length = 4 * WINDOW
    packed = {**batch_of(2), "position_ids": torch.arange(length // 2).repeat(2).expand(2, -1)}
    (graph,) = [graph for graph in captured(tiny_model(), [packed]) if attentions(graph)]
    assert attentions(graph) == [((2, 1, length, length), False)] * 3


class Reads(TorchDispatchMode):
    """Counts what reads a tensor's value back to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("attention", ["banded", "sdpa"])
def test_a_forward_without_positions_reads_nothing_back(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(attention)
    with Reads() as reads:
        model.transformer(inputs_embeds=torch.zeros(2, 4 * WINDOW, model.config.hidden_size))
    assert reads.count == 1  # the CPU's check of the positions; a GPU has none below the limit
