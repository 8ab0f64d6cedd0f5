"""Novel words and grammar correction (3.9.5, 3.9.6): scores are a plain loop's, and what is shown follows from the JSON alone."""

import json
import re

import pytest
import torch
from scipy.stats import binomtest

from gpt3.evaluation.grammar_correction import ANSWER_CONTEXT, PAIRS
from gpt3.evaluation.novel_words import ACTIONS, THINGS
from gpt3.paper import grammar, novel_words
from gpt3.paper.experiment import Work
from gpt3.paper.models import models
from gpt3.paper.page import section
from gpt3.paper.proportion import interval


def logprob(folder, context, completion):
    """Of a completion after a context, by transformers."""
    from gpt3.model_folder.load import load_transformers

    network, tokenizer = load_transformers(folder, dtype="fp32")
    before = tokenizer(context)["input_ids"]
    ids = torch.tensor([before + tokenizer(completion)["input_ids"]])
    with torch.no_grad():
        rows = network(ids).logits[0, :-1].log_softmax(-1)
    return float(rows.gather(1, ids[0, 1:, None])[len(before) - 1 :].sum())


@pytest.fixture(scope="module")
def measured(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    asked = models([str(tiny)], {})
    found = {
        module: module.measure(Work(folder / module.EXPERIMENT.figure, asked, limit=5))
        for module in (novel_words, grammar)
    }
    assert json.loads(json.dumps(list(found.values()))) == list(found.values())
    return found


def test_corrections_are_scored_as_a_plain_loop_does(measured, tiny):
    contrast, _ = measured[grammar]["models"][0]["contrast"]
    good = {f"{kind}: {poor}": (poor, right) for kind, poor, right in PAIRS}
    sentences = [good[result["id"]] for result in contrast["results"]]
    rows = [row for row in measured[grammar]["models"][0]["corrections"] if row["shots"] == contrast["shots"]]
    assert contrast["shots"] == 1
    assert [(row["poor"], row["good"]) for row in rows] == sentences
    for result, row in list(zip(contrast["results"], rows, strict=True))[:3]:
        assert row["prompt"].count(ANSWER_CONTEXT) == 2
        assert row["prompt"].endswith(f"Poor English input: {row['poor']}\n{ANSWER_CONTEXT}")
        values = [
            [logprob(tiny, context, f" {row[key]}") for context in (row["prompt"], ANSWER_CONTEXT)]
            for key in ("good", "poor")
        ]
        right = result["detail"]["right"]
        shown = [result["detail"]["logprobs"][right], result["detail"]["logprobs"][1 - right]]
        assert shown == pytest.approx([value for value, _ in values], abs=1e-4 * 100)
        assert result["metrics"]["acc"] == float(values[0][0] - values[0][1] > values[1][0] - values[1][1])
        assert result["metrics"]["acc_sum"] == float(values[0][0] > values[1][0])


def test_greedy_sentences_are_transformers_own(measured, tiny):
    from gpt3.model_folder.load import load_transformers

    network, tokenizer = load_transformers(tiny, dtype="fp32")
    rows = [
        row for row in measured[novel_words]["models"][0]["sentences"] if (row["shots"], row["way"]) == (1, "greedy")
    ]
    for row in rows[:2]:
        ids = tokenizer(row["prompt"], return_tensors="pt")["input_ids"]
        made = network.generate(ids, max_new_tokens=novel_words.MOST_TOKENS, do_sample=False)[0, ids.shape[1] :]
        lines = tokenizer.decode(made, skip_special_tokens=True).splitlines()
        assert row["texts"] == [next((line.strip() for line in lines if line.strip()), "")]


def test_prompts_are_the_papers_form(measured):
    defined = {word: sentence.format(w=word) for word, _, sentence in (*THINGS, *ACTIONS)}
    for row in measured[novel_words]["models"][0]["sentences"]:
        *examples, last = row["prompt"].rstrip("\n").split("\n\n")
        assert len(examples) == row["shots"]
        for example in examples:
            word, sentence = re.fullmatch(r".* uses the word (\w+) is:\n(.*)", example).groups()
            assert sentence == defined[word]
            assert word != row["word"]
        assert last.endswith(f"An example of a sentence that uses the word {row['word']} is:")
    assert {len(row["texts"]) for row in measured[novel_words]["models"][0]["sentences"]} == {1, novel_words.SAMPLES}


@pytest.mark.parametrize(
    ("text", "word", "used"),
    [
        ("We saw two blicks in a tree.", "blick", True),
        ('"A BLICK!" he said.', "blick", True),
        ("He cravitted all day.", "cravit", True),
        ("Wuzzling is hard work!", "wuzzle", True),
        ("They wuzzled.", "wuzzle", True),
        ("We saw a blick in", "blick", False),  # no end
        ("We saw a tree. The blick slept.", "blick", False),  # another sentence
        ("A blickish thing.", "blick", False),
        ("", "blick", False),
    ],
)
def test_a_sentence_uses_its_word(text, word, used):
    assert novel_words.uses(text, word) is used


def test_verdicts():
    row = {"good": "He goes.", "poor": "He go."}
    texts = ("He goes.", "He go.", "He goes")
    assert [grammar.verdict(row | {"text": text}) for text in texts] == list(grammar.VERDICTS)


@pytest.mark.parametrize(("right", "count"), [(0, 5), (3, 24), (24, 24), (137, 250)])
def test_intervals_are_scipys(right, count):
    low, high = binomtest(right, count).proportion_ci(method="wilson")
    assert interval(right, count) == pytest.approx((low, high), abs=1e-6)


def test_what_is_shown_follows_from_the_json(measured):
    for module, made in measured.items():
        made["models"][0]["name"] = "<b>tiny</b>"
        [table] = module.draw(made).tables
        row = dict(zip(*table.rows, strict=True))
        for contrast in made["models"][0]["contrast"]:
            values = [result["detail"]["chosen"] == result["detail"]["right"] for result in contrast["results"]]
            assert row[f"contrast, K={contrast['shots']}"].startswith(f"{100 * sum(values) / len(values):.0f}% (")
        html = section(module.draw(made))
        assert "<b>tiny" not in html
        assert "<details>" in html
    row = dict(zip(*grammar.draw(measured[grammar]).tables[0].rows, strict=True))
    some = [one for one in measured[grammar]["models"][0]["corrections"] if one["shots"] == 5]
    assert row["corrected, K=5"] == f"{sum(one['text'] == one['good'] for one in some)} of 5"


def test_two_sizes_are_drawn(measured):
    one = measured[grammar]["models"][0]
    two = {"models": [one, one | {"layer_parameters": 4 * one["layer_parameters"]}]}
    [chart] = grammar.draw(two).charts
    values = [result["metrics"]["acc"] for result in one["contrast"][1]["results"]]
    assert [y for _, y, _ in chart.legend[1].points] == [pytest.approx(100 * sum(values) / 5)] * 2
    assert grammar.draw({"models": [one]}).charts == []


def test_the_sentences_to_correct():
    assert len(PAIRS) >= 40
    assert len({poor for _, poor, _ in PAIRS} | {good for _, _, good in PAIRS}) == 2 * len(PAIRS)
    assert len({kind for kind, _, _ in PAIRS}) >= 8
