"""Initial weights, tensor by tensor, however the model comes into being."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from gpt3.model import GPT3Config, GPT3ForCausalLM, GPT3Model

LAYERS = 5


def shape(**changes: object) -> GPT3Config:
    return GPT3Config(
        **{"vocab_size": 500, "max_position_embeddings": 300, "hidden_size": 128, "num_hidden_layers": LAYERS,
           "num_attention_heads": 4, "bos_token_id": 0, "eos_token_id": 0} | changes
    )  # fmt: skip


def build_through_base_model(config: GPT3Config) -> GPT3ForCausalLM:
    model = GPT3ForCausalLM(config)
    model.transformer = GPT3Model(config)
    return model


BUILDERS: dict[str, Callable[[GPT3Config], GPT3ForCausalLM]] = {
    "constructor": GPT3ForCausalLM,
    "from_config": AutoModelForCausalLM.from_config,
    "base model": build_through_base_model,
}


def expected_spread(name: str, scale: float) -> tuple[float, float]:
    """Mean and standard deviation of a freshly made parameter."""
    if name.endswith("bias"):
        return 0.0, 0.0
    if ".ln_" in name:
        return 1.0, 0.0
    if name.endswith("c_proj.weight"):
        return 0.0, scale / math.sqrt(2 * LAYERS)
    return 0.0, scale


def assert_fresh(model: GPT3ForCausalLM, scale: float = 0.02) -> None:
    for name, value in model.named_parameters():
        mean, std = expected_spread(name, scale)
        if std == 0:
            assert torch.equal(value, torch.full_like(value, mean)), name
        else:  # n normal numbers: the sample's deviation is within 5 of its own standard errors, std / sqrt(2 n)
            n = value.numel()
            assert abs(float(value.detach().std()) / std - 1) < 5 / math.sqrt(2 * n), name
            assert abs(float(value.detach().mean())) < 5 * std / math.sqrt(n), name
            assert float(value.detach().abs().max()) > 3 * std, name  # normal, not uniform: it has tails


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("tied", [True, False])
def test_every_tensor_has_its_spread(builder: str, tied: bool) -> None:
    torch.manual_seed(0)
    model = BUILDERS[builder](shape(tie_word_embeddings=tied))
    assert_fresh(model)
    if builder != "base model":
        assert (model.lm_head.weight is model.transformer.wte.weight) == tied


def test_initializer_range_scales_all() -> None:
    torch.manual_seed(0)
    assert_fresh(GPT3ForCausalLM(shape(initializer_range=0.1)), scale=0.1)


def test_saving_and_loading_leaves_weights_alone(tmp_path: Path) -> None:
    model = GPT3ForCausalLM(shape())
    model.save_pretrained(tmp_path)
    loaded = GPT3ForCausalLM.from_pretrained(tmp_path)
    for (name, value), (other, again) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(value, again), name
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")


def test_a_tensor_missing_from_the_file_is_made_afresh_and_only_it(tmp_path: Path) -> None:
    model = GPT3ForCausalLM(shape())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3.0)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    missing = "transformer.h.2.mlp.c_proj.weight"
    del weights[missing]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for name, value in GPT3ForCausalLM.from_pretrained(tmp_path).named_parameters():
        if name == missing:
            assert float(value.detach().std()) == pytest.approx(0.02 / math.sqrt(2 * LAYERS), rel=0.05)
        else:
            assert torch.equal(value, torch.full_like(value, 3.0)), name


def test_the_first_loss_is_that_of_a_uniform_guess() -> None:
    torch.manual_seed(0)
    model, ids = GPT3ForCausalLM(shape()), torch.randint(500, (4, 200))
    with torch.no_grad():
        assert float(model(ids, labels=ids).loss) == pytest.approx(math.log(500), abs=0.05)
