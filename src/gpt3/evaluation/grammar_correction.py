"""English sentences with an error, to correct (section 3.9.6): the paper's prompt, scored by a contrast of log-probabilities.

The paper generates a correction and a person judges it. Here the model sees the poor sentence in the paper's words and chooses
between its correction and the same sentence again. Both are compared by P(sentence | prompt) / P(sentence | "Good English
output:"), so that a sentence that is likely anyway gains nothing: a model that ignores the prompt is right in half of the cases,
one that repeats its input never. `acc_sum` compares log-probabilities as they are, which rewards a preference for good English,
too. Sentences and corrections were written for this project; an error is of one kind, and its correction is a single one.
"""

from __future__ import annotations

import random

from gpt3.evaluation import Item, Source, Split, Task

ANSWER_CONTEXT = "Good English output:"
PAIRS = (
    ("agreement", "My brother work in a large factory.", "My brother works in a large factory."),
    ("agreement", "The children was tired after the long walk.", "The children were tired after the long walk."),
    ("agreement", "She have two sisters and a brother.", "She has two sisters and a brother."),
    ("agreement", "The houses on this street is very old.", "The houses on this street are very old."),
    ("agreement", "He do not know the answer.", "He does not know the answer."),
    ("agreement", "These books belongs to the school.", "These books belong to the school."),
    ("agreement", "There is many people in the room.", "There are many people in the room."),
    ("tense", "Yesterday we go to the market.", "Yesterday we went to the market."),
    ("tense", "I have saw this picture before.", "I have seen this picture before."),
    ("tense", "She was born in 1950 and has died in 1990.", "She was born in 1950 and died in 1990."),
    ("tense", "Last year he buyed a new house.", "Last year he bought a new house."),
    ("tense", "They leaved the city ten years ago.", "They left the city ten years ago."),
    ("tense", "When the rain stopped, we continue our journey.", "When the rain stopped, we continued our journey."),
    ("tense", "He has wrote a letter to his mother.", "He has written a letter to his mother."),
    ("article", "He is best player in the team.", "He is the best player in the team."),
    ("article", "She bought a apple and some bread.", "She bought an apple and some bread."),
    ("article", "I saw the old man with an white beard.", "I saw the old man with a white beard."),
    ("article", "The sun rises in east.", "The sun rises in the east."),
    ("article", "My father is doctor.", "My father is a doctor."),
    ("article", "It was an very cold day.", "It was a very cold day."),
    ("preposition", "She is afraid from the dark.", "She is afraid of the dark."),
    ("preposition", "The meeting begins on nine o'clock.", "The meeting begins at nine o'clock."),
    ("preposition", "We arrived to the station late.", "We arrived at the station late."),
    ("preposition", "He is good in playing the piano.", "He is good at playing the piano."),
    ("preposition", "They live at a small village near the sea.", "They live in a small village near the sea."),
    ("preposition", "I am waiting my friend.", "I am waiting for my friend."),
    ("preposition", "The book consists from three parts.", "The book consists of three parts."),
    ("word order", "I like very much this song.", "I like this song very much."),
    ("word order", "He asked me where was the station.", "He asked me where the station was."),
    ("word order", "She plays always in the garden.", "She always plays in the garden."),
    ("word order", "They bought a house old near the river.", "They bought an old house near the river."),
    ("word order", "What you are doing here?", "What are you doing here?"),
    ("word order", "Never I have seen such a storm.", "Never have I seen such a storm."),
    ("number", "He gave me three good advices.", "He gave me three pieces of good advice."),
    ("number", "We saw many sheeps on the hill.", "We saw many sheep on the hill."),
    ("number", "Two man were standing at the door.", "Two men were standing at the door."),
    ("number", "I do not have much friends.", "I do not have many friends."),
    ("number", "One of my teacher comes from France.", "One of my teachers comes from France."),
    ("pronoun", "Me and my sister went home.", "My sister and I went home."),
    ("pronoun", "He gave the money to she.", "He gave the money to her."),
    ("pronoun", "The boy hurt hisself with a knife.", "The boy hurt himself with a knife."),
    ("pronoun", "Us are ready to leave.", "We are ready to leave."),
    ("verb form", "I want that you come with me.", "I want you to come with me."),
    ("verb form", "She enjoys to read old novels.", "She enjoys reading old novels."),
    ("verb form", "He can speaks four languages.", "He can speak four languages."),
    ("verb form", "They made him to wait for an hour.", "They made him wait for an hour."),
    ("comparison", "This road is more longer than that one.", "This road is longer than that one."),
    ("comparison", "She sings gooder than her brother.", "She sings better than her brother."),
    ("negation", "I did not see nobody in the street.", "I did not see anybody in the street."),
    ("negation", "He not likes cold water.", "He does not like cold water."),
)  # fmt: skip
"""Kind of error, the poor sentence, its correction."""


def prompt(poor: str) -> str:
    """The paper's words (Figure 3.17)."""
    return f"Poor English input: {poor}\n{ANSWER_CONTEXT}"


def grammar_correction(source: Source) -> Split:
    """Every sentence, in an order that the seed gives; the right option is the first or the second by the seed, too."""
    rng = random.Random(f"{source.seed}/grammar-correction")
    items = []
    for kind, poor, good in PAIRS:
        options = rng.sample([good, poor], 2)
        items.append(
            Item(prompt(poor), tuple(f" {option}" for option in options), options.index(good), id=f"{kind}: {poor}")
        )
    rng.shuffle(items)
    return Split(items)


GRAMMAR_CORRECTION = Task(
    "grammar-correction",
    "a sentence with an error, and its correction",
    "choice",
    grammar_correction,
    shots=5,
    separator="\n",
    normalization="unconditional",
    answer_context=ANSWER_CONTEXT,
    chance=1 / 2,
    metrics=("acc", "acc_sum"),
)
