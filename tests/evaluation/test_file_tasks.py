"""Rows of both layouts become the paper's prompts; bad rows are named by file and line."""

import csv
import gzip
import json

import pytest
from task_rows import EXPECTED, INSTRUCTIONS, ROWS, TALK

from gpt3.errors import InputError
from gpt3.evaluation import Source
from gpt3.evaluation.protocol import Questions
from gpt3.evaluation.tasks import FILE_TASKS, TASKS

SIMPLE = {
    "hellaswag": {"ctx": "Cooking: He stirs. he", "endings": ["eats.", "flies.", "sings.", "sleeps."], "label": 0},
    "piqa": {"query": "Question: How to dry?\n", "choices": ["In the sun.", "In water."], "gold": 0},
    "arc_easy": {"query": "Question: What is wet?", "choices": ["water", "sand", "dust"], "gold": 0},
    "boolq": {"query": "Passage: Cats purr.\nQuestion: do cats purr?", "choices": ["no", "yes"], "gold": 1},
    "winogrande": {"context_options": ["Al beat Bo so Al", "Al beat Bo so Bo"], "continuation": "won.", "gold": 0},
    "triviaqa": {"context": "Question: Who?\nAnswer:", "answer": "Me", "aliases": ["I", "Me"]},
    "lambada": {"text": "She went home"},
}


def write(folder, name, rows):
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Source(str(folder))


LAYOUTS = [*((ROWS, name) for name in ROWS), *((SIMPLE, name) for name in SIMPLE)]


@pytest.mark.parametrize(
    ("layout", "name"), LAYOUTS, ids=[f"{'own' if rows is SIMPLE else 'hub'}-{n}" for rows, n in LAYOUTS]
)
def test_rows_become_the_papers_prompts(name, layout, tmp_path):
    source = write(tmp_path, name, [layout[name]])
    split = TASKS["mmlu_anatomy" if name == "mmlu" else name].split(source)
    item = split.test[-1]
    assert (item.context, item.completions[item.gold]) == EXPECTED[name]
    assert split.instruction.startswith(INSTRUCTIONS.get(name, ""))
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
    for ending in ("jsonl.gz", "csv", "parquet", "json", "csv.gz"):
        folder = tmp_path / ending
        folder.mkdir()
        path = folder / f"piqa.{ending}"
        if ending == "jsonl.gz":
            path.write_bytes(gzip.compress(json.dumps(row).encode()))
        elif ending == "json":
            path.write_text(json.dumps([row]), encoding="utf-8")
        elif ending == "csv.gz":
            path.write_bytes(gzip.compress(b"goal,sol1,sol2,label\nHow?,So.,Not.,1\n"))
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
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: expected an object with fields, found a list"),
        ('{"goal": "How?", "sol1": "a", "sol2": "b", "label": 5}', "line 2: the right option is 5, but there are 2"),
        ('{"goal": "How?", "sol1": "a", "sol2": "", "label": 0}', "line 2: 2 options, or an empty one"),
    ],
)
def test_a_bad_row_is_named(row, message, tmp_path):
    good = '{"goal": "How?", "sol1": "So.", "sol2": "Not.", "label": 1}\n'
    (tmp_path / "piqa.jsonl").write_text(good + row, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        TASKS["piqa"].split(Source(str(tmp_path)))


def test_a_slice_of_a_folder_is_the_first_rows_of_each_file(tmp_path):
    rows = [{"goal": f"How {n}?", "sol1": "So.", "sol2": "Not.", "label": 0} for n in range(9)]
    write(tmp_path, "piqa", rows)
    write(tmp_path, "piqa_train", [{**row, "goal": "Shot?"} for row in rows])
    split = TASKS["piqa"].split(Source(f"{tmp_path}@4"))
    whole = TASKS["piqa"].split(Source(str(tmp_path)))
    assert (len(whole.test), len(whole.shots)) == (9, 9)
    assert (split.test, split.shots) == (whole.test[:4], whole.shots[:4])
    assert split.origin["file"] == f"{tmp_path / 'piqa.jsonl'}@4"
    with pytest.raises(InputError, match="a slice of rows is a number of rows, such as @500"):
        TASKS["piqa"].split(Source(f"{tmp_path}@4MB"))
    (tmp_path / "piqa.jsonl").rename(tmp_path / "boolq.jsonl")
    with pytest.raises(InputError, match=r"piqa: \S+ has no piqa.jsonl"):
        TASKS["piqa"].split(Source(f"{tmp_path}@4"))


def test_missing_data_says_what_to_give(tmp_path):
    with pytest.raises(InputError, match=r"piqa: .* has no piqa.jsonl"):
        TASKS["piqa"].split(Source(str(tmp_path)))
    with pytest.raises(InputError, match=r"no such rows.*Use --data-dir with a folder that has storycloze\.jsonl"):
        TASKS["storycloze"].split(Source())


def test_a_subject_of_mmlu_has_its_own_demonstrations(tmp_path):
    row = {"subject": "anatomy", "question": "Where?", "choices": ["here", "there", "up", "down"], "answer": 1}
    other = {**row, "subject": "virology", "split": "test"}
    source = write(tmp_path, "mmlu", [{**row, "split": "dev"}, {**row, "split": "test"}, other])
    split = TASKS["mmlu_anatomy"].split(source)
    assert (len(split.test), len(split.shots)) == (1, 1)
    assert split.test[0].demonstration == "Where?\nA. here\nB. there\nC. up\nD. down\nAnswer: B"
    assert split.instruction.endswith("about anatomy.\n\n")
    assert sum(name.startswith("mmlu_") for name in TASKS) == 57


def test_every_task_with_files_has_a_row_here():
    assert set(ROWS) == {task.name for task in FILE_TASKS} | {"mmlu"}


def test_earlier_questions_of_a_passage_are_told_and_never_drawn_from_it(tmp_path):
    row = ROWS["race_h"]
    rows = [{**row, "article": f"Text {n // 3}.", "question": f"Q{n}?"} for n in range(9)]
    task = TASKS["race_h"]
    split = task.split(write(tmp_path, "race_h", rows))
    assert [item.context.count("Q: ") for item in split.test] == [1, 2, 3] * 3
    assert split.test[2].context.startswith("Article:\nText 0.\n\nQ: Q0?\n\nA: ate\n\nQ: Q1?\n\nA: ate\n\nQ: Q2?")
    for question in Questions(task, split, 6, seed=0):
        assert question.item.group not in question.before
    with pytest.raises(InputError, match="exceeds the 6 examples to draw from"):
        Questions(task, split, 7, seed=0)


def test_multirc_shows_whole_questions_and_one_draw_for_all(tmp_path):
    row = ROWS["multirc"]

    def rows(question, part):
        place = {"paragraph": 0, "question": question}
        return [
            {
                **row,
                "question": f"Q{question}?",
                "answer": f"A{n}",
                "label": n % 2,
                "idx": {**place, "answer": n},
                "split": part,
            }
            for n in range(3)
        ]

    task = TASKS["multirc"]
    source = write(tmp_path, "multirc", [*rows(0, "train"), *rows(1, "train"), *rows(2, "test")])
    split = task.split(source)
    shown = f"{TALK}Q0?\n- [False] A0\n- [True] A1\n- [False] A2"
    assert [item.demonstration for item in split.shots] == [shown, shown.replace("Q0", "Q1")]
    asked = Questions(task, split, 1, seed=0)
    assert len(asked) == 3
    assert len({question.before for question in asked}) == 1
    assert [item.id for item in split.test] == ["0-2-0", "0-2-1", "0-2-2"]


def test_wsc_shows_right_nouns_only(tmp_path):
    row = ROWS["wsc"]
    right, wrong = {**row, "split": "train"}, {**row, "split": "train", "span1_text": "Bo", "label": 0}
    split = TASKS["wsc"].split(write(tmp_path, "wsc", [right, wrong, {**wrong, "split": "test"}]))
    assert [item.completions for item in split.shots] == [(" al",)]
    with pytest.raises(InputError, match="exceeds the 0 examples"):
        Questions(TASKS["wsc"], TASKS["wsc"].split(write(tmp_path, "wsc", [row, wrong | {"split": "test"}])), 1, seed=0)


def test_winograd_sets_nouns_as_they_stand_in_a_sentence(tmp_path):
    row = {**ROWS["winograd"], "text": "His dog ran. It saw a cat.", "pronoun": "It", "pronoun_loc": 13, "label": 0}
    owner = {
        **ROWS["winograd"],
        "text": "Al told Bo his car is red.",
        "pronoun": "his",
        "pronoun_loc": 11,
        "options": ["Al", "Bo"],
    }
    first, second = TASKS["winograd"].split(write(tmp_path, "winograd", [row, owner])).test
    assert first.contexts == ("His dog ran. The trophy", "His dog ran. The case")
    assert second.contexts == ("Al told Bo Al's", "Al told Bo Bo's")


def test_zero_shot_translation_is_asked_in_words(tmp_path):
    split = TASKS["wmt14_fr_en"].split(write(tmp_path, "wmt14_fr_en", [ROWS["wmt14_fr_en"]]))
    assert split.zero_shot[0].demonstration == "Q: What is the English translation of La mer. A: The sea."


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("winograd", {"pronoun_loc": 3}, "'it' is not at pronoun_loc 3"),
        ("wsc", {"span2_index": 0}, "'he' is not at span2_index 0"),
        ("race_h", {"answer": "Z"}, "the right option is"),
        ("record", {"answers": ["Eve"]}, "no answer is among the entities"),
        ("record", {"query": "Who?"}, "the query has no @placeholder"),
        ("multirc", {"label": -1}, "label is -1"),
        ("wmt14_fr_en", {"translation": {"fr": "La mer.", "en": " "}}, "an empty sentence"),
        ("boolq", {"answer": "maybe"}, "the answer is 'maybe'; it must be true or false"),
        ("winogrande", {"sentence": "Al won."}, "the sentence has no _"),
        ("winogrande", {"sentence": "So won _"}, "nothing follows the candidates"),
        ("webqs", {"answers": [" "]}, "no answer"),
        ("mmlu", {"answer": "B"}, "the right option is 'B'; it must be a number"),
        ("mmlu", {"choices": ["a", "b"]}, "2 choices; needs four"),
        ("piqa", {"sol2": None}, "the field 'sol2' is empty"),
        ("piqa", {"goal": "\ud83d"}, r"the field 'goal': the escape \\ud83d is half a character"),
        ("hellaswag", {"endings": ["a", "\ud83d", "c", "d"]}, r"the field 'endings': the escape \\ud83d is half"),
        ("piqa", {"goal": 5}, "a field is of the wrong kind"),
        ("hellaswag", {"endings": ["eats.", "flies.", "sings.", None]}, "a field is of the wrong kind"),
        ("race_h", {"options": ["ate", None]}, "2 options, or an empty one"),
        ("drop", {"answer": {"number": "", "spans": [], "date": {}}, "validated_answers": {}}, "no answer"),
    ],
)
def test_a_row_that_cannot_be_is_told(name, change, message, tmp_path):
    source = write(tmp_path, name, [ROWS[name] | change])
    with pytest.raises(InputError, match=rf"{name}.jsonl: line 1: {message}"):
        TASKS["mmlu_anatomy" if name == "mmlu" else name].split(source)


@pytest.mark.parametrize(("written", "gold"), [("True", 1), ("False", 0), ("true", 1), ("0", 0)])
def test_truth_in_csv(written, gold, tmp_path):
    (tmp_path / "boolq.csv").write_text(f"passage,question,answer\nCats purr.,do cats purr,{written}\n")
    [item] = TASKS["boolq"].split(Source(str(tmp_path))).test
    assert item.gold == gold


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("piqa.parquet", b"no parquet", r"damaged, cut off or not parquet \("),
        ("piqa.jsonl.gz", gzip.compress(b"{}\n" * 99, mtime=0)[:-20] + bytes(12), r"damaged or cut off \("),
        ("piqa.csv", b'goal,sol1,sol2,label\n"a quote without an end', "line 2: not CSV: "),
    ],
)
def test_a_file_that_cannot_be_read_is_told(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: {message}"):
        TASKS["piqa"].split(Source(str(tmp_path)))


def test_a_long_field_of_csv_is_read(tmp_path):
    (tmp_path / "piqa.csv").write_text(f"goal,sol1,sol2,label\n{'x' * 200_000},A,B,1\n")
    assert len(TASKS["piqa"].split(Source(str(tmp_path))).test[0].context) == 200_000


def test_a_short_line_of_csv_is_told(tmp_path):
    (tmp_path / "piqa.csv").write_text("goal,sol1,sol2,label\nHow?,So.,Not.,1\nWhy?,A,B\n")
    with pytest.raises(InputError, match=r"piqa.csv: line 3: 3 columns where the header has 4"):
        TASKS["piqa"].split(Source(str(tmp_path)))
