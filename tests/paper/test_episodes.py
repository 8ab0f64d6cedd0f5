"""Episodes: nothing that is asked is trained on; a scored task's episode reads as its questions do."""

import itertools

import pytest

from gpt3.corpus import wiki
from gpt3.evaluation import Source, generated_tasks
from gpt3.evaluation.protocol import Questions
from gpt3.paper import episodes


@pytest.fixture(scope="module", autouse=True)
def few_articles():
    """Words to train on come from the first articles only."""
    some = list(itertools.islice(wiki.articles(), 300))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiki, "articles", lambda: some)
        yield


def test_no_word_that_is_asked_and_no_anagram_of_it_is_in_an_episode():
    words = episodes.training_words(episodes.held_out(60))
    trained = "".join(episodes.episodes(words, 300)).replace(generated_tasks.INSTRUCTION, "")
    pairs = [line.split(" = ", 1) for line in trained.splitlines() if " = " in line]
    seen = {"".join(sorted(filter(str.isalpha, text.lower()))) for pair in pairs for text in pair}
    asked = set()
    for task in generated_tasks.SCRAMBLING:
        for format in episodes.FORMATS if task.name in episodes.SCORED else ():
            asked |= {"".join(sorted(item.id)) for item in task.split(Source(format=format)).test[:60]}
    assert len(asked) > 150
    assert len(seen) > 500
    assert not asked & seen


@pytest.mark.parametrize("format", ["released", "paper"])
@pytest.mark.parametrize(("name", "form"), [("reversed-words", "backwards"), ("cycle-letters", "turned")])
def test_an_episode_is_the_text_of_a_question_with_its_examples(monkeypatch, name, form, format):
    [task] = [task for task in generated_tasks.SCRAMBLING if task.name == name]
    split = task.split(Source(format=format))
    question = Questions(task, split, 4, seed=0, limit=1)[0]
    answered = question.context + question.item.completions[0] + "\n"
    lines = answered.removeprefix(split.instruction).splitlines(keepends=True)
    inputs = {line.split(" = ")[1].strip(): line.split(" = ")[0] for line in lines}
    monkeypatch.setattr(episodes, "TASKS", {form: {"word": 1}})
    monkeypatch.setattr(episodes, "FORMS", {form: lambda word, rng: inputs[word]})
    monkeypatch.setattr(episodes, "INSTRUCTED", float(bool(split.instruction)))
    monkeypatch.setattr(episodes, "LONGEST", (15,))
    monkeypatch.setattr(episodes, "MOST_EXAMPLES", len(lines))
    made = list(episodes.episodes(list(inputs), 50))
    assert all(text.startswith(split.instruction) for text in made)
    parts = [sorted(text.removeprefix(split.instruction).splitlines(keepends=True)) for text in made]
    assert sorted(lines) in parts  # all five, in some order
    assert all(set(part) <= set(lines) for part in parts)
