"""`--style lm-eval` asks as lm-eval's definitions do; with a model and rows at hand, every choice is lm-eval's own."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from gpt3.errors import InputError
from gpt3.evaluation import answer_rows, choice_rows
from gpt3.evaluation.tasks import in_lm_eval_style, select


def test_prompts_are_lm_evals():
    row = {"activity_label": "Roof", "ctx_a": "A man sits.", "ctx_b": "he", "ctx": "A man sits. he", "label": "1"}
    item = choice_rows.lm_eval_hellaswag(row | {"endings": ["falls [step] off.", "smiles. "]})
    assert (item.context, item.completions, item.gold) == ("Roof: A man sits. He", (" falls off.", " smiles."), 1)
    item = choice_rows.lm_eval_piqa({"goal": "dress", "sol1": "in  a hat", "sol2": "so ", "label": 0})
    assert (item.context, item.completions) == ("Question: dress\nAnswer:", (" in  a hat", " so "))
    item = answer_rows.lm_eval_lambada({"text": 'One two "three'})
    assert (item.context, item.completions) == ("One two", (' "three',))


def test_rules_are_lm_evals():
    arc, winogrande = in_lm_eval_style(select(["arc_easy", "winogrande"]))
    assert (arc.normalization, arc.metrics, winogrande.metrics) == ("sum", ("acc", "acc_norm"), ("acc",))
    with pytest.raises(InputError, match="--style lm-eval has no boolq, arithmetic-2d"):
        in_lm_eval_style(select(["piqa", "boolq", "arithmetic-2d+"]))


@pytest.mark.slow
def test_every_choice_is_lm_evals_own(tmp_path):
    """GPT3_AGREEMENT_MODEL: a folder of transformers; GPT3_TASK_DATA: a folder of the tasks' .jsonl.gz files."""
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: the extra eval")
    model, data = os.environ.get("GPT3_AGREEMENT_MODEL"), os.environ.get("GPT3_TASK_DATA")
    if not model or not data:
        pytest.skip("set GPT3_AGREEMENT_MODEL (a model's folder) and GPT3_TASK_DATA (a folder of task files)")
    path = Path(__file__).parents[2] / "benchmarks" / "lm_eval_agreement.py"
    spec = importlib.util.spec_from_file_location("lm_eval_agreement", path)
    module = sys.modules["lm_eval_agreement"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for task in module.TASKS:
        module.prepare(task, Path(data), tmp_path, int(os.environ.get("GPT3_AGREEMENT_ROWS", "300")))
        for line, found in module.speed(model, tmp_path, [task], 1, 8):
            assert found.same == found.rows or max(found.margins) < 1e-3, (line, found)
