"""Held-out scores: equal to the logits read token by token, the same for any number of ranks, with an interval that covers."""

import json
import math
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.errors import InputError
from gpt3.model import GPT3Config, GPT3ForCausalLM
from gpt3.training import validation
from gpt3.training.distributed import Compute, World
from gpt3.training.validation import EarlyStopping, Score, loss_interval, records, student_quantile, validate

CONTEXT = 16
VOCABULARY = 53
COMPUTE = Compute(torch.device("cpu"), torch.float32, 1.0)


class Documents:
    """A held-out split in memory: random documents, each ending in 0; three bytes of text a token."""

    name = "validation"
    end_of_text = 0

    def __init__(self, lengths, seed=0):
        rng = np.random.default_rng(seed)
        parts = [np.append(rng.integers(1, VOCABULARY, length - 1), 0) for length in lengths]
        self.tokens = np.concatenate([np.zeros(0, np.int64), *parts])
        self.ends = np.cumsum(lengths)
        self.text_bytes = 3 * (len(self.tokens) - len(lengths))

    def __len__(self):
        return len(self.tokens)

    def read(self, start, stop):
        return self.tokens[start:stop].astype(np.int64)

    def document_ends(self):
        return self.ends


@pytest.fixture(scope="module")
def model():
    config = GPT3Config(
        vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, hidden_size=24, num_hidden_layers=2,
        num_attention_heads=3, sliding_window=4, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT3ForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return model


def nats_by_document(model, split, masked=False):
    """From the logits of single windows, one token after another."""
    nats, tokens = [0.0] * len(split.ends), [0] * len(split.ends)
    document = 0
    for start in range(0, len(split) - 1, CONTEXT):
        ids = split.tokens[start : start + CONTEXT + 1]
        for t in range(len(ids) - 1):
            begin = 0
            if masked:  # nothing before the last end-of-text is seen
                earlier = np.flatnonzero(ids[:t] == 0)
                begin = int(earlier[-1]) + 1 if len(earlier) else 0
            with torch.no_grad():
                logits = model(torch.from_numpy(ids[None, begin : t + 1])).logits[0, -1].double()
            while start + t + 1 >= split.ends[document]:
                document += 1
            nats[document] -= float(torch.log_softmax(logits, -1)[ids[t + 1]])
            tokens[document] += 1
    return np.array(nats), np.array(tokens, dtype=float)


@pytest.mark.parametrize("masked", [False, True])
def test_equal_to_the_logits_token_by_token(model, masked):
    split = Documents([5, 40, 1, 2, 17, 33, 9])  # documents that span windows, windows that hold several
    nats, tokens = nats_by_document(model, split, masked)
    score = validate(model, split, COMPUTE, CONTEXT, 3, mask_documents=masked)
    assert score.tokens == tokens.sum() == len(split) - 1
    assert score.documents == 7
    assert score.whole
    assert score.loss == pytest.approx(nats.sum() / tokens.sum(), rel=1e-5)
    assert score.perplexity == pytest.approx(math.exp(score.loss))
    assert score.bits_per_byte == pytest.approx(nats.sum() / math.log(2) / split.text_bytes, rel=1e-5)
    assert (score.loss_low, score.loss_high) == pytest.approx(loss_interval(nats, tokens), rel=1e-4)


class Threads:
    """Ranks as threads; a rank's sum is everybody's."""

    def __init__(self, size):
        self.size, self.given, self.barrier = size, [None] * size, threading.Barrier(size)

    def rank(self, rank):
        world = self

        class Rank(World):
            def all_reduce(self, tensor):
                world.given[rank] = tensor
                world.barrier.wait(timeout=60)
                return torch.stack(world.given).sum(0)

        return Rank(rank, world.size)


class Counted:
    """A model that notes the shape of every forward pass."""

    def __init__(self, model):
        self.model, self.shapes, self.training = model, [], False

    def __call__(self, **batch):
        self.shapes.append(tuple(batch["input_ids"].shape))
        return self.model(**batch)

    def eval(self):
        return self

    def train(self, mode):
        return self


@pytest.mark.parametrize("most_tokens", [None, 100])
@pytest.mark.parametrize("size", [2, 3, 20])
def test_any_number_of_ranks_gets_the_same_score_in_equally_many_forwards(model, size, most_tokens):
    split = Documents(np.random.default_rng(3).integers(1, 40, 12))
    alone = validate(model, split, COMPUTE, CONTEXT, 4, most_tokens)
    threads, scores, counted = Threads(size), [None] * size, [Counted(model) for _ in range(size)]

    def run(rank):
        scores[rank] = validate(counted[rank], split, COMPUTE, CONTEXT, 4, most_tokens, world=threads.rank(rank))

    running = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert all(score == scores[0] for score in scores)
    assert (scores[0].tokens, scores[0].documents, scores[0].whole) == (alone.tokens, alone.documents, alone.whole)
    for name in ("loss", "bits_per_byte", "loss_low", "loss_high"):
        assert getattr(scores[0], name) == pytest.approx(getattr(alone, name), rel=1e-12)
    assert len({tuple(each.shapes) for each in counted}) == 1  # as many forwards everywhere, of the same shape


def test_a_part_is_spread_over_the_split_and_its_bytes_are_the_mean(model):
    split = Documents([50] * 40)
    score = validate(model, split, COMPUTE, CONTEXT, 4, most_tokens=320)
    assert (score.tokens, score.whole) == (320, False)
    assert 20 <= score.documents <= 40  # 20 windows, from all over
    assert score.bits_per_byte == pytest.approx(score.loss / math.log(2) * (len(split) - 1) / split.text_bytes)
    everything = validate(model, split, COMPUTE, CONTEXT, 4, most_tokens=10**9)
    assert everything == validate(model, split, COMPUTE, CONTEXT, 4)


def test_one_document_has_no_interval_and_an_empty_split_no_score(model):
    score = validate(model, Documents([90]), COMPUTE, CONTEXT, 4)
    assert (score.documents, score.loss_low, score.loss_high) == (1, None, None)
    assert "val/loss_low" not in records(1, 2, {"": score})
    for lengths in ([], [1]):
        with pytest.raises(InputError, match="'validation' holds no held-out text"):
            validate(model, Documents(lengths), COMPUTE, CONTEXT, 4)


def test_where_memory_runs_out_fewer_windows_are_read_at_a_time(model, monkeypatch, capsys):
    split, original, failed = Documents([40, 25, 60]), validation.nats_of, []

    def nats_of(network, batch, compute):
        if len(batch["input_ids"]) > 2 and failed != [8, 4]:
            failed.append(len(batch["input_ids"]))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(network, batch, compute)

    expected = validate(model, split, COMPUTE, CONTEXT, 2)
    monkeypatch.setattr(validation, "nats_of", nats_of)
    assert validate(model, split, COMPUTE, CONTEXT, 8) == expected
    assert failed == [8, 4]
    assert "continuing with 2 of 4 sequences at a time" in capsys.readouterr().err


def test_the_models_mode_is_put_back(model):
    model.train()
    validate(model, Documents([30]), COMPUTE, CONTEXT, 4)
    assert model.training
    model.eval()


def test_dropout_is_off_while_it_scores(model):
    split, drawn = Documents([30]), GPT3ForCausalLM(GPT3Config(**(model.config.to_dict() | {"resid_pdrop": 0.5})))
    drawn.load_state_dict(model.state_dict())
    assert validate(drawn.train(), split, COMPUTE, CONTEXT, 4) == validate(model, split, COMPUTE, CONTEXT, 4)


def documents_like(rng, count):
    """Lengths and losses as text has them: log-normal lengths, short documents harder, a level of each document's own."""
    tokens = np.maximum(2, rng.lognormal(5, 1, count)).round()
    return tokens * (3 + 3 / np.sqrt(tokens) + rng.normal(0, 0.4, count)), tokens


def test_the_interval_is_a_bootstraps():
    """Against resampling whole documents 20,000 times, percentiles taken."""
    rng = np.random.default_rng(7)
    nats, tokens = documents_like(rng, 400)
    low, high = loss_interval(nats, tokens)
    drawn = rng.integers(0, 400, (20_000, 400))
    losses = nats[drawn].sum(1) / tokens[drawn].sum(1)
    expected = np.percentile(losses, [2.5, 97.5])
    assert np.abs(expected - [low, high]).max() < 0.1 * (high - low)
    assert low < nats.sum() / tokens.sum() < high


def test_the_interval_of_three_documents_is_the_one_worked_out_by_hand():
    """R = 15/6; residuals -1/2, -1, 3/2; variance 3/2 · 7/2 / 36; Student's quantile of 2 degrees of freedom is 4.302653."""
    low, high = loss_interval(np.array([2.0, 4.0, 9.0]), np.array([1.0, 2.0, 3.0]))
    margin = 4.302653 * math.sqrt(3 / 2 * 7 / 2 / 36)
    assert (low, high) == (pytest.approx(2.5 - margin, rel=1e-6), pytest.approx(2.5 + margin, rel=1e-6))


def test_the_interval_covers_the_truth_95_times_in_100():
    rng = np.random.default_rng(8)
    truth_nats, truth_tokens = documents_like(rng, 2_000_000)
    truth = truth_nats.sum() / truth_tokens.sum()
    intervals = [loss_interval(*documents_like(rng, 100)) for _ in range(2000)]
    covered = np.mean([low <= truth <= high for low, high in intervals])
    assert 0.92 < covered < 0.965  # uneven lengths cost a little; 0.005 is one standard deviation


def test_students_quantile_is_the_printed_tables():
    table = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 10: 2.228, 30: 2.042, 120: 1.980, 10**9: 1.960}
    for freedom, value in table.items():
        assert student_quantile(freedom) == pytest.approx(value, rel=2e-3), freedom


def score(loss):
    return Score(loss, math.exp(loss), 1.0, loss - 0.1, loss + 0.1, 10, 2, True)


def test_one_record_of_all_sets():
    record = records(7, 700, {"": score(2.0), "books": score(3.0)})
    assert record.keys() >= {"step", "tokens", "val/loss", "val/perplexity", "val/bits_per_byte", "val/tokens"}
    assert (record["step"], record["tokens"], record["val/loss"]) == (7, 700, 2.0)
    assert (record["val/books/loss"], record["val/books/loss_high"]) == (3.0, 3.1)
    assert json.loads(json.dumps(record)) == record


def test_early_stopping_stops_after_patience_runs_out():
    stopping = EarlyStopping(patience=2)
    said = []
    for step, loss in enumerate([3.0, 2.5, 2.5, 2.3, math.nan, 2.4]):
        stopping.update(step, loss)
        said.append((stopping.best_step == step, stopping.stop))
    # an equal loss is no improvement; 2.3 is one; then two without
    assert said == [(True, False), (True, False), (False, False), (True, False), (False, False), (False, True)]
    assert (stopping.best_step, stopping.best_loss) == (3, 2.3)


losses = st.lists(st.one_of(st.floats(0.5, 5), st.just(math.nan)), max_size=20)


@settings(deadline=None)
@given(losses, st.one_of(st.none(), st.integers(1, 4)), st.integers(0, 20))
def test_early_stopping_goes_on_from_its_state(values, patience, cut):
    def take(stopping: EarlyStopping, start: int, some: list[float]) -> list[bool]:
        return [stopping.update(start + i, loss) or stopping.stop for i, loss in enumerate(some)]

    whole, before, after = (EarlyStopping(patience) for _ in range(3))
    expected = take(whole, 0, values)
    found = take(before, 0, values[:cut])
    after.load(json.loads(json.dumps(before.state(), allow_nan=False)))
    found += take(after, cut, values[cut:])
    assert found == expected
    assert after.state() == whole.state()
    finite = [loss for loss in values if not math.isnan(loss)]
    assert whole.best_loss == min(finite, default=None)
