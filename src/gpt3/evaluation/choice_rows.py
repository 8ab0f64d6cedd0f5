"""Rows of choices and the paper's prompts for them (App. G); an option begins with the space between it and its context.

A row may be as in the dataset on the hub, or simpler, with query, choices and gold (docs/evaluation.md). lm-eval's prompts are
in `gpt3.evaluation.lm_eval_rows`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from gpt3.evaluation import Item

Row = dict[str, Any]


def spaced(options: Iterable[Any]) -> tuple[str, ...]:
    """Options as completions."""
    texts = tuple(f" {'' if option is None else str(option).strip()}" for option in options)
    if len(texts) < 2 or not all(text.strip() for text in texts):
        raise ValueError(f"{len(texts)} options, or an empty one; a question needs at least two, none empty")
    return texts


def choose(context: str, options: Iterable[Any], gold: Any) -> Item:
    """A context and its options, the right one by its index."""
    completions = spaced(options)
    return Item(context, completions, right_place(gold, completions))


def right_place(value: Any, options: Sequence[Any]) -> int:
    """The right option's index, from 0."""
    try:
        place = int(value)
    except ValueError:
        raise ValueError(f"the right option is {value!r}; it must be a number, counted from 0") from None
    if not 0 <= place < len(options):
        raise ValueError(f"the right option is {value!r}, but there are {len(options)}, counted from 0")
    return place


def truth(value: Any) -> bool:
    """A boolean as JSON has it, or as CSV writes it."""
    word = str(value).strip().lower()
    if word not in ("true", "false", "1", "0"):
        raise ValueError(f"the answer is {value!r}; it must be true or false")
    return word in ("true", "1")


def bare_question(text: str) -> str:
    """The question in a field that may begin with "Question:" and end with "Answer:"."""
    return re.sub(r"^Question:\s*", "", text.strip()).removesuffix("Answer:").strip()


# ---- completion


def hellaswag(row: Row) -> Item:
    """Fig. G.9: "{activity}: {context}", four endings."""
    context = row["ctx"] if "activity_label" not in row else f"{row['activity_label']}: {row['ctx']}"
    return choose(unmarked(context), map(unmarked, row["endings"]), row["label"])


def unmarked(text: str) -> str:
    """Text without WikiHow's marks, as every evaluation of HellaSwag removes them."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def storycloze(row: Row) -> Item:
    """Fig. G.17: four sentences, two endings."""
    story = " ".join(row[f"input_sentence_{number}"].strip() for number in range(1, 5))
    return choose(story, (row["sentence_quiz1"], row["sentence_quiz2"]), int(row["answer_right_ending"]) - 1)


def copa(row: Row) -> Item:
    """Fig. G.5: the premise, because or therefore, two alternatives."""
    link = {"cause": "because", "effect": "therefore"}[row["question"]]
    options = [text[0].lower() + text[1:] for text in (row["choice1"], row["choice2"])]
    return choose(f"{row['premise'].strip().rstrip('.')} {link}", options, row["label"])


# ---- questions


def piqa(row: Row) -> Item:
    """Fig. G.4: the goal, two solutions."""
    goal, solutions, gold = piqa_parts(row)
    return choose(goal.strip(), solutions, gold)


def piqa_parts(row: Row) -> tuple[str, Sequence[str], Any]:
    """The goal, two solutions and which is right, of either layout."""
    if "goal" in row:
        return row["goal"], (row["sol1"], row["sol2"]), row["label"]
    return bare_question(row["query"]), row["choices"], row["gold"]


def arc(row: Row) -> Item:
    """Figs. G.11, G.16: "Question: … Answer:", the options' texts."""
    if "answerKey" not in row:
        return choose(f"Question: {bare_question(row['query'])}\nAnswer:", row["choices"], row["gold"])
    gold = row["choices"]["label"].index(row["answerKey"])
    return choose(f"Question: {row['question'].strip()}\nAnswer:", row["choices"]["text"], gold)


def openbookqa(row: Row) -> Item:
    """Fig. G.8: the stem, four options."""
    gold = row["choices"]["label"].index(row["answerKey"].strip())
    return choose(row["question_stem"].strip(), row["choices"]["text"], gold)


def boolq(row: Row) -> Item:
    """Fig. G.29: "{passage} question: …? answer:", yes or no."""
    if "passage" in row:
        passage, question, right = row["passage"], row["question"], truth(row["answer"])
    else:
        passage, _, question = row["query"].removeprefix("Passage: ").rpartition("\nQuestion:")
        right = row["choices"][right_place(row["gold"], row["choices"])].strip() == "yes"
    question = question.strip().rstrip("?")
    return Item(f"{passage.strip()}\nquestion: {question}?\nanswer:", (" no", " yes"), int(right))


LETTERS = "ABCD"


def mmlu(row: Row, subject: str) -> list[Item]:
    """Hendrycks et al. 2021: the options are listed with their letters, and the letter is the answer; none of other subjects."""
    if (parts := _mmlu(row, subject)) is None:
        return []
    question, choices, gold = parts
    listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True))
    return [Item(f"{question.strip()}{listed}\nAnswer:", tuple(f" {letter}" for letter in LETTERS), gold)]


def mmlu_cloze(row: Row, subject: str) -> list[Item]:
    """ "Question: … Answer:", and the options' texts, as lm-eval's mmlu_continuation has them."""
    if (parts := _mmlu(row, subject)) is None:
        return []
    question, choices, gold = parts
    return [choose(f"Question: {question.strip()}\nAnswer:", choices, gold)]


def mmlu_seed(row: Row, subject: str) -> list[Item]:
    """ "{question} {choice}", both as they are in the row."""
    if (parts := _mmlu(row, subject)) is None:
        return []
    question, choices, gold = parts
    return [Item(question, tuple(f" {choice}" for choice in choices), gold)]


def _mmlu(row: Row, subject: str) -> tuple[str, list[str], int] | None:
    """Question, options and the right one's index; None for a row of another subject or split."""
    if row.get("subject", subject) != subject or row.get("split", "test") not in ("dev", "test") or not row["subject"]:
        return None
    choices = list(map(str, row["choices"]))
    if len(choices) != len(LETTERS):
        raise ValueError(f"{len(choices)} choices; needs four")
    return row["question"], choices, right_place(row["answer"], choices)


# ---- labels


def rte(row: Row) -> Item:
    """Fig. G.31: label 0 is entailment."""
    question = f"{row['premise'].strip()}\nquestion: {row['hypothesis'].strip()} True or False?\nanswer:"
    return choose(question, ("True", "False"), row["label"])


def cb(row: Row) -> Item:
    """Fig. G.30: labels 0 entailment, 1 contradiction, 2 neutral."""
    hypothesis = row["hypothesis"].strip().rstrip(".")
    question = f"{row['premise'].strip()}\nquestion: {hypothesis}. true, false, or neither?\nanswer:"
    return choose(question, ("true", "false", "neither"), row["label"])


def wic(row: Row) -> Item:
    """Fig. G.32: a word in two sentences; label 1 is the same sense."""
    question = f"Is the word '{row['word']}' used in the same way in the two sentences above?"
    return choose(f"{row['sentence1']}\n{row['sentence2']}\nquestion: {question}\nanswer:", ("no", "yes"), row["label"])


def anli(row: Row, number: int) -> Item:
    """Figs. G.2, G.7, G.10, a round each: labels 0 entailment, 1 neutral, 2 contradiction."""
    premise = f"anli {number}: anli {number}: {row['premise'].strip()}"
    question = f"{premise}\nQuestion: {row['hypothesis'].strip()} True, False, or Neither?"
    return choose(question, ("True", "Neither", "False"), row["label"])


# ---- partial scoring


def winogrande(row: Row) -> Item:
    """Fig. G.14: the rest of the sentence after each candidate."""
    if "context_options" in row:
        contexts, rest, gold = tuple(row["context_options"]), row["continuation"], row["gold"]
    else:
        before, gap, rest = row["sentence"].partition("_")
        if not gap:
            raise ValueError("the sentence has no _ for the candidates")
        contexts, gold = (before + row["option1"], before + row["option2"]), int(row["answer"]) - 1
    place = right_place(gold, contexts)
    if not rest.strip():
        raise ValueError("nothing follows the candidates; partial scoring compares what does")
    return Item(contexts[place], (f" {rest.strip()}",) * len(contexts), place, contexts)


def winograd(row: Row) -> Item:
    """Fig. G.13: the candidates in the pronoun's place, in lower case where they do not begin the sentence."""
    text, pronoun, start = row["text"], row["pronoun"], int(row["pronoun_loc"])
    before, rest = text[:start], text[start + len(pronoun) :].rstrip()
    if text[start : start + len(pronoun)] != pronoun or not rest:
        raise ValueError(f"{pronoun!r} is not at pronoun_loc {start}, or nothing follows it")
    begins = not before.strip() or before.rstrip()[-1] in ".!?"
    owner = "'s" if pronoun.lower() in ("my", "his", "her", "our", "their", "its") else ""
    nouns = [_cased(option.strip(), begins) for option in row["options"]]
    contexts = tuple(re.sub(" +", " ", before + noun + owner) for noun in nouns)
    place = right_place(row["label"], contexts)
    return Item(contexts[place], (re.sub(" +", " ", rest),) * len(contexts), place, contexts)


def _cased(noun: str, begins: bool) -> str:
    """A noun at the beginning of a sentence, or its article or pronoun inside one."""
    first, _, others = noun.partition(" ")
    if begins:
        return noun[0].upper() + noun[1:]
    small = {"a", "an", "the", "my", "his", "her", "our", "their", "its", "she", "he", "it", "they"}
    return f"{first.lower()} {others}".rstrip() if first.lower() in small else noun
