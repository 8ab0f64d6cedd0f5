"""The generated tasks are what section 3.9 says, and in the other format what the released files are."""

import re
import string

import pytest

from gpt3.evaluation import Source
from gpt3.evaluation.generated_tasks import ARITHMETIC, INSTRUCTION, SCRAMBLING, WIKI_TOPIC

BOTH = ("paper", "released")


def of(tasks, name):
    return next(task for task in tasks if task.name == name)


@pytest.mark.parametrize("format", BOTH)
@pytest.mark.parametrize("task", ARITHMETIC, ids=lambda task: task.name)
def test_every_sum_is_right_and_none_is_asked_twice(task, format):
    split = task.split(Source(format=format))
    asked = [item.context for item in (*split.test, *split.shots)]
    assert len(set(asked)) == len(asked)
    assert len(split.test) == 2000 or task.name.endswith("1dc")
    for item in split.test:
        question = re.fullmatch(r"Q: What is (.+)\?\n\nA:", item.context)[1]
        words = question.replace("plus", "+").replace("minus", "-").replace("times", "*")
        assert item.completions == (f" {eval(words)}",)


@pytest.mark.parametrize(
    ("name", "pattern", "format"),
    [
        ("arithmetic-2d+", r"\d{1,2} plus \d{1,2}", "paper"),
        ("arithmetic-5d-", r"\d{1,5} minus \d{1,5}", "paper"),
        ("arithmetic-2dx", r"\d{1,2} times \d{1,2}", "released"),
        ("arithmetic-1dc", r"\d[-+*]\(\d[-+*]\d\)", "paper"),
        ("arithmetic-1dc", r"\([1-9] [-+*] [1-9]\) [-+*] [1-9]", "released"),
    ],
)
def test_questions_are_worded_as_their_source_has_them(name, pattern, format):
    for item in of(ARITHMETIC, name).split(Source(format=format)).test:
        assert re.fullmatch(pattern, item.id)


@pytest.mark.parametrize("format", BOTH)
def test_scrambles_keep_the_letters_that_they_must(format):
    made = {task.name: task.split(Source(format=format)) for task in SCRAMBLING}
    shortest, longest = {"paper": (5, 14), "released": (6, 15)}[format]
    for name, split in made.items():
        assert len(split.test) > 5000
        assert not {item.id for item in split.test} & {item.id for item in split.shots}
        assert split.instruction == (INSTRUCTION if format == "paper" else "")
        for item in split.test:
            word, puzzle = item.completions[0][1:], item.context.removesuffix(" =")
            assert re.fullmatch("[a-z]+", word)
            assert (5 if name == "anagrams-1" else shortest) <= len(word) <= longest
            if name == "cycle-letters":
                assert puzzle in {word[k:] + word[:k] for k in range(1, len(word))}
            elif name == "reversed-words":
                assert puzzle == word[::-1]
            elif name == "random-insertion":
                signs = " ./!" if format == "released" else string.punctuation + " "
                assert puzzle[::2] == word
                assert set(puzzle[1::2]) <= set(signs)
            else:
                kept = 1 if name == "anagrams-1" else 2
                assert sorted(puzzle) == sorted(word)
                assert (puzzle[:kept], puzzle[-kept:]) == (word[:kept], word[-kept:])
                if name == "anagrams-1" and len(set(word[1:-1])) > 1:
                    assert puzzle != word


def test_topics_are_the_corpus_own_and_both_parts_are_apart():
    split = WIKI_TOPIC.split(Source())
    assert [item.gold for item in split.test] == [*range(11)] * 90  # one answer to everything is right 1 in 11 times
    assert [item.gold for item in split.shots] == [*range(11)] * 160
    assert all(item.context.endswith(WIKI_TOPIC.answer_context.removeprefix("…")) for item in split.test)
    assert len(split.test[0].completions) == 11
    assert WIKI_TOPIC.chance == pytest.approx(1 / 11)
    assert not {item.id for item in split.test} & {item.id for item in split.shots}


def test_the_seed_decides():
    task = ARITHMETIC[0]
    assert task.split(Source(seed=1)) == task.split(Source(seed=1))
    assert task.split(Source(seed=1)) != task.split(Source(seed=2))
