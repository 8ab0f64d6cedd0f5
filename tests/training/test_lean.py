"""The lean step: its loops and its gradients against torch in float64, what it leaves to torch, and runs that use it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from gpt3.model import GPT3Config, GPT3ForCausalLM
from gpt3.report.run_folder import read_metrics
from gpt3.training import lean, model_building
from gpt3.training.distributed import Compute, World
from gpt3.training.lean import attention, block, products, rows, threads
from gpt3.training.options import TrainOptions
from gpt3.training.run import train

CLOSE: Any = {"rtol": 1e-5, "atol": 2e-5}


@pytest.fixture(autouse=True)
def threads_put_back() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def tiny_model(**changes: Any) -> GPT3ForCausalLM:
    values = {
        "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "sliding_window": 8,
        "max_position_embeddings": 24,
    }  # fmt: skip
    torch.manual_seed(0)
    return GPT3ForCausalLM(GPT3Config(**(values | changes))).train()


def loss_of(model: GPT3ForCausalLM, ids: torch.Tensor, **keywords: Any) -> torch.Tensor:
    options: Any = {"num_items_in_batch": ids[:, 1:].numel(), "skip_logits": True, "use_cache": False}
    return model(input_ids=ids[:, :-1], shift_labels=ids[:, 1:], **options, **keywords).loss


@pytest.mark.parametrize(
    ("B", "T", "H", "D", "window"), [(2, 67, 2, 16, 9), (1, 33, 1, 48, 33), (2, 24, 3, 32, 8), (1, 1, 1, 16, 4)]
)
def test_attention_and_its_gradient(B: int, T: int, H: int, D: int, window: int) -> None:
    torch.manual_seed(T)
    qkv = torch.randn(B, T, 3 * H * D)
    positions = torch.arange(T)
    seen = ((positions[None] <= positions[:, None]) & (positions[None] > positions[:, None] - window))[None]
    exact = qkv.double().requires_grad_()
    query, key, value = exact.view(B, T, 3, H, D).permute(2, 0, 3, 1, 4)
    mask = seen[:, None].expand(B, H, T, T)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).reshape(B, T, H * D)
    slope = torch.randn(B, T, H * D)
    expected.backward(slope.double())

    output, sums = attention.attention(qkv, H, window)
    torch.testing.assert_close(output.double(), expected.detach(), **CLOSE)
    gradient = attention.attention_backward(qkv, output, sums, slope, H, window)
    assert exact.grad is not None
    torch.testing.assert_close(gradient.double(), exact.grad, **CLOSE)


def test_norm_and_its_gradient() -> None:
    N, C = 71, 40
    x, h, bias, last, gain, shift = (torch.randn(*size) for size in ((N, C), (N, C), (C,), (C,), (C,), (C,)))
    summed = h.clone()
    same, y, stats, ahead = rows.add_and_norm(x, summed, bias, last, gain, shift, 1e-5)
    assert same is summed
    torch.testing.assert_close(summed, x + h + bias, **CLOSE)
    torch.testing.assert_close(ahead, summed + last, **CLOSE)
    parts = [part.double().requires_grad_() for part in (summed, gain, shift)]
    expected = F.layer_norm(parts[0], (C,), parts[1], parts[2], 1e-5)
    torch.testing.assert_close(y.double(), expected.detach(), **CLOSE)
    torch.testing.assert_close(rows.norm(summed, gain, shift, 1e-5, torch.float32)[0], y, **CLOSE)

    slope, beside = torch.randn(N, C), torch.randn(N, C)
    of_x, of_gain, of_shift = torch.autograd.grad(expected, parts, slope.double())
    found = slope.clone()
    same, sums = rows.norm_backward(found, summed, stats, gain, beside)
    assert same is found
    torch.testing.assert_close(found.double(), of_x + beside, **CLOSE)
    torch.testing.assert_close(sums.double(), torch.stack([of_gain, of_shift, found.double().sum(0)]), **CLOSE)


def test_gelu_and_its_gradient() -> None:
    u, bias, slope = 3 * torch.randn(70, 24), torch.randn(24), torch.randn(70, 24)
    exact = (u + bias).double().requires_grad_()
    expected = F.gelu(exact)
    (gradient,) = torch.autograd.grad(expected, exact, slope.double())
    torch.testing.assert_close(rows.gelu(u, bias).double(), expected.detach(), **CLOSE)
    sums = rows.gelu_backward(slope, u)
    torch.testing.assert_close(slope.double(), gradient, **CLOSE)
    torch.testing.assert_close(sums.double(), gradient.sum(0), **CLOSE)


def test_softmax_of_the_loss_and_its_gradient() -> None:
    logits, targets, weights = 4 * torch.randn(9, 64), torch.randint(0, 50, (9,)), torch.rand(9)
    exact = logits[:, :50].double().requires_grad_()
    expected = F.cross_entropy(exact, targets, reduction="none") * weights.double()
    (gradient,) = torch.autograd.grad(expected.sum(), exact)
    losses, only = torch.empty(9), torch.empty(9)
    rows.softmax_in_place(logits.clone(), targets, weights, only, 50, gradients=False)
    rows.softmax_in_place(logits, targets, weights, losses, 50, gradients=True)
    torch.testing.assert_close(losses.double(), expected.detach(), **CLOSE)
    assert losses.equal(only)
    torch.testing.assert_close(logits.double(), F.pad(gradient, (0, 14)), **CLOSE)


@pytest.mark.parametrize("onednn", [False, True])
def test_gradients_of_the_whole_model(onednn: bool) -> None:
    model = tiny_model()
    names = [f"{which} {i} {o}" for which in ("forward", "input", "weight") for i, o in ((32, 96), (32, 128), (32, 61))]
    exact = copy.deepcopy(model).double()
    lean.install(model, names if onednn and products.has_onednn() else [], torch.float32)
    ids = torch.randint(0, 61, (3, 25))
    loss, expected = loss_of(model, ids), loss_of(exact, ids)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    loss.backward()
    expected.backward()
    for (name, weight), reference in zip(model.named_parameters(), exact.parameters(), strict=True):
        assert weight.grad is not None
        assert reference.grad is not None
        error = (weight.grad.double() - reference.grad).norm() / reference.grad.norm()
        assert error < 2e-5, name


def test_twenty_steps_have_the_losses_of_torchs_operators() -> None:
    plain = tiny_model()
    fast = copy.deepcopy(plain)
    lean.install(fast, [], torch.float32)
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
        assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_loops_have_the_same_bits_on_any_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    qkv, slope, factor = torch.randn(2, 24, 3 * 32), torch.randn(70, 24), torch.randn(70, 24)
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        output, sums = attention.attention(qkv, 2, 8)
        product = slope.clone()
        found.append([*rows.gelu_backward(product, factor), product, output, sums])
    torch.set_num_threads(2)
    monkeypatch.setattr(threads, "torch_parallel", lambda: None)  # as on macOS and Windows
    product = slope.clone()
    found.append([*rows.gelu_backward(product, factor), product, output, sums])
    for other in found[1:]:
        assert all(one.equal(two) for one, two in zip(found[0], other, strict=True))


def test_what_it_does_not_know_goes_through_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    lean.install(model, [], torch.float32)
    ids = torch.randint(0, 61, (2, 25))
    calls: list[int] = []
    apply = block._Block.apply
    monkeypatch.setattr(block._Block, "apply", lambda *arguments: calls.append(1) or apply(*arguments))
    loss_of(model, ids)
    assert len(calls) == 2
    calls.clear()
    with torch.no_grad():
        loss_of(model, ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss_of(model, ids).backward()
    loss_of(model, ids, position_ids=torch.arange(24).remainder(7).expand(2, 24)).backward()  # documents
    model.transformer.h[0].mlp.c_fc.weight.requires_grad_(False)
    model.eval()(ids[:, 1:])
    assert not calls
    assert not lean.fits(tiny_model(resid_pdrop=0.1), torch.device("cpu"), torch.float32)
    assert not lean.fits(model, torch.device("cpu"), torch.float16)
    assert not lean.fits(model, torch.device("meta"), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_checkpointing_blocks_are_computed_again(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    apply = block._Block.apply
    monkeypatch.setattr(block._Block, "apply", lambda *arguments: calls.append(1) or apply(*arguments))
    ids = torch.randint(0, 61, (2, 25))
    found = []
    for checkpointing, expected in ((False, 2), (True, 4)):
        model = tiny_model()
        lean.install(model, [], dtype)
        if checkpointing:
            model.gradient_checkpointing_enable()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = loss_of(model, ids)
        loss.backward()
        assert len(calls) == expected
        calls.clear()
        found.append([weight.grad for weight in model.parameters()])
    assert all(one.equal(two) for one, two in zip(*found, strict=True))


def test_products_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path))
    monkeypatch.setattr(products, "has_onednn", lambda: True)
    measured: list[tuple[int, int]] = []

    def measure(shape: tuple[int, int], rows: int) -> list[str]:
        measured.append(shape)
        return [f"forward {shape[1]} {shape[0]}"] if shape[0] == 61 else []

    monkeypatch.setattr(products, "measured", measure)
    model = tiny_model()
    assert lean.choose(model, 64, torch.float32) == ["forward 32 61"]
    assert sorted(measured) == [(32, 32), (32, 128), (61, 32), (96, 32), (128, 32)]
    assert lean.choose(model, 64, torch.float32) == ["forward 32 61"]
    assert len(measured) == 5
    (tmp_path / products.CACHE).write_text("[1", encoding="utf-8")
    assert lean.choose(model, 64, torch.float32) == ["forward 32 61"]
    assert len(measured) == 10


@pytest.mark.skipif(not products.has_onednn(), reason="this torch has one library")
def test_a_measurement_names_the_three_products() -> None:
    names = products.measured((24, 40), 8)
    assert set(names) <= {"forward 40 24", "input 40 24", "weight 40 24"}


def test_a_resume_without_the_recorded_library_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(model_building, "has_onednn", lambda: False)
    model, compute = tiny_model(), Compute(torch.device("cpu"), torch.float32, 1.0)
    recorded = {"onednn": ["forward 32 61"]}
    options = TrainOptions(compile=True)  # what decides is whether the model is compiled, not whether it might be
    found = model_building.choose_step(model, model, options, 48, compute, World(), recorded)
    assert found.onednn == ()
    assert "no oneDNN" in capsys.readouterr().err


def test_a_resume_repeats_the_recorded_step(
    tiny: Callable[..., TrainOptions],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(lean, "choose", lambda model, rows, dtype: [])
    train(tiny(steps=4, checkpoint_every=2, validate_every=4))
    whole = [record["loss"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in record]
    state = tmp_path / "run" / "checkpoints" / "step-2" / "state.json"
    assert json.loads(state.read_text(encoding="utf-8"))["computed"]["onednn"] == []

    monkeypatch.setattr(lean, "choose", lambda model, rows, dtype: pytest.fail("chosen anew"))
    capsys.readouterr()
    train(TrainOptions(resume=str(state.parent), workers=1))
    again = [record["loss"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in record]
    assert again[-2:] == whole[-2:]
    assert "rounding" not in capsys.readouterr().err
