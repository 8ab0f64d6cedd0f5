"""Banded attention in blocks, plain SDPA with a mask and the written-out form: one function, in outputs and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import WINDOW, random_ids, tiny_model
from torch.nn import functional as F

from gpt3.model import GPT3Model
from gpt3.model.banded_attention import (
    BLOCKS_FROM_WINDOWS,
    banded_attention,
    banded_attention_forward,
    banded_mask,
)


def naive_band(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int, scale: float | None
) -> torch.Tensor:
    """A (T, T) mask, entry by entry."""
    T = query.shape[2]
    mask = torch.tensor([[0 <= t - s < window for s in range(T)] for t in range(T)])
    scores = (query @ key.transpose(2, 3) * (scale or query.shape[-1] ** -0.5)).masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ value


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    length=st.integers(1, 40),
    width=st.integers(1, 8),
    window=st.integers(1, 12),
    scale=st.sampled_from([None, 0.3]),
    seed=st.integers(0, 99),
)
def test_blocks_are_the_naive_mask_in_outputs_and_gradients(
    batch: int, heads: int, length: int, width: int, window: int, scale: float | None, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, k, v, upstream = (
        torch.randn(batch, heads, length, width, generator=generator, dtype=torch.float64) for _ in range(4)
    )
    inputs = [x.requires_grad_() for x in (q, k, v)]
    output, expected = banded_attention(*inputs, window, scale=scale), naive_band(*inputs, window, scale)
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10)
    gradients = torch.autograd.grad(output, inputs, upstream)
    for gradient, reference in zip(gradients, torch.autograd.grad(expected, inputs, upstream), strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("length", [1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 4 * WINDOW, 5 * WINDOW + 3, 63])
def test_three_implementations_agree_in_logits_and_every_gradient(length: int) -> None:
    ids = random_ids(2, length)
    results = {}
    for attention in ("eager", "sdpa", "banded"):
        model = tiny_model(attention)
        logits = model(ids).logits
        logits.log_softmax(-1)[..., 5].sum().backward()
        results[attention] = [logits.detach(), *(parameter.grad for parameter in model.parameters())]
    for attention in ("sdpa", "banded"):
        for value, reference in zip(results[attention], results["eager"], strict=True):
            torch.testing.assert_close(value, reference, rtol=2e-4, atol=2e-4 * float(reference.abs().max()))


def test_banded_is_the_default_and_another_may_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tiny_model().config._attn_implementation == "banded"
    assert tiny_model("sdpa").config._attn_implementation == "sdpa"
    model = tiny_model()
    model.set_attn_implementation("eager")
    assert model.config._attn_implementation == "eager"
    with pytest.raises(ValueError, match="not supported"):
        tiny_model("no such thing")
    assert isinstance(tiny_model().transformer, GPT3Model)


def test_blocks_are_used_where_they_apply_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import gpt3.model.banded_attention as module

    calls: list[int] = []

    def counting(query: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        calls.append(query.shape[2])
        return banded_attention(query, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "banded_attention", counting)
    model = tiny_model()  # one banded layer of three
    at_least = BLOCKS_FROM_WINDOWS * WINDOW
    mask = torch.ones(2, 32, dtype=torch.long)

    model(random_ids(2, 32))
    model(random_ids(2, at_least))
    model(random_ids(2, 32), attention_mask=mask)  # nothing padded
    assert calls == [32, at_least, 32]

    calls.clear()
    model(random_ids(2, at_least - 1))  # too short to pay
    mask[0, :3] = 0
    model(random_ids(2, 32), attention_mask=mask)  # padded
    model(random_ids(1, 32), position_ids=torch.arange(16).repeat(2)[None])  # packed
    past = model(random_ids(2, WINDOW)).past_key_values
    model(random_ids(2, 32), past_key_values=past)  # cached
    tiny_model("sdpa")(random_ids(2, 32))
    assert calls == []


def test_mask_is_left_out_only_where_shapes_tell_the_pattern() -> None:
    assert banded_mask(1, 32, 32, local_size=8) is None
    assert banded_mask(1, 32, 32) is None
    assert banded_mask(1, 8, 8, local_size=8) is None
    for arguments in (
        {"q_length": 12, "kv_length": 12},  # longer than the window, too short for blocks
        {"q_length": 32, "kv_length": 40, "q_offset": 8},
        {"q_length": 32, "kv_length": 32, "q_offset": torch.tensor(0)},
        {"q_length": 32, "kv_length": 32, "allow_is_causal_skip": False},
        {"q_length": 32, "kv_length": 32, "attention_mask": torch.arange(32)[None] > 2},
    ):
        assert banded_mask(1, local_size=8, **arguments) is not None  # type: ignore[arg-type]


def test_attention_dropout_drops_in_training_only() -> None:
    """At rate p a constant value of 1 comes out as k / (1 - p) of the weight kept: the mean stays 1, the spread does not."""
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, 2, 64, 8, generator=generator) for _ in range(2))
    value = torch.ones(2, 2, 64, 8)
    torch.manual_seed(0)
    dropped = banded_attention(query, key, value, 8, dropout=0.5)
    for rows in (dropped[:, :, :8], dropped[:, :, 8:]):  # the first block and the others
        assert rows.std() > 0.2
        assert abs(float(rows.mean()) - 1) < 0.2
    torch.testing.assert_close(banded_attention(query, key, value, 8), value)

    model, ids = tiny_model(attn_pdrop=0.5), random_ids(1, 40)
    torch.testing.assert_close(model(ids).logits, model(ids).logits)
    model.train()
    assert (model(ids).logits - model(ids).logits).abs().max() > 1e-3


@pytest.mark.parametrize("attention", ["banded", "sdpa"])
def test_bfloat16_autocast_is_near_float32(attention: str) -> None:
    model, ids = tiny_model(attention), random_ids(2, 50)
    with torch.no_grad():
        exact = model(ids).logits
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model(ids).logits
    assert rough.dtype == torch.bfloat16
    assert F.mse_loss(rough.float(), exact) < 1e-3 * exact.var()


@pytest.mark.parametrize("layer", [0, 1])
def test_short_16_bit_attention_is_exact_and_keeps_its_dtype(layer: int) -> None:
    """On a CPU it is computed in float32, under autocast too: no worse than rounding the exact result once."""
    module = tiny_model("banded").transformer.h[layer].attn
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 2, 3 * WINDOW, 8, generator=generator, dtype=torch.bfloat16) for _ in range(3)]
    window = module.sliding_window
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, _ = banded_attention_forward(module, *inputs, None, sliding_window=window)
    expected = naive_band(*(x.double() for x in inputs), window or 3 * WINDOW, None).transpose(1, 2)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.double(), expected, rtol=2**-8, atol=1e-5)
