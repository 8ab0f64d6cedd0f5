"""The few-shot benchmark's episodes: nothing that is asked is trained on; a scored task's episode reads as its questions do."""

import importlib.util
import itertools
import sys
from pathlib import Path

import pytest

from gpt3.corpus import wiki
from gpt3.evaluation import Source, generated_tasks
from gpt3.evaluation.protocol import Questions

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "few_shot_learning.py"


@pytest.fixture(scope="module")
def benchmark():
    """The script, on the first articles only."""
    some = list(itertools.islice(wiki.articles(), 300))
    specification = importlib.util.spec_from_file_location("few_shot_learning", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiki, "articles", lambda: some)
        patch.setitem(sys.modules, specification.name, module)  # where its dataclass looks for its names
        generated_tasks.frequent_words.cache_clear()
        specification.loader.exec_module(module)
        yield module
    generated_tasks.frequent_words.cache_clear()


def test_no_word_that_is_asked_and_no_anagram_of_it_is_in_an_episode(benchmark):
    words = benchmark.training_words(benchmark.held_out(limit=60))
    trained = "".join(benchmark.episodes(words, 300)).replace(generated_tasks.INSTRUCTION, "")
    pairs = [line.split(" = ", 1) for line in trained.splitlines() if " = " in line]
    seen = {"".join(sorted(filter(str.isalpha, text.lower()))) for pair in pairs for text in pair}
    asked = set()
    for task in generated_tasks.SCRAMBLING:
        for format in benchmark.FORMATS if task.name in benchmark.SCORED else ():
            asked |= {"".join(sorted(item.id)) for item in task.split(Source(format=format)).test[:60]}
    assert len(asked) > 150
    assert len(seen) > 500
    assert not asked & seen


@pytest.mark.parametrize("format", ["released", "paper"])
@pytest.mark.parametrize(("name", "form"), [("reversed-words", "backwards"), ("cycle-letters", "turned")])
def test_an_episode_is_the_text_of_a_question_with_its_examples(benchmark, monkeypatch, name, form, format):
    [task] = [task for task in generated_tasks.SCRAMBLING if task.name == name]
    split = task.split(Source(format=format))
    question = Questions(task, split, 4, seed=0, limit=1)[0]
    answered = question.context + question.item.completions[0] + "\n"
    lines = answered.removeprefix(split.instruction).splitlines(keepends=True)
    inputs = {line.split(" = ")[1].strip(): line.split(" = ")[0] for line in lines}
    monkeypatch.setattr(benchmark, "TASKS", {form: {"word": 1}})
    monkeypatch.setattr(benchmark, "FORMS", {form: lambda word, rng: inputs[word]})
    monkeypatch.setattr(benchmark, "INSTRUCTED", float(bool(split.instruction)))
    monkeypatch.setattr(benchmark, "LONGEST", (15,))
    monkeypatch.setattr(benchmark, "MOST_EXAMPLES", len(lines))
    made = list(benchmark.episodes(list(inputs), 50))
    assert all(text.startswith(split.instruction) for text in made)
    parts = [sorted(text.removeprefix(split.instruction).splitlines(keepends=True)) for text in made]
    assert sorted(lines) in parts  # all five, in some order
    assert all(set(part) <= set(lines) for part in parts)
