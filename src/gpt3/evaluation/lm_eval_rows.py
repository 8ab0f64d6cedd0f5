"""Rows with the prompts of lm-eval 0.4.13, for --style lm-eval, one function for each of its choice tasks in the paper's list.

Texts are taken as they are in the row, and an option follows its context after one space, as lm-eval joins them: so COPA's
options have two spaces before them. `STYLES` has the figures that lm-eval reports of each.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from gpt3.evaluation import Item, answer_rows, answers, choice_rows
from gpt3.evaluation.choice_rows import Row, piqa_parts, right_place, truth, unmarked


def _choose(context: str, options: Sequence[str], gold: Any) -> Item:
    completions = tuple(f" {option}" for option in options)
    if len(completions) < 2:
        raise ValueError(f"{len(completions)} options; a question needs at least two")
    return Item(context, completions, right_place(gold, completions))


# ---- completion


def hellaswag(row: Row) -> Item:
    """ "{activity}: {first sentences} {The rest}"; a row without these parts has its `ctx` taken as it is."""
    context = row["ctx"]
    if "ctx_a" in row:
        context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return _choose(unmarked(context), [*map(unmarked, row["endings"])], row["label"])


def storycloze(row: Row) -> Item:
    """Four sentences, two endings."""
    story = " ".join(row[f"input_sentence_{number}"] for number in range(1, 5))
    return _choose(story, (row["sentence_quiz1"], row["sentence_quiz2"]), int(row["answer_right_ending"]) - 1)


def copa(row: Row) -> Item:
    """The premise without its last character, because or therefore, two alternatives."""
    link = {"cause": "because", "effect": "therefore"}[row["question"]]
    options = [f" {text[0].lower()}{text[1:]}" for text in (row["choice1"], row["choice2"])]
    return _choose(f"{row['premise'].strip()[:-1]} {link}", options, row["label"])


def lambada(row: Row) -> Item:
    """The passage without its last word, with any number of examples."""
    return answer_rows.last_word(row["text"])


# ---- questions


def piqa(row: Row) -> Item:
    """ "Question: {goal} Answer:", two solutions."""
    goal, solutions, gold = piqa_parts(row)
    return _choose(f"Question: {goal}\nAnswer:", solutions, gold)


def arc(row: Row) -> Item:
    """ "Question: … Answer:", the options' texts."""
    if "answerKey" not in row:
        return choice_rows.arc(row)
    gold = row["choices"]["label"].index(row["answerKey"])
    return _choose(f"Question: {row['question']}\nAnswer:", row["choices"]["text"], gold)


def openbookqa(row: Row) -> Item:
    """The stem, four options."""
    gold = row["choices"]["label"].index(row["answerKey"].strip())
    return _choose(row["question_stem"], row["choices"]["text"], gold)


def boolq(row: Row) -> Item:
    """ "{passage} Question: …? Answer:", no or yes."""
    if "passage" in row:
        return _choose(
            f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:", ("no", "yes"), int(truth(row["answer"]))
        )
    item = choice_rows.boolq(row)  # of the simpler layout
    passage, _, question = row["query"].removeprefix("Passage: ").rpartition("\nQuestion: ")
    return replace(item, context=f"{passage}\nQuestion: {question.strip().rstrip('?')}?\nAnswer:")


def race(row: Row) -> Item:
    """One question of an article; `last_questions` makes one item of all those of the article."""
    answer = "ABCD".find(row["answer"].strip())
    head = f"Article: {row['article']}\n\n"
    item = _choose(f"{head}{row['question']}", [*row["options"]][:4], answer)
    return replace(item, id=str(row.get("example_id", "")), group=head)


def last_questions(items: Sequence[Item]) -> list[Item]:
    """The last question of each article, after the others with their answers (lm-eval's dataset has a row for each article)."""
    found = []
    for head, members in itertools.groupby(items, lambda item: item.group):
        *earlier, last = members
        told = head
        for item in earlier:
            question, answer = item.context.removeprefix(head), item.completions[item.gold][1:]
            gap = question.endswith("  _  .")
            told += f"{question[:-5]}{answer}\n" if gap else f"Question: {question}\nAnswer: {answer}\n"
        found.append(replace(last, context=told + last.context.removeprefix(head)))
    return found


# ---- labels


def rte(row: Row) -> Item:
    """ "… True or False? Answer:"; label 0 is entailment."""
    context = f"{row['premise']}\nQuestion: {row['hypothesis']} True or False?\nAnswer:"
    return _choose(context, ("True", "False"), row["label"])


def cb(row: Row) -> Item:
    """ "… True, False, or Neither? Answer:"."""
    context = f"{row['premise']}\nQuestion: {row['hypothesis']}. True, False, or Neither?\nAnswer:"
    return _choose(context, ("True", "False", "Neither"), row["label"])


def wic(row: Row) -> Item:
    """Two numbered sentences, and the word as it is in the first."""
    word = row["sentence1"][int(row["start1"]) : int(row["end1"])]
    question = f"Question: Is the word '{word}' used in the same way in the two sentences above?"
    context = f"Sentence 1: {row['sentence1']}\nSentence 2: {row['sentence2']}\n{question}\nAnswer:"
    return _choose(context, ("no", "yes"), row["label"])


def wsc(row: Row) -> Item:
    """Whether the pronoun between asterisks refers to the row's noun."""
    words, noun, pronoun = row["text"].split(), row["span1_text"], row["span2_text"]
    before = " ".join(words[: int(row["span2_index"])])
    passage = detokenized(f"{before} *{pronoun}*{row['text'][len(before) + len(pronoun) + 1 :]}")
    question = f'Question: In the passage above, does the pronoun "*{pronoun}*" refer to "*{noun}*"?'
    return _choose(f"Passage: {passage}\n{question}\nAnswer:", ("no", "yes"), row["label"])


def detokenized(text: str) -> str:
    """Text without the spaces that a tokenizer put before and after signs."""
    for spaced, joined in ((" n't", "n't"), (" )", ")"), ("( ", "("), ('" ', '"'), (' "', '"')):
        text = text.replace(spaced, joined)
    return re.sub(r" (['.,])", r"\1", text)


def anli(row: Row) -> Item:
    """ "… True, False, or Neither? Answer:", whatever the round."""
    context = f"{row['premise']}\nQuestion: {row['hypothesis']} True, False, or Neither?\nAnswer:"
    return _choose(context, ("True", "Neither", "False"), row["label"])


def multirc(row: Row) -> Item:
    """An answer, correct or not. lm-eval counts "no" as right for a correct answer (label 1), and so does this."""
    options = [f"{row['answer']}\nIs the answer correct? {word}" for word in ("yes", "no")]
    return _choose(f"{row['paragraph']}\nQuestion: {row['question']}\nAnswer:", options, row["label"])


# ---- pronouns and entities


def winograd(row: Row) -> Item:
    """The rest of the sentence after each candidate, in lower case unless a full stop is before it."""
    text, pronoun, start = row["text"].replace("  ", " "), row["pronoun"], int(row["pronoun_loc"])
    after_stop = text[start - 2] == "."
    nouns = [_cased(option, pronoun, after_stop) for option in row["options"]]
    contexts = tuple(text[:start] + noun for noun in nouns)
    rest = f" {text[start + len(pronoun) :]}"
    if not rest.strip():
        raise ValueError("nothing follows the pronoun")
    place = right_place(row["label"], contexts)
    return Item(contexts[place], (rest,) * len(contexts), place, contexts)


def _cased(option: str, pronoun: str, after_stop: bool) -> str:
    option += "'s" if pronoun.lower() in ("my", "his", "her", "our", "their") else ""
    first = option.split()[0]
    small = ("A", "An", "The", "She", "He", "It", "They", "My", "His", "Her", "Their")
    return option.replace(first, first.lower()) if not after_stop and first in small else option


def record(row: Row) -> Item:
    """The passage, its highlights, and the query with each entity in the gap."""
    first, *highlights = row["passage"].strip().split("\n@highlight\n")
    context = f"{first}\n\n" + "".join(f"  - {highlight}.\n" for highlight in highlights)
    entities = sorted(set(row["entities"]))
    right = tuple(place for place, entity in enumerate(entities) if entity in row["answers"])
    if not right:
        raise ValueError("no answer is among the entities")
    item = _choose(context, [f"  - {row['query']}".replace("@placeholder", name) for name in entities], right[0])
    return replace(item, right=right, names=tuple(entities))


NORMED: dict[str, Any] = {"metrics": ("acc", "acc_norm")}
STYLES: dict[str, dict[str, Any]] = {
    "hellaswag": {"make": hellaswag, **NORMED},
    "storycloze": {"make": storycloze},
    "lambada": {"make": lambada, "metrics": ("acc", "ppl")},
    "lambada_standard": {"make": lambada, "metrics": ("acc", "ppl")},
    "winograd": {"make": winograd},
    "winogrande": {"make": choice_rows.winogrande},
    "piqa": {"make": piqa, **NORMED},
    "arc_easy": {"make": arc, **NORMED},
    "arc_challenge": {"make": arc, **NORMED},
    "openbookqa": {"make": openbookqa, **NORMED},
    "race_h": {"make": race, "join": last_questions},
    "boolq": {"make": boolq},
    "copa": {"make": copa},
    "rte": {"make": rte},
    "cb": {"make": cb, "metrics": ("acc", "f1"), "whole": {"f1": partial(answers.macro_f1, count=3)}},
    "wic": {"make": wic},
    "wsc": {"make": wsc, "kind": "choice", "chance": 1 / 2},
    "multirc": {"make": multirc, "chance": 1 / 2},
    "record": {"make": record, "metrics": ("f1", "acc"), "measure": answers.record},
    **{f"anli_r{n}": {"make": anli} for n in (1, 2, 3)},
}
"""What differs from the paper's style, by task: see `gpt3.evaluation.tasks.file_task`."""
