"""The readers: every shape of the same conversation is the same conversation, and what is none is refused in one line."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt3.corpus.sources import open_rows
from gpt3.errors import InputError
from gpt3.finetuning.catalogue import about
from gpt3.finetuning.conversations import (
    Conversation,
    FirstOfItsKind,
    FirstSeen,
    RowError,
    english,
    length,
    no_refusal,
    to_conversation,
    to_preference,
)
from gpt3.finetuning.gathering import Collection, gather, is_held_out, parse_spec, weighted
from gpt3.finetuning.options import FinetuneOptions
from gpt3.tokenizer.chat_template import Message

text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
    lambda value: value == value.strip() and value != ""
)


def gathered(data: list[str], **options: Any) -> Collection:
    return gather(FinetuneOptions(data=data, **options))


HELD_OUT = {10, 34, 98}

turns = st.lists(st.tuples(text, text), min_size=1, max_size=3)


@given(turns=turns, system=st.none() | text)
def test_shapes_of_one_conversation_agree(turns: list[tuple[str, str]], system: str | None) -> None:
    flat = [part for turn in turns for part in turn]
    said = [Message(("user", "assistant")[n % 2], part) for n, part in enumerate(flat)]
    expected = tuple([Message("system", system)] * (system is not None) + said)
    extra = {} if system is None else {"system": system}
    messages = [{"role": turn.role, "content": f" {turn.content}\n"} for turn in expected]
    shares = [{"from": {"user": "human", "assistant": "gpt"}[turn.role], "value": turn.content} for turn in said]
    rows = [
        {"messages": messages},
        {"conversations": shares, **extra},
        {"conversations": flat, **extra},
        {"conversation": messages},
        {"messages": [{"role": "system", "content": " "}] * (system is None) + messages},
        {"prompt": messages[:-1], "completion": messages[-1:]},
        {"messages": [*messages, {"role": "user", "content": "and?"}]},  # a question nobody answered
    ]
    if len(turns) == 1:
        question, answer = turns[0]
        rows += [
            {"instruction": question, "input": "", "output": answer, **extra},
            {"prompt": question, "response": answer, **extra},
            {"question": question, "answer": answer, **extra},
            {"query": question, "output": answer, "system_prompt": system},
            {"prompt": question, "chosen": answer, "rejected": answer + "!", **extra},
        ]
    assert {to_conversation(row).messages for row in rows} == {expected}


def test_capitals_in_column_names_do_not_count() -> None:
    row = {"Question": "Who?", "ANSWER": "Anna."}
    assert to_conversation(row) == to_conversation({"question": "Who?", "answer": "Anna."})
    assert to_conversation({**row, "answer": "Berg."}).messages[-1].content == "Berg."


def test_text_parts_and_null_columns_are_read() -> None:
    """As OpenAI's API has contents, and as tables of several data sets have columns."""
    parts = [{"type": "text", "text": "Is the sea "}, {"type": "text", "text": "blue?", "image_url": None}]
    turns = [
        {"role": "user", "content": parts, "tool_calls": None, "from": None, "value": None},
        {"role": None, "from": "gpt", "content": None, "value": "Yes."},
    ]
    nulls = dict.fromkeys(("chosen", "rejected", "prompt", "conversations", "instruction", "system", "tools"))
    rows = [
        {"messages": turns, **nulls},
        {**nulls, "messages": None, "prompt": turns[:1], "completion": None, "response": "Yes."},
        {**nulls, "messages": None, "instruction": "Is the sea blue?", "input": None, "output": "Yes."},
    ]
    expected = (Message("user", "Is the sea blue?"), Message("assistant", "Yes."))
    assert [to_conversation(row).messages for row in rows] == [expected] * 3
    pair = to_preference({**nulls, "messages": None, "prompt": "Is it?", "chosen": "Yes.", "rejected": "No."})
    assert (pair.answers, pair.question) == (["Yes.", "No."], "Is it?")


@given(question=text, more=text, good=text)
def test_shapes_of_one_preference_agree(question: str, more: str, good: str) -> None:
    bad = good + "?"
    head = [{"role": "user", "content": question}]
    rows = [
        {"prompt": question, "chosen": good, "rejected": bad},
        {"instruction": question, "input": None, "chosen": good, "rejected": bad},
        {
            "prompt": head,
            "chosen": [{"role": "assistant", "content": good}],
            "rejected": [{"role": "assistant", "content": bad}],
        },
        {
            "chosen": [*head, {"role": "assistant", "content": good}],
            "rejected": [*head, {"role": "assistant", "content": bad}],
        },
    ]
    found = {(pair.messages, pair.rejected) for pair in map(to_preference, rows)}
    assert found == {((Message("user", question), Message("assistant", good)), bad)}


@given(question=text, extra=text, answer=text)
def test_an_instructions_input_belongs_to_the_question(question: str, extra: str, answer: str) -> None:
    rows = [
        {"instruction": question, "input": extra, "output": answer},
        {"instruction": question, "context": extra, "response": answer, "category": "open_qa"},
        {"instruction": question, "input": extra, "chosen": answer, "rejected": answer + "!"},
    ]
    found = {to_conversation(row).messages for row in rows}
    assert found == {(Message("user", f"{question}\n\n{extra}"), Message("assistant", answer))}


def test_what_is_held_out_together() -> None:
    """Conversations of one first question, and preferences of one."""
    assert to_conversation({"messages": ["Why?", "So.", "And?", "Thus."]}).group == "Why?"
    assert to_preference({"prompt": "Why?", "chosen": "So.", "rejected": "No."}).group == "Why?"
    assert {
        n for n in range(100) if is_held_out(f"question {n}", 0.05)
    } == HELD_OUT  # in every process, of every version
    assert is_held_out("\ud800", 1.0)  # half a surrogate pair, as JSON may hold


def test_hh_rlhf_texts_are_cut_at_their_speakers() -> None:
    head = "\n\nHuman: Hello\n\nAssistant: Hi, I said:\n\nnothing\n\nHuman: Why?\n\nAssistant:"
    pair = to_preference({"chosen": f"{head} Because.", "rejected": f"{head} No."})
    assert [turn.content for turn in pair.messages] == ["Hello", "Hi, I said:\n\nnothing", "Why?", "Because."]
    assert pair.rejected == "No."
    quoting = "One\nHuman: said.\n\nHuman: again?"  # speakers begin a text, and stand after an empty line
    assert to_preference({"prompt": "Q", "chosen": quoting, "rejected": "x"}).answers == [quoting, "x"]
    whole = "\n\nHuman: Q\n\nAssistant: x\nHuman: "
    assert to_preference({"chosen": whole + "y", "rejected": whole + "z"}).answers[0] == "x\nHuman: y"


@pytest.mark.parametrize(
    ("row", "needle"),
    [
        ({"a": "x", "b": "y"}, "found: a, b"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "no question"),
        (
            {"messages": [{"role": r, "content": "x"} for r in ("user", "user", "assistant")]},
            "out of order: turn 2 is user's",
        ),
        ({"messages": [{"role": "robot", "content": "x"}]}, "'robot'"),
        ({"messages": [{"role": "user", "content": "x"}]}, "no answer"),
        ({"prompt": "x", "response": "  "}, "answer is empty"),
        ({"prompt": "x", "response": 3}, "'response' is not text"),
        ({"messages": ["x", "", "y", "z"]}, "turn 2, assistant's, is empty"),
        (
            {"messages": [{"role": r, "content": "x"} for r in ("user", "system", "assistant")]},
            "out of order: turn 2 is system's",
        ),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "3"}]},
            "turn 2 is a tool message",
        ),
        (
            {
                "messages": [
                    "x",
                    {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]},
                    "y",
                    "z",
                ]
            },
            "turn 2 is a tool call",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}, "y"]},
            "a content that is not text",
        ),
        ({"chosen": ["x", "y", "z", "a"], "rejected": ["x", "b"]}, "part before their last answer"),
        ({"chosen": ["x", "b"], "rejected": ["x", "y", "z", "a"]}, "part before their last answer"),
        ({"prompt": "x", "chosen": "y", "rejected": "y"}, "the same answer"),
        ({"messages": ["x", "y\ud83d"]}, r"the escape \\ud83d is half a character"),
        ({"prompt": "x", "chosen": "y", "rejected": "z\ud83d"}, r"the escape \\ud83d is half a character"),
        ({"system": "\udc00", "prompt": "x", "response": "y"}, r"the escape \\udc00 is half a character"),
    ],
)
def test_rows_that_are_no_conversation_say_why(row: dict, needle: str) -> None:
    with pytest.raises(RowError, match=needle):
        to_conversation(row)


def test_files_of_all_formats_hold_the_same_rows(tmp_path: Path) -> None:
    rows = [{"prompt": "What, then?", "response": 'A "quoted"\nline, é.'}, {"prompt": "b", "response": "c"}]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8-sig")
    with open(tmp_path / "a.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["prompt", "response"])
        writer.writeheader()
        writer.writerows(rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    for path in tmp_path.iterdir():
        assert [row for _, row in open_rows(str(path))] == rows, path


def test_bad_files_are_refused_in_one_line_that_names_the_place(tmp_path: Path) -> None:
    good = '{"prompt": "a", "response": "b"}\n'
    cases = {
        "order.jsonl": (
            good + '{"messages": [{"role": "assistant", "content": "x"}]}\n',
            "order.jsonl: line 2: no question",
        ),
        "columns.jsonl": ('{"a": 1}', "found: a"),
        "broken.jsonl": (good + "{", "broken.jsonl: line 2: not JSON"),
        "list.jsonl": ("[1]", "a list, not an object"),
        "empty.jsonl": ("", "no rows"),
        "x.txt": ("hello", "text files have no fields"),
        "wide.csv": ("prompt,response\na,b\na,b,c\n", "wide.csv: line 3: 3 columns where the header has 2"),
    }
    for name, (content, needle) in cases.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(InputError) as caught:
            gathered([str(tmp_path / name)])
        assert needle in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(
        InputError,
        match=r"no such file or folder, and no source has this name; known sources are wiki-qa, helpsteer, .*hh-rlhf",
    ):
        gathered(["helpster"])
    (tmp_path / "latin.jsonl").write_bytes(good.encode() + b'{"prompt": "\xe9", "response": "b"}')
    with pytest.raises(InputError, match="not UTF-8 at byte"):
        gathered([str(tmp_path / "latin.jsonl")])
    (tmp_path / "some.jsonl").write_text(good + '{"a": 1}\n', encoding="utf-8")
    collection = gathered([str(tmp_path / "some.jsonl")], skip_malformed=True, validation_fraction=0)
    assert len(collection.train) == 1
    assert collection.reports[0].dropped == {"malformed": 1}


def test_filters_drop_what_they_name_and_count_it(tmp_path: Path) -> None:
    long = (
        "The quick brown fox jumps over the lazy dog while the small cat looks at the two of them from a wall in the sun. "
        * 3
    )
    answers = {
        "a": "It is blue.", "A": "it  is blue.", "b": long, "c": long + "Indeed.", "d": "Это совсем не по-английски.",
        "e": "As an AI language model, I have no colours.", "f": "the word is " * 1000,
    }  # fmt: skip
    path = tmp_path / "rows.json"
    path.write_text(
        json.dumps([{"prompt": key, "response": value} for key, value in answers.items()]), encoding="utf-8"
    )
    names = ["duplicates", "near-duplicates", "english", "refusals", "length"]
    report = gathered([str(path)], filter=names, validation_fraction=0).reports[0]
    assert report.dropped == {"duplicates": 1, "near-duplicates": 1, "english": 1, "refusals": 1, "length": 1}
    assert report.read == report.train + sum(report.dropped.values())


def question_and(*answers: str) -> Conversation:
    turns = [turn for answer in answers for turn in (Message("user", "Q?"), Message("assistant", answer))]
    return Conversation(tuple(turns))


def test_each_filter_at_its_edge() -> None:
    late = "The sea is blue. " * 20 + "As an AI language model, I have no colours."
    assert no_refusal(question_and("It is blue.", late))
    assert not no_refusal(question_and("It is blue.", "I'm sorry, but I cannot."))
    refused = "As an AI, I cannot help."
    assert no_refusal(to_preference({"prompt": "Q?", "chosen": "Blue.", "rejected": refused}))
    assert not no_refusal(to_preference({"prompt": "Q?", "chosen": refused, "rejected": "Blue."}))
    french = "le chat dort sur la grande table et le petit chien regarde par la fenetre sans rien dire du tout pendant une heure"
    assert not english(question_and(french))
    assert english(question_and("le chat dort"))  # too short to tell
    assert not length(question_and("word " * 2001, "word"))
    assert length(question_and("word " * 2000, "word"))
    new = FirstSeen()
    assert [new(question_and(answer)) for answer in ("Blue.", "Red.", "bLUE. ")] == [True, True, False]


SYSTEM = "You answer as the keeper of a lighthouse would who has read all there is about the sea. " * 20


@pytest.mark.parametrize("kind", [FirstSeen, FirstOfItsKind])
def test_conversations_that_differ_anywhere_are_no_duplicates(kind) -> None:
    """In a later user turn, in the system message, in where a message ends, in the rejected answer; a shared long system message
    makes no two conversations alike."""
    ask, yes = Message("user", "Is the sea blue?"), Message("assistant", "Yes.")
    rows = [
        (ask, yes, Message("user", "And the sky over the town?"), yes),
        (ask, yes, Message("user", "Was Rome built in a day?"), yes),
        (Message("system", "Be brief."), ask, yes),
        (Message("system", "Be kind."), ask, yes),
        (ask, yes),
        *(
            (Message("system", SYSTEM), Message("user", f"What is a {thing}?"), yes)
            for thing in ("buoy", "reef", "tide")
        ),
    ]
    found = [*map(Conversation, rows), Conversation((ask, yes), "No, it is green.")]
    new = kind()
    assert all(map(new, found))
    assert not any(map(new, found))
    if kind is FirstSeen:
        parts = [
            (Message("user", first), Message("assistant", second)) for first, second in (("a b", "c"), ("a", "b c"))
        ]
        assert all(map(new, map(Conversation, parts)))


def test_near_duplicates_are_those_above_the_similarity() -> None:
    """Texts of 400 random words, some of them exchanged; the similarity is counted exactly."""
    draw = random.Random(0)
    words = [f"w{number}" for number in range(5000)]

    def shingles(text: list[str]) -> set[tuple[str, ...]]:
        return {tuple(text[start : start + 3]) for start in range(len(text) - 2)}

    kept = {0.65: 0, 0.92: 0}
    for _ in range(40):
        text = draw.choices(words, k=400)
        for similarity in kept:
            other = list(text)
            while True:
                both = shingles(text) & shingles(other), shingles(text) | shingles(other)
                if len(both[0]) / len(both[1]) <= similarity:
                    break
                other[draw.randrange(400)] = draw.choice(words)
            new = FirstOfItsKind()
            assert new(question_and(" ".join(text)))
            kept[similarity] += new(question_and(" ".join(other)))
    assert kept[0.65] >= 38  # an estimate of 64 hashes is off by 0.06
    assert kept[0.92] <= 2
    new = FirstOfItsKind()
    assert all(
        new(question_and(" ".join(draw.choices(words, k=20)))) for _ in range(1100)
    )  # more than there was room for
    text = draw.choices(words, k=40)
    assert new(question_and(" ".join(text)))
    assert new(question_and(" ".join(draw.sample(text, 40))))  # the same words, another text
    assert not new(question_and(" ".join(text)))


def test_weights_caps_and_what_is_held_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = [{"prompt": f"question {n}", "response": f"answer {n}"} for n in range(200)]
    path.write_text(json.dumps(rows), encoding="utf-8")
    spec = parse_spec(f"{path}@0.5x@100")
    assert spec == (str(path), 0.5, 100)
    whole = gathered([str(path)], validation_fraction=0.1)
    assert len(whole.train) + len(whole.validation) == 200
    assert not {item.group for item in whole.train} & {item.group for item in whole.validation}
    tripled = gathered([f"{path}@3x"], validation_fraction=0.1)
    assert len(tripled.train) == 3 * len(whole.train)
    assert tripled.validation == whole.validation  # a weight repeats what is trained, nothing else
    capped = gathered([f"{path}@50"], validation_fraction=0)
    assert len(capped.train) == 50
    assert capped.reports[0].dropped == {"over the cap": 150}
    numbers = [int(item.question.split()[1]) for item in capped.train]
    assert numbers == sorted(numbers)
    assert max(numbers) > 150  # a draw, not the first ones
    assert sorted(set(weighted(list(range(10)), 2.5, 0))) == list(range(10))
    assert len(weighted(list(range(10)), 2.5, 0)) == 25
    given = gathered([str(path)], val=[f"{path}@20"])  # a duplicate of what is validated on is not trained on
    assert len(given.validation) == 20
    assert len(given.train) == 180


def test_wiki_qa_asks_what_the_articles_answer() -> None:
    from gpt3.corpus.wiki import Article

    article = Article(
        "Eiffel Tower", "Tower in Paris, France", "Arts", "The Eiffel Tower is a tower in Paris. It is tall."
    )
    found = list(about(article))
    assert [item.answers[0] for item in found] == [
        "The Eiffel Tower is a tower in Paris.", "Arts.", "Arts.", "Arts.", "Arts.", "Tower in Paris, France.", "Eiffel Tower.",
    ]  # fmt: skip
    assert {item.group for item in found} == {"Eiffel Tower"}
    assert all("Eiffel Tower" in item.question or "Tower in Paris" in item.question for item in found)
    assert len({item.question for item in found}) == len(found)  # else a filter of duplicates would drop one
    endless = Article("X", "", "Uncategorized", f"X is {'very ' * 60}long. It is tall.")
    assert list(about(endless)) == []  # nothing is known of it that is short enough to learn to end
