"""On our engine lm-eval's requests have the scores that lm-eval's own transformers model gives them."""

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: the extra eval")

from lm_eval.api.instance import Instance

from gpt3.evaluation.harness import HarnessModel

PAIRS = [
    ("Q: What is 4 plus 7?\n\nA:", " 11"),
    ("Q: What is 4 plus 7?\n\nA:", " 110"),
    ("The sea is ", "blue"),
    ("", "The sky"),
    ("The sea is blue. " * 60, " and the sky is grey."),
]


@pytest.fixture(scope="module")
def both(network, tokenizer, model):
    from lm_eval.models.huggingface import HFLM

    return HarnessModel(model), HFLM(pretrained=network, tokenizer=tokenizer, batch_size=1)


def instances(kind, arguments):
    return [Instance(kind, {}, one, number) for number, one in enumerate(arguments)]


def test_loglikelihoods(both):
    ours, theirs = (model.loglikelihood(instances("loglikelihood", PAIRS), disable_tqdm=True) for model in both)
    assert [score for score, _ in ours] == pytest.approx([score for score, _ in theirs], abs=2e-4)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]


def test_rolling_loglikelihoods(both):
    texts = [("The sea is blue and the sky is grey. " * count,) for count in (1, 40)]
    ours, theirs = (model.loglikelihood_rolling(instances("loglikelihood_rolling", texts), True) for model in both)
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_generation(both):
    asked = [
        ("Q: What is 4 plus 7?\n\nA:", {"until": ["\n"], "max_gen_toks": 12}),
        ("The sea", {"until": [], "max_gen_toks": 9}),
    ]
    ours, theirs = (model.generate_until(instances("generate_until", asked), disable_tqdm=True) for model in both)
    assert ours == theirs


def test_whole_tasks_have_the_same_scores(both, model):
    """A task definition of lm-eval's kind, zero-shot, and ours of the same prompts."""
    from gpt3.evaluation import Item, Split, Task
    from gpt3.evaluation.protocol import Questions, score

    items = [Item(f"Q: What is {n} plus 1?\n\nA:", (f" {n + 1}", f" {n} {n}", " 8")) for n in range(30)]
    task = Task("sums", "", "choice", lambda source: Split(items), 2, normalization="sum")
    results = list(score(model, task, Questions(task, Split(items), 0, seed=0)))
    requests = [(item.context, completion) for item in items for completion in item.completions]
    theirs = both[1].loglikelihood(instances("loglikelihood", requests), disable_tqdm=True)
    for number, result in enumerate(results):
        values = [value for value, _ in theirs[3 * number : 3 * number + 3]]
        assert result.detail["logprobs"] == pytest.approx(values, abs=2e-4)
        assert result.detail["chosen"] == values.index(max(values))
