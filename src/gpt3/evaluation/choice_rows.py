"""Rows of choices and the paper's prompts for them (App. G); an option begins with the space that parts it from its context.

A row may be as the data set's home on the hub has it, or as in simple files of query, choices and gold (docs/evaluation.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from gpt3.evaluation.items import Item

Row = dict[str, Any]


def spaced(options: Sequence[Any]) -> tuple[str, ...]:
    """Options as completions."""
    texts = tuple(f" {'' if option is None else str(option).strip()}" for option in options)
    if len(texts) < 2 or not all(text.strip() for text in texts):
        raise ValueError(f"{len(texts)} options, or an empty one; a question needs at least two, none empty")
    return texts


def right_place(value: Any, options: Sequence[Any]) -> int:
    """The right option's place, counted from 0."""
    try:
        place = int(value)
    except ValueError:
        raise ValueError(f"the right option is {value!r}; it must be a number, counted from 0") from None
    if not 0 <= place < len(options):
        raise ValueError(f"the right option is {value!r}, but there are {len(options)}, counted from 0")
    return place


def truth(value: Any) -> bool:
    """A truth value as JSON has it, or as CSV writes it."""
    word = str(value).strip().lower()
    if word not in ("true", "false", "1", "0"):
        raise ValueError(f"the answer is {value!r}; it must be true or false")
    return word in ("true", "1")


def bare_question(text: str) -> str:
    """The bare question of a field that may begin with "Question:"."""
    return re.sub(r"^Question:\s*", "", text.strip()).removesuffix("Answer:").strip()


def hellaswag(row: Row) -> Item:
    """Fig. G.9: "{activity}: {context}", four endings."""
    context = row["ctx"] if "activity_label" not in row else f"{row['activity_label']}: {row['ctx']}"
    endings = spaced([unmarked(ending) for ending in row["endings"]])
    return Item(unmarked(context), endings, right_place(row["label"], endings))


def unmarked(text: str) -> str:
    """WikiHow's marks out, as every evaluation of HellaSwag does."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def piqa(row: Row) -> Item:
    """Fig. G.4: the goal, two solutions."""
    if "goal" in row:
        options = spaced([row["sol1"], row["sol2"]])
        return Item(row["goal"].strip(), options, right_place(row["label"], options))
    options = spaced(row["choices"])
    return Item(bare_question(row["query"]), options, right_place(row["gold"], options))


def arc(row: Row) -> Item:
    """Figs. G.11, G.16: "Question: … Answer:", the options' texts."""
    if "answerKey" in row:
        options = spaced(row["choices"]["text"])
        return Item(
            f"Question: {row['question'].strip()}\nAnswer:", options, row["choices"]["label"].index(row["answerKey"])
        )
    options = spaced(row["choices"])
    return Item(f"Question: {bare_question(row['query'])}\nAnswer:", options, right_place(row["gold"], options))


def openbookqa(row: Row) -> Item:
    """Fig. G.8: the stem, four options."""
    options = spaced(row["choices"]["text"])
    return Item(row["question_stem"].strip(), options, row["choices"]["label"].index(row["answerKey"].strip()))


def boolq(row: Row) -> Item:
    """Fig. G.29: "{passage} question: …? answer:", yes or no."""
    if "passage" in row:
        passage, question, right = row["passage"], row["question"], truth(row["answer"])
    else:
        passage, _, question = row["query"].removeprefix("Passage: ").rpartition("\nQuestion:")
        right = row["choices"][right_place(row["gold"], row["choices"])].strip() == "yes"
    question = question.strip().rstrip("?")
    return Item(f"{passage.strip()}\nquestion: {question}?\nanswer:", (" no", " yes"), int(right))


def winogrande(row: Row) -> Item:
    """Fig. G.14, partial scoring: the rest of the sentence after each candidate."""
    if "context_options" in row:
        contexts, rest, gold = tuple(row["context_options"]), row["continuation"], row["gold"]
    else:
        before, gap, rest = row["sentence"].partition("_")
        if not gap:
            raise ValueError("the sentence has no _ for the candidates")
        contexts, gold = (before + row["option1"], before + row["option2"]), int(row["answer"]) - 1
    place = right_place(gold, contexts)
    if not rest.strip():
        raise ValueError("nothing follows the candidates; a partial scoring compares what does")
    return Item(contexts[place], (f" {rest.strip()}",) * len(contexts), place, contexts)


def winograd(row: Row) -> Item:
    """Fig. G.13, partial scoring: the candidates in the pronoun's place, small where they do not begin the sentence."""
    text, pronoun, start = row["text"], row["pronoun"], int(row["pronoun_loc"])
    before, rest = text[:start], text[start + len(pronoun) :].rstrip()
    if text[start : start + len(pronoun)] != pronoun or not rest:
        raise ValueError(f"pronoun_loc {start} is not where {pronoun!r} stands, or nothing follows it")
    begins = not before.strip() or before.rstrip()[-1] in ".!?"
    owner = "'s" if pronoun.lower() in ("my", "his", "her", "our", "their", "its") else ""
    contexts = tuple(_single(before + _cased(option.strip(), begins) + owner) for option in row["options"])
    place = right_place(row["label"], contexts)
    return Item(contexts[place], (_single(rest),) * len(contexts), place, contexts)


def _cased(noun: str, begins: bool) -> str:
    """A noun at the begin of a sentence, or its article or pronoun inside of one."""
    first, _, others = noun.partition(" ")
    if begins:
        return noun[0].upper() + noun[1:]
    small = {"a", "an", "the", "my", "his", "her", "our", "their", "its", "she", "he", "it", "they"}
    return f"{first.lower()} {others}".rstrip() if first.lower() in small else noun


def _single(text: str) -> str:
    return re.sub(" +", " ", text)


def copa(row: Row) -> Item:
    """Fig. G.5: the premise, because or therefore, two alternatives."""
    link = {"cause": "because", "effect": "therefore"}[row["question"]]
    options = spaced([text[0].lower() + text[1:] for text in (row["choice1"], row["choice2"])])
    return Item(f"{row['premise'].strip().rstrip('.')} {link}", options, right_place(row["label"], options))


def rte(row: Row) -> Item:
    """Fig. G.31: entailment as True or False; label 0 is entailment."""
    return Item(
        f"{row['premise'].strip()}\nquestion: {row['hypothesis'].strip()} True or False?\nanswer:",
        (" True", " False"),
        right_place(row["label"], "TF"),
    )


def cb(row: Row) -> Item:
    """Fig. G.30: labels 0 entailment, 1 contradiction, 2 neutral."""
    return Item(
        f"{row['premise'].strip()}\nquestion: {row['hypothesis'].strip().rstrip('.')}. true, false, or neither?\nanswer:",
        (" true", " false", " neither"),
        right_place(row["label"], "TFN"),
    )


def wic(row: Row) -> Item:
    """Fig. G.32: one word in two sentences; label 1 is the same sense."""
    return Item(
        f"{row['sentence1']}\n{row['sentence2']}\nquestion: Is the word '{row['word']}' used in the same way in the two "
        "sentences above?\nanswer:",
        (" no", " yes"),
        right_place(row["label"], "NY"),
    )


def anli(round_: int) -> Callable[[Row], Item]:
    """Figs. G.2, G.7, G.10: labels 0 entailment, 1 neutral, 2 contradiction."""

    def make(row: Row) -> Item:
        options = (" True", " Neither", " False")
        return Item(
            f"anli {round_}: anli {round_}: {row['premise'].strip()}\nQuestion: {row['hypothesis'].strip()} "
            "True, False, or Neither?",
            options,
            right_place(row["label"], options),
        )

    return make


def storycloze(row: Row) -> Item:
    """Fig. G.17: four sentences, two endings."""
    story = " ".join(row[f"input_sentence_{number}"].strip() for number in range(1, 5))
    options = spaced([row["sentence_quiz1"], row["sentence_quiz2"]])
    return Item(story, options, right_place(int(row["answer_right_ending"]) - 1, options))
