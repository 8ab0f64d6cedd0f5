"""The tasks that take their rows from files, in the paper's prompt formats (App. G).

A row may be as the data set's home on the hub has it, or as in simple files of query, choices and gold (docs/evaluation.md).
Rows with a field `split` are divided by it: train, dev and validation give the demonstrations, test is scored. Without such
rows, and without a file NAME_train, demonstrations come from the scored rows themselves, never the one that is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from gpt3.errors import InputError
from gpt3.evaluation.items import Item, Source, Split, Task
from gpt3.evaluation.rows import find, read_items

Make = Callable[[dict[str, Any]], Item]
SHOT_SPLITS = ("train", "dev", "validation", "auxiliary_train")
BLANK = "____"


def from_files(name: str, files: Sequence[str], make: Make, zero_shot: Make | None = None) -> Callable[[Source], Split]:
    """A function that reads a task's items from the first of `files` that is there."""

    def split(source: Source) -> Split:
        path = find(source.data_dir, files) if source.data_dir is not None else None
        if path is None:
            where = f"{source.data_dir} has no" if source.data_dir is not None else "give --data-dir, a folder with"
            raise InputError(f"{name}: {where} {files[0]}.jsonl (or .jsonl.gz, .csv, .parquet); docs/evaluation.md")
        rows = read_items(path, lambda row: (str(row.get("split", "")), make(row)))
        test = [item for part, item in rows if part not in SHOT_SPLITS]
        shots = [item for part, item in rows if part in SHOT_SPLITS]
        if not test:
            test, shots = shots, []
        train = find(source.data_dir or "", [f"{file}_train" for file in files])
        if train is not None:
            shots = read_items(train, make)
        plain = None
        if zero_shot is not None:
            asked = zero_shot
            parts = read_items(path, lambda row: (str(row.get("split", "")), asked(row)))
            plain = [item for part, item in parts if part not in SHOT_SPLITS or not shots]
        return Split(test, shots or None, plain)

    return split


def _spaced(options: Sequence[Any]) -> tuple[str, ...]:
    texts = tuple(f" {str(option).strip()}" for option in options)
    if len(texts) < 2 or not all(text.strip() for text in texts):
        raise ValueError(f"{len(texts)} options, or an empty one; a question needs at least two, none empty")
    return texts


def _gold(value: Any, options: Sequence[Any]) -> int:
    place = int(value)
    if not 0 <= place < len(options):
        raise ValueError(f"the right option is {value!r}, but there are {len(options)}, counted from 0")
    return place


def _question(text: str) -> str:
    """The bare question of a field that may begin with "Question:"."""
    return re.sub(r"^Question:\s*", "", text.strip()).removesuffix("Answer:").strip()


def hellaswag(row: dict[str, Any]) -> Item:
    """Fig. G.9: "{activity}: {context}", four endings."""
    context = row["ctx"] if "activity_label" not in row else f"{row['activity_label']}: {row['ctx']}"
    endings = _spaced([_clean(ending) for ending in row["endings"]])
    return Item(_clean(context), endings, _gold(row["label"], endings))


def _clean(text: str) -> str:
    """WikiHow's marks out, as every evaluation of HellaSwag does."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def piqa(row: dict[str, Any]) -> Item:
    """Fig. G.4: the goal, two solutions."""
    if "goal" in row:
        options = _spaced([row["sol1"], row["sol2"]])
        return Item(row["goal"].strip(), options, _gold(row["label"], options))
    options = _spaced(row["choices"])
    return Item(_question(row["query"]), options, _gold(row["gold"], options))


def arc(row: dict[str, Any]) -> Item:
    """Figs. G.11, G.16: "Question: … Answer:", the options' texts."""
    if "answerKey" in row:
        options = _spaced(row["choices"]["text"])
        return Item(
            f"Question: {row['question'].strip()}\nAnswer:", options, row["choices"]["label"].index(row["answerKey"])
        )
    options = _spaced(row["choices"])
    return Item(f"Question: {_question(row['query'])}\nAnswer:", options, _gold(row["gold"], options))


def openbookqa(row: dict[str, Any]) -> Item:
    """Fig. G.8: the stem, four options."""
    options = _spaced(row["choices"]["text"])
    return Item(row["question_stem"].strip(), options, row["choices"]["label"].index(row["answerKey"].strip()))


def boolq(row: dict[str, Any]) -> Item:
    """Fig. G.29: "{passage} question: …? answer:", yes or no."""
    if "passage" in row:
        passage, question, right = row["passage"], row["question"], bool(row["answer"])
    else:
        passage, _, question = row["query"].removeprefix("Passage: ").rpartition("\nQuestion:")
        right = row["choices"][_gold(row["gold"], row["choices"])].strip() == "yes"
    question = question.strip().rstrip("?")
    return Item(f"{passage.strip()}\nquestion: {question}?\nanswer:", (" no", " yes"), int(right))


def winogrande(row: dict[str, Any]) -> Item:
    """Fig. G.14, partial scoring: the rest of the sentence after each candidate."""
    if "context_options" in row:
        contexts, rest, gold = tuple(row["context_options"]), row["continuation"], row["gold"]
    else:
        before, _, rest = row["sentence"].partition("_")
        contexts, gold = (before + row["option1"], before + row["option2"]), int(row["answer"]) - 1
    place = _gold(gold, contexts)
    return Item(contexts[place], (f" {rest.strip()}",) * len(contexts), place, contexts)


def lambada_plain(row: dict[str, Any]) -> Item:
    """The passage without its last word."""
    text = row["text"].strip()
    context, _, word = text.rpartition(" ")
    if not context:
        raise ValueError("the text has no last word to ask for")
    return Item(context, (f" {word}",))


def lambada_blank(row: dict[str, Any]) -> Item:
    """Section 3.1.2 and Fig. G.21: "… ____. -> word"."""
    plain = lambada_plain(row)
    return Item(f"{plain.context} {BLANK}. ->", plain.completions)


def triviaqa(row: dict[str, Any]) -> Item:
    """Fig. G.34: "Q: … A:"; every alias is right."""
    answer = row["answer"]
    if isinstance(answer, dict):
        main, aliases = answer["value"], answer.get("aliases", [])
    else:
        main, aliases = answer, row.get("aliases", [])
    question = _question(row["question"] if "question" in row else row["context"])
    accepted = dict.fromkeys([f" {main}", *(f" {alias}" for alias in aliases)])
    return Item(f"Q: {question}\n\nA:", tuple(accepted))


def open_question(row: dict[str, Any]) -> Item:
    """Figs. G.24, G.35: "Q: … A:"; any of the answers is right."""
    answers = row["answers"] if "answers" in row else row["answer"]
    answers = [answers] if isinstance(answers, str) else list(answers)
    if not answers:
        raise ValueError("no answer")
    question = row["question"].strip()
    return Item(f"Q: {question + ('' if question.endswith('?') else '?')}\n\nA:", tuple(f" {one}" for one in answers))


def copa(row: dict[str, Any]) -> Item:
    """Fig. G.5: the premise, because or therefore, two alternatives."""
    link = {"cause": "because", "effect": "therefore"}[row["question"]]
    options = _spaced([text[0].lower() + text[1:] for text in (row["choice1"], row["choice2"])])
    return Item(f"{row['premise'].strip().rstrip('.')} {link}", options, _gold(row["label"], options))


def rte(row: dict[str, Any]) -> Item:
    """Fig. G.31: entailment as True or False; label 0 is entailment."""
    return Item(
        f"{row['premise'].strip()}\nquestion: {row['hypothesis'].strip()} True or False?\nanswer:",
        (" True", " False"),
        _gold(row["label"], "TF"),
    )


def cb(row: dict[str, Any]) -> Item:
    """Fig. G.30: labels 0 entailment, 1 contradiction, 2 neutral."""
    return Item(
        f"{row['premise'].strip()}\nquestion: {row['hypothesis'].strip()}. true, false, or neither?\nanswer:",
        (" true", " false", " neither"),
        _gold(row["label"], "TFN"),
    )


def wic(row: dict[str, Any]) -> Item:
    """Fig. G.32: one word in two sentences; label 1 is the same sense."""
    return Item(
        f"{row['sentence1']}\n{row['sentence2']}\nquestion: Is the word '{row['word']}' used in the same way in the two "
        "sentences above?\nanswer:",
        (" no", " yes"),
        _gold(row["label"], "NY"),
    )


def anli(round_: int) -> Make:
    """Figs. G.2, G.7, G.10: labels 0 entailment, 1 neutral, 2 contradiction."""

    def make(row: dict[str, Any]) -> Item:
        options = (" True", " Neither", " False")
        return Item(
            f"anli {round_}: anli {round_}: {row['premise'].strip()}\nQuestion: {row['hypothesis'].strip()} "
            "True, False, or Neither?",
            options,
            _gold(row["label"], options),
        )

    return make


def storycloze(row: dict[str, Any]) -> Item:
    """Fig. G.17: four sentences, two endings."""
    story = " ".join(row[f"input_sentence_{number}"].strip() for number in range(1, 5))
    options = _spaced([row["sentence_quiz1"], row["sentence_quiz2"]])
    return Item(story, options, _gold(int(row["answer_right_ending"]) - 1, options))


def _choice(
    name: str, files: Sequence[str], make: Make, paper: str | None, shots: int, chance: float, **more: Any
) -> Task:
    summary = more.pop("summary")
    return Task(name, summary, "choice", from_files(name, files, make), shots, chance=chance, paper=paper, **more)


def _open(name: str, files: Sequence[str], make: Make, paper: str, summary: str) -> Task:
    split = from_files(name, files, make)
    return Task(name, summary, "text", split, 64, paper=paper, max_new_tokens=24, metrics=("acc", "f1"))


UNCONDITIONAL: dict[str, Any] = {"normalization": "unconditional", "answer_context": "Answer:"}
FILE_TASKS = (
    _choice(
        "hellaswag", ("hellaswag", "hellaswag_val"), hellaswag, "HellaSwag", 20, 0.25, summary="how a scene goes on"
    ),
    Task(
        "lambada",
        "the last word of a passage",
        "word",
        from_files("lambada", ("lambada", "lambada_openai", "lambada_standard"), lambada_blank, lambada_plain),
        15,
        paper="LAMBADA",
        metrics=("acc", "ppl"),
    ),
    _choice("piqa", ("piqa",), piqa, "PIQA", 50, 0.5, summary="how to do everyday things"),
    _choice("arc_easy", ("arc_easy",), arc, "ARC (Easy)", 50, 0.25, summary="school science, easy", **UNCONDITIONAL),
    _choice(
        "arc_challenge",
        ("arc_challenge",),
        arc,
        "ARC (Challenge)",
        50,
        0.25,
        summary="school science, hard",
        **UNCONDITIONAL,
    ),
    _choice(
        "openbookqa", ("openbookqa",), openbookqa, "OpenBookQA", 100, 0.25, summary="science facts", **UNCONDITIONAL
    ),
    _choice("winogrande", ("winogrande",), winogrande, "Winogrande", 50, 0.5, summary="whom a sentence means"),
    _choice("storycloze", ("storycloze",), storycloze, "StoryCloze", 70, 0.5, summary="how a story ends"),
    _choice("boolq", ("boolq",), boolq, "BoolQ", 32, 0.5, summary="yes or no, after a passage"),
    _choice("copa", ("copa",), copa, "COPA", 32, 0.5, summary="cause or effect"),
    _choice("rte", ("rte",), rte, "RTE", 32, 0.5, summary="entailed or not"),
    _choice("cb", ("cb",), cb, "CB", 32, 1 / 3, summary="entailed, denied or neither"),
    _choice("wic", ("wic",), wic, "WiC", 32, 0.5, summary="a word in the same sense or not"),
    *(
        _choice(f"anli_r{n}", (f"anli_r{n}",), anli(n), f"ANLI R{n}", 50, 1 / 3, summary="adversarial entailment")
        for n in (1, 2, 3)
    ),
    _open("triviaqa", ("triviaqa", "triviaqa_subset"), triviaqa, "TriviaQA", "trivia, from memory"),
    _open("nq", ("nq", "nq_open"), open_question, "NQs", "questions of searchers, from memory"),
    _open("webqs", ("webqs",), open_question, "WebQs", "questions on entities, from memory"),
)
