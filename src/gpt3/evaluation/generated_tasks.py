"""Tasks without data: the paper's arithmetic and word scrambling (section 3.9), and `wiki-topic`, which is ours.

The paper's text and the files that OpenAI released differ, so there are two formats:

                   paper                                  released
    1DC            6+(4*8): digits 0 to 9, brackets       (6 + 4) * 8: digits 1 to 9, spaces, brackets
                   around the last two                    around the first two
    other sums     the same questions in both
    words          5 to 14 letters                        6 to 15 letters; A1 5 to 15
    instruction    "Please unscramble the letters into    none
                   a word, and write that word:"
    insertion      any punctuation or space               one of space . / !

In a released file each context begins with the blank line that separates it from the one before; here that line is the
separator, so a question without few-shot examples begins with "Q:".
"""

from __future__ import annotations

import itertools
import random
import re
import string
from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial

from gpt3.corpus.wiki import articles
from gpt3.evaluation import Item, Source, Split, Task

# ---- arithmetic (section 3.9.1): "Q: What is 48 plus 76?"

SUMS = 2000
"""Questions of each task, and as many few-shot examples."""
WORDS = {"+": "plus", "-": "minus", "*": "times"}
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}


def calculate(a: int, sign: str, b: int) -> int:
    """One operation."""
    return {"+": a + b, "-": a - b, "*": a * b}[sign]


def two_numbers(rng: random.Random, format: str, digits: int, sign: str) -> tuple[str, int]:
    """A question of two operands, uniform on [0, 10^digits), and its answer; a difference may be negative."""
    a, b = rng.randrange(10**digits), rng.randrange(10**digits)
    return f"{a} {WORDS[sign]} {b}", calculate(a, sign, b)


def three_digits(rng: random.Random, format: str) -> tuple[str, int]:
    """A question of three digits and two operations (1DC), and its answer."""
    a, b, c = (rng.randint(1, 9) if format == "released" else rng.randrange(10) for _ in range(3))
    first, second = rng.choice("+-*"), rng.choice("+-*")
    if format == "released":
        return f"({a} {first} {b}) {second} {c}", calculate(calculate(a, first, b), second, c)
    return f"{a}{first}({b}{second}{c})", calculate(a, first, calculate(b, second, c))


def _sums(short: str, summary: str, question: Callable[[random.Random, str], tuple[str, int]]) -> Task:
    def split(source: Source) -> Split:
        """Questions and few-shot examples, none twice."""
        rng = random.Random(f"{source.seed}/{short}/{source.format}")
        found: dict[str, Item] = {}
        for _ in range(40 * SUMS):
            if len(found) == 2 * SUMS:
                break
            asked, answer = question(rng, source.format)
            found.setdefault(asked, Item(f"Q: What is {asked}?\n\nA:", (f" {answer}",), id=asked))
        items = list(found.values())
        half = min(SUMS, len(items) // 2)
        return Split(items[:half], items[half:])

    return Task(f"arithmetic-{short.lower()}", summary, "greedy", split, shots=50, paper=short, max_new_tokens=12)


ARITHMETIC = (
    *(
        _sums(f"{digits}D{sign}", f"{what} of {number}-digit numbers", partial(two_numbers, digits=digits, sign=sign))
        for digits, number in NUMBERS.items()
        for sign, what in (("+", "sum"), ("-", "difference"))
    ),
    _sums("2Dx", "product of two-digit numbers", partial(two_numbers, digits=2, sign="*")),
    _sums("1DC", "two operations on three digits", three_digits),
)

# ---- word scrambling (section 3.9.2)

SCRAMBLED, SCRAMBLED_SHOTS = 10_000, 1000
INSTRUCTION = "Please unscramble the letters into a word, and write that word:\n"
RELEASED_SIGNS = " ./!"
Scramble = Callable[[str, random.Random, str], str]


def cycled(word: str, rng: random.Random, format: str) -> str:
    """Letters rotated: inevitably → lyinevitab."""
    first = rng.randrange(1, len(word))
    return word[first:] + word[:first]


def anagram_1(word: str, rng: random.Random, format: str) -> str:
    """All letters shuffled but the first and the last, never into the word itself: corruption → criroptuon."""
    inner = list(word[1:-1])
    mixed = inner
    while mixed == inner and len(set(inner)) > 1:
        mixed = rng.sample(inner, len(inner))
    return word[0] + "".join(mixed) + word[-1]


def anagram_2(word: str, rng: random.Random, format: str) -> str:
    """All letters shuffled but the first two and the last two: opponent → opoepnnt."""
    inner = list(word[2:-2])
    rng.shuffle(inner)
    return word[:2] + "".join(inner) + word[-2:]


def inserted(word: str, rng: random.Random, format: str) -> str:
    """A sign or a space after each letter but the last: succession → s.u!c/c!e.s s i/o/n."""
    signs = RELEASED_SIGNS if format == "released" else string.punctuation + " "
    return "".join(letter + rng.choice(signs) for letter in word[:-1]) + word[-1]


def reversed_word(word: str, rng: random.Random, format: str) -> str:
    """Letters from the last to the first: objects → stcejbo."""
    return word[::-1]


@lru_cache(maxsize=2)
def frequent_words(shortest: int, longest: int) -> tuple[str, ...]:
    """The most frequent words in the embedded corpus with this many letters, in lower case there; equals by the alphabet.

    The paper took the 10,000 most frequent of a list that was not released.
    """

    counts: Counter[str] = Counter()
    pattern = re.compile(rf"(?<![\w'’-])[a-z]{{{shortest},{longest}}}(?![\w'’-])")
    for article in articles():
        counts.update(pattern.findall(article.text))
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(word for word, _ in ranked[: SCRAMBLED + SCRAMBLED_SHOTS])


def _scrambling(name: str, short: str, paper: str, summary: str, scramble: Scramble) -> Task:
    def split(source: Source) -> Split:
        released = source.format == "released"
        shortest, longest = ((5 if short == "A1" else 6), 15) if released else (5, 14)
        rng = random.Random(f"{source.seed}/{short}/{source.format}")
        words = list(frequent_words(shortest, longest))
        rng.shuffle(words)
        items = [Item(f"{scramble(word, rng, source.format)} =", (f" {word}",), id=word) for word in words]
        shots = min(SCRAMBLED_SHOTS, len(items) // 2)
        return Split(items[shots:], items[:shots], instruction="" if released else INSTRUCTION)

    return Task(name, summary, "greedy", split, shots=100, separator="\n", paper=paper, max_new_tokens=12)


SCRAMBLING = (
    _scrambling("cycle-letters", "CL", "Cycled Letters", "a word with its letters rotated", cycled),
    _scrambling("anagrams-1", "A1", "Anagrams 1", "a word with all but its first and last letter shuffled", anagram_1),
    _scrambling(
        "anagrams-2", "A2", "Anagrams 2", "a word with all but its first and last two letters shuffled", anagram_2
    ),
    _scrambling("random-insertion", "RI", "Symbol Insertion", "a word with a sign between letters", inserted),
    _scrambling("reversed-words", "RW", "Reversed Words", "a word written backwards", reversed_word),
)

# ---- wiki-topic: which of eleven topics an article of the embedded corpus is about

TOPIC_ARTICLES, TOPIC_SHOTS = 90, 160
"""Articles of each topic to ask about, and for few-shot examples."""
CHARACTERS = 80
"""Of an article to show, up to the end of a word."""


def topics(source: Source) -> Split:
    """Articles to ask about, one of each topic in turn, in an order that the seed gives; and others for few-shot examples.

    The question is the beginning of the article; the options are the topics that Wikipedia's editors filed it under. A model
    pretrained on the embedded corpus has read the texts, but not the topics, which are in no document.
    """

    filed = [article for article in articles() if article.topic != "Uncategorized"]
    names = sorted({article.topic for article in filed})
    options = tuple(f" {name}" for name in names)
    random.Random(f"{source.seed}/wiki-topic").shuffle(filed)
    by_topic: list[list[Item]] = [[] for _ in names]
    for article in filed:
        gold = names.index(article.topic)
        by_topic[gold].append(Item(f"{_beginning(article.text)}\nTopic:", options, gold, id=article.title))
    rounds = itertools.islice(zip(*by_topic, strict=False), TOPIC_ARTICLES + TOPIC_SHOTS)
    items = list(itertools.chain(*rounds))
    asked = TOPIC_ARTICLES * len(names)
    return Split(items[:asked], items[asked:])


def _beginning(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= CHARACTERS else line[:CHARACTERS].rsplit(" ", 1)[0] + " …"


WIKI_TOPIC = Task(
    "wiki-topic",
    "the topic of an encyclopedia article",
    "choice",
    topics,
    shots=8,
    # likelihood alone, whole or per token: a small model gives all articles the topic with the likeliest words (docs/LOG.md)
    normalization="unconditional",
    answer_context="…\nTopic:",
    chance=1 / 11,
)
