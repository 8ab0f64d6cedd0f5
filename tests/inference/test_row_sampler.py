"""A row's sampler equals the chain of `sampling`, draws from its distribution, and knows no other row."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.errors import InputError
from gpt3.inference import drawing, sampling
from gpt3.inference.options import SamplingOptions
from gpt3.inference.sampler import NotNumbersError, Sampler, bad_word_ids, probabilities, sample_rows
from gpt3.inference.sampling import NOTHING_LEFT

quick = settings(deadline=None, max_examples=60)
seeds = st.integers(0, 2**31)
neutral_or = lambda neutral, values: st.one_of(st.just(neutral), values)  # noqa: E731

options_of_all_kinds = st.builds(
    SamplingOptions,
    temperature=st.sampled_from([0, 0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5, 60]),
    top_p=neutral_or(1.0, st.floats(0.05, 0.99)),
    min_p=neutral_or(0.0, st.floats(0.01, 0.5)),
    typical_p=neutral_or(1.0, st.floats(0.1, 0.95)),
    logit_bias=st.dictionaries(st.integers(0, 9), st.floats(-5, 5), max_size=3),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    presence_penalty=st.sampled_from([0.0, 0.7]),
    frequency_penalty=st.sampled_from([0.0, -0.4, 0.9]),
    no_repeat_ngram=st.integers(0, 3),
    min_new_tokens=st.integers(0, 8),
)


def random_logits(seed: int, B: int, V: int, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(B, V, generator=torch.Generator().manual_seed(seed)) * scale


def new_sampler(options: SamplingOptions, V: int, prompt=(), seed=0, row=0, **changes) -> Sampler:
    return Sampler(options, list(prompt), seed, row, **{"ends": set(), "vocabulary": V, **changes})


@quick
@given(seeds, st.sampled_from([12, 300, 5000]), options_of_all_kinds, st.integers(0, 20), st.integers(0, 20))
def test_probabilities_are_the_chain_s(seed, V, options, T, written):
    logits = random_logits(seed, 1, V)
    ids = np.random.default_rng(seed).integers(0, min(V, 6), T + written).tolist()  # few ids, so that they do repeat
    words = [[2], [1, 3], [0, 1, 4]]
    sampler = new_sampler(options, V - 1, ids[:T], ends={0, 5}, bad_words_ids=words)
    for token in ids[T:]:
        sampler.push(token)
    history = torch.tensor([ids], dtype=torch.long)
    chain = sampling.process(logits, history, options, V - 1, written=written, ends=[0, 5], bad_words=words)
    if options.temperature == 0:
        chain = torch.where(torch.arange(V) == chain.argmax(-1, keepdim=True), 0.0, -torch.inf)
    ours, theirs = probabilities(logits[0], sampler), chain.softmax(-1)[0].numpy()
    assert ours.sum() == pytest.approx(1, abs=1e-5)
    unlike = (ours > 0) != (theirs > 0)
    if not unlike.any():
        assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-7)
    else:  # sums in another order, at the very edge of top-p or typical-p: one token, and all else in proportion
        assert unlike.sum() <= 1 + 2 * (options.typical_p < 1)
        assert options.top_p < 1 or options.typical_p < 1 or ours[unlike].max() < 1e-30


@quick
@given(seeds, st.integers(2, 6000), st.integers(1, 700), st.booleans())
def test_the_likeliest_are_topk_s(seed, V, k, ties):
    values = random_logits(seed, 1, V)[0]
    values = values.round() if ties else values
    k = min(k, V)
    expected = (values >= values.topk(k).values[-1]).nonzero()[:, 0]
    assert drawing.likeliest(values.numpy(), k).tolist() == expected.tolist()


@quick
@given(
    seeds,
    st.sampled_from([30, 3000, 20_000]),
    st.floats(0.05, 0.99),
    st.sampled_from([0.0, 0.3, 2.0, 8.0]),
    st.booleans(),
)
def test_a_nucleus_is_the_fewest_tokens_of_its_mass(seed, V, p, scale, ties):
    """Narrow and wide ones, with equal logits among them (as bfloat16 makes many)."""
    logits = random_logits(seed, 1, V, scale)[0]
    logits = logits.bfloat16().float() if ties else logits
    kept = probabilities(logits, new_sampler(SamplingOptions(top_p=p), V)) > 0
    exact = logits.double().softmax(-1).numpy()
    mass, least = exact[kept].sum(), exact[kept].min()
    assert mass >= p - 1e-5
    assert mass - least < p + 1e-5
    assert exact[~kept].max(initial=0) <= least


@pytest.mark.parametrize("scale", [0.3, 2.0, 9.0])
@pytest.mark.parametrize("name", ["top_p", "typical_p", "min_p"])
def test_cuts_are_the_chain_s_at_the_size_of_gpt2(scale, name):
    V = 50_257
    logits = random_logits(6, 1, V, scale)
    options = SamplingOptions(**{name: 0.8}, temperature=1.3)
    kept = probabilities(logits[0], new_sampler(options, V)) > 0
    unlike = kept != (sampling.shape(logits, options)[0] > -torch.inf).numpy()
    assert logits.double().softmax(-1)[0].numpy()[unlike].sum() < 1e-4


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """Statistic minus its mean, in its standard deviations (about normal)."""
    used = expected > 0
    statistic = float(((counts - expected)[used] ** 2 / expected[used]).sum())
    freedom = int(used.sum()) - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("V", [40, 4000])
@pytest.mark.parametrize(
    "options", [SamplingOptions(), SamplingOptions(top_p=0.9), SamplingOptions(top_k=9, temperature=2.0)]
)
def test_choices_follow_the_distribution(V, options):
    N = 6000
    logits = random_logits(3, 1, V, 2.0)
    samplers = [new_sampler(options, V, seed=5, row=row) for row in range(N)]
    row = logits[0].numpy()
    counts = np.bincount([sampler.choose(row) for sampler in samplers], minlength=V)
    expected = sampling.shape(logits, options).double().softmax(-1)[0].numpy() * N
    assert counts[expected == 0].sum() == 0
    common = expected > 5  # the statistic needs some in every class: the rare together are one
    pooled = [np.append(values[common], values[~common].sum()) for values in (counts, expected)]
    assert abs(chi_square(*pooled)) < 4


@quick
@given(seeds, st.sampled_from([5, 1500, 3000]), st.sampled_from([0.0, 2.0**-53, 0.5, 1 - 2.0**-53]))
def test_a_weight_of_zero_is_never_drawn(seed, V, point):
    rng = np.random.default_rng(seed)
    weights = np.where(rng.random(V) < 0.98, 0, rng.random(V)).astype(np.float32)
    weights[rng.integers(V)] = 1
    assert weights[drawing.draw(weights, point)] > 0
    tiny = np.where(weights == 1, np.float32(1), np.float32(1e-30)) * (weights > 0)  # sums do not feel these
    assert tiny[drawing.draw(tiny, point)] > 0


@quick
@given(seeds, st.floats(0, 1, exclude_max=True))
def test_a_draw_inverts_the_cumulative_distribution(seed, point):
    weights = np.exp(random_logits(seed, 1, 5000)[0].numpy())
    sums = weights.cumsum(dtype=np.float64) / weights.sum(dtype=np.float64)
    place = drawing.draw(weights, point)
    assert sums[place] >= point - 1e-5
    assert place == 0 or sums[place - 1] <= point + 1e-5


@quick
@given(seeds, st.sampled_from([0.01, 0.3, 2.0, 8.0, 30.0]))
def test_a_nucleus_of_all_but_nothing_is_all(seed, scale):
    logits = random_logits(seed, 1, 20_000, scale)[0]
    found = probabilities(logits, new_sampler(SamplingOptions(top_p=1 - 2**-53), 20_000))
    assert np.allclose(found, logits.double().softmax(-1).numpy(), rtol=1e-3, atol=1e-6)


@quick
@given(seeds, st.lists(options_of_all_kinds, min_size=2, max_size=5))
def test_a_row_knows_no_other_row(seed, all_options):
    V, steps = 300, 6
    logits = [random_logits(seed + step, len(all_options), V) for step in range(steps)]

    def samplers() -> list[Sampler]:
        return [new_sampler(o, V, [7] * (3 * i), 1, i, ends={4}) for i, o in enumerate(all_options)]

    together = samplers()
    texts = list(zip(*([choice.token for choice in sample_rows(x, together)] for x in logits), strict=True))
    for place, alone in enumerate(samplers()):
        assert texts[place] == tuple(sample_rows(x[place : place + 1], [alone])[0].token for x in logits)


@quick
@given(seeds, options_of_all_kinds, st.integers(0, 12), st.integers(0, 12))
def test_tokens_taken_back_leave_no_trace(seed, options, kept, drafted):
    V = 40
    rng = np.random.default_rng(seed)
    text, draft = rng.integers(0, 5, kept).tolist(), rng.integers(0, 5, drafted).tolist()
    one, other = (new_sampler(options, V, [1, 2, 1], ends={3}) for _ in range(2))
    for token in text + draft:
        one.push(token)
    one.take_back(drafted)
    for token in text:
        other.push(token)
    logits = random_logits(seed, 1, V)[0]
    assert one.history == other.history
    assert one.written == other.written == kept
    assert np.array_equal(probabilities(logits, one), probabilities(logits, other))


def test_more_than_was_written_cannot_be_taken_back():
    with pytest.raises(ValueError, match="0 were written"):
        new_sampler(SamplingOptions(), 5, [1, 2]).take_back(1)


@pytest.mark.parametrize("count", [0, 1, 7, 500])
def test_logprobs_are_the_model_s_own(count):
    V = 300
    options = SamplingOptions(logprobs=count, temperature=0.5, top_k=3, logit_bias={5: 50.0}, repetition_penalty=2.0)
    logits = random_logits(1, 2, V)
    exact = logits.double().log_softmax(-1)
    for row, choice in enumerate(sample_rows(logits, [new_sampler(options, V, [1], row=row) for row in range(2)])):
        assert choice.token == 5
        assert choice.logprob == pytest.approx(float(exact[row, 5]), abs=1e-5)
        values, ids = exact[row].topk(min(count, V))
        assert [token for token, _ in choice.top] == ids.tolist()
        assert [value for _, value in choice.top] == pytest.approx(values.tolist(), abs=1e-5)


def test_without_logprobs_there_are_none():
    choice = sample_rows(torch.zeros(1, 4), [new_sampler(SamplingOptions(), 4)])[0]
    assert choice.logprob is None
    assert choice.top == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_logits_that_are_no_numbers_are_told_and_nothing_is_taken(value, temperature):
    logits = torch.zeros(3, 6)
    logits[1, 4] = value
    samplers = [new_sampler(SamplingOptions(temperature=temperature), 6) for _ in range(3)]
    with pytest.raises(NotNumbersError) as caught:
        sample_rows(logits, samplers)
    assert caught.value.places == [1]
    assert [sampler.written for sampler in samplers] == [0, 0, 0]
    with pytest.raises(NotNumbersError):
        probabilities(logits[1], samplers[1])


@pytest.mark.parametrize("temperature", [0, 0.7])
def test_a_row_with_nothing_left_is_told(temperature):
    options = SamplingOptions(
        no_repeat_ngram=1, temperature=temperature, logprobs=1, top_p=0.5, typical_p=0.5, min_p=0.1
    )
    sampler = new_sampler(options, 3, [0, 1, 2])
    choice = sample_rows(torch.zeros(1, 3), [sampler])[0]
    assert (choice.token, choice.logprob, len(choice.top), sampler.written) == (NOTHING_LEFT, None, 1, 0)
    assert not probabilities(torch.zeros(3), sampler).any()


def test_a_text_never_repeats_an_ngram_nor_has_a_bad_word_nor_ends_too_soon():
    V = 6
    words = [[4], [1, 2]]
    options = SamplingOptions(no_repeat_ngram=3, min_new_tokens=20)
    sampler = new_sampler(options, V, [1], ends={0}, bad_words_ids=words)
    logits = torch.zeros(1, V)
    logits[0, [0, 4]] = 3.0
    tokens = [sample_rows(logits, [sampler])[0].token for _ in range(20)]
    assert 0 not in tokens
    assert 4 not in tokens
    assert (1, 2) not in list(zip([1, *tokens], tokens, strict=False))
    ngrams = [tuple(sampler.history[i : i + 3]) for i in range(len(sampler.history) - 2)]
    assert len(ngrams) == len(set(ngrams))
    assert sample_rows(logits + torch.tensor([50.0, 0, 0, 0, 0, 0]), [sampler])[0].token == 0


def test_a_biased_token_outside_the_vocabulary_is_named():
    with pytest.raises(InputError, match="token 300, but the tokenizer has 299"):
        new_sampler(SamplingOptions(logit_bias={300: 1.0}), 299)


def test_bad_words_are_spelled_alone_and_after_a_space(tokenizer):
    def encode(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    ids = bad_word_ids(["sea", "sea", " sea"], encode)
    assert {tokenizer.decode(word) for word in ids} == {"sea", " sea"}
    assert len(ids) == 2


def test_rows_on_a_device_are_the_host_s(monkeypatch):
    """The way a GPU goes, walked on the CPU: rows of equal options together, the others alone."""
    from gpt3.inference import sampler as module

    all_options = [
        SamplingOptions(temperature=0),
        SamplingOptions(top_p=0.8),
        SamplingOptions(temperature=0, top_k=4),
        SamplingOptions(top_p=0.8),
        SamplingOptions(top_p=0.8, repetition_penalty=1.4),
        SamplingOptions(top_k=20),
    ]
    logits = random_logits(8, len(all_options), 500)
    samplers = [new_sampler(options, 490, [3], 2, row) for row, options in enumerate(all_options)]
    there = module._choose_on_device(logits, samplers)
    assert there == [choice.token for choice in sample_rows(logits, samplers)]
