"""Scores equal those of transformers' own forward pass, however the text is cut into windows and chunks."""

import math
from contextlib import contextmanager
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.errors import InputError, RunError
from gpt3.inference.continuations import SPARE, Request, continuation_logprobs, score_requests
from gpt3.inference.language_model import make_engine
from gpt3.inference.scoring import judge, score_chunks, score_tokens, windows
from gpt3.inference.torch_engine import ReferenceEngine

CONTEXT = 48  # of the models in conftest.py


@pytest.fixture(scope="module", params=[ReferenceEngine, make_engine])
def engine(model, request):
    """The reference, and the fast one of this machine."""
    return request.param(model)


@pytest.fixture(scope="module")
def draw(engine):
    """Random ids by seed."""

    def ids(count, seed=0):
        return torch.randint(engine.vocabulary, (count,), generator=torch.Generator().manual_seed(seed)).tolist()

    return ids


@pytest.fixture(scope="module")
def forward(model, engine):
    """transformers' own log-probabilities after each token, (T, V), all in one forward without a cache."""

    def logprobs(ids):
        with torch.inference_mode():
            return model(torch.tensor([ids]), use_cache=False).logits[0, :, : engine.vocabulary].log_softmax(-1)

    return logprobs


@contextmanager
def rows_at_a_time(engine, count):
    """Another number of rows of logits that are held at a time; None: the engine's own."""
    if count is not None:
        engine.logit_rows = count
    try:
        yield
    finally:
        vars(engine).pop("logit_rows", None)


@pytest.mark.parametrize("chunk", [None, 1, 7, 1000])
def test_a_text_within_the_context_is_cross_entropy(engine, tokenizer, model, draw, chunk):
    ids = draw(CONTEXT)
    text = torch.tensor([tokenizer.eos_token_id, *ids])
    with torch.inference_mode():
        logits = model(text[None, :-1]).logits[0, :, : engine.vocabulary]
    losses = F.cross_entropy(logits, text[1:], reduction="none")
    with rows_at_a_time(engine, chunk):
        scores = score_tokens(engine, [tokenizer.eos_token_id, *ids])
    torch.testing.assert_close(-torch.from_numpy(scores.logprobs), losses, rtol=1e-4, atol=1e-4)
    assert scores.total == pytest.approx(-float(losses.double().sum()), rel=1e-6)
    assert scores.ids.tolist() == ids


@pytest.mark.parametrize(("length", "stride"), [(48, 16), (48, 48), (33, 8), (20, 1)])
def test_beyond_the_context_it_is_the_strided_perplexity_of_transformers(engine, model, draw, length, stride):
    """The loop that transformers documents ("Perplexity of fixed-length models"), where a window of `length` holds the
    targets, too, so that `length` - 1 tokens are read. With stride = length that loop skips each window's first token."""
    ids = draw(150, seed=3)
    text = torch.tensor([ids])
    nats, count, before = 0.0, 0, 0
    for begin in range(0, text.shape[1], stride):
        end = min(begin + length, text.shape[1])
        labels = text[:, begin:end].clone()
        labels[:, : -(end - before)] = -100
        with torch.inference_mode():
            logits = model(text[:, begin:end]).logits[0, :-1, : engine.vocabulary]
        nats += float(F.cross_entropy(logits, labels[0, 1:], ignore_index=-100, reduction="sum"))
        count += int((labels[0, 1:] != -100).sum())
        before = end
        if end == text.shape[1]:
            break
    if stride < length:
        scores = score_tokens(engine, ids, length - 1, stride)
        assert len(scores) == count == 149
        assert -scores.total == pytest.approx(nats, rel=1e-5)
    else:
        parts = [score_tokens(engine, ids[i : i + length]) for i in range(0, 150, length)]
        assert -sum(part.total for part in parts) == pytest.approx(nats, rel=1e-5)


@settings(max_examples=200, deadline=None)
@given(tokens=st.integers(1, 300), context=st.integers(1, 60), data=st.data())
def test_every_token_is_scored_once_after_enough_context(tokens, context, data):
    stride = data.draw(st.integers(1, context))
    scored = []
    for number, (begin, end, counted) in enumerate(windows(tokens, context, stride)):
        assert 0 < counted <= end - begin <= context
        assert begin == number * stride
        for at in range(end - counted, end):
            scored.append(at)
            assert number == 0 or at - begin + 1 >= context - stride + 1
    assert scored == list(range(tokens))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_windows_are_independent_forwards_whatever_the_chunk(engine, draw, forward, data):
    ids = draw(data.draw(st.integers(2, 90), label="tokens"), seed=1)
    context = data.draw(st.integers(1, CONTEXT), label="context")
    stride = data.draw(st.integers(1, context), label="stride")
    chunk = data.draw(st.integers(1, 60), label="chunk")
    with rows_at_a_time(engine, chunk):
        pieces = list(score_chunks(engine, ids, context, stride, top=3))
        scores = score_tokens(engine, ids, context, stride, top=3)
    assert all(len(piece) <= chunk for piece in pieces)
    assert scores.total == pytest.approx(sum(piece.total for piece in pieces), rel=1e-9)
    assert scores.ids.tolist() == ids[1:]
    for begin, end, counted in windows(len(ids) - 1, context, stride):
        truth = forward(ids[begin:end])[-counted:]
        part = SimpleNamespace(**{k: torch.from_numpy(v) for k, v in vars(scores[end - counted : end]).items()})
        torch.testing.assert_close(part.logprobs, truth.gather(1, part.ids[:, None])[:, 0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(part.entropies, -(truth.exp() * truth).sum(-1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(part.top_logprobs, truth.topk(3).values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("library", [torch.Tensor.clone, torch.Tensor.numpy])
def test_judgement_of_a_distribution_known_by_hand(library):
    """Four tokens of probability 1/2, 1/4, 1/8, 1/8; the last two tie, and the lower id is ahead."""
    logits = torch.tensor([[1 / 8, 1 / 2, 1 / 8, 1 / 4]]).log().expand(4, -1) + 100.0
    scores = judge(library(logits.contiguous()), [0, 1, 2, 3], top=2)
    assert np.exp(scores.logprobs).tolist() == pytest.approx([1 / 8, 1 / 2, 1 / 8, 1 / 4], rel=1e-4)
    assert scores.ranks.tolist() == [3, 1, 4, 2]
    assert scores.entropies.tolist() == pytest.approx([1.75 * math.log(2)] * 4, rel=1e-4)
    assert scores.top_ids.tolist() == [[1, 3]] * 4
    with pytest.raises(RunError, match="NaN"):
        judge(library(torch.tensor([[0.0, math.nan]])), [0])


@pytest.mark.parametrize("context_length", [1, 5, 30])
@pytest.mark.parametrize("chunk", [None, 3])
def test_continuations_are_the_end_of_the_joined_sequence(engine, draw, forward, context_length, chunk):
    context = draw(context_length, seed=5)
    continuations = [draw(1 + number % 9, seed=number) for number in range(2 * SPARE + 3)]
    greedy: list[int] = []
    for _ in range(4):
        greedy.append(int(forward(context + greedy)[-1].argmax()))
    continuations += [greedy, [*greedy[:3], (greedy[3] + 1) % engine.vocabulary], continuations[0]]
    with rows_at_a_time(engine, chunk):
        found = continuation_logprobs(engine, context, continuations)
    for continuation, score in zip(continuations, found, strict=True):
        truth = forward([*context, *continuation])[context_length - 1 : -1]
        expected = truth.gather(1, torch.tensor(continuation)[:, None])[:, 0]
        assert score.logprobs == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-4)
        assert score.total == pytest.approx(float(expected.sum()), rel=1e-4)
        assert score.is_greedy == (truth.argmax(-1).tolist() == continuation)
        assert score.dropped == 0
    assert [score.is_greedy for score in found[-3:-1]] == [True, False]


def test_the_context_is_read_once(model, draw):
    reads: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, more: reads.append(more["input_ids"].numel()), with_kwargs=True
    )
    continuation_logprobs(ReferenceEngine(model), draw(20), [[1, 2, 3], [4], [5, 6]])
    hook.remove()
    # of a continuation all but its last token, whose logits nobody asks for; the shorter one is filled up
    assert reads == [20, 2 * 2]


def test_a_shared_beginning_is_read_once_for_all(model, draw):
    reads: list[int] = []

    class Counting(ReferenceEngine):
        def _forward(self, cache, runs):
            reads.extend(len(run.tokens) for run in runs)
            return super()._forward(cache, runs)

    shots = draw(24)
    score_requests(Counting(model), [Request([*shots, n, 5], [[4], [5]], shared=24) for n in range(4)])
    assert reads == [24, 2, 2, 2, 2]


def test_what_continuations_begin_with_is_read_once(model, draw):
    """PIQA's two solutions are often one sentence but for a word. One that is the other's beginning keeps a token of its own."""
    reads: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, more: reads.append(more["input_ids"].numel()), with_kwargs=True
    )
    context, alike = draw(5), draw(12, seed=1)
    engine = ReferenceEngine(model)
    found = continuation_logprobs(engine, context, [[*alike, 1, 2, 3], [*alike, 4, 5], [*alike, 6]])
    assert reads == [5 + 12, 2 * 2]
    reads.clear()
    short, long = continuation_logprobs(engine, context, [alike, [*alike, 6]])
    assert reads == [5 + 11, 1]
    hook.remove()
    assert short.logprobs == pytest.approx(found[0].logprobs[:12], abs=1e-5)
    assert long.logprobs == pytest.approx(found[2].logprobs, abs=1e-5)


def test_one_text_as_context_or_as_the_beginning_of_continuations(engine, draw):
    """Equal ids that are read, of which other parts are asked for."""
    context, x = draw(6), 7
    requests = [
        Request(context, [[x, 1], [x, 2, 3]]),
        Request([*context, x], [[1], [2, 3]]),
        Request(context, [[x, 1]]),
    ]
    found = score_requests(engine, requests)
    assert found == [score_requests(engine, [request])[0] for request in requests]
    assert found == score_requests(engine, requests[::-1])[::-1]
    for long, short in zip(found[0], found[1], strict=True):
        assert long.logprobs[1:] == pytest.approx(short.logprobs, abs=1e-5)
    assert found[2][0].logprobs == pytest.approx(found[0][0].logprobs, abs=1e-5)


@pytest.mark.parametrize("kind", [ReferenceEngine, make_engine])
def test_no_more_logits_than_the_chunk_are_made_at_once(model, draw, kind, monkeypatch):
    engine, rows = kind(model), []
    forward = engine.forward
    monkeypatch.setattr(
        engine, "forward", lambda cache, runs: rows.append(sum(x.logits for x in runs)) or forward(cache, runs)
    )
    alike = draw(20, seed=1)
    requests = [Request(draw(5, seed=n), [[*alike, 1, n], [*alike, 2, 3]]) for n in range(4)]
    whole = score_requests(engine, requests)
    assert max(rows) >= 21
    rows.clear()
    engine.logit_rows = 8
    found = score_requests(engine, requests)
    assert 1 < max(rows) <= 8
    for one, other in zip(chain(*whole), chain(*found), strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_no_score_depends_on_what_else_is_asked(engine, draw, forward, data):
    """Few-shot questions of equal beginnings, others, long ones that lose tokens: to the last bit as each by itself."""
    shots = draw(30, seed=1)
    requests = []
    for number in range(data.draw(st.integers(2, 7), label="requests")):
        shared = data.draw(st.sampled_from([0, 5, 20, 30]), label="shared")
        context = shots[:shared] + draw(data.draw(st.integers(1, 25), label="rest"), seed=number + 50)
        lengths = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=5), label="continuations")
        alike = draw(data.draw(st.sampled_from([0, 0, 1, 9]), label="alike"), seed=number + 20)
        continuations = [[*alike, *draw(length, seed=97 * number + place)] for place, length in enumerate(lengths)]
        requests.append(Request(context, continuations, shared))
    batch, chunk = data.draw(st.integers(1, 9), label="batch"), data.draw(st.sampled_from([None, 7]), label="chunk")
    with rows_at_a_time(engine, chunk):
        found = score_requests(engine, requests, batch=batch)
        assert found == [score_requests(engine, [request], batch=1)[0] for request in requests]
    for request, scores in zip(requests, found, strict=True):
        for continuation, score in zip(request.continuations, scores, strict=True):
            truth = forward([*request.context, *continuation][-CONTEXT - 1 : -1])[-len(continuation) :]
            expected = truth.gather(1, torch.tensor(continuation)[:, None])[:, 0]
            assert score.logprobs == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_many_texts_in_one_forward_are_as_each_alone(kind, monkeypatch):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    sizes = {
        "vocab_size": 90,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_range": 0.3,
    }
    more = {"intermediate_size": 48, "num_key_value_heads": 1} if kind == "llama" else {}
    config = AutoConfig.for_model(kind, **sizes, **more, max_position_embeddings=64)
    network = AutoModelForCausalLM.from_config(config).eval()
    several = ReferenceEngine(network)
    assert several.packs
    draws = torch.randint(90, (7, 40), generator=torch.Generator().manual_seed(1)).tolist()
    requests = [Request(ids[: 3 * n + 1], [ids[20 : 21 + n], ids[30:33], ids[22:23]]) for n, ids in enumerate(draws)]
    requests += [Request(ids[:4], [ids[8 : 11 + n], [*ids[8:10], *ids[30:33]]]) for n, ids in enumerate(draws)]
    found = score_requests(several, requests)
    assert found == score_requests(several, requests, batch=2)
    rows: list[int] = []
    packed = several.tree_logits
    monkeypatch.setattr(several, "tree_logits", lambda trees: rows.append(len(packed(trees))) or packed(trees))
    several.logit_rows = 9
    for one, other in zip(chain(*found), chain(*score_requests(several, requests)), strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert len(rows) > 2
    assert max(rows) <= 9
    for request, scores in zip(requests, found, strict=True):
        for continuation, score in zip(request.continuations, scores, strict=True):
            with torch.no_grad():
                logits = network(torch.tensor([[*request.context, *continuation]])).logits[0]
            truth = logits.log_softmax(-1)[len(request.context) - 1 : -1]
            expected = truth.gather(1, torch.tensor(continuation)[:, None])[:, 0]
            assert score.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_what_only_stands_before_is_not_scored(engine, draw):
    context, rests, answer = draw(9), [draw(3, seed=1), draw(2, seed=2)], draw(4, seed=3)
    whole = continuation_logprobs(engine, context, [[*rest, *answer] for rest in rests])
    [ends] = score_requests(engine, [Request(context, [[*rest, *answer] for rest in rests], 0, [4, 1])])
    assert [score.logprobs for score in ends] == [whole[0].logprobs[-4:], whole[1].logprobs[-1:]]
    rests = [rests[0], rests[0][:2]]  # the ids of one begin those of the other
    whole = continuation_logprobs(engine, context, [[*rest, *answer] for rest in rests])
    [ends] = score_requests(engine, [Request(context, [[*rest, *answer] for rest in rests], 0, [4, 4])])
    assert [score.logprobs for score in ends] == [score.logprobs[-4:] for score in whole]


def test_only_the_context_is_truncated_and_only_on_the_left(engine, draw, forward):
    context, short, long = draw(60, seed=8), draw(2, seed=9), draw(CONTEXT, seed=10)
    found = continuation_logprobs(engine, context, [short, long, short])
    assert found[0] == found[2]
    alike = continuation_logprobs(engine, context, [[*short, *long[:30]], [*short, *long[:40]]])
    assert [score.dropped for score in alike] == [60 + 31 - CONTEXT, 60 + 41 - CONTEXT]
    for score, length in zip(alike, (30, 40), strict=True):
        [alone] = continuation_logprobs(engine, context, [[*short, *long[:length]]])
        assert score.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
    assert [score.dropped for score in found] == [60 + 1 - CONTEXT, 60 - 1, 60 + 1 - CONTEXT]
    for continuation, score in zip((short, long), found, strict=False):
        joined = [*context, *continuation][-CONTEXT - 1 :]
        truth = forward(joined[:-1])[-len(continuation) :]
        expected = truth.gather(1, torch.tensor(continuation)[:, None])[:, 0].tolist()
        assert score.logprobs == pytest.approx(expected, rel=1e-4, abs=1e-4)
    with pytest.raises(InputError, match="49 tokens exceeds the model's 48 positions"):
        continuation_logprobs(engine, context, [short, draw(CONTEXT + 1)])
    with pytest.raises(ValueError, match="at least one token"):
        continuation_logprobs(engine, [], [short])


@pytest.mark.parametrize(
    ("context", "stride", "message"),
    [
        (49, None, "--context 49 is not between 1 and the model's 48 positions"),
        (0, None, "--context 0 is not between"),
        (20, 21, "--stride 21 is not between 1 and the context of 20"),
        (60, 0, "--context 60 is not between .*; --stride 0 is not between"),
    ],
)
def test_windows_out_of_range_are_refused(engine, draw, context, stride, message):
    with pytest.raises(InputError, match=message):
        score_tokens(engine, draw(5), context, stride)


def test_tokens_out_of_range_are_refused(engine):
    with pytest.raises(ValueError, match="no token"):
        score_tokens(engine, [3])
    with pytest.raises(ValueError, match="not among"):
        score_tokens(engine, [3, engine.vocabulary])
