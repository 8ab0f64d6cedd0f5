"""Each step of the chain equals transformers' processor of that name; the draw follows the distribution."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from gpt3.inference import sampling
from gpt3.inference.options import SamplingOptions

quick = settings(deadline=None, max_examples=60)

seeds = st.integers(0, 2**31)
rows = st.integers(1, 4)
sizes = st.integers(2, 80)
shares = st.floats(0.01, 0.99)


def random_logits(seed: int, B: int, V: int, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(B, V, generator=torch.Generator().manual_seed(seed)) * scale


def random_history(seed: int, B: int, V: int, T: int) -> torch.Tensor:
    return torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(seed + 1))


def same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return torch.allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@quick
@given(seeds, rows, sizes, st.integers(0, 30), st.floats(0.1, 5.0))
def test_repetition_penalty_is_transformers(seed, B, V, T, penalty):
    logits, history = random_logits(seed, B, V), random_history(seed, B, V, T)
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(history, logits)
    assert same(sampling.penalise_repetition(logits, history, penalty), theirs)


@quick
@given(seeds, rows, st.integers(2, 5), st.integers(1, 40), st.integers(1, 5))
def test_no_repeat_ngram_is_transformers(seed, B, V, T, size):
    logits, history = random_logits(seed, B, V), random_history(seed, B, V, T)  # few ids, so that n-grams do repeat
    theirs = NoRepeatNGramLogitsProcessor(size)(history, logits)
    assert same(sampling.forbid_repeated_ngrams(logits, history, size), theirs)


@quick
@given(seeds, rows, sizes, st.floats(0.05, 10.0))
def test_temperature_is_transformers(seed, B, V, temperature):
    logits = random_logits(seed, B, V)
    assert same(sampling.apply_temperature(logits, temperature), TemperatureLogitsWarper(temperature)(None, logits))


@quick
@given(seeds, rows, sizes, st.integers(1, 90), st.booleans())
def test_top_k_is_transformers(seed, B, V, k, ties):
    logits = random_logits(seed, B, V)
    if ties:
        logits = logits.round()
    assert same(sampling.keep_top_k(logits, k), TopKLogitsWarper(k)(None, logits))


@quick
@given(seeds, rows, st.integers(2, 3000), shares, st.sampled_from([0.01, 1.0, 5.0]))
def test_top_p_is_transformers(seed, B, V, p, scale):
    logits = random_logits(seed, B, V, scale)
    ours, theirs = sampling.keep_top_p(logits, p), TopPLogitsWarper(p)(None, logits)
    # both sum in float32, in opposite order: they may part on tokens at the nucleus's very edge, and only there
    exact = logits.double().softmax(-1)
    ordered, ids = exact.sort(descending=True)
    before = torch.zeros_like(exact).scatter(-1, ids, ordered.cumsum(-1) - ordered)
    assert ((before - p).abs()[ours != theirs] < 1e-5).all()


@quick
@given(seeds, rows, st.integers(2, 3000), shares, st.sampled_from([0.01, 1.0, 5.0]))
def test_top_p_keeps_the_smallest_set_of_that_mass(seed, B, V, p, scale):
    logits = random_logits(seed, B, V, scale)
    kept = sampling.keep_top_p(logits, p) > -torch.inf
    exact = logits.double().softmax(-1)
    mass = (exact * kept).sum(-1)
    least = exact.masked_fill(~kept, 2).amin(-1)
    assert (kept.sum(-1) >= 1).all()
    assert (mass >= p - 1e-5).all()
    assert ((mass - least < p + 1e-5) | (kept.sum(-1) == 1)).all()
    assert (exact.masked_fill(kept, 0).amax(-1) <= least).all()


@quick
@given(seeds, rows, sizes, shares)
def test_min_p_is_transformers(seed, B, V, p):
    logits = random_logits(seed, B, V)
    assert same(sampling.keep_min_p(logits, p), MinPLogitsWarper(p)(None, logits))


@quick
@given(seeds, rows, sizes, st.dictionaries(st.integers(0, 1), st.floats(-100, 100), min_size=1))
def test_logit_bias_is_transformers(seed, B, V, bias):
    logits = random_logits(seed, B, V)
    theirs = SequenceBiasLogitsProcessor({(token,): value for token, value in bias.items()})(
        random_history(1, B, V, 3), logits
    )
    assert same(sampling.add_bias(logits, bias), theirs)


@quick
@given(seeds, rows, sizes, st.integers(0, 30), st.floats(-2, 2), st.floats(-2, 2))
def test_presence_and_frequency_are_openai_s_formula(seed, B, V, T, presence, frequency):
    logits, text = random_logits(seed, B, V), random_history(seed, B, V, T)
    expected = logits.tolist()
    for row, ids in zip(expected, text.tolist(), strict=True):
        for token in set(ids):
            row[token] -= ids.count(token) * frequency + presence
    ours = sampling.penalise_counts(logits, text, presence, frequency)
    assert torch.allclose(ours, torch.tensor(expected), rtol=1e-5, atol=1e-5)


words = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=1, max_size=5, unique_by=tuple)


@quick
@given(seeds, rows, st.integers(5, 8), st.integers(1, 12), words)
def test_bad_words_are_transformers(seed, B, V, T, sequences):
    logits, history = (
        random_logits(seed, B, V),
        random_history(seed, B, 4, T),
    )  # few ids, so that sequences are completed
    theirs = NoBadWordsLogitsProcessor(sequences)(history, logits)
    assert same(sampling.forbid_sequences(logits, history, sequences), theirs)


@quick
@given(seeds, rows, sizes, st.integers(0, 6), st.integers(0, 6), st.sets(st.integers(0, 1), min_size=1))
def test_min_new_tokens_is_transformers(seed, B, V, written, least, ends):
    logits, history = random_logits(seed, B, V), random_history(seed, B, V, 4 + written)
    theirs = MinNewTokensLengthLogitsProcessor(4, least, list(ends))(history, logits)
    options = SamplingOptions(min_new_tokens=least)
    assert same(sampling.process(logits, history, options, V, written=written, ends=list(ends)), theirs)


@quick
@given(seeds, rows, st.integers(2, 3000), shares, st.sampled_from([0.01, 1.0, 5.0]))
def test_typical_p_is_transformers(seed, B, V, p, scale):
    logits = random_logits(seed, B, V, scale)
    ours, theirs = sampling.keep_typical(logits, p), TypicalLogitsWarper(p)(None, logits)
    for row in range(B):  # sums of float32 in another order: they may part at the edge, by one token
        assert int((ours[row] != theirs[row]).sum()) <= 1


@quick
@given(seeds, rows, sizes)
def test_neutral_values_change_nothing(seed, B, V):
    logits, history = random_logits(seed, B, V), random_history(seed, B, V, 9)
    assert torch.equal(sampling.process(logits, history, SamplingOptions(), vocabulary=V), logits)


@quick
@given(seeds, rows, sizes)
def test_the_functions_leave_their_input_alone(seed, B, V):
    logits, history = random_logits(seed, B, V), random_history(seed, B, V, 9)
    before = logits.clone()
    options = SamplingOptions(temperature=0.5, top_k=3, top_p=0.7, min_p=0.2, repetition_penalty=1.5, no_repeat_ngram=2)
    sampling.process(logits, history, options, vocabulary=V - 1)
    assert torch.equal(logits, before)


def test_the_chain_has_the_order_of_transformers_generate(model, tokenizer):
    """The scores `generate` reports are its raw logits through our chain. Other orders give other scores."""
    values = {"temperature": 0.6, "top_k": 40, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.7}
    prompt = torch.tensor([tokenizer("Once upon a time, once upon a sea", add_special_tokens=False)["input_ids"]])
    torch.manual_seed(0)
    theirs = model.generate(
        prompt,
        do_sample=True,
        no_repeat_ngram_size=2,
        max_new_tokens=12,
        output_scores=True,
        output_logits=True,
        return_dict_in_generate=True,
        **values,
    )
    options = SamplingOptions(no_repeat_ngram=2, **values)
    cut = 0
    for step, (raw, score) in enumerate(zip(theirs.logits, theirs.scores, strict=True)):
        history = theirs.sequences[:, : prompt.shape[1] + step]
        assert same(sampling.process(raw, history, options, len(tokenizer)), score)
        cut += int((score == -torch.inf).sum())
    assert cut > 0


def test_the_whole_chain_on_random_logits():
    """The same as a list of transformers' processors, where every one of them has something to do."""
    logits, history = random_logits(5, 3, 400), random_history(5, 3, 400, 300)
    chain = LogitsProcessorList(
        [
            SequenceBiasLogitsProcessor({(3,): 4.0, (8,): -2.0}),
            RepetitionPenaltyLogitsProcessor(1.3),
            NoRepeatNGramLogitsProcessor(2),
            NoBadWordsLogitsProcessor([[5], [int(history[0, -1]), 6]]),
            MinNewTokensLengthLogitsProcessor(290, 11, [9]),
            TemperatureLogitsWarper(2.0),
            TopKLogitsWarper(100),
            TopPLogitsWarper(0.9),
            MinPLogitsWarper(0.02),
            TypicalLogitsWarper(0.8),
        ]
    )
    options = SamplingOptions(
        temperature=2.0,
        top_k=100,
        top_p=0.9,
        min_p=0.02,
        typical_p=0.8,
        logit_bias={3: 4.0, 8: -2.0},
        repetition_penalty=1.3,
        no_repeat_ngram=2,
        min_new_tokens=11,
    )
    bad_words = [[5], [int(history[0, -1]), 6]]
    ours = sampling.process(logits, history, options, 400, written=10, ends=[9], bad_words=bad_words)
    assert same(ours, chain(history, logits))


@pytest.mark.parametrize(
    "call",
    [
        lambda x, h: sampling.limit_vocabulary(x, 0),
        lambda x, h: sampling.penalise_repetition(x, h, 0.0),
        lambda x, h: sampling.forbid_repeated_ngrams(x, h, -1),
        lambda x, h: sampling.apply_temperature(x, 0.0),
        lambda x, h: sampling.keep_top_k(x, -1),
        lambda x, h: sampling.keep_top_p(x, 0.0),
        lambda x, h: sampling.keep_top_p(x, 1.1),
        lambda x, h: sampling.keep_min_p(x, -0.1),
        lambda x, h: sampling.keep_min_p(x, 1.1),
        lambda x, h: sampling.keep_typical(x, 0.0),
        lambda x, h: sampling.add_bias(x, {4: 1.0}),
        lambda x, h: sampling.penalise_counts(x, h, 2.5, 0.0),
        lambda x, h: sampling.penalise_counts(x, h, 0.0, -2.5),
        lambda x, h: sampling.forbid_sequences(x, h, [[]]),
    ],
)
def test_bounds_are_checked(call):
    with pytest.raises(ValueError, match="must be"):
        call(torch.zeros(1, 4), torch.zeros(1, 2, dtype=torch.long))


def chi_square(counts: torch.Tensor, expected: torch.Tensor) -> float:
    """Statistic minus its mean, in its standard deviations (about normal)."""
    used = expected > 0
    statistic = float(((counts - expected)[used] ** 2 / expected[used]).sum())
    freedom = int(used.sum()) - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


def test_draws_follow_the_distribution():
    N, V = 60_000, 30
    logits = random_logits(3, 1, V, 1.5)
    logits[:, [4, 7, V - 1]] = -torch.inf
    uniforms = [sampling.uniform(11, row, 2) for row in range(N)]
    counts = sampling.draw(logits.expand(N, -1), uniforms).bincount(minlength=V)
    assert counts[[4, 7, V - 1]].sum() == 0
    assert abs(chi_square(counts, logits.double().softmax(-1)[0] * N)) < 4


@quick
@given(seeds, sizes, st.sampled_from([0.0, 2.0**-53, 0.5, 1 - 2.0**-53]))
def test_what_is_ruled_out_is_never_drawn(seed, V, point):
    logits = random_logits(seed, 1, V, 20.0)
    logits[0, 1:-1] = -torch.inf
    logits[0, -1] = logits[0, 0] - 60  # a last token so unlikely that sums do not feel it
    if V > 2:
        logits = torch.cat([torch.full((1, 3), -torch.inf), logits, torch.full((1, 3), -torch.inf)], -1)
    token = sampling.draw(logits, [point])
    assert logits[0, token] > -torch.inf


def test_uniforms_are_uniform_and_independent_of_one_another():
    for pick in (lambda i: (i, 0, 0), lambda i: (7, i, 0), lambda i: (7, 3, i)):
        values = torch.tensor([sampling.uniform(*pick(i)) for i in range(20_000)], dtype=torch.float64)
        assert (values >= 0).all()
        assert (values < 1).all()
        assert abs(chi_square((values * 50).long().bincount(minlength=50), torch.full((50,), 400.0))) < 4
        following = torch.stack([values[:-1], values[1:]]) - 0.5
        assert abs(float((following[0] * following[1]).mean() * 12)) < 4 / math.sqrt(20_000)


def test_a_row_with_nothing_left_is_told():
    logits = torch.tensor([[0.0, 1.0, -1.0], [-torch.inf] * 3, [3.0, -torch.inf, 0.0]])
    assert sampling.choose(logits, greedy=True, uniforms=[]) == [1, sampling.NOTHING_LEFT, 0]
    assert sampling.choose(logits, greedy=False, uniforms=[0.0, 0.5, 0.0]) == [0, sampling.NOTHING_LEFT, 0]


def test_a_row_with_nothing_left_passes_the_chain():
    logits, history = torch.randn(1, 3), torch.tensor([[0, 1, 2]])
    options = SamplingOptions(no_repeat_ngram=1, top_k=2, top_p=0.5, min_p=0.1, temperature=0.7)
    assert (sampling.process(logits, history, options, 3) == -torch.inf).all()


def test_padding_vocabulary_is_ruled_out():
    logits = torch.zeros(2, 8)
    logits[:, 6:] = 100.0
    limited = sampling.process(logits, torch.zeros(2, 1, dtype=torch.long), SamplingOptions(temperature=2.0), 6)
    assert (limited[:, 6:] == -torch.inf).all()
    assert (limited[:, :6] == 0).all()
