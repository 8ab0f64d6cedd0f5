"""The compiled softmax of the vocabulary loss against torch in float64, and against the loss without it."""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gpt3.model import linear_cross_entropy
from gpt3.model import loss as loss_module

pytest.importorskip("numba")
from gpt3.model.loss_kernel import softmax_minus_one_hot


def computed(logits: Tensor, real: int, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Losses and gradients of the kernel; `logits` stay as they are."""
    gradients, losses = logits.clone(), torch.empty(len(logits))
    softmax_minus_one_hot(gradients, real, targets, scale, losses, True)
    return losses, gradients


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 9),
    real=st.integers(1, 150),
    padding=st.integers(0, 40),
    spread=st.sampled_from([0.1, 3.0, 100.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 999),
)
def test_losses_and_gradients_are_those_of_cross_entropy(
    rows: int, real: int, padding: int, spread: float, dtype: torch.dtype, seed: int
) -> None:
    """Padding may hold anything. bfloat16 gradients are rounded once."""
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(rows, real + padding, generator=generator) * spread).to(dtype)
    logits[:, real:] = torch.nan
    targets, scale = torch.randint(real, (rows,), generator=generator), torch.rand(rows, generator=generator)
    losses, gradients = computed(logits, real, targets, scale)

    exact = logits[:, :real].double().requires_grad_()
    expected = torch.nn.functional.cross_entropy(exact, targets, reduction="none") * scale.double()
    expected.sum().backward()
    torch.testing.assert_close(losses.double(), expected.detach(), rtol=2e-6, atol=2e-6 * spread)
    assert exact.grad is not None
    tolerance = {"rtol": 4e-3, "atol": 1e-6} if dtype == torch.bfloat16 else {"rtol": 5e-5, "atol": 3e-7}
    torch.testing.assert_close(gradients[:, :real].double(), exact.grad, **tolerance)
    assert bool((gradients[:, real:] == 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [torch.nan, -torch.nan, torch.inf])
def test_a_row_that_is_not_finite_has_a_loss_of_nan(dtype: torch.dtype, bad: float) -> None:
    logits = torch.randn(3, 200).to(dtype)
    logits[1, 150] = bad
    losses, _ = computed(logits, 200, torch.zeros(3, dtype=torch.long), torch.ones(3))
    assert losses.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_do_not_depend_on_threads_or_neighbours(dtype: torch.dtype) -> None:
    logits = torch.randn(11, 1000).to(dtype)
    targets, scale = torch.randint(1000, (11,)), torch.rand(11)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        losses, gradients = computed(logits, 1000, targets, scale)
    finally:
        torch.set_num_threads(threads)
    for r in range(11):
        loss, gradient = computed(logits[r : r + 1], 1000, targets[r : r + 1], scale[r : r + 1])
        assert torch.equal(loss, losses[r : r + 1])
        assert torch.equal(gradient, gradients[r : r + 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_loss_is_the_same_with_and_without_it(
    dtype: torch.dtype, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, weight = (torch.randn(80, 16) / 4).requires_grad_(), torch.randn(310, 16).requires_grad_()
    targets = torch.randint(300, (80,))
    targets[::7] = -100

    def results() -> tuple[Tensor, ...]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = linear_cross_entropy(hidden, weight, targets, chunk=32, reduction=reduction, real_vocab_size=300)
        return loss.detach(), *torch.autograd.grad(loss.sum(), [hidden, weight])

    expected = results()  # so few logits are torch's
    calls = []

    def counting(*arguments: object) -> None:
        calls.append(arguments)
        softmax_minus_one_hot(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loss_module, "KERNEL_FROM", 0)
    monkeypatch.setattr(loss_module, "_compiled_softmax", lambda: counting)
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-6}
    for ours, reference in zip(results(), expected, strict=True):
        torch.testing.assert_close(ours, reference, **tolerance)
    assert calls


def test_without_numba_the_loss_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "gpt3.model.loss_kernel")
    loss_module._compiled_softmax.cache_clear()
    try:
        assert loss_module._compiled_softmax() is None
    finally:
        loss_module._compiled_softmax.cache_clear()
