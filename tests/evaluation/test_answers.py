"""Written answers are scored as each data set's own scorer scores them; figures of the whole follow their definitions."""

import random

import pytest

from gpt3.evaluation import Item, Result, answers


def item(*accepted, **more):
    return Item("Q:", tuple(f" {one}" for one in accepted), **more)


@pytest.mark.parametrize(
    ("measure", "answer", "asked", "exact", "f1"),
    [
        ("squad", "the Rome", item("Paris", "rome!"), 1, 1),
        ("squad2", "Unanswerable.", item("unanswerable"), 1, 1),
        ("squad2", "", item("unanswerable"), 1, 1),
        ("squad2", "Rome", item("unanswerable"), 0, 0),
        ("squad2", "unanswerable", item("Rome"), 0, 0),
        # of three people two say Rome: left out once each, so that it is right in all three rounds; Paris in two of three
        ("coqa", "Rome", item("Rome", "Rome", "Paris"), 1, 1),
        ("coqa", "Paris", item("Rome", "Rome", "Paris"), 2 / 3, 2 / 3),
        ("coqa", "Rome", item("Rome"), 1, 1),
        ("quac", "CANNOTANSWER", item("CANNOTANSWER", "Rome"), 1, 1),
        ("quac", "Rome", item("CANNOTANSWER", "Rome"), 0, 0),
        ("quac", "Rome", item("CANNOTANSWER", "Rome", "Rome"), 1, 1),
        ("record", "Rome", item("x", names=("Bo", "Rome", "the Rome"), right=(1, 2)), 1, 1),
        ("record", "Bo", item("x", names=("Bo", "Rome"), right=(1,)), 0, 0),
        # DROP's own scorer: numbers by value, dashes part words, no F1 where the number is missing
        ("drop", "1,000 men", item("x", spans=(("1000.0",),)), 0, 2 / 3),
        ("drop", "3", item("x", spans=(("three",), ("3.0",))), 1, 1),
        ("drop", "4 yards", item("x", spans=(("3 yards",),)), 0, 0),
        ("drop", "twenty-one", item("x", spans=(("the twenty one",),)), 1, 1),
        ("drop", "Bo", item("x", spans=(("Al", "Bo"),)), 0, 0.5),
    ],
)
def test_each_scorers_own_rule(measure, answer, asked, exact, f1):
    found = getattr(answers, measure)(answer, asked)
    assert found == pytest.approx({"acc": exact, "f1": f1}, abs=0.005)


@pytest.mark.parametrize(
    ("answer", "right", "acc"),
    [("The old man", (0,), 1), ("man", (0,), 1), ("Bo", (0,), 0), ("Bo", (), 1), ("man", (), 0), ("", (0,), 0)],
)
def test_wsc_is_right_where_the_noun_is_said_or_rightly_is_not(answer, right, acc):
    assert answers.wsc(answer, item("old man", right=right)) == {"acc": acc}


def test_drops_rule_is_lm_evals():
    theirs = pytest.importorskip("lm_eval.tasks.drop.utils")
    draw = random.Random(0)
    words = ["the", "3", "3.0", "1,000", "1000", "twenty-one", "yards,", "New-York", "a", "-", "may", "5th"]
    for _ in range(300):
        said, *right = (" ".join(draw.choices(words, k=draw.randint(1, 3))) for _ in range(draw.randint(2, 4)))
        exact, score = theirs.get_metrics([said], right)
        assert answers.drop(said, item("x", spans=(tuple(right),))) == pytest.approx({"acc": exact, "f1": score})


def results(rows):
    return [
        Result(n, name, {}, detail={"chosen": chosen, "right": right}) for n, (name, chosen, right) in enumerate(rows)
    ]


def test_multirc_counts_whole_questions_and_all_answers():
    found = results([("0-0-0", 0, 0), ("0-0-1", 1, 1), ("0-1-0", 0, 1), ("0-1-1", 0, 0), ("1-0-0", 1, 0)])
    assert answers.multirc_acc(found) == pytest.approx((1 / 3, (1 / 3 * 2 / 3 / 2) ** 0.5))
    value, error = answers.multirc_f1a(found)
    assert value == pytest.approx(2 * (2 / 3) ** 2 / (4 / 3))  # 2 of 3 said true are, 2 of 3 true are said
    assert 0 < error < 0.6


def test_macro_f1_weighs_classes_alike():
    value, _ = answers.macro_f1(results([("", 0, 0)] * 8 + [("", 0, 1)] * 2))
    assert value == pytest.approx((2 * 8 / (10 + 8) + 0) / 2)


def test_bleu_is_sacrebleus_with_a_bootstrapped_error():
    metrics = pytest.importorskip("sacrebleu.metrics")
    draw = random.Random(0)
    words = ["sea", "sky", "red,", "blue", "the", "a", "is", "was", "(in)", "at", "once", "«for»", "l’eau", "3.5%"]
    golds = [" ".join(draw.choices(words, k=draw.randint(1, 14))) for _ in range(80)]
    said = [" ".join(word for word in gold.split() if draw.random() < 0.85) for gold in golds]
    made = [Result(n, "", {}, answer=one, gold=gold) for n, (one, gold) in enumerate(zip(said, golds, strict=True))]
    metric = metrics.BLEU(tokenize="intl")
    value, error = answers.bleu(made)
    assert 100 * value == pytest.approx(metric.corpus_score(said, [golds]).score)
    assert metric.get_signature().format(short=True).startswith("#:1|c:mixed|e:no|tok:intl|s:exp")
    theirs = metrics.BLEU(tokenize="intl", references=[golds]).corpus_score(said, None, n_bootstrap=1000)
    assert 100 * error == pytest.approx(theirs._ci / 1.96, rel=0.15)
