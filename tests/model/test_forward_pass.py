"""The forward pass against two references nobody here wrote for it: transformers' GPT-2 and a numpy oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_oracle import forward as oracle
from tiny_models import WINDOW, random_ids, tiny_config, tiny_model
from transformers import GPT2Config, GPT2LMHeadModel

from gpt3.model import GPT3ForCausalLM


def oracle_logits(model: GPT3ForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    config = model.config
    weights = {name.removeprefix("transformer."): value.numpy() for name, value in model.state_dict().items()}
    rows = [
        oracle(
            weights,
            row.numpy(),
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            windows=[config.sliding_window if kind == "sliding_attention" else None for kind in config.layer_types],
            pre_layernorm=config.use_pre_layernorm,
            tanh_gelu=config.activation_function == "gelu_new",
            epsilon=config.layer_norm_epsilon,
        )
        for row in ids
    ]
    return torch.from_numpy(np.stack(rows))


@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
@pytest.mark.parametrize("attention", ["banded", "sdpa", "eager"])
def test_dense_model_with_copied_weights_is_transformers_gpt2(activation: str, attention: str) -> None:
    reference = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=67, n_positions=64, n_embd=24, n_layer=3, n_head=3, activation_function=activation,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    ).eval()  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.normal_(std=0.2, generator=generator)
    weights = {
        name: value.T if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else value
        for name, value in reference.state_dict().items()
    }
    model = tiny_model(attention, layer_types=["full_attention"] * 3, activation_function=activation)
    model.load_state_dict(weights)
    ids = random_ids(2, 41)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, reference(ids).logits, rtol=0, atol=1e-5)
        loss, expected = model(ids, labels=ids).loss, reference(ids, labels=ids).loss
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    attention=st.sampled_from(["banded", "sdpa", "eager"]),
    length=st.integers(1, 30),
    window=st.integers(2, 12),
    layers=st.integers(1, 3),
    heads=st.integers(1, 3),
    head_dim=st.integers(1, 6),
    hidden=st.integers(2, 9),
    intermediate=st.integers(1, 20),
    activation=st.sampled_from(["gelu", "gelu_new"]),
    pre_layernorm=st.booleans(),
    banded_first=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_shape_is_the_numpy_oracle(
    attention: str, length: int, window: int, layers: int, heads: int, head_dim: int, hidden: int, intermediate: int,
    activation: str, pre_layernorm: bool, banded_first: bool, seed: int,
) -> None:  # fmt: skip
    kinds = ["full_attention", "sliding_attention"]
    model = tiny_model(
        attention, seed, hidden_size=hidden, num_attention_heads=heads, head_dim=head_dim, num_hidden_layers=layers,
        intermediate_size=intermediate, sliding_window=window, activation_function=activation,
        use_pre_layernorm=pre_layernorm, layer_types=[kinds[(i + banded_first) % 2] for i in range(layers)],
    ).double()  # fmt: skip
    ids = random_ids(2, length, seed=seed)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, oracle_logits(model, ids), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("length", [WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 4 * WINDOW + 3])
def test_a_window_counts_the_query_itself(length: int) -> None:
    """One banded layer: the last token's output depends on the last `window` inputs and on no earlier one."""
    model = tiny_model(num_hidden_layers=1, layer_types=["sliding_attention"])
    embeddings = model.transformer.wte(random_ids(1, length)).detach().requires_grad_()
    model(inputs_embeds=embeddings).logits[0, -1].square().sum().backward()
    felt = embeddings.grad[0].abs().sum(-1) > 0
    assert felt.tolist() == [t >= length - WINDOW for t in range(length)]


def test_layers_alternate_dense_first() -> None:
    assert tiny_config(num_hidden_layers=5).layer_types == [
        "full_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention",
    ]  # fmt: skip
    model = tiny_model()
    assert [block.attn.sliding_window for block in model.transformer.h] == [None, WINDOW, None]


def test_hidden_states_and_attentions_can_be_had() -> None:
    model = tiny_model("eager")
    ids = random_ids(2, 20)
    output = model(ids, output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == 4
    assert [tuple(a.shape) for a in output.attentions] == [(2, 3, 20, 20)] * 3
    torch.testing.assert_close(output.attentions[1].sum(-1), torch.ones(2, 3, 20))
    torch.testing.assert_close(model.lm_head(output.hidden_states[-1]), output.logits)


def test_logits_to_keep() -> None:
    model, ids = tiny_model(), random_ids(2, 20)
    whole = model(ids).logits
    torch.testing.assert_close(model(ids, logits_to_keep=1).logits, whole[:, -1:])
    chosen = torch.tensor([3, 7])
    torch.testing.assert_close(model(ids, logits_to_keep=chosen).logits, whole[:, chosen])


def test_a_context_beyond_the_positions_is_refused_with_both_numbers() -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match=r"position 65, the model has 64 \(max_position_embeddings\)"):
        model(random_ids(1, 65))
    past = model(random_ids(1, 60), use_cache=True).past_key_values
    with pytest.raises(ValueError, match="position 66"):
        model(random_ids(1, 6), past_key_values=past)
    with pytest.raises(ValueError, match="position 101"):
        model(random_ids(1, 2), position_ids=torch.tensor([[99, 100]]))
    # Padding takes no positions: 10 padded and 60 real tokens fit.
    mask = torch.ones(1, 70, dtype=torch.long)
    mask[:, :10] = 0
    model(random_ids(1, 70), attention_mask=mask)
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model()


@pytest.mark.slow
def test_a_compiled_model_computes_the_same() -> None:
    model, ids = tiny_model(), random_ids(2, 40)
    compiled = torch.compile(model)
    torch.testing.assert_close(compiled(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)
    loss = compiled(ids, labels=ids, skip_logits=True).loss
    loss.backward()
    gradient = model.transformer.wte.weight.grad.clone()
    model.zero_grad()
    expected = model(ids, labels=ids).loss
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradient, model.transformer.wte.weight.grad, rtol=1e-3, atol=1e-4)
