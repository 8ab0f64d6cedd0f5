"""On our engine lm-eval's requests have the scores that lm-eval's own transformers model gives them."""

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: the extra eval")

from lm_eval.api.instance import Instance

from gpt3.errors import InputError
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
    context = both[0].model.engine.context
    one = "The sea is blue and the sky is grey. "
    texts = [(one * count,) for count in (1, 40)]
    ids = both[0].model.encode_word(one * context)
    decode = both[0].model.tokenizer.decode
    texts += [(decode(ids[:length]),) for length in (context - 1, context, context + 1, 2 * context, 2 * context + 1)]
    ours, theirs = (model.loglikelihood_rolling(instances("loglikelihood_rolling", texts), True) for model in both)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert both[0].loglikelihood_rolling(instances("loglikelihood_rolling", [("",)])) == [0.0]


def test_generation(both):
    asked = [
        ("Q: What is 4 plus 7?\n\nA:", {"until": ["\n"], "max_gen_toks": 12}),
        ("The sea", {"until": [], "max_gen_toks": 9}),
        ("The sea is blue. " * 60, {"until": ["zz"], "max_gen_toks": 9}),  # longer than the context
        ("The sea", {"max_new_tokens": 9, "do_sample": True, "temperature": 0.9, "top_k": 1}),
        ("The sky", {"until": "zz", "max_gen_toks": 9, "temperature": 0.9, "top_p": 1e-6}),
        (
            "The sea is blue, the",
            {"until": [], "max_gen_toks": 9, "repetition_penalty": 1.9, "no_repeat_ngram_size": 2},
        ),
    ]
    ours, theirs = (model.generate_until(instances("generate_until", asked), disable_tqdm=True) for model in both)
    assert ours == theirs


def test_repeats_of_a_sampled_answer_differ_and_lm_evals_seed_repeats_them(both):
    import torch
    from transformers import GenerationConfig

    asked = [("The sea", {"until": [], "max_gen_toks": 12, "do_sample": True, "temperature": 1.0})] * 4
    answers = []
    for _ in range(2):
        torch.manual_seed(1234)
        answers.append(both[0].generate_until(instances("generate_until", asked)))
    assert answers[0] == answers[1]
    assert len(set(answers[0])) > 1
    found = HarnessModel._choosing(asked[0][1])
    assert found["top_k"] == GenerationConfig._get_default_generation_params()["top_k"]


def test_an_answer_that_leaves_no_space_for_its_prompt_is_refused(both):
    asked = [("The sea", {"until": [], "max_gen_toks": both[0].model.engine.context})]
    with pytest.raises(InputError, match="leaves no space for a prompt"):
        both[0].generate_until(instances("generate_until", asked))


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
