"""The lean step in bfloat16: its loops are those of float32 on widened numbers, its gradients as near as autocast's."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt3.model import GPT3Config, GPT3ForCausalLM
from gpt3.model.loss import linear_cross_entropy
from gpt3.report.run_folder import read_metrics
from gpt3.training import lean
from gpt3.training.lean import attention, block, rows
from gpt3.training.lean.half_products import HalfProducts
from gpt3.training.lean.loss import LeanLossSteps
from gpt3.training.options import TrainOptions
from gpt3.training.run import train

HALF = torch.bfloat16


def tiny_model(**changes: Any) -> GPT3ForCausalLM:
    values = {
        "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "sliding_window": 8,
        "max_position_embeddings": 24,
    }  # fmt: skip
    torch.manual_seed(0)
    return GPT3ForCausalLM(GPT3Config(**(values | changes))).train()


def loss_of(model: GPT3ForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=HALF):
        options: Any = {"num_items_in_batch": ids[:, 1:].numel(), "skip_logits": True, "use_cache": False}
        return model(input_ids=ids[:, :-1], shift_labels=ids[:, 1:], **options).loss


def test_rounding_is_torchs() -> None:
    """To the nearest, of two to the even one; infinities and NaN stay what they are."""
    values = [1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-8, 3.4e38, 1e-40, 0.0, torch.inf, -torch.inf]
    x = torch.cat([torch.tensor(values), torch.randn(1000)])[None]
    copied, _ = rows.narrow_and_sum(x, HALF)
    assert copied.equal(x.to(HALF))
    assert rows.narrow_and_sum(torch.full((1, 1), torch.nan), HALF)[0].isnan().all()


def test_loops_over_rows_are_those_of_float32() -> None:
    torch.manual_seed(0)
    N, C = 70, 40
    x, bias, last, gain, shift, wide = (torch.randn(*size) for size in ((N, C), (C,), (C,), (C,), (C,), (N, C)))
    h, dy = torch.randn(N, C).to(HALF), torch.randn(N, C).to(HALF)

    y, stats = rows.norm(x, gain, shift, 1e-5, HALF)
    expected, same = rows.norm(x, gain, shift, 1e-5, torch.float32)
    assert y.equal(expected.to(HALF))
    assert stats.equal(same)
    found = rows.add_and_norm(x, h, bias, last, gain, shift, 1e-5)
    for mine, one in zip(found, rows.add_and_norm(x, h.float(), bias, last, gain, shift, 1e-5), strict=True):
        assert mine.equal(one.to(mine.dtype))
    assert [tensor.dtype for tensor in found] == [torch.float32, HALF, torch.float32, torch.float32]

    narrow = dy.clone()
    dx, sums = rows.norm_backward(narrow, x, stats, gain, wide)
    expected, same = rows.norm_backward(dy.float(), x, stats, gain, wide)
    assert dx.equal(expected)
    assert sums.equal(same)
    assert narrow.equal(dx.to(HALF))

    u = torch.randn(N, C).to(HALF)
    narrow, exact = dy.clone(), dy.float()
    assert rows.gelu_backward(narrow, u).equal(rows.gelu_backward(exact, u.float()))
    assert narrow.equal(exact.to(HALF))

    copied, total = rows.narrow_and_sum(wide, HALF)
    assert copied.equal(wide.to(HALF))
    torch.testing.assert_close(total, wide.sum(0))
    torch.testing.assert_close(rows.sum_of_rows(dy), dy.float().sum(0))
    assert rows.add(wide.clone(), dy).equal(wide + dy)


@pytest.mark.parametrize("width", [40, 64])  # not, and whole vectors
def test_gelu_is_that_of_float32_rounded(width: int) -> None:
    u, bias = (3 * torch.randn(70, width)).to(HALF), torch.randn(width)
    u[0, :2] = torch.tensor([-50.0, 50.0])
    exact = u.float()
    y, expected = rows.gelu(u, bias), rows.gelu(exact, bias)
    torch.testing.assert_close(y, expected.to(HALF), rtol=2**-7, atol=5e-5)
    torch.testing.assert_close(u, exact.to(HALF), rtol=2**-7, atol=5e-5)
    assert (y == expected.to(HALF)).float().mean() > 0.9
    u[3, 5] = torch.nan
    assert rows.gelu(u, bias).isnan().sum() == 1


def test_softmax_of_the_loss_is_that_of_float32_rounded() -> None:
    logits, targets, weights = (4 * torch.randn(9, 64)).to(HALF), torch.randint(0, 50, (9,)), torch.rand(9)
    logits[1, 7], logits[2, targets[2]] = 300.0, -300.0
    exact, losses, same = logits.float(), torch.empty(9), torch.empty(9)
    rows.softmax_in_place(logits.clone(), targets, weights, losses, 50, gradients=False)
    rows.softmax_in_place(exact, targets, weights, same, 50, gradients=True)
    torch.testing.assert_close(losses, same, rtol=1e-6, atol=1e-6)
    rows.softmax_in_place(logits, targets, weights, losses, 50, gradients=True)
    torch.testing.assert_close(losses, same, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(logits, exact.to(HALF), rtol=2**-7, atol=1e-20)
    assert not logits[:, 50:].any()
    logits[4, 7] = torch.nan
    rows.softmax_in_place(logits, targets, weights, losses, 50, gradients=True)
    assert losses.isnan().tolist() == [n == 4 for n in range(9)]
    with pytest.raises(ValueError, match="got 50"):
        rows.softmax_in_place(logits[:, :50].contiguous(), targets, weights, losses, 50, gradients=True)


@pytest.mark.parametrize(("B", "T", "H", "D", "window"), [(2, 67, 2, 16, 9), (1, 33, 1, 48, 33), (1, 1, 1, 16, 4)])
def test_attention_is_that_of_float32(B: int, T: int, H: int, D: int, window: int) -> None:
    torch.manual_seed(T)
    qkv, slope = torch.randn(B, T, 3 * H * D).to(HALF), torch.randn(B, T, H * D).to(HALF)
    output, sums = attention.attention(qkv, H, window)
    exact, same = attention.attention(qkv.float(), H, window)
    assert output.equal(exact.to(HALF))
    assert sums.equal(same)
    gradient = attention.attention_backward(qkv, output, sums, slope, H, window)
    exact = attention.attention_backward(qkv.float(), output.float(), sums, slope.float(), H, window)
    assert gradient.equal(exact.to(HALF))


def test_gradients_are_as_near_as_autocasts() -> None:
    """Of each weight within 1% of the gradient in float64, and taken together no further from it than autocast's own."""
    plain = tiny_model(head_dim=32)
    exact, fast = copy.deepcopy(plain).double(), copy.deepcopy(plain)
    lean.install(fast, [], HALF)
    ids = torch.randint(0, 61, (3, 25))
    with torch.autocast("cpu", enabled=False):
        options: Any = {"num_items_in_batch": 72, "skip_logits": True, "use_cache": False}
        expected = exact(input_ids=ids[:, :-1], shift_labels=ids[:, 1:], **options).loss
    expected.backward()
    errors: dict[str, list[float]] = {"plain": [], "fast": []}
    for who, model in (("plain", plain), ("fast", fast)):
        loss = loss_of(model, ids)
        assert loss.item() == pytest.approx(expected.item(), abs=1e-3)
        loss.backward()
        for (name, weight), reference in zip(model.named_parameters(), exact.parameters(), strict=True):
            assert weight.grad is not None
            assert weight.grad.dtype == torch.float32
            assert reference.grad is not None
            error = ((weight.grad.double() - reference.grad).norm() / reference.grad.norm()).item()
            assert error < 0.01, name
            errors[who].append(error)
    assert sum(errors["fast"]) < 1.05 * sum(errors["plain"])


def test_twenty_steps_have_the_losses_of_torchs_operators() -> None:
    plain = tiny_model()
    fast = copy.deepcopy(plain)
    lean.install(fast, [], HALF)
    draw = torch.Generator().manual_seed(1)
    optimizers = [torch.optim.AdamW(model.parameters(), lr=3e-3) for model in (plain, fast)]
    for _ in range(20):
        ids = torch.randint(0, 20, (2, 25), generator=draw)
        losses = []
        for model, optimizer in zip((plain, fast), optimizers, strict=True):
            loss = loss_of(model, ids)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], abs=5e-3)


def test_when_a_step_is_lean(monkeypatch: pytest.MonkeyPatch) -> None:
    model, cpu = tiny_model(), torch.device("cpu")
    for has in (True, False):
        monkeypatch.setattr(lean, "has_bf16", lambda has=has: has)
        assert lean.fits(model, cpu, HALF) == has
        assert lean.fits(model, cpu, torch.float32)
    assert not lean.fits(model, cpu, torch.float16)
    assert lean.choose(model, 64, HALF) == []

    lean.install(model, [], HALF)
    ids = torch.randint(0, 61, (2, 25))
    calls: list[int] = []
    apply = block._Block.apply
    monkeypatch.setattr(block._Block, "apply", lambda *arguments: calls.append(1) or apply(*arguments))
    loss_of(model, ids).backward()
    assert len(calls) == 2
    calls.clear()
    model(
        input_ids=ids[:, 1:], labels=ids[:, 1:], skip_logits=True, use_cache=False
    ).loss.backward()  # no autocast: float32
    assert not calls


def test_a_resume_gives_the_same_bits(
    tiny: Callable[..., TrainOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lean, "has_bf16", lambda: True)
    calls: list[int] = []
    apply = block._Block.apply
    monkeypatch.setattr(block._Block, "apply", lambda *arguments: calls.append(1) or apply(*arguments))
    train(tiny(steps=4, checkpoint_every=2, validate_every=4, dtype="bf16"))
    assert calls
    whole = [record["loss"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in record]
    state = tmp_path / "run" / "checkpoints" / "step-2" / "state.json"
    assert json.loads(state.read_text(encoding="utf-8"))["computed"]["onednn"] == []
    train(TrainOptions(resume=str(state.parent), workers=1, dtype="bf16"))
    again = [record["loss"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in record]
    assert again[-2:] == whole[-2:]


def test_the_loss_keeps_its_memory_from_step_to_step() -> None:
    """Smaller and larger batches after one another: the same losses and gradients as with new memory for each."""
    kept = LeanLossSteps(HalfProducts())
    weight, places = torch.randn(61, 32), []
    for rows_of_step in (9, 5, 14, 14):
        hidden, targets = torch.randn(rows_of_step, 32), torch.randint(0, 61, (rows_of_step,))
        found = []
        for steps in (kept, LeanLossSteps(HalfProducts())):
            inputs = [tensor.clone().requires_grad_() for tensor in (hidden, weight)]
            with torch.autocast("cpu", dtype=HALF):
                loss = linear_cross_entropy(*inputs, targets, steps=steps)
            found.append([loss, *torch.autograd.grad(loss, inputs)])
        assert all(one.equal(two) for one, two in zip(*found, strict=True))
        places.append(kept.memory("logits", rows_of_step, 64, weight, HALF).data_ptr())
    assert places[0] == places[1]
    assert places[2] == places[3]
