"""Minimal pairs: two sentences that differ in one word, of which a model should find the grammatical one likelier.

BLiMP (Warstadt et al. 2020) is read from its own rows. The pairs of `GRAMMAR` are made here, from templates after those of
Marvin and Linzen (2018) with frequent words, so that models of a few million parameters know them. Both sentences begin a
document, and whole log-probabilities are compared. In half of the pairs the right sentence is singular, and each word occurs
about as often in right sentences as in wrong ones, so that frequent words alone are right about half of the time.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from gpt3.evaluation import Item, Source, Split, Task

PAIRS = 400
"""Pairs of each task."""
PEOPLE = (
    ("teacher", "teachers"), ("farmer", "farmers"), ("king", "kings"), ("writer", "writers"), ("doctor", "doctors"),
    ("student", "students"), ("soldier", "soldiers"), ("friend", "friends"), ("boy", "boys"), ("girl", "girls"),
    ("officer", "officers"), ("artist", "artists"),
)  # fmt: skip
THINGS = (
    ("book", "books"), ("house", "houses"), ("river", "rivers"), ("city", "cities"), ("church", "churches"),
    ("ship", "ships"), ("picture", "pictures"), ("road", "roads"), ("letter", "letters"), ("garden", "gardens"),
    ("school", "schools"), ("castle", "castles"),
)  # fmt: skip
"""Singular and plural."""
BE = (("is", "are"), ("was", "were"), ("has been", "have been"))
DO = (("lives", "live"), ("works", "work"), ("sings", "sing"), ("plays", "play"), ("writes", "write"))
LIKES = (("likes", "like"), ("knows", "know"), ("sees", "see"), ("loves", "love"))
KINDS = ("old", "new", "good", "famous", "large", "young", "great", "small")
PLACES = ("in the town", "near the sea", "with the others", "all day", "in the north")
NEAR = ("near", "behind", "with", "of")
Pair = tuple[str, str]
"""The right sentence and the wrong one."""


def agreement(rng: random.Random) -> Pair:
    """Subject and verb, next to each other."""
    number = rng.randrange(2)
    if rng.randrange(2):
        noun, verbs, rest = rng.choice(PEOPLE + THINGS)[number], rng.choice(BE), rng.choice(KINDS)
    else:
        noun, verbs, rest = rng.choice(PEOPLE)[number], rng.choice(DO), rng.choice(PLACES)
    return _both(f"The {noun} {{}} {rest}.", verbs, number)


def distant_agreement(rng: random.Random) -> Pair:
    """Subject and verb, with a noun of the other number between them."""
    number = rng.randrange(2)
    verbs, kind = rng.choice(BE), rng.choice(KINDS)
    if rng.randrange(2):
        head, other = (rng.choice(words) for words in (PEOPLE, THINGS))
        return _both(f"The {head[number]} {rng.choice(NEAR)} the {other[1 - number]} {{}} {kind}.", verbs, number)
    head, other = rng.sample(PEOPLE, 2)
    likes = rng.choice(LIKES)[1 - number]
    return _both(f"The {head[number]} that the {other[1 - number]} {likes} {{}} {kind}.", verbs, number)


def determiners(rng: random.Random) -> Pair:
    """A noun after this, that, these or those."""
    number, words = rng.randrange(2), rng.choice((("this", "these"), ("that", "those")))
    noun = rng.choice(THINGS)
    who, seen = rng.choice(PEOPLE), rng.choice(("saw", "found", "liked", "knew"))
    return _both(f"The {rng.choice(who)} {seen} {words[number]} {{}}.", noun, number)


def reflexives(rng: random.Random) -> Pair:
    """Himself, herself or themselves, after its antecedent."""
    number = rng.randrange(2)
    who = rng.choice(PEOPLE)
    one = {"king": "himself", "boy": "himself", "girl": "herself"}.get(who[0]) or rng.choice(("himself", "herself"))
    verb = rng.choice(("saw", "found", "helped", "hurt", "knew"))
    return _both(f"The {who[number]} {verb} {{}} {rng.choice(PLACES)}.", (one, "themselves"), number)


def _both(sentence: str, words: tuple[str, str], number: int) -> Pair:
    return sentence.format(words[number]), sentence.format(words[1 - number])


def pairs_of(name: str, make: Callable[[random.Random], Pair], seed: int) -> list[Pair]:
    """Different pairs of a task."""
    rng = random.Random(f"{seed}/{name}")
    found: dict[Pair, None] = {}
    for _ in range(40 * PAIRS):
        if len(found) == PAIRS:
            break
        found.setdefault(make(rng))
    return list(found)


def item_of(good: str, bad: str, id: str = "") -> Item:
    """A pair; the right sentence is the second if both would have the same score, which counts as wrong."""
    if not good.strip() or not bad.strip() or good == bad:
        raise ValueError("a pair needs two different sentences, neither of them empty")
    return Item("", (bad, good), 1, id=id, names=(bad, good))


def _task(name: str, summary: str, make: Callable[[random.Random], Pair]) -> Task:
    def split(source: Source) -> Split:
        return Split([item_of(*pair) for pair in pairs_of(name, make, source.seed)])

    return Task(name, summary, "choice", split, shots=0, normalization="sum", chance=1 / 2)


GRAMMAR = (
    _task("agreement", "minimal pairs: subject and verb", agreement),
    _task("agreement-distant", "minimal pairs: subject and verb with another noun between", distant_agreement),
    _task("determiners", "minimal pairs: this, these and the noun", determiners),
    _task("reflexives", "minimal pairs: himself, herself, themselves", reflexives),
)


def blimp(row: dict[str, Any], paradigm: str | None = None) -> list[Item]:
    """BLiMP's rows, or any with `good` and `bad`; with `paradigm`, none of others."""
    if paradigm is not None and row.get("UID", paradigm) != paradigm:
        return []
    good, bad = (row[f"sentence_{side}" if f"sentence_{side}" in row else side] for side in ("good", "bad"))
    return [item_of(good, bad, str(row.get("pair_id", row.get("pairID", ""))))]
