"""Rows of questions on a passage, and the paper's prompts for them (App. G).

`group` is what the contexts of one passage's items begin with. Where the figures show a passage once with several questions,
`with_earlier` puts those that were asked before, solved, between the passage and each question.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gpt3.evaluation.answers import UNANSWERABLE
from gpt3.evaluation.choice_rows import right_place, spaced
from gpt3.evaluation.items import Item

Row = dict[str, Any]
Join = Callable[[Sequence[Item]], list[Item]]
"""What is made of all items of a file, in their order."""


def with_earlier(items: Sequence[Item]) -> list[Item]:
    """Each item after the questions before it on the same passage, solved (Figs. G.1, G.18, G.25, G.28)."""
    found = []
    for head, members in itertools.groupby(items, lambda item: item.group):
        told = head
        for item in members:
            question = item.context.removeprefix(head)
            found.append(replace(item, context=told + question))
            told += f"{question}{item.completions[item.gold]}\n\n"
    return found


def with_answers(items: Sequence[Item]) -> list[Item]:
    """Each item with its question's whole list of labelled answers for a demonstration (MultiRC: K counts questions)."""
    found = []
    for context, members in itertools.groupby(items, lambda item: item.context):
        answers = list(members)
        solved = context + "".join(item.completions[item.gold] for item in answers)
        found += [replace(item, solved=solved) for item in answers]
    return found


def once_each(items: Sequence[Item]) -> list[Item]:
    """One item of each question."""
    return list({item.demonstration: item for item in items}.values())


def race(row: Row) -> Item:
    """Figs. G.1, G.3: an article with its questions, four options each."""
    head = f"Article:\n{row['article'].strip()}\n\n"
    options = spaced(row["options"])
    answer = row["answer"].strip()
    if len(answer) != 1:
        raise ValueError(f"the answer is {answer!r}, but must be a letter from A")
    return Item(
        f"{head}Q: {row['question'].strip()}\n\nA:",
        options,
        right_place("ABCDEFGH".find(answer), options),
        id=str(row.get("example_id", "")),
        group=head,
    )


def multirc(row: Row) -> Item:
    """Fig. G.15: one answer of a question, true or false."""
    place, answer = row["idx"], row["answer"].strip()
    head = f"{row['paragraph'].strip()}\n\n"
    label = int(row["label"])
    if label not in (0, 1):
        raise ValueError(f"label is {label}, but must be 0 or 1")
    return Item(
        f"{head}{row['question'].strip()}",
        (f"\n- [True] {answer}", f"\n- [False] {answer}"),
        1 - label,
        id=f"{place['paragraph']}-{place['question']}-{place['answer']}",
        group=head,
    )


def record(row: Row) -> Item:
    """Fig. G.6: a passage, and a sentence with each of its entities in the gap; several may be right."""
    entities = tuple(dict.fromkeys(row["entities"]))
    right = tuple(place for place, entity in enumerate(entities) if entity in row["answers"])
    if not right:
        raise ValueError("no answer is among the entities")
    if "@placeholder" not in row["query"]:
        raise ValueError("the query has no @placeholder")
    text, *highlights = row["passage"].strip().split("\n@highlight\n")
    passage = "\n- ".join([text, *highlights])
    sentences = tuple(f"\n- {row['query'].strip().replace('@placeholder', entity)}" for entity in entities)
    return Item(passage, sentences, right[0], right=right, names=entities, group=passage)


def squad2(row: Row) -> Item:
    """Fig. G.28: title, background and its questions; what cannot be answered is "unanswerable", our word."""
    head = f"Title: {row['title']}\n\nBackground: {row['context'].strip()}\n\n"
    answers = tuple(dict.fromkeys(f" {text.strip()}" for text in row["answers"]["text"])) or (f" {UNANSWERABLE}",)
    return Item(f"{head}Q: {row['question'].strip()}\n\nA:", answers, id=str(row.get("id", "")), group=head)


def coqa(row: Row) -> list[Item]:
    """Fig. G.18: a story and a talk about it; each question has up to four people's answers."""
    head = f"{row['story'].strip()}\n\n"
    questions, answers = row["questions"]["input_text"], row["answers"]["input_text"]
    others = [one["input_text"] for one in (row.get("additional_answers") or {}).values() if one]
    found = []
    for place, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        accepted = [answer, *(texts[place] for texts in others if place < len(texts))]
        completions = tuple(f" {text.strip()}" for text in accepted)
        name = f"{row.get('id', '')}-{place + 1}"
        found.append(Item(f"{head}Q: {question.strip()}\n\nA:", completions, id=name, group=head))
    return found


def quac(row: Row) -> list[Item]:
    """Fig. G.25: a section of an article and a talk about it."""
    head = f"TITLE: {row['wikipedia_page_title']} - {row['section_title']}\nPARAGRAPH: {row['context'].strip()}\n\n"
    found = []
    shown = row["orig_answers"]["texts"]
    for place, question in enumerate(row["questions"]):
        texts, first = row["answers"]["texts"][place], shown[place]
        accepted = [text for text in texts if text == first] + [text for text in texts if text != first]
        completions = tuple(f" {text.strip()}" for text in accepted or [first])
        name = f"{row.get('dialogue_id', '')}-{place + 1}"
        found.append(Item(f"{head}Q: {question.strip()}\n\nA:", completions, id=name, group=head))
    return found


def drop(row: Row) -> Item:
    """Fig. G.20: passage, question, answer: a number, a date, or one or more spans."""
    head = f"Passage: {row['passage'].strip()}\n"
    more = row.get("validated_answers") or {}
    others = [dict(zip(more, values, strict=True)) for values in zip(*more.values(), strict=True)]
    accepted = tuple(dict.fromkeys(spans for one in [row["answer"], *others] if (spans := _spans(one))))
    if not accepted:
        raise ValueError("no answer")
    return Item(
        f"{head}Question: {row['question'].strip()}\nAnswer:",
        tuple(f" {', '.join(spans)}" for spans in accepted),
        id=str(row.get("query_id", "")),
        spans=accepted,
        group=head,
    )


def _spans(answer: Row) -> tuple[str, ...]:
    """A DROP answer's texts: its number, else its spans, else its date."""
    if answer.get("number"):
        return (str(answer["number"]),)
    if answer.get("spans"):
        return tuple(answer["spans"])
    date = answer.get("date") or {}
    text = " ".join(date.get(part) or "" for part in ("day", "month", "year"))
    return (text,) if (text := " ".join(text.split())) else ()
