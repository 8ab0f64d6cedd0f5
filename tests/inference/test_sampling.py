"""The chain in NumPy and in torch: each step equals transformers' processor of that name; draws follow the distribution."""

import math

import numpy as np
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

from gpt3.errors import InputError
from gpt3.inference import selection
from gpt3.inference.options import SamplingOptions
from gpt3.inference.row import Row, bad_word_ids, uniform
from gpt3.inference.sampling import (
    CHAIN,
    NOTHING_LEFT,
    NotNumbersError,
    Rows,
    candidates,
    choose,
    choose_together,
    edited,
    sample,
)

quick = settings(deadline=None, max_examples=60)

seeds = st.integers(0, 2**31)
counts = st.integers(1, 4)
sizes = st.integers(2, 80)
shares = st.floats(0.01, 0.99)
scales = st.sampled_from([0.01, 1.0, 5.0])
kinds = st.sampled_from(["numpy", "torch"])
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
    bad_words=st.sampled_from([[], ["given as ids"]]),
    min_new_tokens=st.integers(0, 8),
)
WORDS = [[2], [1, 3], [0, 1, 4]]


def random_logits(seed: int, B: int, V: int, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(B, V, generator=torch.Generator().manual_seed(seed)) * scale


def random_history(seed: int, B: int, V: int, T: int) -> torch.Tensor:
    return torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(seed + 1))


def new_row(options, V, prompt=(), text=(), seed=0, number=0, **changes) -> Row:
    row = Row(list(prompt), options, **{"seed": seed, "number": number, "ends": set(), "vocabulary": V, **changes})
    for token in text:
        row.push(token)
    return row


def new_rows(options, V, history, written=0, **changes) -> list[Row]:
    """Rows of (B, T) tokens, the last `written` of them text."""
    T = history.shape[1] - written
    return [new_row(options, V, ids[:T], ids[T:], number=n, **changes) for n, ids in enumerate(history.tolist())]


def edit(kind, logits, rows) -> torch.Tensor:
    """(B, V) logits after the edits."""
    if kind == "torch":
        return edited(logits, Rows(rows, logits.device))
    return torch.from_numpy(np.stack([edited(x, Rows([row])) for x, row in zip(logits.numpy(), rows, strict=True)]))


def distribution(kind, logits, options) -> torch.Tensor:
    """(B, V) probabilities of what temperature and cuts leave."""
    if kind == "torch":
        _, weights = candidates(logits, options)
        return weights / weights.sum(-1, keepdim=True)
    result = np.zeros(logits.shape)
    for row, line in zip(result, logits.numpy(), strict=True):
        ids, weights = candidates(line, options)
        row[slice(None) if ids is None else ids] = weights / weights.sum(dtype=np.float64)
    return torch.from_numpy(result)


def probabilities(logits, row) -> np.ndarray:
    """(V,) of what a row's next token is drawn from; a single 1 at temperature 0; all 0 where nothing is left."""
    result = np.zeros(len(logits))
    line = edited(logits.numpy(), Rows([row]))
    if line.max() == -np.inf:
        return result
    if row.options.temperature == 0:
        result[line.argmax()] = 1
    else:
        found = distribution("numpy", torch.from_numpy(line)[None], row.options)[0]
        result[: len(line)] = found
    return result


def same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return torch.allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def same_distribution(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Probabilities against logits with -inf for what is ruled out."""
    expected = theirs.double().softmax(-1)
    return torch.equal(ours > 0, expected > 0) and torch.allclose(ours.double(), expected, rtol=1e-5, atol=1e-9)


@quick
@given(kinds, seeds, counts, sizes, st.integers(1, 30), st.floats(0.1, 5.0))
def test_repetition_penalty_is_transformers(kind, seed, B, V, T, penalty):
    logits, history = random_logits(seed, B, V), random_history(seed, B, V, T)
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(history, logits)
    assert same(edit(kind, logits, new_rows(SamplingOptions(repetition_penalty=penalty), V, history)), theirs)


@quick
@given(kinds, seeds, counts, st.integers(2, 5), st.integers(1, 40), st.integers(1, 5), st.integers(0, 9))
def test_no_repeat_ngram_is_transformers(kind, seed, B, V, T, size, written):
    logits, history = random_logits(seed, B, V), random_history(seed, B, V, T)  # few ids, so that n-grams do repeat
    theirs = NoRepeatNGramLogitsProcessor(size)(history, logits)
    rows = new_rows(SamplingOptions(no_repeat_ngram=size), V, history, min(written, T))
    assert same(edit(kind, logits, rows), theirs)


@quick
@given(kinds, seeds, counts, sizes, st.dictionaries(st.integers(0, 1), st.floats(-100, 100), min_size=1))
def test_logit_bias_is_transformers(kind, seed, B, V, bias):
    logits, history = random_logits(seed, B, V), random_history(1, B, V, 3)
    theirs = SequenceBiasLogitsProcessor({(token,): value for token, value in bias.items()})(history, logits)
    assert same(edit(kind, logits, new_rows(SamplingOptions(logit_bias=bias), V, history)), theirs)


@quick
@given(kinds, seeds, counts, sizes, st.integers(0, 30), st.floats(-2, 2), st.floats(-2, 2))
def test_presence_and_frequency_are_openai_s_formula(kind, seed, B, V, T, presence, frequency):
    logits, text = random_logits(seed, B, V), random_history(seed, B, V, T)
    expected = logits.tolist()
    for row, ids in zip(expected, text.tolist(), strict=True):
        for token in set(ids):
            row[token] -= ids.count(token) * frequency + presence
    options = SamplingOptions(presence_penalty=presence, frequency_penalty=frequency)
    prompted = torch.cat([random_history(5, B, V, 4), text], 1)  # the prompt does not count
    ours = edit(kind, logits, new_rows(options, V, prompted, written=T))
    assert torch.allclose(ours, torch.tensor(expected), rtol=1e-5, atol=1e-5)


words = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=1, max_size=5, unique_by=tuple)


@quick
@given(kinds, seeds, counts, st.integers(5, 8), st.integers(1, 12), words)
def test_bad_words_are_transformers(kind, seed, B, V, T, sequences):
    logits, history = random_logits(seed, B, V), random_history(seed, B, 4, T)  # few ids: sequences are completed
    theirs = NoBadWordsLogitsProcessor(sequences)(history, logits)
    rows = new_rows(SamplingOptions(bad_words=["x"]), V, history, bad_words=sequences)
    assert same(edit(kind, logits, rows), theirs)


@quick
@given(kinds, seeds, counts, sizes, st.integers(0, 6), st.integers(0, 6), st.sets(st.integers(0, 1), min_size=1))
def test_min_new_tokens_is_transformers(kind, seed, B, V, written, least, ends):
    logits, history = random_logits(seed, B, V), random_history(seed, B, V, 4 + written)
    theirs = MinNewTokensLengthLogitsProcessor(4, least, list(ends))(history, logits)
    rows = new_rows(SamplingOptions(min_new_tokens=least), V, history, written, ends=ends)
    assert same(edit(kind, logits, rows), theirs)


@quick
@given(kinds, seeds, counts, sizes, st.floats(0.05, 10.0))
def test_temperature_is_transformers(kind, seed, B, V, temperature):
    logits = random_logits(seed, B, V, 1.0)
    theirs = TemperatureLogitsWarper(temperature)(None, logits)
    ours = distribution(kind, logits, SamplingOptions(temperature=temperature))
    assert torch.allclose(ours.double(), theirs.double().softmax(-1), rtol=1e-5, atol=1e-9)


@quick
@given(kinds, seeds, counts, sizes, st.integers(1, 90), st.booleans())
def test_top_k_is_transformers(kind, seed, B, V, k, ties):
    logits = random_logits(seed, B, V)
    logits = logits.round() if ties else logits
    ours = distribution(kind, logits, SamplingOptions(top_k=k))
    assert same_distribution(ours, TopKLogitsWarper(k)(None, logits))


@quick
@given(kinds, seeds, counts, st.integers(2, 3000), shares, scales)
def test_top_p_is_transformers(kind, seed, B, V, p, scale):
    logits = random_logits(seed, B, V, scale)
    ours = distribution(kind, logits, SamplingOptions(top_p=p)) > 0
    theirs = TopPLogitsWarper(p)(None, logits) > -torch.inf
    # sums in float32 and other orders: they may part on tokens at the nucleus's very edge, and only there
    exact = logits.double().softmax(-1)
    ordered, ids = exact.sort(descending=True)
    before = torch.zeros_like(exact).scatter(-1, ids, ordered.cumsum(-1) - ordered)
    assert ((before - p).abs()[ours != theirs] < 1e-5).all()


@quick
@given(kinds, seeds, st.sampled_from([30, 3000, 20_000]), shares, st.sampled_from([0.0, 0.3, 2.0, 8.0]), st.booleans())
def test_a_nucleus_is_the_fewest_tokens_of_its_mass(kind, seed, V, p, scale, ties):
    """Narrow and wide ones, with equal logits among them (as bfloat16 makes many)."""
    logits = random_logits(seed, 1, V, scale)
    logits = logits.bfloat16().float() if ties else logits
    kept = (distribution(kind, logits, SamplingOptions(top_p=p)) > 0)[0].numpy()
    exact = logits[0].double().softmax(-1).numpy()
    mass, least = exact[kept].sum(), exact[kept].min()
    assert mass >= p - 1e-5
    assert mass - least < p + 1e-5
    assert exact[~kept].max(initial=0) <= least
    equal = np.flatnonzero(logits[0].numpy() == logits[0].numpy()[kept].min())
    assert kept[equal].tolist() == sorted(kept[equal], reverse=True)  # of equal ones the lowest ids


@quick
@given(seeds, st.sampled_from([0.01, 0.3, 2.0, 8.0, 30.0]))
def test_a_nucleus_of_all_but_nothing_is_all(seed, scale):
    logits = random_logits(seed, 1, 20_000, scale)
    found = distribution("numpy", logits, SamplingOptions(top_p=1 - 2**-53))
    assert np.allclose(found, logits.double().softmax(-1), rtol=1e-3, atol=1e-6)


@quick
@given(kinds, seeds, counts, sizes, shares)
def test_min_p_is_transformers(kind, seed, B, V, p):
    logits = random_logits(seed, B, V)
    assert same_distribution(distribution(kind, logits, SamplingOptions(min_p=p)), MinPLogitsWarper(p)(None, logits))


@quick
@given(kinds, seeds, counts, st.integers(2, 3000), shares, scales)
def test_typical_p_is_transformers(kind, seed, B, V, p, scale):
    logits = random_logits(seed, B, V, scale)
    ours = distribution(kind, logits, SamplingOptions(typical_p=p)) > 0
    theirs = TypicalLogitsWarper(p)(None, logits) > -torch.inf
    # float32 against float64, and sums in other orders: they may part on tokens at the very edge, and only there
    exact = logits.double().log_softmax(-1)
    distance = (exact + (exact * exact.exp()).sum(-1, keepdim=True).neg()).abs()
    ordered, ids = distance.sort()
    mass = exact.exp().gather(-1, ids).cumsum(-1)
    for row in range(B):
        at = min(int(torch.searchsorted(mass[row], p)), V - 1)
        near = ordered[row, max(0, at - 1) : at + 2]
        parted = distance[row][ours[row] != theirs[row]]
        assert ((parted[:, None] - near).abs().amin(-1) < 1e-5).all()


@quick
@given(kinds, seeds, counts, sizes)
def test_neutral_values_change_nothing(kind, seed, B, V):
    logits, history = random_logits(seed, B, V), random_history(seed, B, V, 9)
    assert torch.equal(edit(kind, logits, new_rows(SamplingOptions(), V, history)), logits)
    assert same_distribution(distribution(kind, logits, SamplingOptions()), logits)


@quick
@given(kinds, seeds, counts, options_of_all_kinds)
def test_logits_are_left_alone(kind, seed, B, options):
    V = 60
    logits, history = random_logits(seed, B, V), random_history(seed, B, V - 1, 9)
    before, rows = logits.clone(), new_rows(options, V - 1, history, 3, ends={2}, bad_words=WORDS)
    if kind == "torch":
        choose_together(logits, rows)
    else:
        sample(logits, rows)
    assert torch.equal(logits, before)


@quick
@given(seeds, st.sampled_from([12, 300, 5000]), options_of_all_kinds, st.integers(1, 20), st.integers(0, 20))
def test_torch_and_numpy_agree(seed, V, options, T, written):
    logits = random_logits(seed, 3, V)
    history = random_history(seed, 3, min(V, 6), T + written)  # few ids, so that they do repeat
    rows = new_rows(options, V - 1, history, written, ends={0, 5}, bad_words=WORDS)
    ours, theirs = edit("numpy", logits, rows), edit("torch", logits, rows)
    assert torch.equal(ours == -torch.inf, theirs == -torch.inf)
    assert same(ours, theirs)
    left = (ours > -torch.inf).any(-1)
    if options.temperature == 0 or not left.any():
        return
    one, other = (distribution(kind, ours[left], options) for kind in ("numpy", "torch"))
    unlike = (one > 0) != (other > 0)
    if not unlike.any():
        assert torch.allclose(one.double(), other.double(), rtol=1e-4, atol=1e-7)
    else:  # sums in another order, at the very edge of top-p or typical-p: one token a row, and all else in proportion
        assert (unlike.sum(-1) <= 1 + 2 * (options.typical_p < 1)).all()
        assert options.top_p < 1 or options.typical_p < 1 or one[unlike].max() < 1e-30


@pytest.mark.parametrize("scale", [0.3, 2.0, 9.0])
@pytest.mark.parametrize("name", ["top_p", "typical_p", "min_p"])
def test_cuts_at_the_size_of_gpt2(scale, name):
    logits = random_logits(6, 1, 50_257, scale)
    options = SamplingOptions(**{name: 0.8}, temperature=1.3)
    one, other = (distribution(kind, logits, options) > 0 for kind in ("numpy", "torch"))
    assert logits.double().softmax(-1)[one != other].sum() < 1e-4


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
        rows = new_rows(options, len(tokenizer), theirs.sequences[:, : prompt.shape[1] + step], step)
        for kind in ("numpy", "torch"):
            ours = distribution(kind, edit(kind, raw, rows), options)
            assert same_distribution(ours, score[:, : len(tokenizer)])
        cut += int((score == -torch.inf).sum())
    assert cut > 0


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_the_whole_chain_on_random_logits(kind):
    """The same as a list of transformers' processors, where every one of them has something to do."""
    logits, history = random_logits(5, 3, 400), random_history(5, 3, 400, 300)
    bad_words = [[5], [int(history[0, -1]), 6]]
    theirs = LogitsProcessorList(
        [
            SequenceBiasLogitsProcessor({(3,): 4.0, (8,): -2.0}),
            RepetitionPenaltyLogitsProcessor(1.3),
            NoRepeatNGramLogitsProcessor(2),
            NoBadWordsLogitsProcessor(bad_words),
            MinNewTokensLengthLogitsProcessor(290, 11, [9]),
            TemperatureLogitsWarper(2.0),
            TopKLogitsWarper(100),
            TopPLogitsWarper(0.9),
            MinPLogitsWarper(0.02),
            TypicalLogitsWarper(0.8),
        ]
    )(history, logits)
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
        bad_words=["x"],
    )
    rows = new_rows(options, 400, history, 10, ends={9}, bad_words=bad_words)
    assert same_distribution(distribution(kind, edit(kind, logits, rows), options), theirs)


def test_the_chain_names_options_that_there_are():
    names = [name for step in CHAIN for name in step.options]
    assert len(names) == len(set(names)) == 12
    assert all(hasattr(SamplingOptions(), name) for name in names)


@quick
@given(seeds, st.integers(2, 6000), st.integers(1, 700), st.booleans())
def test_the_largest_are_topk_s(seed, V, k, ties):
    values = random_logits(seed, 1, V)[0]
    values = values.round() if ties else values
    k = min(k, V)
    expected = (values >= values.topk(k).values[-1]).nonzero()[:, 0]
    assert selection.largest(values.numpy(), k).tolist() == expected.tolist()


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
    N = 6000
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
