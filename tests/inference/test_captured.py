"""Captured forward passes: nothing in them depends on what the host knows, and prompts of many lengths share a few of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_engines import CONTEXT, SHAPES, forward, ids, make_model, relative
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gpt3.inference import captured, torch_engine
from gpt3.inference.captured import MOST_TOKENS, SHORTEST, padded, padded_shape
from gpt3.inference.engine import Run
from gpt3.inference.torch_engine import ReferenceEngine, TorchEngine


class Recorder(TorchDispatchMode):
    """Keeps operators with the very tensors they were given, as a CUDA graph keeps kernels with addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "a captured pass reads a value back"
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        """Again with those tensors; results go where the first ones are."""
        for func, args, kwargs, out in self.calls:
            given_data = {
                x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)
            }
            again = tree_leaves(func(*args, **kwargs))
            for old, new in zip(tree_leaves(out), again, strict=True):
                if isinstance(old, torch.Tensor) and old.untyped_storage().data_ptr() not in given_data:
                    old.copy_(new)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """Operators recorded and run again in place of CUDA graphs."""
    made: list[Recorder] = []

    def capture(work: Callable[[], torch.Tensor], device: torch.device) -> Callable[[], torch.Tensor]:
        work()
        recorder = Recorder()
        with recorder:
            result = work()
        made.append(recorder)

        def replay() -> torch.Tensor:
            recorder.replay()
            return result

        return replay

    monkeypatch.setattr(torch_engine, "captures", lambda device: True)
    monkeypatch.setattr(torch_engine, "capture", capture)
    return made


@pytest.mark.parametrize("shape", ["pre-LN, exact GELU", "post-LN, own head", "SiLU, banded"])
def test_replayed_passes_are_the_reference(shape: str, graphs: list[Recorder]) -> None:
    """Prompts in other slots, of other lengths and numbers than those that were captured; tokens one by one between them."""
    model = make_model(**SHAPES[shape])
    engine, slow = TorchEngine(model), ReferenceEngine(model)
    caches = engine.new_cache(4, CONTEXT), slow.new_cache(4, CONTEXT)
    rounds = [[(0, 30), (1, 25), (3, 20)], [(2, 31), (3, 29), (1, 17)], [(1, 90)], [(3, 70)]]
    rounds += [
        [(0, 8), (2, 12)],
        [(1, 14)],
        [(0, 5), (2, 11)],
    ]  # the last two are read by one graph, one after the other
    for seed, lengths in enumerate(rounds):
        for cache in caches:
            for slot, _ in lengths:
                cache.truncate(slot, 0)
        prompts = [Run(slot, ids(length, seed + slot)) for slot, length in lengths]
        held = [Run(slot, [seed + slot + 1]) for slot in range(4) if caches[0].lengths[slot] or slot in dict(lengths)]
        for runs in (prompts, held, held[:1]):
            ours, theirs = (forward(each, cache, runs) for each, cache in zip((engine, slow), caches, strict=True))
            assert relative(ours, theirs) < 1e-5
    assert sorted(caches[0].replays) == [(1, 16), (1, 96), (2, 16), (4, 32)]
    assert len(graphs) == len(caches[0].replays) + 1  # and the step of one token


def test_long_prompts_are_not_captured(graphs: list[Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "MOST_TOKENS", 64)
    model = make_model()
    engine, slow = TorchEngine(model), ReferenceEngine(model)
    runs = [Run(0, ids(40)), Run(1, ids(45, 1))]
    ours, theirs = (forward(each, each.new_cache(2, CONTEXT), runs) for each in (engine, slow))
    assert relative(ours, theirs) < 1e-5
    assert graphs == []


def test_all_lengths_share_few() -> None:
    lengths = [padded(length) for length in range(1, 2049)]
    assert all(length <= found < max(1.5 * length, SHORTEST + 1) for length, found in enumerate(lengths, 1))
    assert sorted(set(lengths)) == [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048]


@given(rows=st.integers(1, 64), length=st.integers(1, 2048), context=st.integers(1, 2048))
def test_padded_shapes_hold_what_is_read(rows: int, length: int, context: int) -> None:
    length = min(length, context)
    found = padded_shape(rows, length, context)
    if found is not None:
        assert found[0] >= rows
        assert length <= found[1] <= context
        assert found[0] * found[1] <= MOST_TOKENS
    else:
        assert 2 * rows * max(1.5 * length, SHORTEST) > MOST_TOKENS
