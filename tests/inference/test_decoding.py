"""The decode loop: what is written does not depend on who else is, when they come, or how prompts are read."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.inference.cpu_engine import CpuEngine
from gpt3.inference.decoding import WORTH_SHARING, Decoder, ModelDraft, PromptLookup, common
from gpt3.inference.options import SamplingOptions
from gpt3.inference.row import Row

CONTEXT = 120


@pytest.fixture(scope="module")
def engine(new_model):
    return CpuEngine(new_model(max_position_embeddings=CONTEXT))


class Counting(CpuEngine):
    """Counts the tokens that are read."""

    def __init__(self, model):
        super().__init__(model)
        self.read = Counter()

    def _forward(self, cache, runs):
        for run in runs:
            self.read[run.slot] += len(run.tokens)
        return super()._forward(cache, runs)


OPTIONS = SamplingOptions(temperature=0.8, top_k=20, repetition_penalty=1.2, max_new_tokens=10)


def new_row(prompt, number=0, options=OPTIONS, vocabulary=300):
    return Row(prompt, options, seed=1, number=number, ends=set(), vocabulary=vocabulary)


def prompts(count, shared=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.randint(0, 300, (n,), generator=generator).tolist()  # noqa: E731
    begin = draw(shared)
    return [begin + draw(3 + 4 * number % 40) for number in range(count)]


def write(decoder, rows, new=10):
    for row in rows:
        decoder.join(row)
    lengths = {row: len(row.tokens) + new for row in rows}
    while decoder.rows or decoder.waiting:
        for row, _ in decoder.step():
            if len(row.tokens) >= lengths[row]:
                del row.tokens[lengths[row] :]
                decoder.leave(row)
    return [row.tokens for row in rows]


def alone(engine, texts, **options):
    return [write(Decoder(engine, 1, CONTEXT, **options), [new_row(text, n)])[0] for n, text in enumerate(texts)]


@pytest.mark.parametrize("slots", [1, 2, 3, 7])
@pytest.mark.parametrize("prompt_tokens", [None, 1, 5])
def test_texts_are_what_they_are_alone(engine, slots, prompt_tokens):
    """More texts than slots, of other lengths, prompts read whole or a few tokens a step."""
    texts = prompts(7)
    decoder = Decoder(engine, slots, CONTEXT, prompt_tokens=prompt_tokens)
    assert write(decoder, [new_row(text, n) for n, text in enumerate(texts)]) == alone(engine, texts)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=6, max_size=6), st.integers(0, 99))
def test_when_a_text_joins_changes_nothing(engine, delays, seed):
    texts = prompts(6, seed=seed)
    rows = [new_row(text, n) for n, text in enumerate(texts)]
    decoder = Decoder(engine, 3, CONTEXT)
    ends = {row: len(row.tokens) + 10 for row in rows}
    coming = sorted(zip(delays, range(6), strict=True))
    step = 0
    while coming or decoder.rows or decoder.waiting:
        while coming and coming[0][0] <= step:
            decoder.join(rows[coming.pop(0)[1]])
        for row, _ in decoder.step():
            if len(row.tokens) >= ends[row]:
                decoder.leave(row)
        step += 1
    assert [row.tokens for row in rows] == alone(engine, texts)


@pytest.mark.parametrize("shared", [WORTH_SHARING - 1, WORTH_SHARING, 60])
def test_a_common_beginning_is_read_once(new_model, shared):
    counting = Counting(new_model(max_position_embeddings=CONTEXT))
    texts = prompts(4, shared=shared)
    expected = alone(CpuEngine(new_model(max_position_embeddings=CONTEXT)), texts)
    assert write(Decoder(counting, 4, CONTEXT), [new_row(text, n) for n, text in enumerate(texts)]) == expected
    total = sum(len(text) for text in texts) + 4 * 9  # each token but the last that was written
    spared = 3 * shared if shared >= WORTH_SHARING else 0
    assert counting.read.total() == total - spared


def test_a_text_goes_on_from_what_a_slot_still_holds(new_model):
    """As a conversation does: its next prompt is the last one, the answer, and a few tokens more."""
    counting = Counting(new_model(max_position_embeddings=CONTEXT))
    decoder = Decoder(counting, 2, CONTEXT)
    first = prompts(1, shared=40)[0]
    answer = write(decoder, [new_row(first)])[0]
    counting.read.clear()
    second = [*answer, 5, 6, 7]
    again = write(decoder, [new_row(second)])[0]
    assert counting.read.total() == 1 + 3 + 9  # the answer's last token had not been read yet
    assert again == write(Decoder(counting, 1, CONTEXT), [new_row(second)])[0]


@pytest.mark.parametrize(("length", "alone"), [(20, True), (60, False)])
def test_a_short_prompt_does_not_wait_for_texts_being_written(engine, length, alone):
    """Short: fewer than four tokens for each of the ten texts. It gets its first token in a step of its own."""
    decoder = Decoder(engine, 12, CONTEXT, prompt_tokens=64)
    writing, late = [new_row([number, 5], number) for number in range(10)], new_row(list(range(length)), 10)
    for row in writing:
        decoder.join(row)
    decoder.step()
    decoder.join(late)
    assert {row for row, _ in decoder.step()} == ({late} if alone else {*writing, late})
    assert {row for row, _ in decoder.step()} == {*writing, late}


def test_a_text_may_leave_at_any_step(engine):
    texts = prompts(3)
    rows = [new_row(text, n) for n, text in enumerate(texts)]
    decoder = Decoder(engine, 2, CONTEXT)
    for row in rows:
        decoder.join(row)
    decoder.step()
    decoder.leave(rows[0])
    decoder.leave(rows[2])  # which still waits
    for _ in range(9):
        decoder.step()
    assert rows[1].tokens == alone(engine, texts)[1]
    assert decoder.rows == [rows[1]]
    assert not decoder.waiting


@pytest.mark.parametrize("temperature", [0, 0.7])
@pytest.mark.parametrize("kind", ["lookup", "the model itself", "another model"])
def test_a_draft_changes_nothing_but_the_steps(engine, new_model, kind, temperature):
    """Greedy and sampled, with penalties that look back, beyond the context's end: token for token."""
    options = SamplingOptions(temperature=temperature, repetition_penalty=1.05, no_repeat_ngram=9, max_new_tokens=150)
    repeating = prompts(1, shared=10)[0][:10] * 4
    texts = [repeating, *prompts(2)]
    plain = write(Decoder(engine, 3, CONTEXT), [new_row(t, n, options) for n, t in enumerate(texts)], new=150)
    draft = {
        "lookup": PromptLookup(2, 1),
        "the model itself": ModelDraft(engine),
        "another model": ModelDraft(CpuEngine(new_model(seed=5, hidden_size=16, max_position_embeddings=CONTEXT))),
    }[kind]
    rows = [new_row(text, number, options) for number, text in enumerate(texts)]
    assert write(Decoder(engine, 3, CONTEXT, draft=draft), rows, new=150) == plain
    drafted, accepted = sum(row.drafted for row in rows), sum(row.accepted for row in rows)
    assert drafted > 0
    if kind == "the model itself":
        assert accepted == drafted
        assert max(row.restarts for row in rows) > 0
    elif kind == "lookup":
        assert 0 < accepted < drafted


def test_lookup_finds_the_longest_and_latest():
    row = new_row([1, 2, 3, 4, 9, 2, 3, 5, 7, 1, 2, 3])
    assert PromptLookup(3, 2).propose([row], [2]) == [[4, 9]]  # after 1 2 3, not after 2 3
    assert PromptLookup(2, 2).propose([row], [2]) == [[5, 7]]  # the latest 2 3
    assert PromptLookup(3, 2).propose([new_row([1, 2, 3])], [5]) == [[]]
    assert PromptLookup(3, 2).propose([row], [0]) == [[]]


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_common(a, b):
    length = common(a, b)
    assert a[:length] == b[:length]
    assert length == min(len(a), len(b)) or a[length] != b[length]
