"""Documents of solved sums to train on, and the paper's search of a training text for sums that are asked (section 3.9.1)."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from gpt3.evaluation import Source, Task
from gpt3.evaluation.generated_tasks import ARITHMETIC, WORDS, calculate

MOST_SUMS = 6
"""Of a document."""
OPERATIONS = {
    "2D+": 6, "2D-": 3, "1D+": 1, "1DC": 0.05, "2Dx": 0.05, "3D+": 0.05, "3D-": 0.05, "4D+": 0.02, "4D-": 0.02, "5D+": 0.02,
    "5D-": 0.02,
}  # fmt: skip
"""The paper's tasks, and sums of single digits, with their weights among the documents: nearly all are of what small models learn
in minutes; a tenth of other operations already costs most of that (docs/LOG.md)."""
FORMS = {"question": 3, "signs": 6, "words": 0.1, "sentence": 0.1}
"""How a document writes its sums, with weights: the paper's questions, and others; those with signs have the fewest tokens."""
NOUNS = {"+": "sum", "-": "difference", "*": "product"}
SIGN_OF = {word: sign for sign, word in WORDS.items()}
SEARCHED = re.compile(
    r"(?<![\d.,(*+-])(\d{1,5})(?: ([+*-]) (\d{1,5}) =| (plus|minus|times) (\d{1,5})(?![\d.,]*\d))", re.ASCII
)
"""``<NUM1> + <NUM2> =`` and ``<NUM1> plus <NUM2>``, and the same of the other operations."""
ASKED = re.compile(r"(\d+) (plus|minus|times) (\d+)")


class Sum(NamedTuple):
    """Two numbers and an operation."""

    a: int
    sign: str
    b: int


def sum_of(asked: str) -> Sum | None:
    """A task's question, such as ``48 plus 76``; None for one of three digits (1DC)."""
    match = ASKED.fullmatch(asked)
    return Sum(int(match[1]), SIGN_OF[match[2]], int(match[3])) if match else None


def held_out(seed: int, tasks: Iterable[Task] = ARITHMETIC) -> set[str | Sum]:
    """All questions of the tasks, none of which is trained on: sums and products in both orders; three digits as they are."""
    found: set[str | Sum] = set()
    for task in tasks:
        for item in task.split(Source(seed=seed)).test:
            asked = sum_of(item.id)
            found.add(asked or item.id)
            if asked and asked.sign != "-":
                found.add(Sum(asked.b, asked.sign, asked.a))
    return found


class Document(NamedTuple):
    """A text with its sums."""

    sums: list[str | Sum]
    """Three digits as they are asked."""
    text: str


def documents(held: Collection[str | Sum], size: int, seed: int = 0) -> Iterator[Document]:
    """Documents of up to `MOST_SUMS` sums of one operation in one form; the same for the same arguments.

    Args:
        held: what is left out.
        size: bytes of all of them, about.
    """
    rng, done = random.Random(f"{seed}/sums"), 0
    while done < size:
        [name] = rng.choices(list(OPERATIONS), list(OPERATIONS.values()))
        [form] = rng.choices(list(FORMS), list(FORMS.values()))
        sums = [_drawn(name, held, rng) for _ in range(rng.randint(1, MOST_SUMS))]
        text = ("\n\n" if form == "question" else "\n").join(_in_form(one, form) for one in sums) + "\n"
        done += len(text)
        yield Document(sums, text)


def _drawn(name: str, held: Collection[str | Sum], rng: random.Random) -> str | Sum:
    """A sum of a task that is not held out."""
    while True:
        one: str | Sum
        if name == "1DC":
            one = f"{rng.randrange(10)}{rng.choice('+-*')}({rng.randrange(10)}{rng.choice('+-*')}{rng.randrange(10)})"
        else:
            numbers = 10 ** int(name[0])
            one = Sum(rng.randrange(numbers), name[2].replace("x", "*"), rng.randrange(numbers))
        if one not in held:
            return one


def _in_form(one: str | Sum, form: str) -> str:
    if isinstance(one, str):
        answer = calculate(int(one[0]), one[1], calculate(int(one[3]), one[4], int(one[5])))
        return f"Q: What is {one}?\n\nA: {answer}" if form == "question" else f"{one} = {answer}"
    a, sign, b = one
    answer = calculate(*one)
    return {
        "question": f"Q: What is {a} {WORDS[sign]} {b}?\n\nA: {answer}",
        "signs": f"{a} {sign} {b} = {answer}",
        "words": f"{a} {WORDS[sign]} {b} is {answer}",
        "sentence": f"The {NOUNS[sign]} of {a} and {b} is {answer}.",
    }[form]


def search(texts: Iterable[str], wanted: Collection[Sum]) -> set[Sum]:
    """Which of the wanted sums are in the texts, in one of the two forms that the paper searched for."""
    found: set[Sum] = set()
    for text in texts:
        for match in SEARCHED.finditer(text):
            a, sign, b, word, c = match.groups()
            one = Sum(int(a), sign or SIGN_OF[word], int(b or c))
            if one in wanted:
                found.add(one)
    return found
