"""Differences of two models: intervals are SciPy's, and planted differences are found, others not."""

import json

import numpy as np
import pytest
import torch

from gpt3.cli import main as cli
from gpt3.evaluation import Result
from gpt3.evaluation.comparison import compare, holm, resampled, two_sided
from gpt3.evaluation.tasks import TASKS

stats = pytest.importorskip("scipy.stats")


def answers(task, values, metric="acc"):
    return {(task, 0): [Result(place, str(place), {metric: float(value)}) for place, value in enumerate(values)]}


def compared(first, second, task="piqa", metric="acc", groups=None):
    return compare(TASKS, groups or {}, ("a", "b"), (answers(task, first, metric), answers(task, second, metric)))


def draw(count, share, seed):
    return np.random.default_rng(seed).random(count) < share


def test_the_interval_is_scipys():
    first, second = draw(400, 0.5, 0), draw(400, 0.6, 1)
    [found] = compared(first, second).differences
    expected = stats.bootstrap(
        (second.astype(float), first.astype(float)),
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.006)
    assert found.second - found.first == pytest.approx(second.mean() - first.mean())


def test_p_is_close_to_the_exact_sign_tests():
    first = draw(500, 0.5, 3)
    for changed in (8, 20, 45):
        second = first.copy()
        second[np.flatnonzero(~first)[:changed]] = True
        second[np.flatnonzero(first)[:8]] = False
        exact = stats.binomtest(changed, changed + 8).pvalue  # McNemar's, of the discordant pairs
        [found] = compared(first, second).differences
        assert found.p == pytest.approx(exact, abs=0.04)
        assert found.real == (exact < 0.05)


def test_equal_models_rarely_differ():
    """Of 100 pairs of models that are right equally often, about one in twenty has p below 5%."""
    low = sum(compared(draw(300, 0.4, n), draw(300, 0.4, n + 1000)).differences[0].p < 0.05 for n in range(100))
    assert 1 <= low <= 12


def test_the_same_answers_do_not_differ():
    [found] = compared([1, 0, 1, 1], [1, 0, 1, 1]).differences
    assert (found.low, found.high, found.p, found.real) == (0, 0, 1, False)


def test_many_values_are_drawn_in_pieces(monkeypatch):
    from gpt3.evaluation import comparison

    values = np.random.default_rng(0).normal(size=500)
    whole = resampled(values, np.random.default_rng(1), 400)
    monkeypatch.setattr(comparison, "CELLS", 5000)
    assert resampled(values, np.random.default_rng(1), 400) == pytest.approx(whole)
    assert whole.std() == pytest.approx(values.std() / 500**0.5, rel=0.15)
    assert two_sided(np.array([-1.0, 1.0, 2.0, 3.0])) == pytest.approx(2 * 2 / 5)


def test_holms_rule_is_worked_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]  # 0.05 / 4, / 3, then 0.03 > 0.05 / 2
    assert holm([0.04, 0.01]) == [True, True]  # 0.05 / 2, then 0.05
    assert holm([]) == []


def test_perplexities_are_compared_in_nats_and_groups_by_their_tasks():
    values = [[{"acc": 0.0, "nll": n} for n in some] for some in ([2.0, 3.0, 1.0], [1.0, 2.5, 0.5])]
    both = [{("lambada", 0): [Result(n, "", metrics) for n, metrics in enumerate(some)]} for some in values]
    accuracy, nats = compare(TASKS, {}, ("a", "b"), tuple(both)).differences
    assert (accuracy.metric, nats.metric, nats.first, nats.second) == ("acc", "nll", 2.0, pytest.approx(4 / 3))
    pairs = []
    for side in (0.3, 0.6):
        pairs.append(answers("anli_r1", draw(100, side, 5)) | answers("anli_r2", draw(300, side, 6)))
    group = compare(TASKS, {"anli": ("anli_r1", "anli_r2")}, ("a", "b"), tuple(pairs)).differences[-1]
    means = [np.mean([np.mean([r.metrics["acc"] for r in some]) for some in side.values()]) for side in pairs]
    assert (group.name, group.questions, group.real) == ("anli", 400, True)
    assert [group.first, group.second] == pytest.approx(means)


def test_two_models_in_one_command(folder, network, tokenizer, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(4)
    type(network)(network.config).save_pretrained("other")
    tokenizer.save_pretrained("other")
    command = [
        "eval",
        str(folder),
        "other",
        "--tasks",
        "agreement",
        "--shots",
        "0",
        "--limit",
        "12",
        "--dtype",
        "fp32",
    ]
    assert cli.main(command) == 0
    shown = capsys.readouterr()
    assert "first: " in shown.out
    assert "95% interval" in shown.out
    [found] = json.loads((tmp_path / "eval" / "comparison.json").read_text())["comparisons"]
    right = [
        [json.loads(line)["metrics"]["acc"] for line in path.read_text().splitlines()[1:]]
        for path in (tmp_path / "eval" / name / "examples" / "agreement-0.jsonl" for name in ("tiny", "other"))
    ]
    [difference] = found["differences"]
    assert [difference["first"], difference["second"]] == [pytest.approx(np.mean(values)) for values in right]
    assert cli.main(command) == 0  # our own file is replaced
    (tmp_path / "eval" / "comparison.json").write_text("{}")
    assert cli.main(command) == 2
