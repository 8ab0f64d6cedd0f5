"""`--style lm-eval` asks as lm-eval's own definitions do; with a model and rows at hand, every choice is lm-eval's own."""

import importlib.util
import json
import os
import sys
import types
from pathlib import Path

import pytest
from task_rows import PASSAGE, ROWS

from gpt3.errors import InputError
from gpt3.evaluation import Source, lm_eval_rows
from gpt3.evaluation.protocol import Question, texts_of
from gpt3.evaluation.styles import in_style
from gpt3.evaluation.tasks import TASKS, select

DEFINITIONS = {
    "hellaswag": "hellaswag/hellaswag.yaml",
    "storycloze": "storycloze/storycloze_2016.yaml",
    "lambada": "lambada/lambada_openai.yaml",
    "lambada_standard": "lambada/lambada_standard.yaml",
    "winograd": "wsc273/default.yaml",
    "winogrande": "winogrande/default.yaml",
    "piqa": "piqa/piqa.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "race_h": "race/race.yaml",
    **{name: f"super_glue/{name}/default.yaml" for name in ("boolq", "copa", "rte", "cb", "wic", "wsc")},
    "multirc": "super_glue/multirc/default.yaml",
    "record": "super_glue/record/default.yaml",
    **{f"anli_r{n}": f"anli/anli_r{n}.yaml" for n in (1, 2, 3)},
    "mmlu": "mmlu/default/mmlu_anatomy.yaml",
    "mmlu_cloze": "mmlu/continuation/mmlu_anatomy.yaml",
}
"""lm-eval's definition of each task, below its folder of tasks."""
MORE = {
    "hellaswag": [
        {
            "endings": ["falls [step] off.", "smiles. ", "eats  it [x]", "sleeps."],
            "ctx_a": "[header] How [title] A man sits.",
        }
    ],
    "winograd": [
        {"text": "His dog ran. It  saw a cat.", "pronoun": "It", "pronoun_loc": 13},
        {"text": "Al told Bo his car is red.", "pronoun": "his", "pronoun_loc": 11, "options": ["Al", "The man"]},
        {"text": "She said that The man knew it then.", "pronoun": "it", "pronoun_loc": 27},
    ],
    "winogrande": [{"sentence": "The cup fits the box as the _  is big. ", "option1": "cup", "option2": "box"}],
    "piqa": [{"goal": " dress ", "sol1": "in  a hat", "sol2": "so "}],
    "arc_easy": [{"question": " Why? "}],
    "openbookqa": [{"question_stem": "Rain is ", "answerKey": " B"}],
    "copa": [{"premise": " Why not! ", "question": "cause", "label": 1}],
    "boolq": [{"passage": "One.\nTwo. ", "question": "is it two ", "label": 0, "answer": False}],
    "wsc": [
        {"text": "Al ( said ' Bo ' , too ) did n't see \" it \" .", "span2_index": 9, "span2_text": "n't", "label": 0}
    ],
    "record": [
        {
            "passage": f"{PASSAGE} \n@highlight\nAl ate\n@highlight\nBo sat",
            "entities": ["Bo", "Al", "Bo"],
            "answers": ["Al"],
        }
    ],
    "cb": [{"hypothesis": "Al sat.", "label": 0}],
}
"""Further rows of a task, as changes of the first."""


def rows_of(name):
    first = ROWS[name.partition("_cloze")[0]]
    first = first | {"boolq": {"label": 1}, "wic": {"end1": 6}, "race_h": {"answer": "B"}}.get(name, {})
    rows = [first, *(first | change for change in MORE.get(name, ()))]
    if name == "race_h":
        four = [row | {"options": ["ate", "sat", "ran", "hid"]} for row in (first, first, first)]
        return [four[0] | {"question": "They  _  ."}, four[1] | {"question": "Who?"}, four[2] | {"question": "Where?"}]
    return rows


def their_rows(name, rows):
    """Rows as lm-eval's dataset has them: RACE's by article."""
    if name != "race_h":
        return rows
    return [
        {
            "article": PASSAGE,
            "problems": repr([{key: row[key] for key in ("question", "answer", "options")} for row in rows]),
        }
    ]


def test_every_choice_task_of_the_paper_that_lm_eval_has_is_here():
    named = {"mmlu_anatomy" if name == "mmlu" else name for name in DEFINITIONS if name != "mmlu_cloze"}
    assert {
        name for name, task in TASKS.items() if "lm-eval" in task.styles and not name.startswith("mmlu")
    } == named - {"mmlu_anatomy"}
    assert all(task.kind in ("choice", "word") for task in in_style(select(sorted(named)), "lm-eval"))
    missing = {name for name, task in TASKS.items() if task.paper and task.kind == "choice"} - named
    assert missing == {"race_m"}  # which lm-eval does not have


@pytest.mark.parametrize("name", DEFINITIONS)
def test_prompts_options_and_right_answers_are_lm_evals(name, tmp_path, monkeypatch):
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: the extra eval")
    from lm_eval.tasks import TaskManager

    # which lm-eval's ReCoRD imports for its scores, and later versions of transformers do not have
    gone = types.ModuleType("transformers.data.metrics")
    gone.squad_metrics = types.ModuleType("transformers.data.metrics.squad_metrics")
    for module in (gone, gone.squad_metrics):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    rows = rows_of(name)
    file = name.partition("_cloze")[0]
    for folder, some in (("theirs", their_rows(name, rows)), ("ours", rows)):
        (tmp_path / folder).mkdir()
        lines = "".join(json.dumps(row) + "\n" for row in some)
        (tmp_path / folder / f"{file}.jsonl").write_text(lines, encoding="utf-8")
    rounds = [f"{split}_r{n}" for split in ("train", "dev", "test") for n in (1, 2, 3)]
    files = dict.fromkeys(("train", "dev", "validation", "test", *rounds), str(tmp_path / "theirs" / f"{file}.jsonl"))
    source = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    definition = {"include": str(Path(lm_eval.__file__).parent / "tasks" / DEFINITIONS[name]), "tag": []} | source
    (tmp_path / "task.yaml").write_text(json.dumps(definition | {"task": "local"}), encoding="utf-8")
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    theirs = manager.load(["local"])["tasks"]["local"]
    theirs.build_all_requests(rank=0, world_size=1)
    theirs.set_config(key="num_fewshot", value=0)

    [ours] = in_style(
        select(["mmlu_anatomy" if name.startswith("mmlu") else name]), "cloze" if "_cloze" in name else "lm-eval"
    )
    split = ours.split(Source(str(tmp_path / "ours")))
    texts = []
    for place, item in enumerate(split.test):
        question = Question(place, item, split.instruction)
        texts += texts_of(ours, question) if name != "mmlu_cloze" else texts_of(ours, question)[:4]
    assert [tuple(instance.args) for instance in theirs.instances] == texts
    if ours.kind == "choice":
        docs = [*(theirs.test_docs() if theirs.has_test_docs() else theirs.validation_docs())]
        if name == "record":
            assert [[item.names[place] for place in item.rights] for item in split.test] == [
                doc["answers"] for doc in docs
            ]
        elif theirs.multiple_input:
            assert [item.gold for item in split.test] == [theirs.doc_to_text(doc) for doc in docs]
        else:
            right = [theirs.doc_to_target(doc) for doc in docs]
            options = [[option.strip() for option in theirs.doc_to_choice(doc)] for doc in docs]
            right = [
                some.index(one.strip()) if isinstance(one, str) else one
                for one, some in zip(right, options, strict=True)
            ]
            assert [item.gold for item in split.test] == right


def test_rules_are_lm_evals():
    arc, winogrande, boolq = in_style(select(["arc_easy", "winogrande", "boolq"]), "lm-eval")
    assert (arc.normalization, arc.metrics, winogrande.metrics) == ("sum", ("acc", "acc_norm"), ("acc",))
    assert (boolq.metrics, boolq.answer_context) == (("acc",), "")
    with pytest.raises(InputError, match="--style lm-eval has no nq, arithmetic-2d"):
        in_style(select(["piqa", "nq", "arithmetic-2d+"]), "lm-eval")


def test_the_simpler_rows_have_the_same_prompt():
    simple = {"query": "Passage: Cats purr.\nQuestion: do cats purr?", "choices": ["no", "yes"], "gold": 1}
    assert lm_eval_rows.boolq(simple) == lm_eval_rows.boolq(ROWS["boolq"])


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
