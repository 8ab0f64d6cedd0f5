"""Attention of bfloat16 in the lean step: outputs and gradients against float64, by AMX and by dot products."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional as F

from gpt3.training.lean import attention, half_attention

pytestmark = pytest.mark.skipif(not half_attention.DOTS, reason="the processor has no AVX512-BF16")
HALF = torch.bfloat16


@pytest.fixture(params=[True, False], ids=["AMX", "dot products"])
def amx(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param and not half_attention.has_amx():
        pytest.skip("the processor has no AMX")
    monkeypatch.setattr(half_attention, "has_amx", lambda: request.param)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found.double() - expected).norm() / expected.norm()).item()


@pytest.mark.usefixtures("amx")
@pytest.mark.parametrize(
    ("B", "T", "H", "D", "window"),
    [(2, 67, 2, 32, 9), (1, 33, 1, 64, 33), (2, 128, 3, 64, 32), (1, 300, 2, 64, 100), (1, 257, 2, 96, 1000)],
)
def test_attention_and_its_gradient(B: int, T: int, H: int, D: int, window: int) -> None:
    """Rounding the output to bfloat16 is an error of 0.0016; rounding shares and gradients of scores adds to it."""
    torch.manual_seed(T)
    qkv, slope = torch.randn(B, T, 3 * H * D).to(HALF), torch.randn(B, T, H * D).to(HALF)
    exact = qkv.double().requires_grad_()
    query, key, value = exact.view(B, T, 3, H, D).permute(2, 0, 3, 1, 4)
    positions = torch.arange(T)
    seen = (positions[None] <= positions[:, None]) & (positions[None] > positions[:, None] - window)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2).reshape(B, T, H * D)
    expected.backward(slope.double())
    scores = (query @ key.transpose(2, 3) * D**-0.5).masked_fill(~seen, -torch.inf).detach()

    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        output, sums = attention.attention(qkv, H, window)
        found.append((output, sums, attention.attention_backward(qkv, output, sums, slope, H, window)))
    assert all(one.equal(two) for one, two in zip(*found, strict=True))
    output, sums, gradient = found[0]
    torch.testing.assert_close(sums.double(), scores.logsumexp(-1), rtol=1e-6, atol=1e-5)
    assert error(output, expected.detach()) < 0.0025
    assert exact.grad is not None
    for part, (mine, one) in enumerate(zip(gradient.chunk(3, -1), exact.grad.chunk(3, -1), strict=True)):
        assert error(mine, one) < 0.004, "qkv"[part]


@pytest.mark.usefixtures("amx")
def test_one_token_sees_itself() -> None:
    qkv, slope = torch.randn(1, 1, 96).to(HALF), torch.randn(1, 1, 32).to(HALF)
    output, sums = attention.attention(qkv, 1, 4)
    gradient = attention.attention_backward(qkv, output, sums, slope, 1, 4)
    assert output.equal(qkv[..., 64:])
    assert gradient.equal(torch.cat([torch.zeros(1, 1, 64, dtype=HALF), slope], -1))


@pytest.mark.usefixtures("amx")
def test_the_future_is_not_seen() -> None:
    qkv = torch.randn(1, 70, 96).to(HALF)
    output, _ = attention.attention(qkv, 1, 70)
    qkv[:, 41:] = 7.0
    assert attention.attention(qkv, 1, 70)[0][:, :41].equal(output[:, :41])
    qkv[0, 50, 32] = torch.nan  # of its key
    assert attention.attention(qkv, 1, 70)[0].isnan().any(-1)[0].tolist() == [t >= 50 for t in range(70)]
