"""4-bit weights: the grid is gguf's, the scales are better than its own, and the kernel multiplies what the grid says."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from test_engines import CONTEXT, SHAPES, V, forward, ids, make_model, matrix_of, relative

from gpt3.inference import activations, four_bit, kernels
from gpt3.inference.cpu_engine import CpuEngine
from gpt3.inference.engine import Run
from gpt3.inference.torch_engine import ReferenceEngine

gguf = pytest.importorskip("gguf", reason="gguf is not installed (the extra export)")
Q4_0 = gguf.GGMLQuantizationType.Q4_0
WIDE = {"hidden_size": 64, "num_attention_heads": 4}
MODULES = {"qkv": "attn.c_attn", "proj": "attn.c_proj", "fc": "mlp.c_fc", "out": "mlp.c_proj"}


def random_matrix(rows, columns, seed=0):
    """Of uneven rows, one of zeros, one of a single number in each block."""
    generator = np.random.default_rng(seed)
    matrix = generator.normal(size=(rows, columns)) * np.exp(generator.normal(size=(rows, 1)))
    matrix[0], matrix[1] = 0, 0
    matrix[1, ::32] = -3.5
    return matrix.astype(np.float32)


def units_of(matrix):
    units = np.empty(four_bit.units_shape(*matrix.shape), np.uint8)
    four_bit.store(matrix, units)
    return units


@pytest.mark.parametrize("shape", [(32, 32), (96, 64), (64, 160)])
def test_the_grid_is_gguf_s(shape, monkeypatch):
    monkeypatch.setattr(four_bit, "AT_ONCE", 32 * 160)  # several parts
    matrix = random_matrix(*shape)
    values = four_bit.dequantized(units_of(matrix))
    assert (values == gguf.dequantize(four_bit.q4_0(matrix), Q4_0)).all()
    assert (values[0] == 0).all()
    assert np.allclose(values[1], matrix[1], rtol=2**-11)  # a scale's rounding


def test_the_error_is_less_than_that_of_llama_cpp_s_scales():
    """In every block, and by 8% over all."""

    def errors(values):
        return ((values - matrix) ** 2).reshape(-1, 32).sum(1)

    matrix = random_matrix(128, 256)
    ours, theirs = (
        errors(four_bit.dequantized(units_of(matrix))),
        errors(gguf.dequantize(gguf.quantize(matrix, Q4_0), Q4_0)),
    )
    assert (ours <= theirs * 1.001 + 1e-5).all()  # both round scales to 16 bits
    assert ours.sum() < 0.92 * theirs.sum()


@pytest.mark.parametrize("shape", [(32, 32), (96, 96), (1056, 64)])
def test_the_kernel_multiplies_what_the_grid_says(shape):
    """Against float64; and a token's numbers are the same, to the last bit, among any number of others."""
    matrix, generator = random_matrix(*shape), np.random.default_rng(1)
    units, one = units_of(matrix), np.ones(shape[0], np.float32)
    bias = generator.normal(size=shape[0]).astype(np.float32)
    x = generator.normal(size=(70, shape[1])).astype(np.float32)
    expected = x.astype(np.float64) @ four_bit.dequantized(units).T.astype(np.float64) + bias
    largest = np.repeat(
        8 * np.abs(four_bit.choose(matrix)[1].astype(np.float64)), 32, axis=1
    )  # sums are of q, from 0 to 15
    sizes = np.abs(x) @ largest.T + 1
    alone = np.concatenate([product(units, one, bias, x[n : n + 1]) for n in range(len(x))])
    assert (np.abs(alone - expected) < 3e-6 * sizes).all()
    for count in (2, 3, 4, 5, 6, 7, 64, 65, 70):
        assert (product(units, one, bias, x[:count]) == alone[:count]).all()


def product(units, scale, bias, x):
    out = np.full((len(x), len(bias)), np.nan, np.float32)
    kernels.linear(units, scale, bias, x, len(x), out, activations.NONE)
    return out


def rounded(model, weights):
    """The model with the weights that the engine holds."""
    for layer, block in enumerate(model.transformer.h):
        for key, module in MODULES.items():
            units = getattr(weights, key)[layer]
            block.get_submodule(module).weight.data = torch.from_numpy(four_bit.dequantized(units))
    model.transformer.wte.weight.data[:V] = torch.from_numpy(matrix_of(weights.wte, weights.wte_scale))
    if not model.config.tie_word_embeddings:
        model.lm_head.weight.data[:V] = torch.from_numpy(matrix_of(weights.head, weights.head_scale))
    return model


@pytest.mark.parametrize(
    "shape", [SHAPES["pre-LN, exact GELU"], SHAPES["post-LN, own head"]], ids=["pre-LN", "post-LN"]
)
def test_the_engine_decodes_as_its_own_matrices(shape):
    model = make_model(**WIDE, **shape)
    engine = CpuEngine(model, "int4")
    assert engine.weights.qkv.dtype == np.uint8
    assert engine.weights.wte.dtype == np.int8
    reference = ReferenceEngine(rounded(make_model(**WIDE, **shape), engine.weights))
    caches = engine.new_cache(2, CONTEXT), reference.new_cache(2, CONTEXT)
    for length in (62, 9, 1):
        runs = [Run(0, ids(length), length), Run(1, ids(length, 1), 1)]
        ours, theirs = (forward(e, c, runs) for e, c in zip((engine, reference), caches, strict=True))
        assert relative(ours, theirs) < 1e-5


def test_a_texts_numbers_do_not_depend_on_its_neighbors():
    engine = CpuEngine(make_model(**WIDE), "int4")

    def last_logits(count):
        cache = engine.new_cache(count, 60)
        engine.forward(cache, [Run(slot, ids(3 + 2 * slot, slot)) for slot in range(count)])
        return forward(engine, cache, [Run(slot, [slot]) for slot in range(count)])

    alone = last_logits(1)
    for count in range(2, 11):
        assert torch.equal(last_logits(count)[:1], alone)


def test_matrices_that_do_not_divide_are_in_8_bits(capsys):
    weights = CpuEngine(make_model(**WIDE, intermediate_size=100), "int4").weights
    assert [getattr(weights, key).dtype.name for key in MODULES] == ["uint8", "uint8", "int8", "int8"]
    said = "--quantize int4 needs multiples of 32; these are in int8: mlp.c_fc (100 x 64), mlp.c_proj (64 x 100)"
    assert said in capsys.readouterr().err


def test_a_trained_model_loses_less_than_a_percent():
    """Of its loss on texts it has not seen: random walks over the ids."""
    generator = np.random.default_rng(0)

    def walks(count):
        texts = generator.integers(0, V, (count, 40))
        for place in range(1, 40):
            texts[:, place] = (texts[:, place - 1] + generator.integers(0, 4, count)) % V
        return torch.from_numpy(texts)

    model = make_model(**WIDE, initializer_range=0.05)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(60):
        texts = walks(8)
        model(texts, labels=texts).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    held_out = walks(40)

    engine = CpuEngine(model, "int4")
    small = ReferenceEngine(rounded(copy.deepcopy(model), engine.weights))

    def loss(engine):
        cache = engine.new_cache(len(held_out), 40)
        runs = [Run(slot, text[:-1].tolist(), 39) for slot, text in enumerate(held_out)]
        logits = torch.cat([forward(engine, cache, [run]) for run in runs])
        return float(torch.nn.functional.cross_entropy(logits, held_out[:, 1:].reshape(-1)))

    full = loss(ReferenceEngine(model))
    assert full < 3.5  # log 211 = 5.4; the walks' own entropy is log 4 = 1.4
    assert abs(loss(small) / full - 1) < 0.01
