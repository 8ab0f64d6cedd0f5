"""What a run does by default before its first step: the order of its samples, its rates, the text it replays."""

from __future__ import annotations

import itertools
import random
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("trl")
pytest.importorskip("peft")

from gpt3.corpus.options import PrepareOptions
from gpt3.corpus.prepare import prepare
from gpt3.corpus.shards import open_shards
from gpt3.corpus.wiki import articles, document
from gpt3.finetuning.catalogue import is_validation, wiki_questions
from gpt3.finetuning.gathering import is_held_out, replay_texts
from gpt3.finetuning.options import FinetuneOptions
from gpt3.finetuning.trainers import GroupedByLength
from gpt3.training.options import TrainOptions


@given(st.lists(st.integers(1, 90), min_size=1, max_size=400), st.integers(1, 16), st.integers(0, 3))
def test_every_sample_is_trained_once_an_epoch(lengths, batch, seed) -> None:
    found = epoch_of(lengths, batch, seed, 1)
    assert sorted(found) == list(range(len(lengths)))
    assert found == epoch_of(lengths, batch, seed, 1)


def epoch_of(lengths: list[int], batch: int, seed: int, epoch: int) -> list[int]:
    sampler = GroupedByLength(lengths, batch, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("count", [70, 645, 6003])
def test_batches_need_little_padding_and_are_others_in_every_epoch(count: int) -> None:
    """As in a random order, an epoch shares few batches with the one before, and no place in it has the long samples."""
    draw = random.Random(0)
    lengths = [draw.randrange(1, 91) for _ in range(count)]
    epochs = []
    for epoch in range(12):
        order = epoch_of(lengths, 8, 0, epoch)
        epochs.append([order[start : start + 8] for start in range(0, count, 8)])
    batches = [{frozenset(batch) for batch in epoch} for epoch in epochs]
    shared = sum(len(a & b) for a, b in itertools.pairwise(batches)) / 11
    assert shared < 0.05 * len(batches[0])
    padded = sum(len(batch) * max(lengths[n] for n in batch) for batch in epochs[0])
    assert padded < (1.5 if count == 70 else 1.1) * sum(lengths)  # in a random order 1.8
    middle = statistics.mean(lengths)
    for place in (0, -2, -1):  # -1: the rest, which is no whole batch
        found = statistics.mean(statistics.mean(lengths[n] for n in epoch[place]) for epoch in epochs)
        assert abs(found - middle) < 25
    assert len({tuple(order) for order in (epoch_of(lengths, 4, seed, 0) for seed in range(3))}) == 3


def test_rates_and_replay_by_default() -> None:
    """The table of docs/finetune.md."""
    rates = {10**7: (5e-4, 2e-4), 10**8: (2e-4, 1e-4), 10**9: (1e-4, 2e-5)}
    for size, (below, above) in rates.items():
        assert (FinetuneOptions().rate(size - 1), FinetuneOptions().rate(size)) == (below, above)
    assert FinetuneOptions(lora=True).rate(10**8) == pytest.approx(1e-3)
    assert FinetuneOptions(method="dpo").rate(10**8) == pytest.approx(5e-6)
    assert FinetuneOptions(lr=0.1, method="dpo", lora=True).rate(10**8) == 0.1
    assert FinetuneOptions(data=["wiki-qa"]).replayed == FinetuneOptions(data=["wiki-qa@9", "wiki-qa"]).replayed == 0.5
    for changes in ({"data": ["wiki-qa", "x.json"]}, {"data": ["x.json"]}, {"method": "dpo"}, {"rehearse": 0.0}):
        assert FinetuneOptions(**changes).replayed == 0
    assert FinetuneOptions(data=["x.json"], rehearse=2.0).replayed == 2


def test_replayed_are_articles_that_are_not_held_out() -> None:
    found = set(replay_texts(0.3, 0))
    kept = [document(a) for a in articles() if not is_held_out(a.title, 0.3) and not is_validation(a)]
    assert found == set(kept)
    assert replay_texts(0.3, 0) != replay_texts(0.3, 1) != kept  # shuffled


def test_what_a_base_is_validated_on_is_neither_replayed_nor_asked_about(tmp_path: Path) -> None:
    shards = open_shards(prepare(PrepareOptions(out=str(tmp_path / "shards"), workers=1)))
    held = [article for article in articles() if is_validation(article)]
    validation = shards.manifest.splits["validation"]
    assert PrepareOptions().validation_fraction == TrainOptions().validation_fraction
    assert len(held) == validation.documents
    assert sum(len(document(article).encode()) for article in held) == validation.text_bytes
    assert not {article.title for article in held} & {conversation.group for conversation in wiki_questions()}
    assert not {document(article) for article in held} & set(replay_texts(0.0, 0))
