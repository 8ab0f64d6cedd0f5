"""The configuration: names, defaults, refusals."""

from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassError
from tiny_models import tiny_config, tiny_model

from gpt3.model import GPT3Config, GPT3ForCausalLM


def test_gpt2s_names_read_and_write_the_same_fields() -> None:
    config = GPT3Config(n_embd=32, n_layer=3, n_head=2, n_positions=99, n_inner=7)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (32, 3, 2)
    assert (config.max_position_embeddings, config.intermediate_size) == (99, 7)
    assert (config.n_embd, config.n_layer, config.n_head, config.n_positions, config.n_ctx) == (32, 3, 2, 99, 99)
    assert len(config.layer_types) == 3


def test_defaults_that_follow_from_others() -> None:
    config = GPT3Config(hidden_size=40, num_attention_heads=5)
    assert (config.head_dim, config.intermediate_size) == (8, 160)
    assert GPT3Config(hidden_size=40, num_attention_heads=3, head_dim=7).head_dim == 7
    model = tiny_model(hidden_size=20, num_attention_heads=3, head_dim=7, intermediate_size=11)
    assert model.transformer.h[0].attn.c_attn.weight.shape == (63, 20)
    assert model.transformer.h[0].mlp.c_fc.weight.shape == (11, 20)


def test_a_configuration_survives_json() -> None:
    config = tiny_config(real_vocab_size=60, head_dim=5, use_pre_layernorm=False, attn_pdrop=0.1)
    again = GPT3Config(**config.to_dict())
    assert again.to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1, got 0"),
        ({"vocab_size": -3}, "vocab_size must be at least 1, got -3"),
        ({"max_position_embeddings": 0}, "max_position_embeddings must be at least 1, got 0"),
        ({"sliding_window": 1}, "sliding_window must be at least 2, got 1"),
        (
            {"hidden_size": 25},
            "hidden_size 25 is not a multiple of num_attention_heads 3: choose others, or give head_dim",
        ),
        ({"num_attention_heads": 0}, "num_attention_heads must be at least 1, got 0"),
        ({"head_dim": 0}, "head_dim must be at least 1, got 0"),
        ({"intermediate_size": -1}, "intermediate_size must be at least 1, got -1"),
        ({"activation_function": "gellu"}, "activation_function 'gellu' is unknown"),
        ({"attn_pdrop": 1.5}, "attn_pdrop must be at least 0 and below 1, got 1.5"),
        ({"resid_pdrop": -0.1}, "resid_pdrop must be at least 0 and below 1, got -0.1"),
        ({"initializer_range": 0.0}, "initializer_range must be above 0, got 0.0"),
        ({"layer_norm_epsilon": -1.0}, "layer_norm_epsilon must be above 0, got -1.0"),
        ({"real_vocab_size": 68}, "real_vocab_size must be from 1 to vocab_size 67, got 68"),
        ({"real_vocab_size": 0}, "real_vocab_size must be from 1 to vocab_size 67, got 0"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 entry for 3 layers"),
        ({"layer_types": ["full_attention", "dense", "full_attention"]}, "layer_types may hold full_attention and"),
        ({"layer_types": ["full_attention", "chunked_attention", "full_attention"]}, "not chunked_attention"),
        ({"hidden_size": "wide"}, "hidden_size.*\n.*expected int, got str"),
    ],
)
def test_values_that_make_no_model_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(StrictDataclassError, match=message):
        tiny_config(**values)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(StrictDataclassError, match=r"vocab_size must .*attn_pdrop must"):
        tiny_config(vocab_size=0, attn_pdrop=2.0)


@pytest.mark.parametrize("pre_layernorm", [True, False])
def test_one_parameter_for_each_name_of_gpt2(pre_layernorm: bool) -> None:
    names = {name for name, _ in GPT3ForCausalLM(tiny_config(use_pre_layernorm=pre_layernorm)).named_parameters()}
    block = ["ln_1", "ln_2", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
    modules = [f"h.{i}.{name}" for i in range(3) for name in block] + ["ln_f"]
    expected = {f"transformer.{name}.{kind}" for name in modules for kind in ("weight", "bias")}
    assert names == expected | {"transformer.wte.weight", "transformer.wpe.weight"}
