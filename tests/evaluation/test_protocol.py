"""Demonstrations are drawn as section 2.4 says, and scores follow their definitions."""

import math

import pytest
import torch

from gpt3.errors import InputError
from gpt3.evaluation import Item, Source, Split, Task
from gpt3.evaluation.answers import exact_match, f1
from gpt3.evaluation.protocol import Question, Questions, encode_pair, judge_choice, score, with_room
from gpt3.evaluation.results import Figure, TaskScore, figures, group_score, mean, paper_values, table
from gpt3.evaluation.runner import fit
from gpt3.evaluation.tasks import TASKS, select
from gpt3.inference.language_model import LanguageModel

ITEMS = [Item(f"Q: What is {n}?\n\nA:", (f" {n + 1}", f" {n} {n}"), gold=0, id=str(n)) for n in range(12)]


def task(kind="choice", **more):
    return Task("t", "", kind, lambda source: Split(ITEMS), 2, **more)


def reference(model, context, completion):
    """Log-probability of each token of a completion, by one forward of the network, without cache or engine."""
    before, answer = encode_pair(model, context, completion)
    with torch.no_grad():
        logits = model.engine.model(torch.tensor([before + answer])).logits[0].double()
    rows = logits.log_softmax(-1)[len(before) - 1 : -1]
    return [float(row[token]) for row, token in zip(rows, answer, strict=True)]


def test_no_question_sees_itself_and_each_has_its_own_draw():
    asked = list(Questions(task(), Split(ITEMS), 3, seed=0))
    for question in asked:
        assert question.before.count("Q:") == 3
        assert question.item.context not in question.before
    assert len({question.before for question in asked}) > 6
    assert asked[:4] == list(Questions(task(), Split(ITEMS), 3, seed=0, limit=4))
    assert asked != list(Questions(task(), Split(ITEMS), 3, seed=1))


def test_demonstrations_come_from_their_split():
    shots = [Item("Q: s?\n\nA:", (" yes",))]
    [question] = Questions(task(), Split(ITEMS[:1], shots, instruction="Say.\n"), 1, seed=0)
    assert question.context == "Say.\nQ: s?\n\nA: yes\n\nQ: What is 0?\n\nA:"
    with pytest.raises(InputError, match="exceeds the 1 example to draw from"):
        Questions(task(), Split(ITEMS, shots), 2, seed=0)


def test_a_space_at_the_end_of_a_context_belongs_to_the_answer(model):
    assert encode_pair(model, "The sea ", "is") == encode_pair(model, "The sea", " is")


@pytest.mark.parametrize("normalization", ["sum", "token", "unconditional"])
def test_choices_follow_their_normalisation(model, normalization):
    asked = Questions(task(), Split(ITEMS), 2, seed=0)
    results = list(score(model, task(normalization=normalization, answer_context="A:"), asked))
    for question, result in zip(asked, results, strict=True):
        values = []
        for completion in question.item.completions:
            logprobs = reference(model, question.context, completion)
            value = {
                "sum": sum(logprobs),
                "token": sum(logprobs) / len(logprobs),
                "unconditional": sum(logprobs) - sum(reference(model, "A:", completion)),
            }[normalization]
            values.append(value)
        assert result.metrics["acc"] == float(values.index(max(values)) == 0)


class Prefers:
    """An engine of known probabilities: after anything, each byte-level token has the weight that `weights` gives its id."""

    def __new__(cls, network, weights):
        from gpt3.inference.torch_engine import ReferenceEngine

        engine = ReferenceEngine(network)
        row = torch.tensor([weights.get(token, 1e-6) for token in range(engine.vocabulary)]).log()

        def _forward(cache, runs):
            return row.expand(sum(run.logits for run in runs), -1)

        engine._forward = _forward
        engine.look_ahead = lambda cache, texts, spare: row.expand(sum(len(tokens) for _, tokens in texts), -1)
        return engine


def test_each_rule_has_its_own_winner_on_a_model_of_known_probabilities(network, tokenizer):
    """Options of 1, 3 and 2 tokens; sums, means per token, byte and character worked out by hand."""
    plain = LanguageModel(network, tokenizer)
    options = (" q", " wxz", " \u00e9v")
    ids = [plain.encode_word(option) for option in options]
    used = {token for option in ids for token in option}
    weights = {token: 0.02 * (1 + place) for place, token in enumerate(sorted(used))}
    model = LanguageModel(network, tokenizer, Prefers(network, weights))
    total = sum(weights.values()) + 1e-6 * (model.engine.vocabulary - len(weights))
    sums = [sum(math.log(weights[token] / total) for token in option) for option in ids]
    expected = {
        "sum": sums,
        "token": [value / len(option) for value, option in zip(sums, ids, strict=True)],
        "byte": [value / size for value, size in zip(sums, (1, 3, 3), strict=True)],  # é is two bytes
        "char": [value / size for value, size in zip(sums, (1, 3, 2), strict=True)],
    }
    [question] = Questions(task(), Split([Item("The sea", options)]), 0, seed=0)
    for gold in range(3):
        asked = [Question(0, Item("The sea", options, gold), "")]
        [result] = score(model, task(normalization="sum"), asked)
        assert result.detail["logprobs"] == pytest.approx(sums, abs=1e-4)
        for rule, values in expected.items():
            assert result.metrics[f"acc_{rule}"] == float(values.index(max(values)) == gold), rule
    # after nothing but "Answer:" these probabilities are the same: the ratio is 1 for all, and the first is taken
    unconditional = task(normalization="unconditional", answer_context="Answer:")
    [result] = score(model, unconditional, [question])
    assert result.metrics["acc_unconditional"] == 1


@pytest.mark.parametrize(
    ("rule", "totals", "lengths", "winner"),
    [
        ("sum", (-2.0, -4.5), (1, 5), 0),
        ("token", (-2.0, -4.5), (2, 5), 1),  # -1 and -0.9; of one token more it would be -0.67 and -0.75
        ("char", (-2.0, -4.5), (1, 1), 1),  # the same of 2 and 5 characters, the space before them not counted
        ("byte", (-3.0, -4.6), (1, 1), 1),  # -1 and -0.92 of 3 and 5 bytes, -0.75 and -0.77 of 4 and 6
        ("char", (-2.1, -4.5), (2, 5), 1),  # é is one character, -1.05 and -0.9, and two bytes, -0.7 and -0.9
        ("byte", (-2.1, -4.5), (2, 5), 0),
    ],
)
def test_each_rule_divides_by_what_it_says(rule, totals, lengths, winner):
    options = (" é1", " 12345")
    for gold in range(2):
        question = Question(0, Item("The sea", options, gold), "")
        result = judge_choice(task(normalization="sum"), question, totals, lengths)
        assert result.metrics[f"acc_{rule}"] == float(gold == winner)


def test_partial_scoring_compares_the_same_ending(model):
    contexts = ("The sea is blue and the sea", "The sea is blue and the sky")
    item = Item(contexts[1], (" is grey.",) * 2, 1, contexts)
    [result] = score(model, task(normalization="token"), Questions(task(), Split([item]), 0, seed=0))
    values = [sum(reference(model, context, " is grey.")) for context in contexts]
    assert result.detail["logprobs"] == pytest.approx(values, abs=1e-4)
    assert result.metrics["acc"] == float(values[1] > values[0])


def test_words_are_judged_whole_and_perplexity_is_theirs(model):
    asked = Questions(task("word"), Split(ITEMS), 0, seed=0)
    results = list(score(model, task("word"), asked))
    nats = [-sum(reference(model, question.context, question.item.completions[0])) for question in asked]
    assert [result.metrics["nll"] for result in results] == pytest.approx(nats, abs=1e-4)
    assert figures(task("word"), results)["ppl"].value == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-4)


PARTIAL = [Item(f"The {n} is {n}1", (" and 124.",) * 2, 0, (f"The {n} is {n}1", f"The {n} is 7 3")) for n in range(12)]
UNCONDITIONAL = {"normalization": "unconditional", "answer_context": "A:"}


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize(
    ("kind", "items"), [("greedy", ITEMS), ("choice", ITEMS), ("choice", PARTIAL), ("word", ITEMS)]
)
def test_the_batch_changes_no_score(network, tokenizer, model, kind, shots, items):
    """Nor does it where a killed evaluation went on."""
    from gpt3.inference.language_model import make_engine

    fast = LanguageModel(network, tokenizer, make_engine(network, "fp32"))
    scored = task(kind, **(UNCONDITIONAL if kind == "choice" and items is ITEMS else {}))
    asked = Questions(scored, Split(items, items[:3], instruction="The sea is blue. " * 8), shots, seed=0)
    one, five = (list(score(fast, scored, asked, batch=batch)) for batch in (1, 5))
    assert one == five
    assert list(score(fast, scored, asked[7:], batch=5)) == one[7:]
    slow = list(score(model, scored, asked, batch=3))
    assert [result.answer for result in slow] == [result.answer for result in one]


def test_greedy_answers_are_transformers_own(network, tokenizer, model):
    asked = Questions(task("greedy"), Split(ITEMS), 1, seed=0)
    for question, result in zip(asked, score(model, task("greedy"), asked), strict=True):
        ids = torch.tensor([model.encode_prompt(question.context)])
        made = network.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)
        text = tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
        assert result.answer == text.split("\n")[0].strip()


def test_too_many_demonstrations_say_how_many_fit(model):
    asked = Questions(task("greedy", max_new_tokens=450), Split(ITEMS), 11, seed=0)
    with pytest.raises(InputError, match=r"the model's 512 positions. About \d+ fit"):
        fit(model, [asked])


def test_a_long_context_loses_its_oldest_tokens_and_an_answer_is_never_cut(model):
    long = Item("The sea is blue. " * 200 + "The sky", (" is grey",))
    [result] = score(model, task("word"), Questions(task(), Split([long]), 0, seed=0))
    assert result.dropped > 0
    too_long = Item("The", (" 1 7 3 9 5" * 100,))
    with pytest.raises(InputError, match=r"an answer of \d+ tokens exceeds the model's 512 positions"):
        list(score(model, task("word"), Questions(task(), Split([too_long]), 0, seed=0)))


def test_squads_measures():
    assert exact_match("The  Beatles!", "beatles") == 1
    assert exact_match("Beatles", "Stones") == 0
    assert f1("the cat sat", "a cat ran away") == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert f1("", "") == 1


def test_standard_errors_are_of_the_mean():
    figure = mean([1.0, 0.0, 0.0, 1.0, 1.0])
    assert figure.value == 0.6
    assert figure.error == pytest.approx(math.sqrt(0.6 * 0.4 / 4))
    assert mean([1.0]).error == 0


def test_the_papers_figures_stand_beside_ours():
    assert paper_values(TASKS["arithmetic-2d+"], 0, "acc")["175B"] == 76.9
    assert paper_values(TASKS["hellaswag"], 20, "acc")["Small"] == 33.5
    assert paper_values(TASKS["lambada"], 1, "ppl")["175B"] == 3.35
    assert paper_values(TASKS["hellaswag"], 7, "acc") is None
    named = [task for task in TASKS.values() if task.paper]
    assert all(paper_values(task, 0, task.metrics[0]) for task in named)


def test_a_groups_means_are_told_apart_where_its_tasks_are_of_different_sizes():
    def entry(values):
        return TaskScore("t", 5, len(values), 0, "acc", {"acc": Figure(sum(values) / len(values), 0.1)})

    group = group_score("mmlu", 5, [entry([1.0]), entry([0.0, 0.0, 1.0])])
    lines = table([group]).splitlines()[2:]
    assert "acc, mean of tasks  66.67 ± 7.07" in lines[0]
    assert "acc, all questions  50.00 ± 7.91" in lines[1]
    [line] = table([group_score("race", 5, [entry([1.0]), entry([0.0])])]).splitlines()[2:]
    assert line.split()[-4:] == ["acc", "50.00", "±", "7.07"]


def test_unknown_tasks_name_their_neighbours():
    with pytest.raises(InputError, match="no task helaswag; did you mean hellaswag"):
        select(["helaswag"])
    assert len(select(["arithmetic", "arithmetic-2d+", "mmlu"])) == 67


@pytest.mark.parametrize("name", ["reversed-words", "arithmetic-5d+"])
def test_bytes_have_room_for_the_longest_answer(network, name):
    from gpt3.tokenizer.train import train_tokenizer

    model = LanguageModel(network, train_tokenizer(["a"], 257))
    [asked] = select([name])
    split = asked.split(Source())
    room = with_room(model, asked, split).max_new_tokens
    longest = max(len(text) for item in split.test for text in item.completions)
    assert room == max(asked.max_new_tokens, longest + 1)
