"""The weight average against its closed form, and that the model's own weights come back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.training.weight_average import WeightAverage


def small_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))


def wander(model: torch.nn.Module, seed: int) -> None:
    """Put other weights in."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 0.9999), st.integers(1, 12))
def test_it_is_the_closed_form(decay: float, steps: int) -> None:
    model = small_model()
    average, seen = WeightAverage(model, decay), []
    for step in range(1, steps + 1):
        wander(model, step)
        average.update(step)
        seen.append(weights_of(model))
    shares = np.array([decay ** (steps - i) for i in range(1, steps + 1)])
    shares /= shares.sum()
    for name, tensor in average.tensors.items():
        expected = sum(share * weights[name].double().numpy() for share, weights in zip(shares, seen, strict=True))
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=2e-5, atol=2e-6)


def test_the_weights_before_the_first_step_have_no_share() -> None:
    model = small_model()
    average = WeightAverage(model, 0.999)
    wander(model, 1)
    average.update(1)
    assert all(torch.equal(average.tensors[name], weight) for name, weight in weights_of(model).items())


def test_weights_that_stand_still_are_their_own_average() -> None:
    model = small_model()
    average = WeightAverage(model, 0.9)
    for step in range(1, 50):
        average.update(step)
    assert all(torch.equal(average.tensors[name], weight) for name, weight in weights_of(model).items())


def test_inside_the_model_is_the_average_and_afterwards_itself_bit_for_bit() -> None:
    model = small_model()
    average = WeightAverage(model, 0.5)
    for step in (1, 2, 3):
        wander(model, step)
        average.update(step)
    own, places = weights_of(model), [weight.data_ptr() for weight in model.parameters()]
    kept = {name: tensor.clone() for name, tensor in average.tensors.items()}
    with average.swapped_in():
        assert all(torch.equal(weight, kept[name]) for name, weight in weights_of(model).items())
        assert not torch.equal(weights_of(model)["0.weight"], own["0.weight"])
        assert [weight.data_ptr() for weight in model.parameters()] == places  # compiled graphs stay true
    assert all(torch.equal(weight, own[name]) for name, weight in weights_of(model).items())
    assert all(torch.equal(tensor, kept[name]) for name, tensor in average.tensors.items())


def test_an_error_inside_brings_the_weights_back_too() -> None:
    model = small_model()
    average = WeightAverage(model, 0.5)
    wander(model, 1)
    own = weights_of(model)
    with pytest.raises(KeyError), average.swapped_in():
        raise KeyError
    assert all(torch.equal(weight, own[name]) for name, weight in weights_of(model).items())


def test_bf16_weights_have_an_fp32_average_and_come_back() -> None:
    model = small_model().to(torch.bfloat16)
    average = WeightAverage(model, 0.9)
    for step in (1, 2):
        wander(model, step)
        average.update(step)
    own = weights_of(model)
    kept = {name: tensor.clone() for name, tensor in average.tensors.items()}
    with average.swapped_in():
        assert torch.equal(model[0].weight, kept["0.weight"].to(torch.bfloat16))
    assert all(torch.equal(weight, own[name]) for name, weight in weights_of(model).items())
    assert all(tensor.dtype == torch.float32 and torch.equal(tensor, kept[n]) for n, tensor in average.tensors.items())
