"""The CPU engine against the model's own forward: logits, in every format, for texts that come, go and share."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from gpt3.errors import InputError
from gpt3.inference import activations, kernels, torch_engine
from gpt3.inference.attention_kernel import QUERIES
from gpt3.inference.cpu_engine import CpuEngine
from gpt3.inference.engine import ROLLBACK, Run
from gpt3.inference.language_model import make_engine
from gpt3.inference.microkernel import HALVES, LANES, PANEL, address, tile, widen
from gpt3.inference.packing import STORED, panels_of, rows_of
from gpt3.inference.torch_engine import ReferenceEngine, TorchEngine

V, CONTEXT, WINDOW = 211, 200, 12
SHAPES = {
    "pre-LN, exact GELU": {},
    "post-LN, own head": {"use_pre_layernorm": False, "tie_word_embeddings": False},
    "tanh GELU, odd widths": {
        "activation_function": "gelu_new",
        "hidden_size": 37,
        "head_dim": 11,
        "intermediate_size": 53,
    },
    "ReLU, dense": {"activation_function": "relu", "layer_types": ["full_attention"] * 3},
    "SiLU, banded": {"activation_function": "silu", "layer_types": ["sliding_attention"] * 3},
}


def make_model(seed=0, **changes):
    from gpt3 import GPT3Config, GPT3ForCausalLM

    torch.manual_seed(seed)
    shape = {
        "vocab_size": V + 5,
        "real_vocab_size": V,
        "max_position_embeddings": CONTEXT,
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "sliding_window": WINDOW,
        "initializer_range": 0.3,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    model = GPT3ForCausalLM(GPT3Config(**{**shape, **changes})).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # zeros would hide a bias that is left out
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def ids(count, seed=0):
    return np.random.default_rng(seed).integers(0, V, count).tolist()


def forward(engine, cache, runs):
    """Any engine's logits as a tensor of their own."""
    return torch.as_tensor(engine.forward(cache, runs)).clone()


def matrix_of(panels, scale):
    """A matrix as the engine stores it, times its rows' scales."""
    return rows_of(panels)[: len(scale)] * scale[:, None]


def relative(ours, theirs):
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.mark.parametrize("new_engine", [CpuEngine, TorchEngine])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("length", [1, WINDOW - 1, WINDOW, QUERIES + 1, 3 * WINDOW, ROLLBACK + 1, CONTEXT - 20])
def test_logits_are_the_models_own(new_engine, shape, length):
    """A prompt below, at and beyond the window, whole; then 20 tokens one by one, up to the last position."""
    model = make_model(**SHAPES[shape])
    engine, text = new_engine(model), ids(length + 20)
    with torch.no_grad():
        expected = model(torch.tensor([text]), use_cache=False).logits[0, :, :V]
    cache = engine.new_cache(1, CONTEXT)
    assert relative(forward(engine, cache, [Run(0, text[:length], length)]), expected[:length]) < 1e-5
    for place in range(length, length + 20):
        assert relative(forward(engine, cache, [Run(0, [text[place]])]), expected[place : place + 1]) < 1e-5


@st.composite
def schedules(draw):
    """What may happen to three texts: runs of any lengths, copies, cuts."""
    steps, longest = [], [0, 0, 0]
    lengths = [0, 0, 0]
    for _ in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["run", "run", "run", "copy", "cut"]))
        if kind == "run":
            runs = []
            for slot in sorted(draw(st.sets(st.integers(0, 2), min_size=1))):
                room = CONTEXT - lengths[slot]
                count = min(room, draw(st.one_of(st.integers(1, 5), st.integers(1, 90))))
                if count:
                    runs.append((slot, count, draw(st.integers(0, count))))
                    lengths[slot] += count
                    longest[slot] = max(longest[slot], lengths[slot])
            if runs:
                steps.append((kind, runs))
        elif kind == "copy":
            source, target = draw(st.permutations(range(3)))[:2]
            lengths[target], longest[target] = lengths[source], longest[source]
            steps.append((kind, (source, target)))
        else:
            slot = draw(st.integers(0, 2))
            length = draw(st.sampled_from([0, max(0, lengths[slot] - draw(st.integers(0, 9)))]))
            if 0 < length < longest[slot] - ROLLBACK:
                continue
            lengths[slot] = length
            longest[slot] = longest[slot] if length else 0
            steps.append((kind, (slot, length)))
    return steps


@settings(max_examples=40, deadline=None)
@given(schedules(), st.integers(0, 99), st.sampled_from([CpuEngine, TorchEngine]))
def test_any_schedule_is_the_reference(schedule, seed, new_engine):
    model = make_model(seed % 3)
    fast, slow = new_engine(model), ReferenceEngine(model)
    caches = fast.new_cache(3, CONTEXT), slow.new_cache(3, CONTEXT)
    for number, (kind, what) in enumerate(schedule):
        if kind == "run":
            runs = [Run(slot, ids(count, seed + 7 * number + slot), logits) for slot, count, logits in what]
            ours, theirs = (forward(engine, cache, runs) for engine, cache in zip((fast, slow), caches, strict=True))
            assert ours.shape == theirs.shape == (sum(run.logits for run in runs), V)
            if len(theirs):
                assert relative(ours, theirs) < 1e-5
        else:
            for cache in caches:
                cache.copy(*what) if kind == "copy" else cache.truncate(*what)
        assert caches[0].lengths == caches[1].lengths


@pytest.mark.skipif(not HALVES, reason="this processor does not widen fp16")
def test_a_tile_widens_16_bit_weights_exactly():
    """The products and the lookups that all kernels are made of; the whole model in these formats is compiled in slow tests."""
    products = tile(2, 2)

    @njit(fastmath=False)
    def compute(weights, x, out, looked_up):
        depth, rows = weights.shape
        products(weights, address(x), depth, address(weights), rows, 0, address(out), rows, depth, 0)
        for row in range(rows):
            looked_up[row] = widen(weights[1, row])

    generator = np.random.default_rng(0)
    weights = torch.from_numpy(generator.standard_normal((9, 2 * LANES)).astype(np.float32))
    x = generator.standard_normal((2, 9)).astype(np.float32)
    for weight_format, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        rounded = weights.to(dtype)
        out, looked_up = np.empty((2, 2 * LANES), np.float32), np.empty(2 * LANES, np.float32)
        compute(rounded.view(torch.int16).numpy().view(STORED[weight_format]), x, out, looked_up)
        assert np.array_equal(looked_up, rounded.float()[1].numpy())
        assert np.allclose(out, x.astype(np.float64) @ rounded.double().numpy(), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("weight_format", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_16_bit_weights_are_the_rounded_model(model, weight_format, dtype):
    """As a float32 model whose matrices were rounded: widening is exact, sums are float32."""
    rounded = make_model()
    for name, parameter in rounded.named_parameters():
        if parameter.ndim == 2 and "wpe" not in name:
            parameter.data = parameter.data.to(dtype).float()
    text = ids(60)
    with torch.no_grad():
        expected = rounded(torch.tensor([text])).logits[0, :, :V]
    engine = CpuEngine(model, weight_format)
    assert relative(forward(engine, engine.new_cache(1, 60), [Run(0, text, 60)]), expected) < 1e-5


def test_int8_weights_are_within_half_a_step(model):
    """|w - q s| <= s / 2, s the row's largest weight over 127; a row of zeros stays zero."""
    zeroed = make_model()
    zeroed.transformer.h[1].mlp.c_fc.weight.data[5] = 0
    packed = CpuEngine(zeroed, "int8").weights
    assert packed.fc.dtype == np.int8
    weight = zeroed.transformer.h[1].mlp.c_fc.weight.detach().numpy()
    scale = packed.fc_scale[1]
    assert np.allclose(scale[:5], np.abs(weight[:5]).max(1) / 127)
    stored = matrix_of(packed.fc[1], scale)
    assert (np.abs(weight - stored) <= scale[:, None] / 2 * 1.001).all()
    assert not stored[5].any()
    assert packed.head.ctypes.data == packed.wte.ctypes.data  # tied: stored once


def test_int8_decodes_as_its_own_matrices(model):
    """The engine's int8 logits are those of a float32 model with the dequantized matrices."""
    engine, rounded = CpuEngine(model, "int8"), make_model()
    w = engine.weights
    for layer, block in enumerate(rounded.transformer.h):
        for module, name in ((block.attn.c_attn, "qkv"), (block.attn.c_proj, "proj"), (block.mlp.c_fc, "fc")):
            module.weight.data = torch.from_numpy(
                matrix_of(getattr(w, name)[layer], getattr(w, f"{name}_scale")[layer])
            )
        block.mlp.c_proj.weight.data = torch.from_numpy(matrix_of(w.out[layer], w.out_scale[layer]))
    rounded.transformer.wte.weight.data[:V] = torch.from_numpy(matrix_of(w.wte, w.wte_scale))
    text = ids(40)
    with torch.no_grad():
        expected = rounded(torch.tensor([text])).logits[0, :, :V]
    assert relative(forward(engine, engine.new_cache(1, 40), [Run(0, text, 40)]), expected) < 1e-5


@pytest.mark.parametrize("name", ["gelu", "gelu_new", "relu", "silu"])
def test_activations_are_transformers(name):
    """Over their whole range, to float32's rounding."""
    from transformers.activations import ACT2FN

    x = torch.linspace(-30, 30, 4801)
    line = np.empty((1, 4801), np.float32)
    one, zero = np.ones(4801, np.float32), np.zeros(4801, np.float32)
    weight = x.numpy()[:, None].copy()  # (4801, 1): each output is its x
    panels = np.ascontiguousarray(panels_of(weight, PANEL))
    activation = np.int64(activations.ACTIVATIONS[name])
    kernels.linear(panels, one, zero, np.ones((1, 1), np.float32), 1, line, activation)
    assert torch.allclose(torch.from_numpy(line[0]), ACT2FN[name](x), atol=3e-6, rtol=2e-6)


def test_a_banded_layer_keeps_a_ring():
    """Memory of banded layers stops growing with the room; that of dense ones does not."""
    banded = CpuEngine(make_model(**SHAPES["SiLU, banded"]))
    dense = CpuEngine(make_model(**SHAPES["ReLU, dense"]))
    assert banded.new_cache(1, 100).nbytes == banded.new_cache(1, CONTEXT).nbytes
    assert dense.new_cache(1, 192).nbytes == 2 * dense.new_cache(1, 96).nbytes


def test_the_model_may_go(model):
    """Weights are copied: what happens to the model later changes nothing."""
    source = make_model()
    engine = CpuEngine(source)
    before = forward(engine, engine.new_cache(1, 9), [Run(0, ids(9))])
    for parameter in source.parameters():
        parameter.data.zero_()
    assert torch.equal(forward(engine, engine.new_cache(1, 9), [Run(0, ids(9))]), before)


def test_weights_that_are_no_numbers_are_named():
    broken = make_model()
    broken.transformer.h[2].mlp.c_fc.weight.data[3, 5] = math.inf
    with pytest.raises(InputError, match=r"transformer\.h\.2\.mlp\.c_fc\.weight"):
        make_engine(broken)


def test_weights_beyond_fp16_are_named():
    large = make_model()
    large.transformer.h[0].attn.c_proj.weight.data[1, 2] = 70000
    with pytest.raises(InputError, match=r"c_proj\.weight reaches .* --dtype bf16"):
        make_engine(large, "fp16")
    assert make_engine(large, "bf16").nbytes > 0


def test_what_makes_no_run_is_refused(model):
    engine = CpuEngine(model)
    cache = engine.new_cache(2, 10)
    for runs in (
        [Run(0, [1]), Run(0, [2])],
        [Run(0, [])],
        [Run(0, [1], logits=2)],
        [Run(0, ids(11))],
        [Run(0, [V])],
        [Run(0, [-1])],
    ):
        with pytest.raises(ValueError, match=r"slot|run|id"):
            forward(engine, cache, runs)
    assert cache.lengths == [0, 0]
    forward(engine, cache, [Run(0, ids(10))])
    with pytest.raises(ValueError, match="cannot be cut to 11"):
        cache.truncate(0, 11)


def test_a_ring_cannot_go_back_for_ever(model):
    engine = CpuEngine(model)
    cache = engine.new_cache(1, CONTEXT)
    forward(engine, cache, [Run(0, ids(150))])
    with pytest.raises(ValueError, match="cannot be cut back"):
        cache.truncate(0, 150 - ROLLBACK - 1)
    cache.truncate(0, 150 - ROLLBACK)
    cache.truncate(0, 0)
    assert cache.lengths == [0]


def test_int8_without_kernels_is_refused():
    with pytest.raises(InputError, match=r"--quantize int8 is not available: activation 'tanh' has no fast kernel"):
        make_engine(make_model(activation_function="tanh"), "int8")


def test_what_stays_float32_may_be_beyond_fp16(model):
    large = make_model()
    large.transformer.h[0].ln_1.bias.data[3] = 1e5
    assert make_engine(large, "fp16").nbytes > 0


def test_frozen_parts_stay_in_evaluation_mode():
    half = make_model().train()
    half.transformer.h[0].eval()
    engine = ReferenceEngine(half)
    forward(engine, engine.new_cache(1, 9), [Run(0, ids(5))])
    assert half.training
    assert half.transformer.h[1].training
    assert not half.transformer.h[0].training
    assert not half.transformer.h[0].mlp.training


def test_an_activation_without_kernel_takes_the_models_forward(capsys):
    engine = make_engine(make_model(activation_function="tanh"))
    assert isinstance(engine, ReferenceEngine)
    assert "activation 'tanh' has no fast kernel" in capsys.readouterr().err


def test_taking_a_models_weights_empties_it_and_changes_nothing(model):
    """The head, which is tied, stays readable: it is the embedding."""
    source = make_model()
    kept, taken = CpuEngine(make_model()), CpuEngine(source, take=True)
    assert sum(parameter.numel() for parameter in source.transformer.h.parameters() if parameter.ndim > 1) == 0
    logits = [forward(engine, engine.new_cache(1, 9), [Run(0, ids(9))]) for engine in (kept, taken)]
    assert torch.equal(*logits)


@pytest.mark.parametrize("shape", SHAPES)
def test_prompts_read_together_are_those_read_one_by_one(shape, monkeypatch):
    """Of lengths below the window, and beyond what a ring holds; with and without logits; then a token of each."""
    monkeypatch.setattr(torch_engine, "TOGETHER", 3 * CONTEXT)
    model = make_model(**SHAPES[shape])
    engine, slow = TorchEngine(model), ReferenceEngine(model)
    caches = engine.new_cache(7, CONTEXT), slow.new_cache(7, CONTEXT)
    lengths = [CONTEXT - 2, WINDOW - 1, WINDOW // 2, 2 * WINDOW, CONTEXT - 9, CONTEXT // 2, 1]
    groups: list[int] = []
    together = TorchEngine._read_together
    monkeypatch.setattr(TorchEngine, "_read_together", lambda *args: groups.append(len(args[2])) or together(*args))
    first = [Run(slot, ids(length, slot), slot % 2 or int(length == 1)) for slot, length in enumerate(lengths)]
    for runs in (first, [Run(slot, [slot + 1]) for slot in range(7)], [Run(slot, [slot + 2]) for slot in (6, 2, 0)]):
        ours, theirs = (each.forward(cache, runs) for each, cache in zip((engine, slow), caches, strict=True))
        assert relative(ours, theirs) < 1e-5
    assert sum(groups) >= 5
