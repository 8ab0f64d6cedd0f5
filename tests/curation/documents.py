"""Documents made by chance: random words, near-copies of known similarity, other scripts."""

import random


def words(draw: random.Random, count: int, vocabulary: int = 5000) -> list[str]:
    return [f"w{draw.randrange(vocabulary)}" for _ in range(count)]


def edited(draw: random.Random, text: list[str], edits: int) -> list[str]:
    """With some words replaced."""
    other = list(text)
    for place in draw.sample(range(len(other)), min(edits, len(other))):
        other[place] = f"x{draw.randrange(5000)}"
    return other


def corpus(draw: random.Random, families: int, copies: int, length: int = 120) -> list[str]:
    """Families of documents, each a text and copies of it or of its copies with 0 to 12 words replaced; shuffled."""
    made = []
    for _ in range(families):
        family = [words(draw, draw.randrange(length // 2, length))]
        for _ in range(draw.randrange(copies + 1)):
            family.append(edited(draw, draw.choice(family), draw.randrange(13)))
        made += [" ".join(text) for text in family]
    draw.shuffle(made)
    return made
