"""What computes while the kernels are compiled is the model that they compute, and what it leaves in a cache they continue."""

import os
from pathlib import Path

import numpy as np
import pytest
from test_engines import SHAPES, V, ids, make_model

from gpt3.inference import kernels
from gpt3.inference.cpu_engine import CpuEngine
from gpt3.inference.engine import Run
from gpt3.inference.kernel_cache import depend_on, is_compiled
from gpt3.inference.packing import STORED, WEIGHT_FORMATS


class Endless:
    """A compilation that is never over, or is from now on."""

    over = False


@pytest.mark.parametrize(
    ("shape", "weight_format"),
    [*((shape, "fp32") for shape in SHAPES), *((next(iter(SHAPES)), x) for x in WEIGHT_FORMATS)],
)
def test_a_plain_step_is_the_kernels(shape, weight_format):
    fast, plain = (CpuEngine(make_model(**SHAPES[shape]), weight_format) for _ in range(2))
    plain.compilation = Endless()
    caches = fast.new_cache(2, 200), plain.new_cache(2, 200)
    schedule = [
        [Run(0, ids(150), 7), Run(1, ids(3, 1), 2)],
        [Run(1, ids(70, 2), 0)],
        *([Run(0, [n]), Run(1, [n])] for n in range(9)),
    ]
    for number, runs in enumerate(schedule):
        if number == 6:
            plain.compilation.over = True  # the rest by the kernels, from what is in the cache
        if weight_format in ("fp16", "bf16") and number == 6:
            break  # those are compiled in slow tests only
        ours = plain.forward(caches[1], runs)
        if weight_format in ("fp16", "bf16"):
            assert ours.shape == (sum(run.logits for run in runs), V)
            continue
        theirs = fast.forward(caches[0], runs)
        assert ours.shape == theirs.shape
        assert not len(ours) or np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
    assert (plain.compilation is None) == (weight_format not in ("fp16", "bf16"))


def test_16_bit_weights_widen_exactly():
    """The logits of a plain step are those of float32 matrices that were rounded."""
    for weight_format, rounded in (("fp16", np.float16), ("bf16", None)):
        model = make_model()
        engine = CpuEngine(model, weight_format)
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "wpe" not in name:
                parameter.data = parameter.data.half().float() if rounded else parameter.data.bfloat16().float()
        other = CpuEngine(model)
        engine.compilation = other.compilation = Endless()
        one, two = (each.forward(each.new_cache(1, 40), [Run(0, ids(40), 40)]) for each in (engine, other))
        assert np.array_equal(one, two)


def test_the_cache_knows_what_is_compiled():
    engine = CpuEngine(make_model())
    engine.forward(engine.new_cache(1, 8), [Run(0, [1])])
    assert is_compiled(kernels.step, STORED["fp32"])
    assert not is_compiled(kernels.step, np.complex64)
    assert not engine.compile_in_background()
    assert engine.compilation is None


def test_code_is_stale_where_what_it_compiles_from_has_changed(tmp_path):
    class File:
        _source_stamp = (1.0, 2)

    class Cache:
        _cache_file = File()

    class Function:
        _cache = Cache()

    class Module:
        __name__ = "part"
        __file__ = str(tmp_path / "part.py")

    stamps = []
    for content, time in (("x", 1), ("xy", 1), ("xy", 2), ("xy", 2)):
        Path(Module.__file__).write_text(content)
        os.utime(Module.__file__, (time, time))
        Cache._cache_file = File()
        depend_on({"function": Function(), "other": 3}, Module)
        stamps.append(Cache._cache_file._source_stamp)
    assert len(set(stamps)) == 3
    assert stamps[2] == stamps[3]
    assert getattr(kernels.step._cache._cache_file, "_source_stamp")[1], "numba's cache has another form"  # noqa: B009
