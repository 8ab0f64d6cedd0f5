"""int8 weights as a GPU has them: the CPU engine's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_engines import CONTEXT, SHAPES, forward, ids, make_model, matrix_of, relative

from gpt3.errors import InputError
from gpt3.inference import int8_weights, language_model
from gpt3.inference.cpu_engine import CpuEngine
from gpt3.inference.engine import Run
from gpt3.inference.int8_weights import FEW, Int8Embedding, Int8Linear, Int8Matrix, fused_product, product, quantized
from gpt3.inference.torch_engine import TorchEngine


@pytest.mark.parametrize("shape", ["pre-LN, exact GELU", "post-LN, own head", "tanh GELU, odd widths"])
def test_logits_are_those_of_the_cpu_engine_in_int8(shape: str) -> None:
    """A prompt, then tokens one by one."""
    cpu = CpuEngine(make_model(**SHAPES[shape]), "int8")
    engine = TorchEngine(quantized(make_model(**SHAPES[shape]), torch.float32))
    caches = cpu.new_cache(2, CONTEXT), engine.new_cache(2, CONTEXT)
    for runs in ([Run(0, ids(40)), Run(1, ids(3, 1))], [Run(0, [5]), Run(1, [7])], [Run(1, ids(20, 2), 20)]):
        theirs, ours = (forward(each, cache, runs) for each, cache in zip((cpu, engine), caches, strict=True))
        assert relative(ours, theirs) < 1e-5
    wide = TorchEngine(make_model(**SHAPES[shape]))
    assert engine.nbytes < 0.45 * wide.nbytes  # positions, biases and gains stay float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_activations_have_the_devices_format(dtype: torch.dtype) -> None:
    """The weights are quantized from float32, not from 16 bits: steps and scales are the same."""
    exact, rough = (quantized(make_model(), kind) for kind in (torch.float32, dtype))
    assert rough.dtype == dtype
    for one, other in zip(exact.buffers(), rough.buffers(), strict=True):
        assert torch.equal(one, other)
    runs = [Run(0, ids(40))]
    ours, theirs = (forward(each, each.new_cache(1, CONTEXT), runs) for each in map(TorchEngine, (rough, exact)))
    assert relative(ours, theirs) < (0.05 if dtype == torch.bfloat16 else 0.01)


def test_steps_and_scales_are_the_cpu_engines() -> None:
    model = make_model()
    weights = CpuEngine(model, "int8").weights
    matrix = Int8Matrix(model.transformer.wte.weight[: len(weights.wte_scale)])
    np.testing.assert_array_equal(matrix.scale.numpy(), weights.wte_scale)
    np.testing.assert_array_equal(
        (matrix.steps * matrix.scale[:, None]).numpy(), matrix_of(weights.wte, weights.wte_scale)
    )


def test_embedding_and_head_share_a_matrix_and_zeros_stay() -> None:
    model = quantized(make_model(), torch.float32)
    assert isinstance(model.transformer.wte, Int8Embedding)
    assert isinstance(model.lm_head, Int8Linear)
    moved = model.to("meta")  # each matrix goes to a device once
    assert moved.transformer.wte.matrix.steps is moved.lm_head.matrix.steps
    zero = Int8Matrix(torch.zeros(2, 4))
    assert torch.equal(zero.steps * zero.scale[:, None], torch.zeros(2, 4))


@pytest.mark.parametrize("biased", [True, False])
def test_the_compiled_loop_is_the_same_product(biased: bool) -> None:
    torch.manual_seed(0)
    matrix, x = Int8Matrix(torch.randn(7, 12)), torch.randn(FEW, 12)
    bias = torch.randn(7) if biased else None
    parts = (matrix.steps, matrix.scale, bias)
    torch.testing.assert_close(fused_product(x, *parts), product(x, *parts))
    half = fused_product(x.bfloat16(), *parts)
    assert half.dtype == torch.bfloat16
    assert relative(half.float(), product(x.bfloat16().float(), *parts)) < 2**-8  # sums are float32


def test_the_loop_is_compiled_where_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda function, **how: made.append((function, how)) or function)
    for reason, expected in ((None, fused_product), ("no Triton", product)):
        int8_weights.few_rows.cache_clear()
        monkeypatch.setattr(int8_weights, "compile_failure", lambda device, reason=reason: reason)
        assert int8_weights.few_rows(torch.device("cuda")) is expected
    assert made == [(fused_product, {"dynamic": True})]
    assert int8_weights.few_rows(torch.device("cpu")) is product
    int8_weights.few_rows.cache_clear()


def test_weights_that_are_not_finite_and_other_models_are_refused() -> None:
    model = make_model()
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[0, 0] = torch.inf
    with pytest.raises(InputError, match=r"transformer.h.1.mlp.c_fc.weight"):
        quantized(model, torch.float32)
    from transformers import LlamaConfig, LlamaForCausalLM

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    with pytest.raises(InputError, match=r"--quantize int8 is not available: model type 'llama'"):
        quantized(LlamaForCausalLM(LlamaConfig(vocab_size=16, **small)), torch.float32)


def test_int4_on_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_model, "choose_device", torch.device)
    with pytest.raises(
        InputError, match=r"int4 is for the CPU, but the device is cuda. Use --quantize int8 or --device cpu"
    ):
        language_model.load("anything", device="cuda", quantize="int4")
