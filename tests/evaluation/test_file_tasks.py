"""Rows of both layouts become the paper's prompts; bad rows are named by file and line."""

import csv
import gzip
import json

import pytest

from gpt3.errors import InputError
from gpt3.evaluation.items import Source
from gpt3.evaluation.tasks import TASKS

SIMPLE = {
    "hellaswag": {"ctx": "Cooking: He stirs. he", "endings": ["eats.", "flies.", "sings.", "sleeps."], "label": 0},
    "piqa": {"query": "Question: How to dry?\n", "choices": ["In the sun.", "In water."], "gold": 0},
    "arc_easy": {"query": "Question: What is wet?", "choices": ["water", "sand", "dust"], "gold": 0},
    "boolq": {"query": "Passage: Cats purr.\nQuestion: do cats purr?", "choices": ["no", "yes"], "gold": 1},
    "winogrande": {"context_options": ["Al beat Bo so Al", "Al beat Bo so Bo"], "continuation": "won.", "gold": 0},
    "triviaqa": {"context": "Question: Who?\nAnswer:", "answer": "Me", "aliases": ["I", "Me"]},
    "lambada": {"text": "She went home"},
}
HUB = {
    "hellaswag": {
        "activity_label": "Cooking",
        "ctx": "He stirs. he",
        "endings": ["eats.", "flies.", "sings.", "sleeps."],
        "label": "0",
    },
    "piqa": {"goal": "How to dry?", "sol1": "In the sun.", "sol2": "In water.", "label": 0},
    "arc_easy": {
        "question": "What is wet?",
        "choices": {"text": ["water", "sand", "dust"], "label": ["A", "B", "C"]},
        "answerKey": "A",
    },
    "boolq": {"passage": "Cats purr.", "question": "do cats purr", "answer": True},
    "winogrande": {"sentence": "Al beat Bo so _ won.", "option1": "Al", "option2": "Bo", "answer": "1"},
    "triviaqa": {"question": "Who?", "answer": {"value": "Me", "aliases": ["I", "Me"]}},
    "lambada": {"text": "She went home"},
}
EXPECTED = {
    "hellaswag": ("Cooking: He stirs. he", " eats."),
    "piqa": ("How to dry?", " In the sun."),
    "arc_easy": ("Question: What is wet?\nAnswer:", " water"),
    "boolq": ("Cats purr.\nquestion: do cats purr?\nanswer:", " yes"),
    "winogrande": ("Al beat Bo so Al", " won."),
    "triviaqa": ("Q: Who?\n\nA:", " Me"),
    "lambada": ("She went ____. ->", " home"),
}


def write(folder, name, rows):
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Source(str(folder))


@pytest.mark.parametrize("layout", [SIMPLE, HUB], ids=["simple", "hub"])
@pytest.mark.parametrize("name", EXPECTED)
def test_rows_become_the_papers_prompts(name, layout, tmp_path):
    split = TASKS[name].split(write(tmp_path, name, [layout[name]]))
    [item] = split.test
    assert (item.context, item.completions[item.gold]) == EXPECTED[name]
    if name == "lambada":
        assert split.zero_shot[0].demonstration == "She went home"
    if name == "winogrande":
        assert item.contexts == ("Al beat Bo so Al", "Al beat Bo so Bo")
    if name == "triviaqa":
        assert item.completions == (" Me", " I")


def test_demonstrations_come_from_the_rows_of_their_split_or_a_train_file(tmp_path):
    row = SIMPLE["piqa"]
    source = write(tmp_path, "piqa", [{**row, "split": "train"}, {**row, "split": "test"}])
    split = TASKS["piqa"].split(source)
    assert (len(split.test), len(split.shots)) == (1, 1)
    source = write(tmp_path, "piqa", [row, row])
    assert TASKS["piqa"].split(source).shots is None
    write(tmp_path, "piqa_train", [row] * 3)
    assert len(TASKS["piqa"].split(source).shots) == 3


def test_every_kind_of_file_is_read(tmp_path):
    import pyarrow
    import pyarrow.parquet

    row = {"goal": "How?", "sol1": "So.", "sol2": "Not.", "label": "1"}
    for ending in ("jsonl.gz", "csv", "parquet"):
        folder = tmp_path / ending
        folder.mkdir()
        path = folder / f"piqa.{ending}"
        if ending == "jsonl.gz":
            path.write_bytes(gzip.compress(json.dumps(row).encode()))
        elif ending == "csv":
            with open(path, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, row)
                writer.writeheader()
                writer.writerow(row)
        else:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
        [item] = TASKS["piqa"].split(Source(str(folder))).test
        assert item.demonstration == "How? Not."


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"goal": "How?"}', "line 2: no field 'sol1'; it has goal"),
        ("{", "line 2: no JSON"),
        ("[1]", "line 2: no JSON object"),
        ('{"goal": "How?", "sol1": "a", "sol2": "b", "label": 5}', "line 2: the right option is 5, but there are 2"),
        ('{"goal": "How?", "sol1": "a", "sol2": "", "label": 0}', "line 2: 2 options, or an empty one"),
    ],
)
def test_a_bad_row_is_named(row, message, tmp_path):
    good = '{"goal": "How?", "sol1": "So.", "sol2": "Not.", "label": 1}\n'
    (tmp_path / "piqa.jsonl").write_text(good + row, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        TASKS["piqa"].split(Source(str(tmp_path)))


def test_missing_data_says_what_to_give(tmp_path):
    with pytest.raises(InputError, match=r"piqa: .* has no piqa.jsonl"):
        TASKS["piqa"].split(Source(str(tmp_path)))
    with pytest.raises(InputError, match="give --data-dir"):
        TASKS["mmlu_anatomy"].split(Source())


def test_a_subject_of_mmlu_has_its_own_demonstrations(tmp_path):
    row = {"subject": "anatomy", "question": "Where?", "choices": ["here", "there", "up", "down"], "answer": 1}
    other = {**row, "subject": "virology", "split": "test"}
    source = write(tmp_path, "mmlu", [{**row, "split": "dev"}, {**row, "split": "test"}, other])
    split = TASKS["mmlu_anatomy"].split(source)
    assert (len(split.test), len(split.shots)) == (1, 1)
    assert split.test[0].demonstration == "Where?\nA. here\nB. there\nC. up\nD. down\nAnswer: B"
    assert split.instruction.endswith("about anatomy.\n\n")
    assert sum(name.startswith("mmlu_") for name in TASKS) == 57
