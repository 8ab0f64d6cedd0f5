"""Attention as a GPU computes it: torch's flash attention with a window, packed documents without a (T, T) mask."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import WINDOW, random_ids, tiny_model
from torch.nn import functional as F
from torch.nn.attention import flex_attention

from gpt3.model import banded_attention, modeling_gpt3, packed_documents
from gpt3.model.banded_attention import has_windowed_flash
from gpt3.model.packed_documents import cumulative_lengths, document_positions

LENGTH = 3 * WINDOW + 1
EOS = 0
Call = tuple[list[int], tuple[int, int]]


def packed_batch() -> dict[str, torch.Tensor]:
    """Two rows; documents of 1 to LENGTH tokens, longer and shorter than the window."""
    ids = random_ids(2, LENGTH)
    ids[0, [0, 4, 5]] = ids[1, WINDOW + 3] = EOS
    positions = document_positions(ids, EOS)
    return {"input_ids": ids, "position_ids": positions, "cu_seq_lens_q": cumulative_lengths(positions)}


def computed(attention: str, batch: dict[str, torch.Tensor], **changes: Any) -> list[torch.Tensor]:
    """Logits, and the gradient of every weight."""
    model = tiny_model(attention, **changes)
    logits = model(**batch, use_cache=False).logits
    logits.log_softmax(-1)[..., 5].sum().backward()
    return [logits.detach(), *(parameter.grad for parameter in model.parameters())]


def agree(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for value, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=2e-4, atol=2e-4 * float(reference.abs().max()))


@pytest.fixture
def flash_calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """torch's varlen_attn as its documentation has it, in place of the kernel that only a GPU has; what it is called with."""
    calls: list[Call] = []

    def varlen_attn(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: torch.Tensor, key_starts: torch.Tensor,
        longest: int, longest_keys: int, *, scale: float | None, window_size: tuple[int, int],
    ) -> torch.Tensor:  # fmt: skip
        calls.append((starts.tolist(), window_size))
        assert torch.equal(starts, key_starts)
        assert longest == longest_keys >= int(starts.diff().max())
        assert starts.dtype == torch.int32
        left, right = window_size
        assert right == 0
        parts = []
        for begin, end in itertools.pairwise(starts.tolist()):
            q, k, v = (x[begin:end].transpose(0, 1) for x in (query, key, value))  # (H, T, D)
            age = torch.arange(end - begin)[:, None] - torch.arange(end - begin)
            seen = (age >= 0) & ((age <= left) | torch.tensor(left == -1))
            parts.append(F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale).transpose(0, 1))
        return torch.cat(parts)

    def takes(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
        return True

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    monkeypatch.setattr(banded_attention, "has_windowed_flash", takes)
    monkeypatch.setattr(modeling_gpt3, "has_windowed_flash", takes)
    return calls


@pytest.fixture
def flex_on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """FlexAttention of torch's own operators: it is for GPUs where gradients are wanted, but computes anywhere. Its masks."""
    masks: list[Any] = []
    make: Callable[..., Any] = packed_documents.flex_mask

    def kept(*args: Any) -> Any:
        masks.append(make(*args))
        return masks[-1]

    monkeypatch.setattr(flex_attention, "_validate_device", lambda query, key, value: None)
    monkeypatch.setattr(packed_documents, "_compiled_flex", lambda: flex_attention.flex_attention)
    monkeypatch.setattr(banded_attention, "has_flex", lambda device: True)
    monkeypatch.setattr(banded_attention, "flex_mask", kept)
    yield masks
    torch._dynamo.reset()


def test_flash_attention_with_a_window_is_the_written_out_form(flash_calls: list[Call]) -> None:
    ids = {"input_ids": random_ids(2, LENGTH)}
    agree(computed("banded", ids), computed("eager", ids))
    assert flash_calls == [([0, LENGTH, 2 * LENGTH], (WINDOW - 1, 0))]  # one banded layer of three


def test_flash_attention_keeps_packed_documents_apart(flash_calls: list[Call]) -> None:
    batch = packed_batch()
    agree(computed("banded", batch), computed("eager", batch))
    starts = [0, 1, 5, 6, LENGTH, LENGTH + WINDOW + 4, *[2 * LENGTH] * 3]  # the last two documents are empty
    assert flash_calls == [(starts, window) for window in ((-1, 0), (WINDOW - 1, 0), (-1, 0))]


def test_flash_attention_is_not_taken_where_it_cannot_be(flash_calls: list[Call]) -> None:
    """It has no dropout; a padded batch, or one with a cache, is not told by beginnings of documents."""
    batch, model = packed_batch(), tiny_model("banded", attn_pdrop=0.5, num_hidden_layers=1)
    model.train()(**batch, use_cache=False)
    model = tiny_model("banded", num_hidden_layers=1)
    model(**batch, attention_mask=torch.ones(2, LENGTH, dtype=torch.long))
    assert flash_calls == []


@pytest.mark.slow
def test_flash_attention_of_packed_documents_is_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own function, which is captured here and cannot run: without a mask and without a break."""

    class CapturedError(Exception):
        pass

    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: object) -> Any:
        graphs.append(graph)
        raise CapturedError

    monkeypatch.setattr(banded_attention, "has_windowed_flash", lambda *_: True)
    monkeypatch.setattr(modeling_gpt3, "has_windowed_flash", lambda *_: True)
    torch._dynamo.reset()
    forward = torch.compile(tiny_model("banded").transformer, backend=keep, dynamic=False, fullgraph=True)
    with pytest.raises(Exception, match="CapturedError"), torch.autocast("cpu", torch.bfloat16):
        forward(**packed_batch(), use_cache=False)
    nodes = [str(node.target) for node in graphs[0].graph.nodes]
    assert sum("varlen_attn" in name for name in nodes) == 3
    assert not any("scaled_dot_product" in name or "nonzero" in name for name in nodes)
    torch._dynamo.reset()


def test_flex_attention_keeps_packed_documents_apart(flex_on_cpu: list[Any]) -> None:
    batch = packed_batch()
    agree(computed("banded", batch), computed("eager", batch))
    assert len(flex_on_cpu) == 2  # one mask for all dense layers, and one for all banded ones


@pytest.mark.slow
def test_flex_attention_is_one_graph_of_a_compiled_model(
    flex_on_cpu: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And other documents in the next batch are not compiled again."""
    monkeypatch.setattr(banded_attention, "flex_mask", packed_documents.flex_mask)  # a growing list would be
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: object) -> Any:
        graphs.append(graph)
        return graph.forward

    model = tiny_model("banded", num_hidden_layers=2)
    forward = torch.compile(model.transformer, backend=keep, dynamic=False, fullgraph=True)
    first, second = packed_batch(), packed_batch()
    second["input_ids"] = second["input_ids"].roll(3, 1)
    second["position_ids"] = document_positions(second["input_ids"], EOS)
    with torch.no_grad():
        for batch in (first, second):
            inputs = {name: batch[name] for name in ("input_ids", "position_ids")}
            expected = tiny_model("eager", num_hidden_layers=2).transformer(**inputs, use_cache=False).last_hidden_state
            found = forward(**inputs, use_cache=False).last_hidden_state
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert len(graphs) == 1
    assert sum("flex_attention" in str(node.target) for node in graphs[0].graph.nodes) == 2


def test_flex_attention_has_no_dropout_and_no_padding(flex_on_cpu: list[Any]) -> None:
    batch, mask = packed_batch(), torch.ones(2, LENGTH, dtype=torch.long)
    mask[0, :3] = 0
    tiny_model("banded", attn_pdrop=0.5)(**batch, use_cache=False)
    tiny_model("banded")(batch["input_ids"], attention_mask=mask)
    made = banded_attention.banded_mask(2, LENGTH, LENGTH, attention_mask=mask.bool(), allow_is_causal_skip=False)
    assert isinstance(made, torch.Tensor)
    assert flex_on_cpu == []


@given(st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=5))
def test_beginnings_of_documents(ends: list[list[bool]]) -> None:
    """What a loop over the tokens finds; empty documents fill up to a power of two."""
    ids = torch.tensor([[EOS if end else 1 for end in row] for row in ends])
    expected = [
        9 * row + column for row, line in enumerate(ends) for column in range(9) if column == 0 or line[column - 1]
    ]
    found = cumulative_lengths(document_positions(ids, EOS)).tolist()
    count = len(found) - 1
    assert count & (count - 1) == 0
    assert count < 2 * len(expected)
    assert found == expected + [ids.numel()] * (count + 1 - len(expected))


def test_flash_attention_with_a_window_is_for_16_bit_on_newer_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    capability = (8, 0)
    monkeypatch.setattr(banded_attention, "_capability", lambda device: capability)
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert has_windowed_flash(cuda, torch.bfloat16, 64)
    assert has_windowed_flash(cuda, torch.float16, 64)
    assert not has_windowed_flash(cuda, torch.float32, 64)
    assert not has_windowed_flash(cuda, torch.bfloat16, 20)
    assert not has_windowed_flash(cpu, torch.bfloat16, 64)
    capability = (7, 5)
    assert not has_windowed_flash(cuda, torch.bfloat16, 64)


def test_16_bit_weights_and_autocast_are_asked_about_in_their_own_format(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.dtype] = []

    def takes(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
        asked.append(dtype)
        return False

    monkeypatch.setattr(modeling_gpt3, "has_windowed_flash", takes)
    batch, model = packed_batch(), tiny_model("banded", num_hidden_layers=1)
    with torch.no_grad():
        model(**batch, use_cache=False)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(**batch, use_cache=False)
        model.half()(**batch, use_cache=False)
    assert asked == [torch.float32, torch.bfloat16, torch.float16]


def test_flex_attention_is_for_newer_gpus_with_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_documents, "_has_triton", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not packed_documents.has_flex(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert packed_documents.has_flex(torch.device("cuda"))
    assert not packed_documents.has_flex(torch.device("cpu"))
    monkeypatch.setattr(packed_documents, "_has_triton", lambda: False)
    assert not packed_documents.has_flex(torch.device("cuda"))
