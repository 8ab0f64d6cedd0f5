"""llama.cpp itself runs what was exported: its logits, its greedy text, its perplexity and its token ids are ours."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch

from gpt3.export.comparison import tanh_gelu
from gpt3.export.gguf import write_gguf
from gpt3.inference.cpu_engine import CpuEngine
from gpt3.inference.engine import Run
from gpt3.tokenizer.encoder import HARD_TEXTS
from gpt3.tokenizer.gpt2 import gpt2_tokenizer

pytest.importorskip("xllamacpp", reason="llama.cpp is not installed (the extra llama-cpp)")

from gpt3.export.llama_cpp import LlamaCpp

SHAPES = {
    "dense": {"layer_types": ["full_attention"] * 4},
    "banded, within its window": {"sliding_window": 80, "num_hidden_layers": 3, "num_attention_heads": 2},
    "untied, tanh, narrow": {
        "sliding_window": 96, "tie_word_embeddings": False, "activation_function": "gelu_new", "intermediate_size": 100,
    },
}  # fmt: skip


def log_probabilities(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1, :300].log_softmax(-1)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_logits(new_model, tokenizer, tmp_path, shape):
    """ggml's GELU on a CPU is a table in float16, whose steps are 1e-3 apart; beyond 10 it is the identity, as ours."""
    model = new_model(**shape)
    with torch.no_grad():
        for block in model.transformer.h:
            block.mlp.c_fc.bias.add_(25)
    context = write_gguf(model, tokenizer, tmp_path / "m.gguf")
    ids = torch.randint(299, (context,), generator=torch.Generator().manual_seed(1)).tolist()
    with LlamaCpp(tmp_path / "m.gguf", context=context) as llama:
        for length in (1, 2, 33, context - 1):
            theirs = torch.tensor(llama.log_probabilities(ids[:length], 300))
            assert (theirs - log_probabilities(model, ids[:length])).abs().max() < 5e-5
        text = llama.complete(ids[:9], n_predict=64, return_tokens=True)["tokens"]
    settings = {"max_new_tokens": 64, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    assert text == model.generate(torch.tensor([ids[:9]]), **settings)[0, 9:].tolist()
    assert len(text) == 64


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_greedy_text_and_logits_with_its_gelu(new_model, tokenizer, tmp_path, shape):
    model = new_model(**shape)
    context = write_gguf(model, tokenizer, tmp_path / "m.gguf")
    ids = torch.randint(299, (context,), generator=torch.Generator().manual_seed(1)).tolist()
    with LlamaCpp(tmp_path / "m.gguf", context=context) as llama:
        text = llama.complete(ids[:9], n_predict=64, return_tokens=True)["tokens"]
        theirs = torch.tensor(llama.log_probabilities(ids[:40], 300))
    prompt = torch.tensor([ids[:9]])
    rest = model.generate(prompt, max_new_tokens=64, do_sample=False, pad_token_id=0)[0, 9:].tolist()
    assert text == rest
    assert len(text) >= 20
    with tanh_gelu(model):
        assert (theirs - log_probabilities(model, ids[:40])).abs().max() < 5e-3


@pytest.mark.parametrize(
    ("dtype", "bound"), [("f32", 1e-3), ("f16", 0.005), ("bf16", 0.01), ("q8_0", 0.01), ("q4_0", 0.02)]
)
def test_perplexity(new_model, tokenizer, tmp_path, dtype, bound):
    """The tokens are drawn from the model, so that its perplexity is low and every logit counts."""
    model = new_model(sliding_window=96)
    model.transformer.ln_f.weight.data *= 2
    write_gguf(model, tokenizer, tmp_path / "m.gguf", dtype=dtype)
    ends = {"eos_token_id": None, "pad_token_id": 0}
    torch.manual_seed(0)
    ids = model.generate(torch.tensor([[5]]), max_new_tokens=90, do_sample=True, **ends)[0].tolist()
    ids = [i if i < 299 else 0 for i in ids]
    with LlamaCpp(tmp_path / "m.gguf", context=96) as llama:
        theirs = [-llama.log_probabilities(ids[:n], 300)[ids[n]] for n in range(1, len(ids))]
    if dtype == "q4_0":  # against the engine's 4 bits; llama.cpp rounds activations to 8
        engine = CpuEngine(model, "int4")
        logits = engine.forward(engine.new_cache(1, 96), [Run(0, ids[:-1], len(ids) - 1)])
        ours = float(torch.nn.functional.cross_entropy(torch.as_tensor(logits), torch.tensor(ids[1:])))
    else:
        with torch.no_grad():
            ours = float(model(torch.tensor([ids]), labels=torch.tensor([ids])).loss)
    assert ours < 5
    assert math.exp(sum(theirs) / len(theirs)) == pytest.approx(math.exp(ours), rel=bound)


@pytest.mark.parametrize("kind", ["gpt2", "own"])
def test_token_ids(new_model, tokenizer, tmp_path, kind):
    if kind == "gpt2":
        tokenizer = gpt2_tokenizer()
    rows = len(tokenizer)
    model = new_model(vocab_size=rows, real_vocab_size=rows, hidden_size=8, num_attention_heads=1)
    write_gguf(model, tokenizer, tmp_path / "m.gguf")
    with LlamaCpp(tmp_path / "m.gguf", context=16) as llama:
        for text in (*HARD_TEXTS, *(chr(code) + "'s x" for code in range(1, 0x3100, 7))):
            assert llama.tokenize(text) == tokenizer(text)["input_ids"], text
        end = tokenizer.eos_token_id
        assert llama.tokenize("a<|endoftext|>", special=True) == [*tokenizer("a")["input_ids"], end]


def test_a_server_that_is_closed_at_once_ends(new_model, tokenizer, tmp_path):
    write_gguf(new_model(**SHAPES["dense"]), tokenizer, tmp_path / "m.gguf")
    for _ in range(5):
        with LlamaCpp(tmp_path / "m.gguf", context=16):
            pass


@pytest.mark.parametrize("name", ["harmony", "chatml"])
def test_chat_templates(new_model, tokenizer, tmp_path, name):
    """Its own Jinja renders the prompt that transformers does."""
    from gpt3.finetuning.samples import PROBE, prepare_tokenizer, read_template

    tokenizer = deepcopy(tokenizer)
    prepare_tokenizer(tokenizer, read_template(name, tokenizer))
    model = new_model(**SHAPES["dense"], vocab_size=len(tokenizer), real_vocab_size=None)
    context = write_gguf(model, tokenizer, tmp_path / "m.gguf")
    messages = [{"role": each.role, "content": each.content} for each in PROBE[:4]]
    with LlamaCpp(tmp_path / "m.gguf", context=context) as llama:
        found = llama._post("/apply-template", {"messages": messages})["prompt"]
    assert found == tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
