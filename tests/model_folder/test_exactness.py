"""An imported model computes what the original computes: logits against transformers' own classes, and for GPT3-dev an oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gpt3dev_reference
import pytest
import torch
from foreign_models import cached_logits, gpt2, gpt_neo, largest_difference, logits, opt, random_ids, saved
from safetensors.numpy import save_file

from gpt3.model import GPT3ForCausalLM
from gpt3.model_folder.load import open_checkpoint

BOUND = 1e-5

MODELS = {
    "GPT-2": gpt2,
    "GPT-2, unscaled scores, divided by layer, untied": lambda: gpt2(
        scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True,
        tie_word_embeddings=False,
    ),
    "GPT-2, one head, relu, another epsilon": lambda: gpt2(
        n_embd=20, n_head=1, n_layer=2, activation_function="relu", layer_norm_epsilon=1e-3
    ),
    "Cerebras-GPT": lambda: gpt2(activation_function="gelu", n_inner=96, n_head=4),
    "Cerebras-GPT, narrow MLP": lambda: gpt2(activation_function="gelu", n_inner=30, n_embd=32, n_head=2, n_layer=2),
    "Cerebras-GPT, wide MLP": lambda: gpt2(activation_function="gelu", n_inner=200, n_embd=16, n_head=2, n_layer=4),
    "GPT-Neo": gpt_neo,
    "GPT-Neo, window 256, beyond it": lambda: gpt_neo(
        max_position_embeddings=640, window_size=256, num_layers=2, attention_types=[[["global", "local"], 1]]
    ),
    "GPT-Neo, local first, narrow MLP": lambda: gpt_neo(
        attention_types=[[["local", "global"], 1], [["local"], 1]], num_layers=3, intermediate_size=50, num_heads=2, window_size=5
    ),
    "OPT": opt,
    "OPT, two heads, wide": lambda: opt(hidden_size=32, num_attention_heads=2, num_hidden_layers=2, ffn_dim=200),
    "OPT without biases and gains, GELU (Galactica)": lambda: opt(
        enable_bias=False, layer_norm_elementwise_affine=False, activation_function="gelu", ffn_dim=50
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_transformers_own_class(name: str, tmp_path: Path) -> None:
    theirs = MODELS[name]()
    ids = random_ids(600 if "256" in name else 60, batch=1 if "256" in name else 2)
    checkpoint = open_checkpoint(saved(theirs, tmp_path))
    ours = checkpoint.model()
    expected = logits(theirs, ids)
    assert expected.std() > 0.5  # weights that make a difference
    assert largest_difference(ours, expected, ids) <= BOUND
    if "256" not in name:  # their cache, too
        torch.testing.assert_close(cached_logits(ours, ids), cached_logits(theirs, ids), atol=BOUND, rtol=0)
    assert ours.num_parameters() == theirs.num_parameters() + added_parameters(theirs)


def added_parameters(theirs: Any) -> int:
    """What ours has more or less: biases that are zero, gains that are one, unused positions."""
    ours = {"gpt2": 0, "gpt_neo": 3 * theirs.config.hidden_size * theirs.config.num_hidden_layers}
    if theirs.config.model_type != "opt":
        return ours[theirs.config.model_type]
    C, F, L = theirs.config.hidden_size, theirs.config.ffn_dim, theirs.config.num_hidden_layers
    added = -2 * C
    added += 0 if theirs.config.enable_bias else L * (5 * C + F)
    return added + (0 if theirs.config.layer_norm_elementwise_affine else 2 * C * (2 * L + 1))


V1 = {
    "vocab_size": 67, "n_positions": 64, "n_embd": 24, "n_layer": 4, "n_head": 3, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
V2 = V1 | {"model_type": "gpt3dev", "window_size": 8, "stride": 4, "activation_function": "gelu_new"}
ANCESTORS: dict[str, dict[str, Any]] = {
    "custom_gpt2": V1 | {"model_type": "custom_gpt2", "activation_function": "gelu"},
    "custom_gpt2, post-LN, an n_inner that is not so": V1
    | {"model_type": "custom_gpt2", "use_pre_layernorm": False, "n_inner": 51, "n_layer": 3},
    "custom_gpt2, other shape": V1
    | {"model_type": "custom_gpt2", "n_embd": 32, "n_head": 2, "layer_norm_epsilon": 1e-3},
    "gpt3dev 1": V1 | {"model_type": "gpt3dev"},
    "gpt3dev 1, head width of its own, untied": V1
    | {"model_type": "gpt3dev", "d_head": 10, "tie_word_embeddings": False},
    "gpt3dev 1, post-LN": V1 | {"model_type": "gpt3dev", "use_pre_layernorm": False, "n_layer": 2},
    "gpt3dev 2": V2,
    "gpt3dev 2, post-LN, an n_inner that is not so": V2
    | {"use_pre_layernorm": False, "n_inner": 96 * 2, "window_size": 5},
    "gpt3dev 2, window as wide as the context": V2 | {"window_size": 64, "n_layer": 2},
    "gpt3dev 2, smallest window": V2 | {"window_size": 1, "n_embd": 32, "n_head": 4},
}


def write_ancestor(raw: dict[str, Any], folder: Path, masks: bool = False) -> dict[str, Any]:
    weights = gpt3dev_reference.random_checkpoint(raw)
    extra = {}
    if masks:  # buffers that old versions of transformers saved along
        import numpy as np

        for layer in range(raw["n_layer"]):
            extra[f"transformer.h.{layer}.attn.bias"] = np.tril(np.ones((1, 1, 64, 64), dtype=bool))
            extra[f"transformer.h.{layer}.attn.masked_bias"] = np.array(-1e4, dtype=np.float32)
    save_file({**weights, **extra}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    return weights


@pytest.mark.parametrize("name", ANCESTORS)
def test_gpt3dev_computes_what_its_description_says(name: str, tmp_path: Path) -> None:
    raw, ids = ANCESTORS[name], random_ids(60)
    weights = write_ancestor(raw, tmp_path, masks=raw["model_type"] == "custom_gpt2")
    expected = torch.from_numpy(gpt3dev_reference.logits(raw, weights, ids.numpy()))
    assert expected.std() > 0.5
    ours = open_checkpoint(tmp_path).model()
    assert largest_difference(ours, expected, ids) <= BOUND
    assert ours.config.tie_word_embeddings == raw.get("tie_word_embeddings", True)


def test_the_oracle_tells_a_window_from_one_a_key_wider(tmp_path: Path) -> None:
    """What the bound above would catch: a window that is one key off, a GELU that is the other one."""
    raw, ids = ANCESTORS["gpt3dev 2"], random_ids(60)
    weights = write_ancestor(raw, tmp_path)
    expected = gpt3dev_reference.logits(raw, weights, ids.numpy())
    for window in (7, 9):
        other = gpt3dev_reference.logits(raw | {"window_size": window}, weights, ids.numpy())
        assert abs(other - expected).max() > 1000 * BOUND
    checkpoint = open_checkpoint(tmp_path)
    checkpoint.config.activation_function = "gelu_new"
    other = checkpoint.model()
    assert float((logits(other, ids) - torch.from_numpy(expected)).abs().max()) > 10 * BOUND


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_what_it_is_and_widens_before_it_is_scaled(dtype: torch.dtype, tmp_path: Path) -> None:
    theirs, ids = gpt_neo().to(dtype), random_ids(60)
    checkpoint = open_checkpoint(saved(theirs, tmp_path))
    assert {checkpoint.tensor(name).dtype for name, _ in checkpoint.empty_model().named_parameters()} == {dtype}
    assert checkpoint.model().dtype == dtype
    assert largest_difference(checkpoint.model(torch.float32), logits(theirs.float(), ids), ids) <= BOUND


def test_a_checkpoint_has_configuration_weights_tokenizer_and_notes(tmp_path: Path) -> None:
    theirs, ids = gpt_neo(), random_ids(60)
    checkpoint = open_checkpoint(saved(theirs, tmp_path))
    config = checkpoint.config
    ours = GPT3ForCausalLM(config).eval()
    weights = {name: checkpoint.tensor(name) for name, _ in ours.named_parameters()}
    missing, left_over = ours.load_state_dict(weights, strict=False)
    assert (missing, left_over) == (["lm_head.weight"], [])  # which is tied
    assert largest_difference(ours, logits(theirs, ids), ids) <= BOUND
    assert checkpoint.tokenizer is None
    assert any("without" in note for note in checkpoint.notes)
    assert config.layer_types == ["full_attention", "sliding_attention"] * 2
    assert config.sliding_window == 8
