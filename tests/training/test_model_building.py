"""Fresh weights follow the model's table and depend on the seed and the names alone."""

import math

import pytest
import torch

from gpt3.ladder.presets import preset
from gpt3.model import GPT3ForCausalLM
from gpt3.training.model_building import fill

CPU = torch.device("cpu")


def fresh(seed: int, layers: int = 3, **changes) -> GPT3ForCausalLM:
    with torch.device("meta"):
        model = GPT3ForCausalLM(preset("demo").config(num_hidden_layers=layers, **changes))
    fill(model, model, seed, CPU)
    return model


def test_the_values_are_those_of_the_models_table() -> None:
    model = fresh(1).requires_grad_(False)
    reference = GPT3ForCausalLM(model.config)  # transformers' own way of initialising
    for (name, weight), (other, expected) in zip(model.named_parameters(), reference.named_parameters(), strict=True):
        assert name == other
        assert not weight.is_meta
        if weight.dim() == 2:
            assert float(weight.mean()) == pytest.approx(0, abs=0.02 * 6 / math.sqrt(weight.numel()))
            assert float(weight.std()) == pytest.approx(float(expected.detach().std()), rel=0.03)
        else:
            assert torch.equal(weight, expected)
    assert model.lm_head.weight is model.transformer.wte.weight


def test_they_depend_on_seed_and_name_only() -> None:
    one, same, other = fresh(1), fresh(1), fresh(2)
    deeper = dict(fresh(1, layers=4).named_parameters())
    for (name, weight), again, different in zip(
        one.named_parameters(), same.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(weight, again)
        if weight.dim() == 2:
            assert not torch.equal(weight, different)
            if not name.endswith("c_proj.weight"):  # whose spread depends on the depth
                assert torch.equal(weight, deeper[name])


def test_parts_filled_one_by_one_are_the_whole() -> None:
    with torch.device("meta"):
        model = GPT3ForCausalLM(preset("demo").config(num_hidden_layers=3))
    for block in model.transformer.h:
        fill(model, block, 1, CPU)
    assert model.transformer.wte.weight.is_meta
    fill(model, model, 1, CPU)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh(1).parameters(), strict=True))


def test_an_untied_head_has_weights_of_its_own() -> None:
    model = fresh(1, tie_word_embeddings=False)
    assert model.lm_head.weight is not model.transformer.wte.weight
    assert not torch.equal(model.lm_head.weight, model.transformer.wte.weight)
