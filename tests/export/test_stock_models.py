"""Stock GPT-2 and GPT-Neo, transformers' own classes, have the model's logits, beyond the window too, and write the same."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, GPTNeoForCausalLM

from gpt3.export.stock import save, to_gpt2, to_gpt_neo

BANDED = {
    "alternating": {},
    "untied, tanh, narrow": {
        "tie_word_embeddings": False, "activation_function": "gelu_new", "intermediate_size": 100, "num_hidden_layers": 3,
    },
    "banded first, no padding": {
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        "vocab_size": 300, "real_vocab_size": None, "sliding_window": 5,
    },
    "wide": {"hidden_size": 192, "num_attention_heads": 3, "layer_norm_epsilon": 1e-6},
    "dense": {"layer_types": ["full_attention"] * 4},
}  # fmt: skip
DENSE = {name: shape | {"sliding_window": 96} for name, shape in BANDED.items()}


def logits(model, ids):
    with torch.no_grad():
        return model(ids).logits[..., :300]


def continued(model, ids, count):
    return model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )


@pytest.mark.parametrize("shape", BANDED.values(), ids=BANDED)
def test_gpt_neo(new_model, shape):
    model = new_model(**shape)
    stock = to_gpt_neo(model, context=96, rows=300)
    assert type(stock) is GPTNeoForCausalLM
    ids = torch.randint(300, (2, 96), generator=torch.Generator().manual_seed(1))
    ours = logits(model, ids)
    assert ours.std() > 0.3
    torch.testing.assert_close(logits(stock, ids), ours, atol=1e-5, rtol=1e-5)
    assert continued(stock, ids[:1, :6], 60).tolist() == continued(model, ids[:1, :6], 60).tolist()


@pytest.mark.parametrize("shape", DENSE.values(), ids=DENSE)
def test_gpt2(new_model, shape):
    model = new_model(**shape)
    stock = to_gpt2(model, context=96, rows=300)
    assert type(stock) is GPT2LMHeadModel
    ids = torch.randint(300, (2, 96), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(logits(stock, ids), logits(model, ids), atol=1e-5, rtol=1e-5)
    assert continued(stock, ids[:1, :6], 60).tolist() == continued(model, ids[:1, :6], 60).tolist()


@pytest.mark.parametrize("gain", [0.0, 1e-11, 1e-6, -1e-3])
@pytest.mark.parametrize("shift", [0.0, -0.3])
def test_gpt_neo_with_a_gain_of_almost_nothing(new_model, gain, shift):
    model = new_model()
    with torch.no_grad():
        for block in model.transformer.h:
            block.ln_1.weight[3], block.ln_1.bias[3] = gain, shift
    ids = torch.randint(300, (1, 96))
    torch.testing.assert_close(
        logits(to_gpt_neo(model, context=96, rows=300), ids), logits(model, ids), atol=2e-5, rtol=1e-5
    )


def test_gpt_neo_where_no_query_matrix_has_an_inverse(new_model):
    """As initialised: shifts 0, gains 1; and W_q of rank 1 with a bias outside its range."""
    model = new_model()
    with torch.no_grad():
        for block in model.transformer.h:
            block.ln_1.weight.fill_(1.0)
            block.ln_1.bias.zero_()
            block.attn.c_attn.weight[:64] = torch.outer(torch.randn(64), torch.randn(64)) * 0.2
            block.attn.c_attn.bias[:64] = torch.randn(64)
    ids = torch.randint(300, (1, 96))
    torch.testing.assert_close(
        logits(to_gpt_neo(model, context=96, rows=300), ids), logits(model, ids), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("convert", [to_gpt2, to_gpt_neo])
def test_a_saved_folder_needs_transformers_only(new_model, tokenizer, tmp_path, convert, tied):
    model = new_model(sliding_window=96, tie_word_embeddings=tied)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, 5]  # as fine-tuning leaves it
    save(convert(model, context=80, rows=300), tokenizer, tmp_path, torch.bfloat16)
    assert not list(tmp_path.glob("*.py"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert loaded.dtype == torch.bfloat16
    assert loaded.config.max_position_embeddings == 80
    assert loaded.config.tie_word_embeddings is tied
    assert loaded.generation_config.eos_token_id == [tokenizer.eos_token_id, 5]
    ids = AutoTokenizer.from_pretrained(tmp_path)("The sea", return_tensors="pt")["input_ids"]
    assert ids[0].tolist() == tokenizer("The sea")["input_ids"]
    assert (logits(loaded.float(), ids) - logits(model, ids)).abs().max() < 0.2
