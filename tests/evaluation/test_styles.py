"""`--style cloze` scores options' texts by every rule; `--style seed` is MMLU as GPT3-dev scores it, by an independent twin."""

import json
import re

import pytest
import torch
from task_rows import ROWS

from gpt3.cli import main as cli
from gpt3.errors import InputError
from gpt3.evaluation import Source
from gpt3.evaluation.protocol import Questions, encode_pair, score
from gpt3.evaluation.results import figures, group_score, table, task_score
from gpt3.evaluation.styles import RULES, in_style
from gpt3.evaluation.tasks import GROUPS, select
from gpt3.evaluation.windows import window_ids
from gpt3.inference.language_model import LanguageModel, make_engine

LONG = "Why is the sea blue and the sky grey in the evening? " * 6
QUESTIONS = [
    ("What is wet?", ["the sea", "the sea and the sky", "sand", "48 plus 76"], 0),
    (LONG, ["blue", "grey", "red", "green"], 2),  # all four are the same after the cut
    (" What is 9 minus 17? ", ["-8", " -8", "8", ""], 1),  # as they are in the row, with their spaces
    (LONG[:90], ["Topic: Arts " * 20, "Topic: Arts " * 21, "the", "a"], 3),  # two are the same
    ("", ["A: 124", "Q: 124", "is", "is"], 0),
]


def mmlu_rows(subjects):
    return [
        {"split": split, "subject": subject, "question": question, "choices": choices, "answer": (gold + place) % 4}
        for place, subject in enumerate(subjects)
        for split in ("dev", "test")
        for question, choices, gold in QUESTIONS[: 3 + place % 3]
    ]


def write(folder, name, rows):
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Source(str(folder))


def twin(network, tokenizer, rows):
    """GPT3-dev's protocol with transformers alone: accuracy by subject, and their mean."""
    right = {}
    for row in rows:
        if row["split"] != "test":
            continue
        texts = [tokenizer(f"{row['question']} {choice}")["input_ids"][:64] for choice in row["choices"]]
        ids = torch.tensor([text + [tokenizer.eos_token_id] * (64 - len(text)) for text in texts])
        with torch.no_grad():
            logits = network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, :-1].transpose(1, 2)
        losses = torch.nn.functional.cross_entropy(logits, ids[:, 1:], reduction="none").sum(1).tolist()
        right.setdefault(row["subject"], []).append(losses.index(min(losses)) == row["answer"])
    accuracies = {subject: sum(some) / len(some) for subject, some in right.items()}
    return accuracies, sum(accuracies.values()) / len(accuracies)


@pytest.fixture
def all_subjects(tmp_path):
    rows = mmlu_rows([name.removeprefix("mmlu_") for name in GROUPS["mmlu"]])
    write(tmp_path, "mmlu", rows)
    return rows


def test_the_seed_protocol_is_its_twins(folder, network, tokenizer, all_subjects, tmp_path, capsys):
    command = ["eval", "--model", str(folder), "--tasks", "mmlu", "--style", "seed", "--data-dir", str(tmp_path)]
    assert cli.main([*command, "--dtype", "fp32", "--out", str(tmp_path / "out")]) == 0
    assert re.search(r"^mmlu +seed +0 +228 +acc +\d", capsys.readouterr().out, flags=re.M)
    rows = {row["task"]: row for row in json.loads((tmp_path / "out" / "results.json").read_text())["results"]}
    accuracies, mean = twin(network, tokenizer, all_subjects)
    assert {name: row["metrics"]["acc"]["value"] for name, row in rows.items() if name != "mmlu"} == {
        f"mmlu_{subject}": value for subject, value in accuracies.items()
    }
    assert rows["mmlu"]["metrics"]["acc"]["value"] == pytest.approx(mean, abs=1e-12)
    assert (rows["mmlu"]["shots"], rows["mmlu"]["main"], rows["mmlu"]["style"]) == (0, "acc", "seed")
    assert len(set(accuracies.values())) > 3


@pytest.mark.parametrize("seed", [1, 2])
def test_windows_are_the_twins_losses_on_other_random_models(network, tokenizer, tmp_path, seed):
    other = type(network)(network.config).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in other.parameters():
            weight.normal_(std=0.3)
    rows = mmlu_rows(["anatomy", "virology", "sociology"])
    source = write(tmp_path, "mmlu", rows)
    model = LanguageModel(other, tokenizer, make_engine(other, "fp32"))
    for subject, accuracy in twin(other, tokenizer, rows)[0].items():
        [task] = in_style(select([f"mmlu_{subject}"]), "seed")
        results = list(score(model, task, Questions(task, task.split(source), 0, seed=0)))
        assert figures(task, results)["acc"].value == accuracy
        for result in results:
            question, choices, _ = QUESTIONS[result.number]
            ids = torch.tensor([window_ids(model, 64, f"{question} {choice}") for choice in choices])
            with torch.no_grad():
                logprobs = other(input_ids=ids).logits.double().log_softmax(-1)[:, :-1]
            totals = logprobs.gather(-1, ids[:, 1:, None]).sum((1, 2))
            assert result.detail["logprobs"] == pytest.approx(totals.tolist(), abs=1e-3)
            if len(set(map(tuple, ids.tolist()))) == 1:
                assert result.detail["chosen"] == 0


def test_the_seed_style_is_mmlus_and_zero_shot(folder, tmp_path, capsys):
    write(tmp_path, "mmlu", mmlu_rows(["anatomy"]))
    command = ["eval", "--model", str(folder), "--style", "seed", "--data-dir", str(tmp_path)]
    assert cli.main([*command, "--tasks", "piqa"]) == 2
    assert "--style seed has no piqa. It is a way to score MMLU: use --tasks mmlu" in capsys.readouterr().err
    assert cli.main([*command, "--tasks", "mmlu_anatomy", "--shots", "5"]) == 2
    assert "--shots 5: --style seed is zero-shot" in capsys.readouterr().err


def test_a_model_of_few_positions_cannot_hold_a_window(network, tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    config = type(network.config)(**{**network.config.to_dict(), "max_position_embeddings": 32})
    small = LanguageModel(AutoModelForCausalLM.from_config(config).eval(), tokenizer)
    [task] = in_style(select(["mmlu_anatomy"]), "seed")
    asked = Questions(task, task.split(write(tmp_path, "mmlu", mmlu_rows(["anatomy"]))), 0, seed=0)
    with pytest.raises(InputError, match="texts of 64 tokens exceed the model's 32 positions"):
        list(score(small, task, asked))


def reference(model, context, completion):
    """Log-probability of a completion, by one forward of the network."""
    before, answer = encode_pair(model, context, completion)
    with torch.no_grad():
        rows = model.engine.model(torch.tensor([before + answer])).logits[0].double().log_softmax(-1)
    return sum(float(row[token]) for row, token in zip(rows[len(before) - 1 : -1], answer, strict=True)), len(answer)


def test_cloze_asks_mmlu_for_the_text_of_the_option_by_every_rule(model, tmp_path):
    rows = [row | {"choices": ["the sea", "sand and sky", "48", "a Topic"]} for row in mmlu_rows(["anatomy"])]
    [task] = in_style(select(["mmlu_anatomy"]), "cloze")
    split = task.split(write(tmp_path, "mmlu", rows))
    asked = Questions(task, split, 1, seed=0)
    results = list(score(model, task, asked))
    begin = "The following are questions (with answers) about anatomy.\n\nQuestion: "
    for question, result in zip(asked, results, strict=True):
        assert question.context.startswith(begin)
        assert question.context.endswith(f"\n\nQuestion: {QUESTIONS[result.number][0].strip()}\nAnswer:")
        options = question.item.completions
        assert options == (" the sea", " sand and sky", " 48", " a Topic")
        found = [reference(model, question.context, option) for option in options]
        rules = {
            "acc_sum": [total for total, _ in found],
            "acc_token": [total / count for total, count in found],
            "acc_byte": [total / len(option[1:]) for (total, _), option in zip(found, options, strict=True)],
            "acc_unconditional": [
                total - reference(model, "Answer:", option)[0]
                for (total, _), option in zip(found, options, strict=True)
            ],
        }
        for rule, values in rules.items():
            assert result.metrics[rule] == float(values.index(max(values)) == question.item.gold), rule
        assert result.metrics["acc"] == result.metrics["acc_byte"]
    scores = [task_score(task, 1, some) for some in (results, results[:2])]
    shown = table([group_score("mmlu", 1, [score_of(one) for one in scores])])
    assert all(f"{rule}, mean of tasks" in shown for rule in RULES)


def score_of(one):
    import dataclasses

    return dataclasses.replace(one, style="cloze")


def test_cloze_keeps_the_papers_prompts_of_other_tasks(tmp_path):
    for name in ("hellaswag", "piqa", "arc_easy", "boolq", "winogrande", "race_h"):
        source = write(tmp_path, name, [ROWS[name]])
        [paper] = select([name])
        [cloze] = in_style([paper], "cloze")
        assert cloze.split(source).test == paper.split(source).test
        assert cloze.normalization == paper.normalization
        assert cloze.metrics == ("acc", *RULES)
    with pytest.raises(
        InputError, match=r"--style cloze has no lambada, arithmetic-2d.*It needs options to choose from"
    ):
        in_style(select(["lambada", "arithmetic-2d+"]), "cloze")


def test_partial_scoring_has_no_unconditional_rule(model, tmp_path):
    [task] = in_style(select(["winogrande"]), "cloze")
    split = task.split(write(tmp_path, "winogrande", [ROWS["winogrande"]]))
    [result] = score(model, task, Questions(task, split, 0, seed=0))
    assert set(result.metrics) == {"acc", "acc_sum", "acc_token", "acc_byte", "acc_char"}
