"""Minimal pairs, novel words and gender: their scores are those of a plain loop over transformers."""

import json
import math
import re
from collections import Counter

import pytest
import torch

from gpt3.cli import main as cli
from gpt3.evaluation import Source, gender, minimal_pairs, novel_words
from gpt3.evaluation.protocol import Questions, score
from gpt3.evaluation.results import Figure, TaskScore, centred_mean, figures, task_score
from gpt3.evaluation.tasks import GROUPS, TASKS


def logprob(network, tokenizer, context, completion):
    """Log-probability of a completion after a context, or of a text that begins a document."""
    before = tokenizer(context)["input_ids"] if context else [tokenizer.eos_token_id]
    whole = torch.tensor([before + tokenizer(completion)["input_ids"]])
    with torch.no_grad():
        rows = network(whole).logits[0, :-1].log_softmax(-1)
    return float(rows.gather(1, whole[0, 1:, None])[len(before) - 1 :].sum())


def results_of(model, name, limit=None):
    task = TASKS[name]
    asked = Questions(task, task.split(Source()), 0, seed=0, limit=limit)
    return asked, list(score(model, task, asked))


@pytest.mark.parametrize("name", [*GROUPS["grammar"], "novel-words", "gender-neutral", "gender-incompetent"])
def test_log_probabilities_are_a_plain_loops(network, tokenizer, model, name):
    asked, results = results_of(model, name, 12)
    for question, result in zip(asked, results, strict=True):
        values = [logprob(network, tokenizer, question.item.context, option) for option in question.item.completions]
        assert result.detail["logprobs"] == pytest.approx(values, abs=1e-4 * len(values))
        if name == "novel-words":
            values = [
                value - logprob(network, tokenizer, novel_words.ANSWER_CONTEXT, option)
                for value, option in zip(values, question.item.completions, strict=True)
            ]
        if not name.startswith("gender"):
            assert result.metrics["acc"] == float(values.index(max(values)) == question.item.gold)


def test_the_bias_is_the_papers_formula(network, tokenizer, model, monkeypatch):
    assert len(set(gender.OCCUPATIONS)) == len(gender.OCCUPATIONS) >= 100
    monkeypatch.setattr(gender, "OCCUPATIONS", gender.OCCUPATIONS[::6])
    _, results = results_of(model, "gender-competent")
    ratios = []
    for occupation in gender.OCCUPATIONS:
        context = f"The competent {occupation} was a"
        man, male, woman, female = (math.exp(logprob(network, tokenizer, context, word)) for word in gender.WORDS)
        ratios.append(math.log((woman + female) / (man + male)))
    found = figures(TASKS["gender-competent"], results)
    assert found["log_ratio"].value == pytest.approx(sum(ratios) / len(ratios), abs=1e-4)
    assert found["male"].value == sum(ratio < 0 for ratio in ratios) / len(ratios)
    assert task_score(TASKS["gender-competent"], 0, results).shown == ("male", "log_ratio")


def test_pairs_differ_in_one_word_and_words_alone_tell_little():
    for name in GROUPS["grammar"]:
        items = TASKS[name].split(Source(seed=3)).test
        assert len({item.completions for item in items}) == minimal_pairs.PAIRS
        balance = Counter()
        for item in items:
            bad, good = (sentence.split() for sentence in item.completions)
            assert len(bad) == len(good)
            [(wrong, right)] = [pair for pair in zip(bad, good, strict=True) if pair[0] != pair[1]]
            balance[right] += 1
            balance[wrong] -= 1
        words = sum(map(abs, balance.values())) / len(items)
        assert words < 0.4, (name, words)  # 2 if each word were always right or always wrong


def test_the_right_sentences_are_right():
    """By rules written again: plural nouns end in s or -ies, and a verb after the head agrees with it."""
    plural = {words[1] for words in minimal_pairs.PEOPLE + minimal_pairs.THINGS}
    verbs = {one: n for words in (*minimal_pairs.BE, *minimal_pairs.DO) for n, one in enumerate(words)}
    for name in ("agreement", "agreement-distant"):
        for item in TASKS[name].split(Source()).test:
            words = item.completions[1].rstrip(".").split()
            rest = " ".join(words[2:])
            found = [n for verb, n in verbs.items() if re.search(rf"(^|.* ){verb}( |$)", rest)]
            assert (words[1] in plural) == (found[-1] == 1), item.completions


def test_a_tie_counts_as_wrong(model):
    item = minimal_pairs.item_of("The sea is blue.", "The sea are blue.")
    assert (item.completions, item.gold) == (("The sea are blue.", "The sea is blue."), 1)
    with pytest.raises(ValueError, match="two different sentences"):
        minimal_pairs.item_of("The sea.", "The sea.")


def test_blimps_rows_and_your_own(tmp_path):
    row = {"sentence_good": "Who saw it?", "sentence_bad": "It saw who?", "UID": "adjunct_island", "pair_id": "7"}
    rows = [row, {**row, "UID": "causative"}, {"good": "The sea is.", "bad": "The sea are."}]
    for name, some in (("blimp", rows[:2]), ("pairs", rows)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in some))
    source = Source(str(tmp_path))
    [item] = TASKS["blimp_adjunct_island"].split(source).test
    assert (item.completions, item.gold, item.id) == (("It saw who?", "Who saw it?"), 1, "7")
    assert len(TASKS["pairs"].split(source).test) == 3
    assert len(GROUPS["blimp"]) == 67


def test_a_centred_mean_is_zero_for_guessing():
    def entry(value, chance):
        return TaskScore("t", 0, 9, chance, "acc", {"acc": Figure(value, 0.03)})

    assert centred_mean([entry(0.5, 0.5), entry(0.25, 0.25)]) == Figure(0, pytest.approx(0.03 * 52**0.5 / 6))
    assert centred_mean([entry(0.75, 0.5), entry(1, 0.25)]).value == pytest.approx(0.75)


def test_the_report_card_of_small_models(folder, tmp_path, capsys):
    command = ["eval", "--model", str(folder), "--tasks", "small,gender,grammar", "--limit", "5", "--dtype", "fp32"]
    assert cli.main([*command, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^small \(6 tasks\) +0 +30 +acc ", shown, flags=re.M)
    assert shown.count("  centred mean ") == 3  # of 0 and of K examples, and over the report card
    assert shown.count("grammar (4 tasks)") == 1
    assert re.search(r"^gender-neutral +0 +5 +male ", shown, flags=re.M)
    assert re.search(r" log_ratio +-?\d", shown)
    assert not re.search(r"^(agreement|gender-neutral) +1 ", shown, flags=re.M)  # pairs have nothing before them
    assert re.search(rf"^→ {folder.name} \(30 of [\d,]+ questions\) +[\d,]+ +-?\d+\.\d ", shown, flags=re.M)
    assert f"→ {folder.name}" in (tmp_path / "report.html").read_text(encoding="utf-8")
    rows = json.loads((tmp_path / "results.json").read_text())["results"]
    [group] = [row for row in rows if row.get("group") == "small" and row["shots"] == 0]
    tasks = [row for row in rows if row.get("task") in GROUPS["small"] and row["shots"] == 0]
    values = [(row["metrics"]["acc"]["value"] - row["chance"]) / (1 - row["chance"]) for row in tasks]
    assert group["metrics"]["centred"]["value"] == pytest.approx(sum(values) / 6)
