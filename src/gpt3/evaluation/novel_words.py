"""Made-up words, defined once and then used (section 3.9.5), scored by a contrast of log-probabilities.

The paper generates a sentence and a person judges it. Here the model sees the definition in the paper's words and chooses among
four sentences, all with the new word: one that fits the definition, and three that fit the definitions of other words of the
same kind. Options are compared by P(sentence | definition) / P(sentence | "An example of a sentence is:"), so that a sentence
that is likely anyway gains nothing. Words, definitions and sentences were written for this project.
"""

from __future__ import annotations

import random

from gpt3.evaluation import Item, Source, Split, Task

ANSWER_CONTEXT = "An example of a sentence is:"
THINGS = (
    ("blick", "a small animal that lives in trees and sleeps all day", "We saw a {w} asleep on a branch, high above the ground."),
    ("dorvel", "a loaf of sweet bread that is eaten in the morning", "She cut the {w} and ate a slice of it with butter."),
    ("fepple", "a boat with no sails for crossing rivers", "They sat in the {w} and rowed to the other side of the river."),
    ("garnup", "a tool for cutting wood", "He took the {w} and cut the tree into short logs."),
    ("hovet", "a warm coat that soldiers wear in winter", "It was snowing, so the soldier put on his {w}."),
    ("jistle", "a song that is sung for the dead", "At the grave they sang a {w}, and many people wept."),
    ("kazim", "a house in which books are kept", "She went to the {w} to find a book about the war."),
    ("lopper", "a man who carries letters from town to town", "The {w} came on a horse with a letter for my father."),
    ("merrin", "a plant with red flowers that grows in the desert", "In the desert we found a {w} with bright red flowers."),
    ("norbal", "a game with a ball that is played on ice", "The boys played {w} on the frozen lake until dark."),
    ("pelk", "a coin of little value", "He was so poor that he did not have a single {w} in his pocket."),
    ("quond", "a storm that comes from the sea", "The {w} came in from the sea and broke the ships in the harbor."),
    ("rastin", "a medicine against fever", "The child was hot, so the doctor gave her some {w}."),
    ("sulvo", "a wall that keeps a town safe", "The army could not enter the town, because its {w} was too high."),
    ("tevick", "a large bird that eats fish", "The {w} flew over the lake and caught a fish."),
    ("umbrin", "a room below a house where wine is kept", "He went down to the {w} and came back with a bottle of wine."),
)  # fmt: skip
ACTIONS = (
    ("farl", "jump up and down very fast", "The children were so happy that they began to {w}, higher and higher."),
    ("glimper", "look at the stars at night", "On clear nights we go up the hill to {w} until morning."),
    ("cravit", "cook meat over an open fire", "They made a fire and began to {w} the meat."),
    ("bonder", "speak in a very low voice", "The baby was asleep, so we had to {w}."),
    ("wuzzle", "sell things in the street", "He used to {w} apples and bread in front of the station."),
    ("yorp", "fall asleep in a chair", "After dinner grandfather would {w} by the fire."),
    ("skeld", "write with the left hand", "She hurt her right hand, and so she learned to {w} her letters."),
    ("plomb", "swim under water without air", "He could {w} to the bottom of the lake and back."),
)  # fmt: skip


def definition(word: str, meaning: str, is_action: bool) -> str:
    """The paper's words (Figure 3.16)."""
    defined = f'To "{word}" means to {meaning}.' if is_action else f'A "{word}" is {meaning}.'
    return f"{defined} An example of a sentence that uses the word {word} is:"


def novel_words(source: Source) -> Split:
    """Every word against three other sentences of its kind, drawn by the seed."""
    rng = random.Random(f"{source.seed}/novel-words")
    items = []
    for words in (THINGS, ACTIONS):
        for place, (word, meaning, _) in enumerate(words):
            others = rng.sample([n for n in range(len(words)) if n != place], 3)
            shown = rng.sample([place, *others], 4)
            options = tuple(f" {words[n][2].format(w=word)}" for n in shown)
            items.append(Item(definition(word, meaning, words is ACTIONS), options, shown.index(place), id=word))
    rng.shuffle(items)
    return Split(items)


NOVEL_WORDS = Task(
    "novel-words",
    "a made-up word, defined, and a sentence that uses it",
    "choice",
    novel_words,
    shots=5,
    normalization="unconditional",
    answer_context=ANSWER_CONTEXT,
    chance=1 / 4,
)
