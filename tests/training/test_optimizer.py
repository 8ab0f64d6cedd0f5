"""The optimizers against references of their own, which weights decay at which rate, and that their state comes back."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_case import make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from gpt3.errors import InputError
from gpt3.ladder.presets import preset
from gpt3.model import GPT3ForCausalLM
from gpt3.training.checkpoint import load_checkpoint
from gpt3.training.checkpoint_writer import CheckpointWriter
from gpt3.training.optimizers import OPTIMIZERS, decay_groups, make_optimizer, orthogonal
from gpt3.training.optimizers.lion import Lion
from gpt3.training.optimizers.muon import hidden_matrices
from gpt3.training.options import TrainOptions


def tiny_model() -> GPT3ForCausalLM:
    torch.manual_seed(0)
    return GPT3ForCausalLM(
        preset("demo").config(num_hidden_layers=2, hidden_size=16, num_attention_heads=2, head_dim=8, vocab_size=64)
    )


def give_gradients(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator)


def take_steps(model: torch.nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    """Steps as the loop takes them: a rate that moves, clipped gradients, gradients dropped after the step."""
    for seed in seeds:
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 / (1 + seed) * group["lr_scale"]
        give_gradients(model, seed)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name


def names_of(model: torch.nn.Module, weights: list[torch.Tensor]) -> set[str]:
    names = {id(weight): name for name, weight in model.named_parameters()}
    return {names[id(weight)] for weight in weights}


def test_matrices_decay_and_nothing_else() -> None:
    model = tiny_model()
    decayed, plain = (group["params"] for group in decay_groups(model.parameters(), 0.1))
    names = {name for name, _ in model.named_parameters()}
    assert names_of(model, plain) == {n for n in names if n.endswith("bias") or ".ln_" in n}
    assert len(decayed) + len(plain) == len(names)  # the tied head once


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_holds_each_parameter_once_and_decays_matrices_as_adamw_does(name: str) -> None:
    model = tiny_model()
    groups = make_optimizer(model, TrainOptions(optimizer=name, weight_decay=0.1), lr=1e-2).param_groups
    held = [weight for group in groups for weight in group["params"]]
    assert len(held) == len(list(model.parameters()))
    assert {id(weight) for weight in held} == {id(weight) for weight in model.parameters()}
    for group in groups:
        assert group["lr"] == 1e-2 * group["lr_scale"]
        for weight in group["params"]:  # the shrinking a step is lr · decay
            assert group["lr"] * group["weight_decay"] == pytest.approx(1e-3 if weight.dim() == 2 else 0.0)


def test_it_is_adamw_with_the_papers_numbers() -> None:
    model, reference = tiny_model(), tiny_model()
    ours = make_optimizer(model, TrainOptions(optimizer="adamw"), lr=1e-2)
    plain = torch.optim.AdamW(
        decay_groups(reference.parameters(), 0.1), lr=1e-2, betas=(0.9, 0.95), eps=1e-8, foreach=False, fused=False
    )
    for seed in range(5):
        for net, optimizer in ((model, ours), (reference, plain)):
            give_gradients(net, seed)
            optimizer.step()
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_muon_takes_the_layers_matrices_and_adamw_the_rest() -> None:
    model = tiny_model()
    layers = {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}
    expected = {f"transformer.h.{layer}.{name}.weight" for layer in range(2) for name in layers}
    assert names_of(model, hidden_matrices(model)) == expected
    optimizer = make_optimizer(model, TrainOptions(optimizer="muon"), lr=1e-2)
    take_steps(model, optimizer, range(1))
    for name, weight in model.named_parameters():
        keys = {"momentum_buffer"} if name in expected else {"step", "exp_avg", "exp_avg_sq"}
        assert set(optimizer.state[weight]) == keys


def test_a_head_of_its_own_stays_with_adamw() -> None:
    config = preset("demo").config(
        num_hidden_layers=1, hidden_size=16, num_attention_heads=2, head_dim=8, vocab_size=64, tie_word_embeddings=False
    )
    model = GPT3ForCausalLM(config)
    assert model.lm_head.weight is not model.transformer.wte.weight
    assert not any("lm_head" in name for name in names_of(model, hidden_matrices(model)))


def test_muon_is_torchs_two_optimizers_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's coefficients; torch computes in bf16."""
    monkeypatch.setattr(orthogonal, "COEFFICIENTS", ((3.4445, -4.7750, 2.0315),) * 5)
    model, reference = tiny_model(), tiny_model()
    ours = make_optimizer(model, TrainOptions(optimizer="muon", muon_lr=2e-2), lr=1e-2)
    hidden = hidden_matrices(reference)
    rest = [weight for weight in reference.parameters() if all(weight is not other for other in hidden)]
    groups = [
        {"params": [w for w in rest if w.dim() == 2], "weight_decay": 0.1},
        {"params": [w for w in rest if w.dim() < 2], "weight_decay": 0.0},
    ]
    muon = torch.optim.Muon(hidden, lr=2e-2, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8, fused=True)
    for seed in range(3):
        give_gradients(model, seed)
        ours.step()
        give_gradients(reference, seed)
        muon.step()
        adamw.step()
    for (name, ours_now), torchs in zip(model.named_parameters(), reference.parameters(), strict=True):
        if any(torchs is weight for weight in hidden):  # an update's entries are 0.2 · lr in root mean square
            assert (ours_now - torchs).square().mean().sqrt() < 3 * 2e-2 * 0.2 * 0.02, name
        else:
            assert torch.equal(ours_now, torchs), name


def test_muons_update_is_the_gradients_polar_factor_at_adamws_size() -> None:
    """Against numpy's SVD: without decay a first step moves a matrix by about 0.2 √max(out, in) · lr · U Vᵀ."""
    model = tiny_model()
    optimizer = make_optimizer(model, TrainOptions(optimizer="muon", weight_decay=0.0), lr=1e-2)
    weight = model.transformer.h[0].mlp.c_fc.weight  # (64, 16)
    before = weight.detach().clone()
    give_gradients(model, 0)
    u, _, vt = np.linalg.svd(weight.grad.double().numpy(), full_matrices=False)
    optimizer.step()
    moved = (before - weight.detach()).double().numpy() / 1e-2
    expected = 0.2 * math.sqrt(64) * u @ vt
    cosine = (moved * expected).sum() / np.linalg.norm(moved) / np.linalg.norm(expected)
    assert cosine > 0.99  # singular values come to 0.9 to 1.1
    assert np.sqrt((moved**2).mean()) == pytest.approx(0.2, rel=0.1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(2, 40), st.integers(2, 40))
def test_singular_values_come_near_1_and_their_vectors_stay(seed: int, count: int, rows: int, columns: int) -> None:
    """Against numpy's SVD, for every matrix of a stack."""
    rng = np.random.default_rng(seed)
    stack = rng.standard_normal((count, rows, columns))
    u, values, vt = np.linalg.svd(stack, full_matrices=False)
    values *= rng.uniform(0, 1, values.shape)
    stack = u * values[:, None, :] @ vt * rng.uniform(1e-3, 1e3)
    shares = values / np.linalg.norm(values, axis=1, keepdims=True)
    found = orthogonal.orthogonalized(torch.tensor(stack), torch.float64).numpy()
    diagonal = u.swapaxes(1, 2) @ found @ vt.swapaxes(1, 2)
    grown = np.diagonal(diagonal, axis1=1, axis2=2)
    assert np.abs(diagonal - grown[:, :, None] * np.eye(grown.shape[1])).max() < 1e-6
    large = shares >= orthogonal.LEAST
    assert ((grown[large] > 0.9) & (grown[large] < 1.1)).all()
    assert (grown[~large] >= shares[~large]).all()


def paper_lion(weight: float, gradients: list[float], lr: float, decay: float, beta1: float, beta2: float) -> float:
    """Algorithm 2 of Chen et al. 2023 for one number."""
    momentum = 0.0
    for gradient in gradients:
        update = beta1 * momentum + (1 - beta1) * gradient
        weight -= lr * (np.sign(update) + decay * weight)
        momentum = beta2 * momentum + (1 - beta2) * gradient
    return weight


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-5, 0.1), st.floats(0, 1), st.floats(0, 0.99), st.floats(0, 0.99))
def test_lion_is_the_papers_algorithm(seed: int, lr: float, decay: float, beta1: float, beta2: float) -> None:
    rng = np.random.default_rng(seed)
    start, gradients = rng.standard_normal(6), rng.standard_normal((5, 6))
    weights = [torch.nn.Parameter(torch.tensor(part)) for part in (start[:2], start[2:].reshape(2, 2))]
    optimizer = Lion(weights, lr=lr, betas=(beta1, beta2), weight_decay=decay)
    for gradient in gradients:
        weights[0].grad, weights[1].grad = torch.tensor(gradient[:2]), torch.tensor(gradient[2:].reshape(2, 2))
        optimizer.step()
    ours = torch.cat([weight.detach().flatten() for weight in weights]).numpy()
    expected = [
        paper_lion(w, list(column), lr, decay, beta1, beta2) for w, column in zip(start, gradients.T, strict=True)
    ]
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


def through_state_dict(old_model, old, model, new, path: Path) -> None:
    new.load_state_dict(old.state_dict())


def through_a_checkpoint(old_model, old, model, new, path: Path) -> None:
    with CheckpointWriter(path, old_model, make_tokenizer()) as writer:
        saved = writer.save(old, {"step": 3})
    load_checkpoint(saved, model, new)


def through_distributed_checkpoint(old_model, old, model, new, path: Path) -> None:
    set_optimizer_state_dict(model, new, get_optimizer_state_dict(old_model, old))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("carry", [through_state_dict, through_a_checkpoint, through_distributed_checkpoint])
def test_three_steps_and_three_after_a_restart_are_six_bit_for_bit(name: str, carry: Callable, tmp_path: Path) -> None:
    options = TrainOptions(optimizer=name)
    whole = tiny_model()
    take_steps(whole, make_optimizer(whole, options, lr=1e-2), range(6))
    first = tiny_model()
    optimizer = make_optimizer(first, options, lr=1e-2)
    take_steps(first, optimizer, range(3))
    second = tiny_model()
    second.load_state_dict(first.state_dict())
    restored = make_optimizer(second, options, lr=1e-2)
    carry(first, optimizer, second, restored, tmp_path / "checkpoints")
    take_steps(second, restored, range(3, 6))
    assert_same_weights(second, whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sgd"}, "--optimizer sgd must be one of adamw, muon, lion"),
        ({"beta1": 1.0}, "--beta1 1.0 must be a number of at least 0 and below 1"),
        ({"beta2": -0.1}, "--beta2 -0.1 must be a number of at least 0 and below 1"),
        ({"muon_momentum": 1.5}, "--muon-momentum 1.5 must be a number of at least 0 and below 1"),
        ({"lion_beta2": math.nan}, "--lion-beta2 nan must be a number of at least 0 and below 1"),
        ({"lr": 0.0}, "--lr 0.0 must be a number above 0"),
        ({"lr": math.inf}, "--lr inf must be a number above 0"),
        ({"eps": -1e-8}, "--eps -1e-08 must be a number above 0"),
        ({"optimizer": "muon", "muon_lr": -1.0}, "--muon-lr -1.0 must be a number above 0"),
        ({"lion_lr": 1e-4}, "--lion-lr is for --optimizer lion, not adamw or muon; use --lr"),
    ],
)
def test_each_option_is_checked_in_one_line(changes: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        TrainOptions(**changes)
    assert str(caught.value) == message
