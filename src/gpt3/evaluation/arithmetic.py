"""The ten arithmetic tasks of section 3.9.1, generated: "Q: What is 48 plus 76?" and its kind, 2,000 examples each.

Two formats, because the paper's text and the files that OpenAI released differ:

                   paper                                       released
    1DC            6+(4*8): digits 0 to 9, brackets round the   (6 + 4) * 8: digits 1 to 9, spaces, brackets round the
                   last two                                     first two
    the others     the same questions in both

Operands are uniform on [0, 10^digits); a difference may be negative. In a released file each context opens with the blank line
that parts it from the one before; here that line is the separator, so a question without demonstrations begins with "Q:".
"""

from __future__ import annotations

import random
from collections.abc import Callable

from gpt3.evaluation.items import Item, Source, Split, Task

EXAMPLES = 2000
SHOT_EXAMPLES = 2000
WORDS = {"+": "plus", "-": "minus", "*": "times"}
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}


def sums(name: str, digits: int, sign: str) -> Callable[[Source], Split]:
    """Questions of two numbers of up to `digits` digits."""

    def question(rng: random.Random, source: Source) -> tuple[str, int]:
        a, b = rng.randrange(10**digits), rng.randrange(10**digits)
        return f"{a} {WORDS[sign]} {b}", {"+": a + b, "-": a - b, "*": a * b}[sign]

    return _split(name, question)


def three_operations(rng: random.Random, source: Source) -> tuple[str, int]:
    """A question of three digits and two operations (1DC)."""
    if source.format == "released":
        a, b, c = (rng.randint(1, 9) for _ in range(3))
        first, second = rng.choice("+-*"), rng.choice("+-*")
        return f"({a} {first} {b}) {second} {c}", calculate(calculate(a, first, b), second, c)
    a, b, c = (rng.randrange(10) for _ in range(3))
    first, second = rng.choice("+-*"), rng.choice("+-*")
    return f"{a}{first}({b}{second}{c})", calculate(a, first, calculate(b, second, c))


def calculate(a: int, sign: str, b: int) -> int:
    """One operation."""
    return {"+": a + b, "-": a - b, "*": a * b}[sign]


def _split(name: str, question: Callable[[random.Random, Source], tuple[str, int]]) -> Callable[[Source], Split]:
    def split(source: Source) -> Split:
        """Test and demonstration questions, none in both, none twice."""
        rng = random.Random(f"{source.seed}/{name}/{source.format}")
        found: dict[str, Item] = {}
        draws = 0
        while len(found) < EXAMPLES + SHOT_EXAMPLES and draws < 20 * (EXAMPLES + SHOT_EXAMPLES):
            asked, answer = question(rng, source)
            draws += 1
            found.setdefault(asked, Item(f"Q: What is {asked}?\n\nA:", (f" {answer}",), id=asked))
        items = list(found.values())
        half = min(EXAMPLES, len(items) // 2)
        return Split(items[:half], items[half:])

    return split


def _task(short: str, summary: str, split: Callable[[Source], Split], tokens: int = 12) -> Task:
    return Task(
        f"arithmetic-{short.lower()}",
        summary,
        "greedy",
        split,
        shots=50,
        paper=short,
        max_new_tokens=tokens,
    )


ARITHMETIC = (
    *(
        _task(
            f"{digits}D{sign}",
            f"{'sum' if sign == '+' else 'difference'} of {word}-digit numbers",
            sums(f"{digits}D{sign}", digits, sign),
        )
        for digits, word in NUMBERS.items()
        for sign in "+-"
    ),
    _task("2Dx", "product of two-digit numbers", sums("2Dx", 2, "*")),
    _task("1DC", "two operations on three digits", _split("1DC", three_operations)),
)
