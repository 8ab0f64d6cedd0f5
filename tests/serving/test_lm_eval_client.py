"""lm-eval's `local-completions` scores and generates over HTTP what it does with the model in its own process (-m slow)."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("lm_eval", reason="lm-eval is not installed: the extra eval")
pytest.importorskip("tenacity", reason="lm-eval's clients are not installed: pip install 'lm-eval[api]'")

CHOICE = """task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
doc_to_choice: choices
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
LAST_WORD = """task: last_word
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
output_type: loglikelihood
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[answer]}}}}"
metric_list: [{{metric: perplexity}}, {{metric: acc}}]
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, language_model, tokenizer) -> Path:
    """60 questions; the right answers of half of them are what the model says, so that scores are neither 0 nor 1."""
    folder = tmp_path_factory.mktemp("tasks")
    chance = random.Random(1)
    lines = []
    for _ in range(60):
        a, b = chance.randint(10, 99), chance.randint(10, 99)
        question = f"Q: What is {a} plus {b}?\nA:"
        said = language_model.complete(question, max_new_tokens=1, temperature=0)[0].text
        choices = [f" {a + b}", f" {a * b}", said if said.strip() else " 7"]
        lines.append({"question": question, "choices": choices, "answer": chance.choice([0, 2])})
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, text in (("sums", CHOICE), ("last_word", LAST_WORD)):
        (folder / f"{name}.yaml").write_text(text.format(data=folder / "data.jsonl"))
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder


def test_tasks_have_the_same_scores_over_http(live, language_model, tasks: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from gpt3.evaluation.harness import HarnessModel

    how = {"tasks": ["sums", "last_word"], "task_manager": TaskManager(include_path=str(tasks), include_defaults=False)}
    how |= {"bootstrap_iters": 0, "log_samples": True}
    arguments = {
        "base_url": live.url + "/v1/completions",
        "model": "tiny",
        "tokenizer": str(tasks / "tokenizer"),
        "tokenizer_backend": "huggingface",
        "batch_size": 4,
        "num_concurrent": 3,
    }
    served = simple_evaluate("local-completions", model_args=arguments, **how)
    inside = simple_evaluate(HarnessModel(language_model), **how)
    for task in how["tasks"]:
        for name, value in inside["results"][task].items():
            if isinstance(value, float):
                assert served["results"][task][name] == pytest.approx(value, rel=1e-5), (task, name)
        for here, there in zip(inside["samples"][task], served["samples"][task], strict=True):
            scores = [[float(score) for (score, _), *_ in one["resps"]] for one in (here, there)]
            assert scores[1] == pytest.approx(scores[0], abs=2e-4)
            assert [greedy for (_, greedy), *_ in here["resps"]] == [greedy for (_, greedy), *_ in there["resps"]]
    print(
        {task: inside["results"][task] for task in how["tasks"]},
        {task: served["results"][task] for task in how["tasks"]},
    )
