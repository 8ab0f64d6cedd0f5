"""Documents from which small models learn to use examples in their context: few-shot examples of one hidden task each.

An episode has the format of the generated tasks (gpt3.evaluation.generated_tasks):

    noitats = station
    evitaler = relative

A task is a form of the input (a word backwards, with signs in it, rotated, plain) and a rule from the input to the output
(the same, backwards, without signs, in capitals, ...). The input alone does not determine the rule: examples do, or the
paper's instruction, which comes first in some episodes of the tasks that are evaluated.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence

from gpt3.evaluation import Source, Task
from gpt3.evaluation.generated_tasks import INSTRUCTION, SCRAMBLING, cycled, inserted, reversed_word

SCORED = ("random-insertion", "reversed-words", "cycle-letters")
"""The tasks that are evaluated; the first is that of Figure 1.2."""
FORMATS = ("released", "paper")
"""Of the questions: without the instruction and with it."""
MOST_EXAMPLES = 10
INSTRUCTED = 0.25
"""Share of the episodes of an evaluated task that begin with the instruction."""

FORMS: dict[str, Callable[[str, random.Random], str]] = {
    "plain": lambda word, rng: word,
    "backwards": lambda word, rng: reversed_word(word, rng, ""),
    "turned": lambda word, rng: cycled(word, rng, ""),
    "signs": lambda word, rng: inserted(word, rng, rng.choice(FORMATS)),
}
"""Input made of a word."""
RULES: dict[str, Callable[[str, str], str]] = {
    "same": lambda given, word: given,
    "word": lambda given, word: word,
    "word in capitals": lambda given, word: word.upper(),
    "capitals": lambda given, word: given.upper(),
    "backwards": lambda given, word: given[::-1],
}
"""Output made of the input, or of the word it was made of."""
TASKS = {
    "plain": {"same": 1, "capitals": 1, "backwards": 1},
    "backwards": {"same": 3, "word": 2, "capitals": 1},
    "turned": {"same": 3, "word": 2, "capitals": 1},
    "signs": {"same": 3, "word": 2, "word in capitals": 1},
}
"""The hidden tasks: forms, equally likely, and their rules with weights. Repeating the input is the likeliest rule, so that a
model without examples is usually wrong."""
LONGEST = (6, 8, 15)
"""Most letters of an episode's words; equally likely, since short words are learned sooner."""


def scored_tasks() -> list[Task]:
    """The tasks of `SCORED`, in that order."""
    return [task for name in SCORED for task in SCRAMBLING if task.name == name]


def held_out(limit: int, seed: int = 0) -> set[str]:
    """The first words that the tasks will ask, in both formats, as sorted letters: no anagram of them is in the training text.

    Args:
        limit: words of each task and format.
        seed: of the questions.
    """
    splits = [task.split(Source(format=format, seed=seed)) for task in scored_tasks() for format in FORMATS]
    return {"".join(sorted(item.id)) for split in splits for item in split.test[:limit]}


def training_words(held: set[str]) -> list[str]:
    """The embedded corpus' words of 4 to 15 small letters, except those held out."""
    from gpt3.corpus.wiki import articles

    found: set[str] = set()
    for article in articles():
        found.update(re.findall(r"(?<![\w'’-])[a-z]{4,15}(?![\w'’-])", article.text))
    return sorted(word for word in found if "".join(sorted(word)) not in held)


def episodes(words: Sequence[str], count: int, seed: int = 0) -> Iterator[str]:
    """Documents with up to `MOST_EXAMPLES` examples of a hidden task each; the same for the same arguments."""
    rng = random.Random(seed)
    pools = [pool for longest in LONGEST if len(pool := [w for w in words if len(w) <= longest]) >= MOST_EXAMPLES]
    for _ in range(count):
        form = rng.choice(list(TASKS))
        [rule] = rng.choices(list(TASKS[form]), list(TASKS[form].values()))
        instructed = rule == "word" and rng.random() < INSTRUCTED
        text = INSTRUCTION if instructed else ""
        for word in rng.sample(rng.choice(pools), rng.randint(1, MOST_EXAMPLES)):
            given = FORMS[form](word, rng)
            text += f"{given} = {RULES[rule](given, word)}\n"
        yield text
