"""A text's numbers on the CPU engine, to the last bit: whatever is read with it, however it is cut, on any number of threads."""

import functools
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engines import CONTEXT, SHAPES, V, forward, ids, make_model

from gpt3.inference import cpu_engine
from gpt3.inference.cpu_engine import CpuEngine
from gpt3.inference.engine import Run
from gpt3.inference.packing import WEIGHT_FORMATS


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.mark.parametrize(
    "weight_format",
    [pytest.param(name, marks=pytest.mark.slow if name in ("fp16", "bf16") else ()) for name in WEIGHT_FORMATS],
)
def test_neighbors_change_no_bit(model, weight_format):
    """To the last bit, beside 0 to 9 others of other lengths, so that every size of tile comes."""
    engine = CpuEngine(model, weight_format)
    prompts = [ids(3 + 5 * slot, slot) for slot in range(10)]

    def last_logits(count):
        cache = engine.new_cache(count, 100)
        forward(engine, cache, [Run(slot, prompt) for slot, prompt in enumerate(prompts[:count])])
        return forward(engine, cache, [Run(slot, [slot]) for slot in range(count)])

    alone = last_logits(1)
    for count in range(2, 11):
        assert torch.equal(last_logits(count)[:1], alone)


@st.composite
def cut_texts(draw):
    """Up to four texts' lengths, and forwards that read them piece by piece: of which text, how many tokens."""
    lengths = draw(st.lists(st.integers(1, CONTEXT), min_size=1, max_size=4))
    left, forwards = list(lengths), []
    while any(left):
        runs = []
        for slot in draw(st.permutations([slot for slot, count in enumerate(left) if count])):
            if not runs or draw(st.booleans()):
                count = min(left[slot], draw(st.one_of(st.integers(1, 7), st.integers(1, CONTEXT))))
                left[slot] -= count
                runs.append((slot, count))
        forwards.append(runs)
    return lengths, forwards


@settings(max_examples=30, deadline=None)
@given(cut_texts(), st.sampled_from(["fp32", "int8", "int4"]), st.sampled_from(sorted(SHAPES)), st.integers(5, 99))
def test_cuts_and_groups_change_no_bit(texts, weight_format, shape, rows):
    """To the last bit: every token's logits are those of its text read at once, alone, in a cache of another size."""
    lengths, forwards = texts
    engine = engine_of(weight_format, shape)
    expected = []
    for slot, length in enumerate(lengths):
        expected.append(forward(engine, engine.new_cache(1, length), [Run(0, ids(length, slot), length)]))
    cache, done = engine.new_cache(len(lengths), CONTEXT), [0] * len(lengths)
    for runs in forwards:
        pieces = [Run(slot, ids(lengths[slot], slot)[done[slot] : done[slot] + n], n) for slot, n in runs]
        with mock.patch.object(cpu_engine, "ROWS", rows):
            found = forward(engine, cache, pieces)
        places = [expected[slot][done[slot] : done[slot] + n] for slot, n in runs]
        assert torch.equal(found, torch.cat(places))
        for slot, n in runs:
            done[slot] += n


@functools.cache
def engine_of(weight_format, shape):
    wide = {"hidden_size": 64, "num_attention_heads": 4} if weight_format == "int4" else {}  # it wants multiples of 32
    return CpuEngine(make_model(**{**SHAPES[shape], **wide}), weight_format)


def test_many_prompts_are_read_in_groups_of_bounded_size(model):
    engine = CpuEngine(model)
    cache = engine.new_cache(60, 100)
    logits = forward(engine, cache, [Run(slot, ids(90, slot), slot % 3) for slot in range(60)])
    assert len(cache._buffers["x"]) == cpu_engine.ROWS < 60 * 90
    one = engine.new_cache(1, 100)
    assert torch.equal(forward(engine, one, [Run(0, ids(90, 59), 2)]), logits[-2:])
    assert cache.lengths == [90] * 60


@pytest.mark.parametrize(("width", "heads"), [(36, 4), (30, 1), (6, 3)])
def test_neighbors_change_no_bit_at_widths_that_no_vector_divides(width, heads):
    """Fewer than four tokens, four and more, and prompts have norms of their own, each compiled for itself."""
    shape = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": 53, "num_hidden_layers": 2}
    engine = CpuEngine(make_model(**shape))
    text, more = ids(41), [ids(count, count) for count in (1, 2, 5, 35)]
    for parts in ((2, 1, 3), (7, 1), (37, 1, 1)):
        alone, beside = engine.new_cache(1, CONTEXT), engine.new_cache(5, CONTEXT)
        at = 0
        for length in parts:
            own = text[at : at + length]
            at += length
            runs = [Run(0, own, length), *(Run(slot, other, 1) for slot, other in enumerate(more, 1))]
            expected = forward(engine, alone, [Run(0, own, length)])
            assert torch.equal(forward(engine, beside, runs)[:length], expected)


def test_threads_change_no_bit(model):
    engine, results = CpuEngine(model), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        cache = engine.new_cache(2, 100)
        forward(engine, cache, [Run(0, ids(7)), Run(1, ids(20))])
        results.append(forward(engine, cache, [Run(0, [1]), Run(1, [2])]))
    torch.set_num_threads(1)
    assert torch.equal(*results)


@pytest.mark.parametrize("texts", [300])
def test_more_short_runs_than_a_step_takes(model, texts):
    engine = CpuEngine(model)
    cache = engine.new_cache(texts, 8)
    logits = forward(engine, cache, [Run(slot, [slot % V, 3]) for slot in range(texts)])
    assert logits.shape == (texts, V)
    for slot in (0, 127, 128, 299):
        one = engine.new_cache(1, 8)
        assert torch.equal(forward(engine, one, [Run(0, [slot % V, 3])])[0], logits[slot])
