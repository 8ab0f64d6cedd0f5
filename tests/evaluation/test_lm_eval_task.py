"""Our tasks run by lm-eval have the prompts, verdicts and figures of `gpt3 eval`, question by question."""

import copy
import json
from pathlib import Path

import pytest
import torch
from task_rows import ROWS

from gpt3.cli import main as cli
from gpt3.evaluation import Source
from gpt3.evaluation.protocol import Questions, score
from gpt3.evaluation.results import figures
from gpt3.evaluation.tasks import GROUPS, TASKS, lm_eval_definitions, lm_eval_name, write_lm_eval_definitions

ROWS_OF = {
    "piqa": [
        {"goal": f"How to {word}?", "sol1": f"By {word}.", "sol2": "In the sea", "label": 1} for word in "abcdefgh"
    ],
    "arc_easy": [ROWS["arc_easy"] | {"question": f"What is {word}?"} for word in "abcdefgh"],
    "winogrande": [
        ROWS["winogrande"] | {"sentence": f"Al {word} Bo so _ won."} for word in ("beat", "met", "saw", "hit")
    ],
    "lambada": [{"text": f"The sea is {word} and the sky is {word}"} for word in ("blue", "grey", "wide", "red", "4")],
    "cb": [ROWS["cb"] | {"premise": f"It is {word}."} for word in ("blue", "grey", "wide", "red", "4")],
    "multirc": [ROWS["multirc"] | {"question": f"Who {word}?"} for word in ("ate", "met", "sat", "ran")],
    "triviaqa": [ROWS["triviaqa"] | {"question": f"Who {word}?"} for word in ("ate", "met", "sat", "ran")],
    "wmt16_de_en": [{"translation": {"de": f"Das ist {word}", "en": f"The sea is {word}"}} for word in "abcdef"],
}
GENERATED = ("arithmetic-2d+", "anagrams-1", "wiki-topic")


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPT3_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_definitions_of_all_tasks_and_groups_are_written_once(capsys):
    assert cli.main(["eval", "--lm-eval-tasks"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    written = {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in folder.rglob("*.yaml")}
    assert written == lm_eval_definitions()
    assert len(written) == len(TASKS) + len(GROUPS)
    before = folder.stat().st_mtime_ns
    assert cli.main(["eval", "--lm-eval-tasks"]) == 0
    assert folder.stat().st_mtime_ns == before
    assert len({lm_eval_name(name) for name in TASKS}) == len(TASKS)
    entry = "class: !function gpt3.evaluation.harness.PaperTask\n"
    assert written["gpt3_arithmetic_2da.yaml"] == f"task: gpt3_arithmetic_2da\ngpt3_task: arithmetic-2d+\n{entry}"
    assert written["mmlu/gpt3_mmlu_anatomy.yaml"] == f"task: gpt3_mmlu_anatomy\ngpt3_task: mmlu_anatomy\n{entry}"
    members = "".join(f"  - gpt3_anli_r{n}\n" for n in (1, 2, 3))
    average = "aggregate_metric_list:\n  - metric: acc\n    weight_by_size: false\n"
    assert written["groups/gpt3_anli.yaml"] == f"group: gpt3_anli\ntask:\n{members}{average}"
    assert written["groups/gpt3_mmlu.yaml"].endswith("  - metric: acc\n    weight_by_size: true\n")
    assert "aggregate" not in written["groups/gpt3_paper.yaml"]


def test_a_question_is_the_same_alone_and_among_all():
    task = TASKS["arithmetic-2d+"]
    split = task.split(Source())
    asked = Questions(task, split, 3, seed=1)
    assert len(asked) == len(split.test)
    assert asked[7] == Questions(task, split, 3, seed=1, limit=9)[7]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, rows in ROWS_OF.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    mmlu = [
        {"split": part, "subject": subject, "question": f"{n} is?", "choices": ["a", "b", "c", "d"], "answer": n % 4}
        for subject, count in (("anatomy", 3), ("virology", 5))
        for part in ("dev", "test")
        for n in range(count)
    ]
    (folder / "mmlu.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mmlu), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def lm_eval():
    return pytest.importorskip("lm_eval", reason="lm-eval is not installed: the extra eval")


@pytest.fixture(scope="module")
def theirs(lm_eval, network, tokenizer):
    """lm-eval's own transformers model."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=network, tokenizer=tokenizer, batch_size=3)


@pytest.fixture(scope="module")
def ours(lm_eval, model):
    from gpt3.evaluation.harness import HarnessModel

    return HarnessModel(model)


def run(lm_eval, backend, names, shots, more=None, **metadata):
    """What lm-eval finds with seed 3 on the first six questions."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=write_lm_eval_definitions(), include_defaults=False, metadata=metadata)
    settings = {"num_fewshot": shots, "limit": 6, "bootstrap_iters": 100, "fewshot_random_seed": 3} | (more or {})
    names = [lm_eval_name(name) for name in names]
    return lm_eval.simple_evaluate(backend, tasks=names, task_manager=manager, **settings)


def check(found, model, name, shots, data, same=True, limit=6):
    """lm-eval's figures and samples are those of our own scoring; with `same` false, its prompts alone."""
    task = TASKS[name]
    asked = Questions(task, task.split(Source(str(data) if name in ROWS_OF else None, seed=3)), shots, 3, limit)
    results = list(score(model, task, asked))
    samples = found["samples"][lm_eval_name(name)]
    assert len(samples) == len(results)
    for question, result, sample in zip(asked, results, samples, strict=True):
        if not question.item.contexts:
            assert sample["arguments"][0][0] == question.context
        if not same:
            continue
        for metric in task.metrics:
            if isinstance(sample[metric], dict):
                assert sample[metric]["answer"] == result.answer
                assert sample[metric]["detail"].get("chosen") == result.detail.get("chosen")
            else:
                assert sample[metric] == result.metrics[metric], (name, metric)
        if task.kind == "choice":
            values = [answer[0] for answer in sample["filtered_resps"]][: len(result.detail["logprobs"])]
            assert values == pytest.approx(result.detail["logprobs"], abs=2e-4)
    row = found["results"][lm_eval_name(name)]
    for metric in task.metrics if same else ():
        figure = figures(task, results)[metric]
        assert row[f"{metric},none"] == pytest.approx(figure.value, rel=1e-5), (name, metric)
        if row[f"{metric}_stderr,none"] != "N/A":
            assert row[f"{metric}_stderr,none"] == pytest.approx(figure.error, abs=1e-9)


@pytest.mark.parametrize("shots", [0, 2])
def test_figures_of_lm_evals_own_model(lm_eval, theirs, model, tokenizer, data, shots):
    names = [*GENERATED, "piqa", "arc_easy", "winogrande", "lambada", "cb", "multirc"]
    if shots > 1:
        names.remove("multirc")  # its rows are one passage
    found = run(lm_eval, theirs, names, shots, tokenizer=tokenizer, data_dir=str(data))
    for name in names:
        check(found, model, name, shots, data)


def test_written_answers_on_our_engine(lm_eval, ours, model, tokenizer, data):
    pytest.importorskip("sacrebleu")
    names = ["triviaqa", "wmt16_de_en", "arithmetic-3d-"]
    found = run(lm_eval, ours, names, 1, {"limit": 2}, data_dir=str(data))
    for name in names:
        check(found, model, name, 1, data, limit=2)


def test_transformers_beam_search_ends_with_the_line(lm_eval, network, tokenizer, data):
    """Its own length penalty; each beam ends with its own line, whatever stands beside it in the batch."""
    from lm_eval.models.huggingface import HFLM

    from gpt3.inference.beam import beam_search
    from gpt3.inference.language_model import LanguageModel

    fond = copy.deepcopy(network)  # of line ends
    [line_end] = tokenizer("\n")["input_ids"]
    rows = fond.get_output_embeddings().weight
    with torch.no_grad():
        dict(fond.named_parameters())["transformer.ln_f.bias"] += 2 * rows[line_end] / rows[line_end].norm()
    model, theirs = LanguageModel(fond, tokenizer), HFLM(pretrained=fond, tokenizer=tokenizer, batch_size=3)
    found = run(lm_eval, theirs, ["triviaqa"], 1, tokenizer=tokenizer, data_dir=str(data))
    check(found, model, "triviaqa", 1, data, same=False)
    lengths = set()
    for sample in found["samples"]["gpt3_triviaqa"]:
        best, _ = beam_search(
            model.engine,
            model.encode_prompt(sample["arguments"][0][0]),
            length_penalty=0.6,
            max_new_tokens=TASKS["triviaqa"].max_new_tokens,
            ends=model.ends,
            stop=lambda made: b"\n" in model.token_bytes[made[-1]],
            penalty="power",
        )[0]
        assert sample["resps"][0][0] == model.text_of(best).split("\n")[0]
        lengths.add(len(best))
    assert len(lengths) > 1, lengths  # they end in different places
    greedy = run(lm_eval, theirs, ["triviaqa"], 1, tokenizer=tokenizer, data_dir=str(data), beams=1)
    assert "num_beams" not in greedy["samples"]["gpt3_triviaqa"][0]["arguments"][0][1]


def test_mmlu_is_averaged_over_its_questions(lm_eval, ours, tokenizer, data):
    from lm_eval.api.group import Group
    from lm_eval.tasks import TaskManager

    manager = TaskManager(
        include_path=write_lm_eval_definitions(), include_defaults=False, metadata={"data_dir": str(data)}
    )
    names = ["gpt3_mmlu_anatomy", "gpt3_mmlu_virology"]
    group = Group.from_config({"group": "two", "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}]})
    for task in manager.load(names)["tasks"].values():
        group.add(task)
    found = lm_eval.simple_evaluate(ours, tasks=[group], task_manager=manager, bootstrap_iters=0, num_fewshot=1)
    one, two = (found["results"][name]["acc,none"] for name in names)
    assert found["results"]["two"]["acc,none"] == pytest.approx((3 * one + 5 * two) / 8)
    assert set(manager.load(["gpt3_mmlu"])["tasks"]) == {
        lm_eval_name(name) for name in TASKS if name.startswith("mmlu_")
    }


def test_the_tokenizer_is_the_models_by_its_folder(lm_eval, folder, tokenizer):
    from gpt3.evaluation.harness import PaperTask

    config = {"task": "gpt3_piqa", "gpt3_task": "piqa", "metadata": {"pretrained": str(folder), "dtype": "float32"}}
    assert PaperTask(config).encoder.encode_word("The sea is") == tokenizer("The sea is")["input_ids"]


def test_what_is_missing_is_said_in_one_line(lm_eval, ours, data):
    from gpt3.errors import InputError

    with pytest.raises(InputError, match=r"gpt3_piqa compares .* per token.*--metadata '\{\"tokenizer\""):
        run(lm_eval, ours, ["piqa"], 0, data_dir=str(data))
    with pytest.raises(InputError, match="of piqa exceeds the 7 examples"):
        run(lm_eval, ours, ["piqa"], 8, data_dir=str(data))
    with pytest.raises(InputError, match="Leave out --apply_chat_template"):
        run(lm_eval, ours, ["arithmetic-2d+"], 0, {"system_instruction": "Be brief."})
