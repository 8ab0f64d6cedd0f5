"""The next token of each row: draws follow the distribution, and no row knows another; what is taken back leaves no trace."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sampling_rows import (
    WORDS,
    distribution,
    edit,
    new_row,
    new_rows,
    options_of_all_kinds,
    probabilities,
    quick,
    random_logits,
    seeds,
)

from gpt3.errors import InputError
from gpt3.inference import selection
from gpt3.inference.options import SamplingOptions
from gpt3.inference.row import Row, bad_word_ids, uniform
from gpt3.inference.sampling import NOTHING_LEFT, NotNumbersError, Rows, choose, choose_together, sample


def chi_square(found, expected) -> float:
    """Statistic minus its mean, in its standard deviations (about normal)."""
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    used = expected > 0
    statistic = float(((found - expected)[used] ** 2 / expected[used]).sum())
    freedom = int(used.sum()) - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("V", [40, 4000])
@pytest.mark.parametrize(
    "options", [SamplingOptions(), SamplingOptions(top_p=0.9), SamplingOptions(top_k=9, temperature=2.0)]
)
def test_choices_follow_the_distribution(V, options, kind):
    N = 3000
    logits = random_logits(3, 1, V, 2.0)
    logits[:, [4, 7, V - 1]] = -torch.inf
    rows = [new_row(options, V, seed=5, number=number) for number in range(N)]
    if kind == "torch":
        tokens = torch.cat([choose_together(logits.expand(500, -1), rows[at : at + 500]) for at in range(0, N, 500)])
    else:
        tokens = [choose(logits[0].numpy(), Rows([row])) for row in rows]
    found = np.bincount(tokens, minlength=V)
    expected = distribution("torch", logits, options)[0].numpy() * N
    assert found[expected == 0].sum() == 0
    common = expected > 5  # the statistic needs some in every class: the rare together are one
    pooled = [np.append(values[common], values[~common].sum()) for values in (found, expected)]
    assert abs(chi_square(*pooled)) < 4


@quick
@given(seeds, st.sampled_from([5, 1500, 3000]), st.sampled_from([0.0, 2.0**-53, 0.5, 1 - 2.0**-53]))
def test_a_weight_of_zero_is_never_drawn(seed, V, point):
    rng = np.random.default_rng(seed)
    weights = np.where(rng.random(V) < 0.98, 0, rng.random(V)).astype(np.float32)
    weights[rng.integers(V)] = 1
    tiny = np.where(weights == 1, np.float32(1), np.float32(1e-30)) * (weights > 0)  # sums do not feel these
    for values in (weights, tiny):
        assert values[selection.draw(values, np.array([point]))] > 0
        place = selection.draw(torch.from_numpy(values).double()[None], torch.tensor([point], dtype=torch.float64))
        assert values[place] > 0


@quick
@given(seeds, st.floats(0, 1, exclude_max=True))
def test_a_draw_inverts_the_cumulative_distribution(seed, point):
    weights = np.exp(random_logits(seed, 1, 5000)[0].numpy())
    sums = weights.cumsum(dtype=np.float64) / weights.sum(dtype=np.float64)
    place = selection.draw(weights, np.array([point]))
    assert sums[place] >= point - 1e-5
    assert place == 0 or sums[place - 1] <= point + 1e-5


def test_uniforms_are_uniform_and_independent_of_one_another():
    for pick in (lambda i: (i, 0, 0), lambda i: (7, i, 0), lambda i: (7, 3, i)):
        values = torch.tensor([uniform(*pick(i)) for i in range(20_000)], dtype=torch.float64)
        assert (values >= 0).all()
        assert (values < 1).all()
        assert abs(chi_square((values * 50).long().bincount(minlength=50), torch.full((50,), 400.0))) < 4
        following = torch.stack([values[:-1], values[1:]]) - 0.5
        assert abs(float((following[0] * following[1]).mean() * 12)) < 4 / math.sqrt(20_000)


@quick
@given(seeds, st.lists(options_of_all_kinds, min_size=2, max_size=5))
def test_a_row_knows_no_other_row(seed, all_options):
    V, steps = 300, 6
    logits = [random_logits(seed + step, len(all_options), V) for step in range(steps)]

    def rows() -> list[Row]:
        return [
            new_row(o, V, [7] * (3 * i), seed=1, number=i, ends={4}, bad_words=WORDS) for i, o in enumerate(all_options)
        ]

    together = rows()
    texts = list(zip(*([token.id for token in sample(x, together)] for x in logits), strict=True))
    for place, alone in enumerate(rows()):
        assert texts[place] == tuple(sample(x[place : place + 1], [alone])[0].id for x in logits)


def test_rows_on_a_device_are_the_host_s():
    """The way a GPU goes, walked on the CPU: rows of equal options together."""
    all_options = [
        SamplingOptions(temperature=0),
        SamplingOptions(top_p=0.8),
        SamplingOptions(temperature=0, top_k=4),
        SamplingOptions(top_p=0.8),
        SamplingOptions(top_p=0.8, repetition_penalty=1.4),
        SamplingOptions(top_k=20),
        SamplingOptions(typical_p=0.9, presence_penalty=0.4),
    ]
    logits = random_logits(8, len(all_options), 500)
    rows = [new_row(options, 490, [3], [5], seed=2, number=number) for number, options in enumerate(all_options)]
    there = choose_together(logits, rows).tolist()
    assert there == [token.id for token in sample(logits, rows)]


@quick
@given(st.lists(options_of_all_kinds, min_size=1, max_size=3))
def test_the_host_does_not_wait_for_the_device(all_options):
    """Tensors without content: whatever looked at a value would raise."""
    rows = [new_row(o, 40, [7, 1, 2], [3, 3], number=i, ends={4}, bad_words=WORDS) for i, o in enumerate(all_options)]
    tokens = choose_together(torch.empty(len(rows), 50, device="meta"), rows)
    assert (tokens.shape, tokens.device.type) == ((len(rows),), "meta")


@quick
@given(seeds, options_of_all_kinds, st.integers(0, 12), st.integers(0, 12))
def test_tokens_taken_back_leave_no_trace(seed, options, kept, drafted):
    V = 40
    rng = np.random.default_rng(seed)
    text, draft = rng.integers(0, 5, kept).tolist(), rng.integers(0, 5, drafted).tolist()
    one = new_row(options, V, [1, 2, 1], text + draft, ends={3})
    one.take_back(drafted)
    other = new_row(options, V, [1, 2, 1], text, ends={3})
    logits = random_logits(seed, 1, V)[0]
    assert one.tokens == other.tokens
    assert one.written == other.written == kept
    assert np.array_equal(probabilities(logits, one), probabilities(logits, other))


def test_more_than_was_written_cannot_be_taken_back():
    with pytest.raises(ValueError, match="the text has 0"):
        new_row(SamplingOptions(), 5, [1, 2]).take_back(1)


@pytest.mark.parametrize("count", [0, 1, 7, 500])
def test_logprobs_are_the_model_s_own(count):
    V = 300
    options = SamplingOptions(logprobs=count, temperature=0.5, top_k=3, logit_bias={5: 50.0}, repetition_penalty=2.0)
    logits = random_logits(1, 2, V)
    exact = logits.double().log_softmax(-1)
    for row, token in enumerate(sample(logits, [new_row(options, V, [1], number=number) for number in range(2)])):
        assert token.id == 5
        assert token.logprob == pytest.approx(float(exact[row, 5]), abs=1e-5)
        values, ids = exact[row].topk(min(count, V))
        assert [id_ for id_, _ in token.top] == ids.tolist()
        assert [value for _, value in token.top] == pytest.approx(values.tolist(), abs=1e-5)


def test_without_logprobs_there_are_none():
    token = sample(torch.zeros(1, 4), [new_row(SamplingOptions(), 4)])[0]
    assert token.logprob is None
    assert token.top == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_logits_that_are_no_numbers_are_told_and_nothing_is_taken(value, temperature):
    logits = torch.zeros(3, 6)
    logits[1, 4] = value
    rows = [new_row(SamplingOptions(temperature=temperature), 6) for _ in range(3)]
    with pytest.raises(NotNumbersError) as caught:
        sample(logits, rows)
    assert caught.value.places == [1]
    assert [row.written for row in rows] == [0, 0, 0]


@pytest.mark.parametrize("temperature", [0, 0.7])
def test_a_row_with_nothing_left_is_told(temperature):
    options = SamplingOptions(
        no_repeat_ngram=1, temperature=temperature, logprobs=1, top_k=2, top_p=0.5, typical_p=0.5, min_p=0.1
    )
    row = new_row(options, 3, [0, 1, 2])
    assert choose_together(torch.zeros(2, 3), [row, new_row(options, 3, [0, 2])]).tolist() == [NOTHING_LEFT, 1]
    token = sample(torch.zeros(1, 3), [row])[0]
    assert (token.id, token.logprob, len(token.top), row.written) == (NOTHING_LEFT, None, 1, 0)


def test_a_text_never_repeats_an_ngram_nor_has_a_bad_word_nor_ends_too_soon():
    V = 6
    options = SamplingOptions(no_repeat_ngram=3, min_new_tokens=20, bad_words=["x"])
    row = new_row(options, V, [1], ends={0}, bad_words=[[4], [1, 2]])
    logits = torch.zeros(1, V)
    logits[0, [0, 4]] = 3.0
    tokens = [sample(logits, [row])[0].id for _ in range(20)]
    assert 0 not in tokens
    assert 4 not in tokens
    assert (1, 2) not in list(zip([1, *tokens], tokens, strict=False))
    ngrams = [tuple(row.tokens[i : i + 3]) for i in range(len(row.tokens) - 2)]
    assert len(ngrams) == len(set(ngrams))
    assert sample(logits + torch.tensor([50.0, 0, 0, 0, 0, 0]), [row])[0].id == 0


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_padding_vocabulary_is_never_chosen(kind):
    logits = torch.zeros(2, 8)
    logits[:, 6:] = 100.0
    assert edit(kind, logits, new_rows(SamplingOptions(), 6, torch.zeros(2, 1, dtype=torch.long))).shape == (2, 6)


def test_a_biased_token_outside_the_vocabulary_is_named():
    with pytest.raises(InputError, match="token 300, but the tokenizer has 299"):
        new_row(SamplingOptions(logit_bias={300: 1.0}), 299)


def test_bad_words_are_spelled_alone_and_after_a_space(tokenizer):
    def encode(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    ids = bad_word_ids(["sea", "sea", " sea"], encode)
    assert {tokenizer.decode(word) for word in ids} == {"sea", " sea"}
    assert len(ids) == 2
