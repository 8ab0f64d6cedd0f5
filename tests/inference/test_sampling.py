"""The chain in NumPy and in torch: each step equals transformers' processor of that name, alone and in order."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sampling_rows import (
    WORDS,
    counts,
    distribution,
    edit,
    kinds,
    new_rows,
    options_of_all_kinds,
    quick,
    random_history,
    random_logits,
    same,
    same_distribution,
    scales,
    seeds,
    shares,
    sizes,
)
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

from gpt3.inference import selection
from gpt3.inference.options import SamplingOptions
from gpt3.inference.sampling import (
    CHAIN,
    choose_together,
    sample,
)


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
    assert len(names) == len(set(names)) == 15
    assert all(hasattr(SamplingOptions(), name) for name in names)


@quick
@given(seeds, st.integers(2, 6000), st.integers(1, 700), st.booleans())
def test_the_largest_are_topk_s(seed, V, k, ties):
    values = random_logits(seed, 1, V)[0]
    values = values.round() if ties else values
    k = min(k, V)
    expected = (values >= values.topk(k).values[-1]).nonzero()[:, 0]
    assert selection.largest(values.numpy(), k).tolist() == expected.tolist()
