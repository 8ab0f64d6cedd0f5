"""The five word-scrambling tasks of section 3.9.2, generated: a word's letters moved, and the word is asked for.

The paper took the 10,000 most frequent words of 5 to 14 letters of a list that is not released with it. Here they are those of
the embedded corpus, in lower case there. Two formats, because the paper's text and the released files differ:

                   paper                                  released
    words          5 to 14 letters                        6 to 15 letters; A1 5 to 15
    instruction    "Please unscramble the letters into    none
                   a word, and write that word:"
    insertion      any punctuation or space               one of space . / !
    A1             the inner letters in another order     never the word itself
                   than before, where there is one
"""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Callable
from functools import lru_cache

from gpt3.evaluation.items import Item, Source, Split, Task

EXAMPLES = 10_000
SHOT_EXAMPLES = 1000
INSTRUCTION = "Please unscramble the letters into a word, and write that word:\n"
RELEASED_SIGNS = " ./!"
Scramble = Callable[[str, random.Random, str], str]


def cycled(word: str, rng: random.Random, format: str) -> str:
    """Letters moved round: inevitably → lyinevitab."""
    first = rng.randrange(1, len(word))
    return word[first:] + word[:first]


def anagram_1(word: str, rng: random.Random, format: str) -> str:
    """All letters shuffled but the first and the last: corruption → criroptuon."""
    return _shuffled(word, 1, rng)


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


def _shuffled(word: str, kept: int, rng: random.Random) -> str:
    inner = list(word[kept:-kept])
    if len(set(inner)) > 1:
        while (mixed := rng.sample(inner, len(inner))) == inner:
            pass
        inner = mixed
    return word[:kept] + "".join(inner) + word[-kept:]


@lru_cache(maxsize=2)
def frequent_words(shortest: int, longest: int) -> tuple[str, ...]:
    """The embedded corpus' most frequent words of so many letters, most frequent first; equals by the alphabet."""
    from gpt3.corpus.wiki import articles

    counts: Counter[str] = Counter()
    pattern = re.compile(rf"(?<![\w'’-])[a-z]{{{shortest},{longest}}}(?![\w'’-])")
    for article in articles():
        counts.update(pattern.findall(article.text))
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(word for word, _ in ranked[: EXAMPLES + SHOT_EXAMPLES])


def _split(name: str, scramble: Scramble) -> Callable[[Source], Split]:
    def split(source: Source) -> Split:
        released = source.format == "released"
        shortest, longest = ((5 if name == "A1" else 6), 15) if released else (5, 14)
        rng = random.Random(f"{source.seed}/{name}/{source.format}")
        words = list(frequent_words(shortest, longest))
        rng.shuffle(words)
        items = [Item(f"{scramble(word, rng, source.format)} =", (f" {word}",), id=word) for word in words]
        shots = min(SHOT_EXAMPLES, len(items) // 2)
        return Split(items[shots:], items[:shots], instruction="" if released else INSTRUCTION)

    return split


SCRAMBLING = tuple(
    Task(
        name,
        summary,
        "greedy",
        _split(short, scramble),
        shots=100,
        separator="\n",
        paper=paper,
        max_new_tokens=12,
    )
    for name, short, paper, summary, scramble in (
        ("cycle-letters", "CL", "Cycled Letters", "a word of which the letters are moved round", cycled),
        ("anagrams-1", "A1", "Anagrams 1", "a word with all but its first and last letter shuffled", anagram_1),
        ("anagrams-2", "A2", "Anagrams 2", "a word with all but its first and last two letters shuffled", anagram_2),
        ("random-insertion", "RI", "Symbol Insertion", "a word with a sign between letters", inserted),
        ("reversed-words", "RW", "Reversed Words", "a word written backwards", reversed_word),
    )
)
