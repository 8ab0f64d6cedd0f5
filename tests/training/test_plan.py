"""The plan of a run against the paper's recipe (Brown et al. 2020, App. B) and its own rules."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt3.errors import InputError
from gpt3.ladder.presets import PRESETS, preset
from gpt3.training.options import TrainOptions, count
from gpt3.training.plan import make_plan, settled


def test_at_300b_tokens_the_recipe_is_the_papers() -> None:
    plan = make_plan(TrainOptions(model="125M", tokens="300B"), train_tokens=10**12)
    assert plan.warmup_tokens == 375_000_000
    assert plan.batch_tokens == 2**19  # 0.5M
    assert plan.context == 2048
    assert plan.tokens == pytest.approx(300e9, rel=1e-5)
    assert plan.decay_tokens == pytest.approx(260e9, rel=1e-5)
    assert plan.learning_rate(375_000_000) == pytest.approx(6e-4)
    assert plan.learning_rate(375_000_000 // 2) == pytest.approx(3e-4)
    assert plan.learning_rate(260_100_000_000) == pytest.approx(6e-5)
    assert plan.learning_rate(plan.tokens) == pytest.approx(6e-5)


def test_the_cosine_is_torchs() -> None:
    plan = make_plan(TrainOptions(recipe="paper", steps=1000, batch_tokens=256, warmup_tokens=0, lr=1.0), 10**6)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    steps = plan.decay_tokens / plan.batch_tokens
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=plan.min_lr)  # type: ignore[arg-type]
    for step in range(int(steps)):
        assert plan.learning_rate(step * plan.batch_tokens) == pytest.approx(reference.get_last_lr()[0], abs=1e-6)
        optimizer.step()
        reference.step()


@given(
    name=st.sampled_from(sorted(PRESETS)),
    tokens=st.integers(10**4, 10**12),
    corpus=st.integers(10**4, 10**12),
)
def test_every_plan_is_consistent(name: str, tokens: int, corpus: int) -> None:
    plan = make_plan(TrainOptions(model=name, tokens=str(tokens)), corpus)
    assert plan.batch_tokens % (plan.micro_batch * plan.context) == 0
    assert plan.batch_tokens <= max(PRESETS[name].batch_tokens, plan.context)
    assert 0 <= plan.tokens - tokens < plan.batch_tokens
    assert plan.tokens_after(plan.steps - 1) < tokens <= plan.tokens
    assert 0 < plan.warmup_tokens <= plan.decay_tokens <= plan.tokens
    rates = [plan.learning_rate(round(plan.tokens * i / 50)) for i in range(51)]
    assert max(rates) <= plan.lr
    assert rates[-1] == plan.min_lr
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_the_batch_ramp_is_the_papers() -> None:
    """App. B: from 32k tokens, linearly to the full batch over the first 4 to 12 billion tokens depending on the size."""
    for name, billions in (("125M", 4), ("6.7B", 7.26), ("175B", 12)):
        plan = make_plan(TrainOptions(model=name, tokens="300B"), 10**12)
        assert plan.stages[0].sequences * plan.context == 32_768
        assert plan.ramp_tokens == pytest.approx(billions * 1e9, rel=0.01)
        full = plan.stages[-1]
        assert full.sequences * plan.context == plan.batch_tokens == preset(name).batch_tokens
        assert full.first_tokens == pytest.approx(plan.ramp_tokens, rel=0.01)
        for step in range(0, full.first_step, 101):
            line = 32_768 + (plan.batch_tokens - 32_768) * plan.tokens_after(step) / plan.ramp_tokens
            assert line - 32_768 <= len(plan.sequences(step)) * plan.context <= line + 1
    assert make_plan(TrainOptions(model="175B", tokens="300B", ramp_tokens=0), 10**12).stages[0].sequences == 1568


def test_small_batches_have_no_ramp() -> None:
    assert make_plan(TrainOptions(model="17M", tokens="30M"), 10**9).ramp_tokens == 0


@given(
    batch=st.integers(1, 400),
    ramp=st.integers(0, 10**7),
    context=st.sampled_from([128, 1024, 2048]),
    steps=st.integers(1, 300),
)
def test_steps_cut_the_sequences_without_gap_or_overlap(batch: int, ramp: int, context: int, steps: int) -> None:
    options = TrainOptions(model="125M", context=context, batch_tokens=batch * context, ramp_tokens=ramp, steps=steps)
    plan = make_plan(options, 10**9)
    follows, sizes = 0, []
    for step in range(steps):
        sequences = plan.sequences(step)
        assert sequences.start == follows
        follows = sequences.stop
        sizes.append(len(sequences))
        assert plan.tokens_after(step + 1) == follows * context
        assert plan.steps_for(plan.tokens_after(step + 1)) == step + 1
        assert plan.steps_for(plan.tokens_after(step + 1) + 1) == step + 2
    assert sizes == sorted(sizes)
    assert sizes[-1] <= batch
    assert plan.total_sequences == follows


def test_without_a_budget_it_is_four_epochs_and_at_most_the_papers_tokens() -> None:
    assert make_plan(TrainOptions(model="17M"), 1_000_000).tokens == pytest.approx(4e6, rel=0.01)
    assert make_plan(TrainOptions(model="17M"), 10**12).tokens == pytest.approx(300e9, rel=0.01)


def test_a_settled_plan_settles_to_itself() -> None:
    options = TrainOptions(model="17M", tokens="3M")
    plan = make_plan(options, 10**6)
    again = settled(options, plan)
    assert again.tokens is None
    assert make_plan(again, 10**6) == plan


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TrainOptions(batch_tokens=1000), r"--batch-tokens 1000 is not a multiple of the context of 128; try 896"),
        (TrainOptions(batch_tokens=1024, micro_batch=3), r"--micro-batch 3 does not divide the 8 sequences"),
        (TrainOptions(model="demo", context=4096), r"--context 4096 exceeds the 128 positions of demo"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options: TrainOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_plan(options, 10**6)


@given(
    name=st.sampled_from(sorted(PRESETS)),
    steps=st.integers(1, 10**5),
    corpus=st.integers(10**6, 10**12),
)
def test_steps_leave_the_batch_as_it_is_without_them(name: str, steps: int, corpus: int) -> None:
    plan = make_plan(TrainOptions(model=name, steps=steps), corpus)
    timed = 10**7 if name == "demo" else None  # the demo is timed where no length is given
    assert plan.batch_tokens == make_plan(TrainOptions(model=name), corpus, timed).batch_tokens
    assert plan.steps == steps


@pytest.mark.parametrize("length", [{"steps": 5}, {"tokens": "300B"}])
def test_data_of_unknown_size_has_the_presets_batch(length: dict) -> None:
    assert make_plan(TrainOptions(model="125M", **length), None).batch_tokens == PRESETS["125M"].batch_tokens


@given(text=st.sampled_from(["0.5M", "32K", "100", "1e5", "0.001K"]), context=st.sampled_from([128, 1000, 2048]))
def test_a_batch_in_words_is_the_nearest_number_of_whole_sequences(text: str, context: int) -> None:
    if text == "100":
        text = "100.0"  # digits alone are exact
    plan = make_plan(TrainOptions(model="125M", context=context, batch_tokens=text, steps=1), 10**9)
    assert plan.batch_tokens % context == 0
    assert plan.batch_tokens == context or abs(plan.batch_tokens - count(text)) <= context / 2


def test_a_batch_of_digits_is_a_number() -> None:
    assert TrainOptions(batch_tokens="32768") == TrainOptions(batch_tokens=32768)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InputError, match=r"--seed -1.*--steps 0.*--clip -1.*--keep-checkpoints 0"):
        TrainOptions(seed=-1, steps=0, clip=-1, keep_checkpoints=0)
    with pytest.raises(InputError, match=r"--batch-tokens 0 must be.* at least 1"):
        TrainOptions(batch_tokens=0)
    with pytest.raises(InputError, match=r"--batch-tokens 'many' is not a number of tokens"):
        TrainOptions(batch_tokens="many")


@pytest.mark.parametrize(
    ("text", "value"), [("2500000", 2_500_000), ("2.5M", 2_500_000), ("300B", 3 * 10**11), ("1e6", 10**6)]
)
def test_counts(text: str, value: int) -> None:
    assert count(text) == value


@pytest.mark.parametrize("text", ["", "M", "-3", "0", "3X", "1.2.3"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any text will do
        count(text)
