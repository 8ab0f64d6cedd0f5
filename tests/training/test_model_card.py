"""The card of a trained model: what a reader wants to know before using the weights."""

from __future__ import annotations

from types import SimpleNamespace

from gpt3.training.run_folder import loss_curve, losses_of, score_table, source_table

SCORE = SimpleNamespace(loss=3.0, perplexity=20.0855, bits_per_byte=1.1, loss_low=2.9, loss_high=3.1)


def test_the_curve_is_the_means_of_equal_parts():
    losses = losses_of(
        [{"tokens": 100 * i, "loss": 8 - i / 10} for i in range(1, 51)] + [{"tokens": 5100, "loss": None}]
    )
    assert len(losses) == 50
    text = loss_curve(losses)
    assert "| tokens seen | 500 | 1,000 | 1,500 |" in text
    assert "| mean loss up to there | 7.700 | 7.200 |" in text
    assert loss_curve([]) == ""


def test_scores_and_sources_are_tables():
    text = score_table({"": SCORE, "books": SCORE})
    assert "| held-out documents | 3.0000 | 2.9000 to 3.1000 | 20.09 | 1.1000 |" in text
    assert "| books |" in text
    rows = [{"name": "wiki", "share": 0.25, "epochs": 1.5, "tokens": 1000, "documents": 7, "licence": "CC BY-SA 4.0"}]
    assert "| wiki | 25.0% | 1.50 | 1,000 | 7 | CC BY-SA 4.0 |" in source_table(rows)
    assert "not recorded" in source_table([rows[0] | {"licence": None}])
