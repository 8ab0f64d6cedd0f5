"""What a run does by default before its first step: the order of its samples, its rates, the text it replays."""

from __future__ import annotations

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
def test_every_sample_is_trained_once_an_epoch_beside_ones_of_like_length(lengths, batch, seed) -> None:
    def order(epoch: int) -> list[int]:
        sampler = GroupedByLength(lengths, batch, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    found = order(1)
    assert sorted(found) == list(range(len(lengths)))
    assert found == order(1)

    def padded(indices: list[int]) -> int:
        batches = [indices[start : start + batch] for start in range(0, len(indices), batch)]
        return sum(len(one) * max(lengths[n] for n in one) for one in batches)

    best = padded(sorted(range(len(lengths)), key=lengths.__getitem__))
    if len(lengths) <= 64 * batch:  # all in one stretch: no order pads less
        assert padded(found) == best


def test_every_epoch_and_every_seed_has_its_order() -> None:
    lengths = [number % 7 + 1 for number in range(200)]
    orders = set()
    for seed in range(3):
        sampler = GroupedByLength(lengths, 4, seed)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            orders.add(tuple(sampler))
    assert len(orders) == 9


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
