"""Decoding with a cache, padding, packing and generation: whatever the route, a token's logits are the same."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import WINDOW, random_ids, tiny_model
from transformers import DynamicCache, GenerationConfig, StaticCache
from transformers.generation import ContinuousBatchingConfig

IMPLEMENTATIONS = ["banded", "sdpa", "eager"]
LENGTHS = [WINDOW - 1, WINDOW, WINDOW + 1, 4 * WINDOW + 3]


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
@pytest.mark.parametrize("length", LENGTHS)
def test_cached_one_by_one_is_uncached(attention: str, length: int) -> None:
    model, ids = tiny_model(attention), random_ids(2, length)
    with torch.no_grad():
        whole = model(ids).logits
        past, steps = DynamicCache(config=model.config), []
        for t in range(length):
            steps.append(model(ids[:, t : t + 1], past_key_values=past).logits)
    close(torch.cat(steps, 1), whole)
    # A banded layer keeps no more than it can still see.
    assert past.layers[1].keys.shape[2] == min(length, WINDOW - 1)


@settings(max_examples=25, deadline=None)
@given(
    attention=st.sampled_from(IMPLEMENTATIONS),
    chunks=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    window=st.integers(2, 12),
    static=st.booleans(),
    seed=st.integers(0, 9),
)
def test_prefill_in_any_chunks_is_uncached(
    attention: str, chunks: list[int], window: int, static: bool, seed: int
) -> None:
    length = min(sum(chunks), 64)
    model, ids = tiny_model(attention, seed, sliding_window=window), random_ids(2, length, seed=seed)
    cache = StaticCache(config=model.config, max_cache_len=64) if static else DynamicCache(config=model.config)
    with torch.no_grad():
        whole = model(ids).logits
        parts = [model(part, past_key_values=cache).logits for part in ids.split(split(chunks, length), dim=1)]
    close(torch.cat(parts, 1), whole)


def split(chunks: list[int], length: int) -> list[int]:
    """`chunks`, the last ones cut so that their sum is `length`."""
    sizes = []
    for chunk in chunks:
        sizes.append(min(chunk, length - sum(sizes)))
    return [size for size in sizes if size]


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_batch_is_single_rows(attention: str, length: int, side: str) -> None:
    """With the mask alone: positions are counted from each row's first real token."""
    model, lengths = tiny_model(attention), [length, max(1, length - 3), 1]
    ids, mask = torch.zeros(3, length, dtype=torch.long), torch.zeros(3, length, dtype=torch.long)
    rows = [random_ids(1, n, seed=n)[0] for n in lengths]
    places = [slice(length - n, None) if side == "left" else slice(0, n) for n in lengths]
    for i, (row, place) in enumerate(zip(rows, places, strict=True)):
        ids[i, place], mask[i, place] = row, 1
    with torch.no_grad():
        logits = model(ids, attention_mask=mask).logits
        for i, (row, place) in enumerate(zip(rows, places, strict=True)):
            close(logits[i, place], model(row[None]).logits[0])


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
@pytest.mark.parametrize("lengths", [[3, 5], [WINDOW, WINDOW + 1, 1], [2 * WINDOW, 20, 7]])
def test_packed_documents_are_separate_ones(attention: str, lengths: list[int]) -> None:
    """Positions that restart mask documents from one another, as transformers' packing has it, even where keys are cached."""
    model = tiny_model(attention)
    documents = [random_ids(1, n, seed=n) for n in lengths]
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    with torch.no_grad():
        packed = model(torch.cat(documents, 1), position_ids=positions).logits
        close(packed, torch.cat([model(document).logits for document in documents], 1))
        unmasked = model(torch.cat(documents, 1)).logits  # the paper's choice: one sequence like any other
    assert (unmasked - packed).abs().max() > 1e-2


@pytest.mark.parametrize("cache", ["dynamic", "static", None])
def test_generate_beyond_the_window_is_the_plain_argmax(cache: str | None) -> None:
    model, prompt = tiny_model(), random_ids(2, 5)
    options = {"use_cache": False} if cache is None else {"cache_implementation": cache}
    made = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=40, do_sample=False, pad_token_id=0,
        eos_token_id=None, **options,
    )  # fmt: skip
    ids = prompt
    with torch.no_grad():
        for _ in range(40):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    assert made.tolist() == ids.tolist()


def test_generate_of_a_left_padded_batch_is_row_by_row() -> None:
    model, lengths = tiny_model(), [3, WINDOW, 2 * WINDOW + 1]
    prompts = [random_ids(1, n, seed=n) for n in lengths]
    ids, mask = torch.zeros(3, lengths[-1], dtype=torch.long), torch.zeros(3, lengths[-1], dtype=torch.long)
    for i, prompt in enumerate(prompts):
        ids[i, -prompt.shape[1] :], mask[i, -prompt.shape[1] :] = prompt, 1
    options = GenerationConfig(max_new_tokens=25, do_sample=False, pad_token_id=0)
    together = model.generate(ids, attention_mask=mask, generation_config=options)
    for i, prompt in enumerate(prompts):
        alone = model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=options)
        assert together[i, lengths[-1] :].tolist() == alone[0, prompt.shape[1] :].tolist()


def test_beam_search_is_no_worse_than_greedy() -> None:
    model, prompt = tiny_model(), random_ids(1, 5)
    options = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": 12, "pad_token_id": 0, "eos_token_id": None}

    def log_probability(ids: torch.Tensor) -> float:
        with torch.no_grad():
            scores = model(ids).logits[:, :-1].log_softmax(-1)
        return float(scores.gather(2, ids[:, 1:, None])[:, 4:].sum())

    beams = model.generate(prompt, num_beams=4, do_sample=False, **options)
    assert beams.shape == (1, 17)
    assert log_probability(beams) >= log_probability(model.generate(prompt, do_sample=False, **options))


def test_continuous_batching_is_row_by_row() -> None:
    model = tiny_model()
    prompts = [random_ids(1, n, seed=n)[0].tolist() for n in (3, WINDOW + 1, 20)]
    names = {field.name for field in dataclasses.fields(ContinuousBatchingConfig)}
    page = {"page_size" if "page_size" in names else "block_size": 16}  # the older name in transformers 5.4
    batching = ContinuousBatchingConfig(num_blocks=32, max_batch_tokens=64, **page)
    options = GenerationConfig(max_new_tokens=20, do_sample=False, pad_token_id=0, eos_token_id=-1)
    results = model.generate_batch(
        prompts, generation_config=options, continuous_batching_config=batching, progress_bar=False
    )
    options = GenerationConfig(max_new_tokens=20, do_sample=False, pad_token_id=0, eos_token_id=None)
    for (_, result), prompt in zip(sorted(results.items()), prompts, strict=True):
        ids = torch.tensor([prompt])
        alone = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=options)
        assert result.generated_tokens == alone[0, len(prompt) :].tolist()
