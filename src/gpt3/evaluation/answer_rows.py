"""Rows whose answer is written, and questions on a passage; the paper's prompts for them (App. G).

`group` is the passage with which the contexts of its items begin. Where the figures show a passage once with several questions,
`with_earlier` puts the earlier questions, answered, between the passage and each question.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gpt3.evaluation import Item
from gpt3.evaluation.answers import UNANSWERABLE
from gpt3.evaluation.choice_rows import bare_question, right_place, spaced

Row = dict[str, Any]
Join = Callable[[Sequence[Item]], list[Item]]
"""A change of all items of a file, in their order."""

# ---- short questions


def lambada(row: Row) -> Item:
    """The passage without its last word."""
    return last_word(row["text"].strip())


def lambada_blank(row: Row) -> Item:
    """Section 3.1.2 and Fig. G.21: "… ____. -> word"."""
    plain = lambada(row)
    return replace(plain, context=f"{plain.context} ____. ->")


def last_word(text: str) -> Item:
    """A text without its last word, which is the answer."""
    context, _, word = text.rpartition(" ")
    if not context:
        raise ValueError("the text has no last word to ask for")
    return Item(context, (f" {word}",))


def triviaqa(row: Row) -> Item:
    """Fig. G.34: "Q: … A:"; every alias is right."""
    answer = row["answer"]
    if not isinstance(answer, dict):
        answer = {"value": answer, "aliases": row.get("aliases", [])}
    question = bare_question(row["question"] if "question" in row else row["context"])
    return Item(f"Q: {question}\n\nA:", _accepted(dict.fromkeys((answer["value"], *answer.get("aliases", [])))))


def open_question(row: Row) -> Item:
    """Figs. G.24, G.35: "Q: … A:"; any of the answers is right."""
    answers = row["answers"] if "answers" in row else row["answer"]
    question = row["question"].strip().removesuffix("?")
    return Item(f"Q: {question}?\n\nA:", _accepted([answers] if isinstance(answers, str) else answers))


def _accepted(answers: Any) -> tuple[str, ...]:
    found = tuple(f" {answer}" for answer in answers if answer.strip())
    if not found:
        raise ValueError("no answer")
    return found


WSC_INSTRUCTION = (
    "Final Exam with Answer Key\nInstructions: Please carefully read the following passages. For each passage, you must "
    "identify which noun the pronoun marked in *bold* refers to.\n=====\n"
)


def wsc(row: Row) -> Item:
    """Fig. G.33: the noun that a pronoun between asterisks refers to; label 1 says that it is the row's own."""
    words, pronoun, place = row["text"].split(), row["span2_text"].strip(), int(row["span2_index"])
    end = place + len(pronoun.split())
    marked = " ".join(words[place:end]).replace(pronoun, f"*{pronoun}*", 1)
    if f"*{pronoun}*" not in marked:
        raise ValueError(f"{pronoun!r} is not at span2_index {place}")
    passage = " ".join([*words[:place], marked, *words[end:]])
    question = (
        f'Passage: {passage}\nQuestion: In the passage above, what does the pronoun "*{pronoun}*" refer to?\nAnswer:'
    )
    return Item(question, (f" {row['span1_text'].strip().lower()}",), right=(0,) if int(row["label"]) else ())


LANGUAGES = {"de": "German", "en": "English", "fr": "French", "ro": "Romanian"}


def translation(row: Row, source: str, target: str, asked: bool = False) -> Item:
    """Figs. G.36 to G.41: "{sentence} = {translation}"; with `asked`, as without few-shot examples, a question in words."""
    sentence, answer = (" ".join(row["translation"][language].split()) for language in (source, target))
    if not sentence or not answer:
        raise ValueError("an empty sentence")
    question = f"Q: What is the {LANGUAGES[target]} translation of {sentence} A:" if asked else f"{sentence} ="
    return Item(question, (f" {answer}",))


# ---- questions on a passage


def with_earlier(items: Sequence[Item]) -> list[Item]:
    """Each item after the earlier questions on its passage, with their answers (Figs. G.1, G.18, G.25, G.28)."""
    found = []
    for head, members in itertools.groupby(items, lambda item: item.group):
        told = head
        for item in members:
            question = item.context.removeprefix(head)
            found.append(replace(item, context=told + question))
            told += f"{question}{item.completions[item.gold]}\n\n"
    return found


def with_answers(items: Sequence[Item]) -> list[Item]:
    """Each item with all labelled answers of its question as its few-shot example (MultiRC: K counts questions)."""
    found = []
    for context, members in itertools.groupby(items, lambda item: item.context):
        answers = list(members)
        solved = context + "".join(item.completions[item.gold] for item in answers)
        found += [replace(item, solved=solved) for item in answers]
    return found


def _question(head: str, question: str, answers: tuple[str, ...], id: str) -> Item:
    return Item(f"{head}Q: {question.strip()}\n\nA:", answers, id=id, group=head)


def race(row: Row) -> Item:
    """Figs. G.1, G.3: an article with its questions, four options each."""
    options, answer = spaced(row["options"]), row["answer"].strip()
    if len(answer) != 1:
        raise ValueError(f"the answer is {answer!r}, but must be a letter from A")
    head = f"Article:\n{row['article'].strip()}\n\n"
    item = _question(head, row["question"], options, str(row.get("example_id", "")))
    return replace(item, gold=right_place("ABCDEFGH".find(answer), options))


def multirc(row: Row) -> Item:
    """Fig. G.15: one answer of a question, true or false."""
    place, answer = row["idx"], row["answer"].strip()
    head = f"{row['paragraph'].strip()}\n\n"
    label = int(row["label"])
    if label not in (0, 1):
        raise ValueError(f"label is {label}, but must be 0 or 1")
    labelled = (f"\n- [True] {answer}", f"\n- [False] {answer}")
    id = "-".join(str(place[part]) for part in ("paragraph", "question", "answer"))
    return Item(f"{head}{row['question'].strip()}", labelled, 1 - label, id=id, group=head)


def record(row: Row) -> Item:
    """Fig. G.6: a passage, and a sentence with each of its entities in the gap; several may be right."""
    entities = tuple(dict.fromkeys(row["entities"]))
    right = tuple(place for place, entity in enumerate(entities) if entity in row["answers"])
    if not right:
        raise ValueError("no answer is among the entities")
    if "@placeholder" not in row["query"]:
        raise ValueError("the query has no @placeholder")
    passage = "\n- ".join(row["passage"].strip().split("\n@highlight\n"))
    sentences = tuple(f"\n- {row['query'].strip().replace('@placeholder', entity)}" for entity in entities)
    return Item(passage, sentences, right[0], right=right, names=entities, group=passage)


def squad2(row: Row) -> Item:
    """Fig. G.28: title, background and its questions; what cannot be answered is "unanswerable", our word."""
    head = f"Title: {row['title']}\n\nBackground: {row['context'].strip()}\n\n"
    answers = tuple(dict.fromkeys(f" {text.strip()}" for text in row["answers"]["text"])) or (f" {UNANSWERABLE}",)
    return _question(head, row["question"], answers, str(row.get("id", "")))


def coqa(row: Row) -> list[Item]:
    """Fig. G.18: a story and a conversation about it; each question has up to four people's answers."""
    head = f"{row['story'].strip()}\n\n"
    others = [one["input_text"] for one in (row.get("additional_answers") or {}).values() if one]
    found = []
    pairs = zip(row["questions"]["input_text"], row["answers"]["input_text"], strict=True)
    for place, (question, answer) in enumerate(pairs):
        accepted = (answer, *(texts[place] for texts in others if place < len(texts)))
        answers = tuple(f" {text.strip()}" for text in accepted)
        found.append(_question(head, question, answers, f"{row.get('id', '')}-{place + 1}"))
    return found


def quac(row: Row) -> list[Item]:
    """Fig. G.25: a section of an article and a conversation about it; the answer shown comes first."""
    head = f"TITLE: {row['wikipedia_page_title']} - {row['section_title']}\nPARAGRAPH: {row['context'].strip()}\n\n"
    found = []
    for place, question in enumerate(row["questions"]):
        texts, first = row["answers"]["texts"][place], row["orig_answers"]["texts"][place]
        accepted = [text for text in texts if text == first] + [text for text in texts if text != first]
        answers = tuple(f" {text.strip()}" for text in accepted or [first])
        found.append(_question(head, question, answers, f"{row.get('dialogue_id', '')}-{place + 1}"))
    return found


def drop(row: Row) -> Item:
    """Fig. G.20: passage, question, answer: a number, a date, or one or more spans."""
    head = f"Passage: {row['passage'].strip()}\n"
    more = row.get("validated_answers") or {}
    others = [dict(zip(more, values, strict=True)) for values in zip(*more.values(), strict=True)]
    accepted = tuple(dict.fromkeys(spans for one in [row["answer"], *others] if (spans := _spans(one))))
    if not accepted:
        raise ValueError("no answer")
    question = f"{head}Question: {row['question'].strip()}\nAnswer:"
    answers = tuple(f" {', '.join(spans)}" for spans in accepted)
    return Item(question, answers, id=str(row.get("query_id", "")), spans=accepted, group=head)


def _spans(answer: Row) -> tuple[str, ...]:
    """A DROP answer's texts: its number, else its spans, else its date."""
    if answer.get("number"):
        return (str(answer["number"]),)
    if answer.get("spans"):
        return tuple(answer["spans"])
    date = answer.get("date") or {}
    text = " ".join(" ".join(date.get(part) or "" for part in ("day", "month", "year")).split())
    return (text,) if text else ()
