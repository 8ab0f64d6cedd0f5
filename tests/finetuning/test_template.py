"""Template, labels, truncation: against hand-written oracles and transformers' own apply_chat_template."""

from __future__ import annotations

import dataclasses

import pytest

from gpt3.errors import InputError
from gpt3.finetuning.conversations import Conversation, to_preference
from gpt3.finetuning.samples import (
    IGNORED,
    Samples,
    add_texts,
    conversation_samples,
    end_of_answers,
    fitted,
    preference_samples,
    prepare_tokenizer,
    read_template,
    shown,
)
from gpt3.tokenizer.chat_template import ChatTemplate, Message

SYSTEM, ONE, TWO = Message("system", "Be brief."), Message("user", "One?"), Message("user", "Two?")
FIRST, SECOND = Message("assistant", "It is blue."), Message("assistant", "And the sky is blue too.")
WHOLE = (SYSTEM, ONE, FIRST, TWO, SECOND)


def oracle(tokenizer, messages: tuple[Message, ...]) -> tuple[list[int], list[int]]:
    """Ids and labels spelled out by hand."""
    special = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("start", "message", "end")}
    ids: list[int] = []
    labels: list[int] = []
    for message in messages:
        head = [special["start"], *plain(tokenizer, message.role), special["message"]]
        body = [*plain(tokenizer, message.content), special["end"]]
        ids += head + body
        labels += [IGNORED] * len(head) + (body if message.role == "assistant" else [IGNORED] * len(body))
    return ids, labels


def plain(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@pytest.mark.parametrize("messages", [WHOLE, WHOLE[1:3], WHOLE[:3], WHOLE[1:]])
def test_labels_equal_the_oracle(template, tokenizer, messages) -> None:
    rows = conversation_samples([Conversation(messages)], template, 1000).columns
    assert (rows["input_ids"][0], rows["labels"][0]) == oracle(tokenizer, messages)


@pytest.mark.parametrize("name", ["harmony", "chatml"])
def test_transformers_makes_the_same_tokens_of_the_saved_tokenizer(tokenizer, name, tmp_path) -> None:
    from transformers import AutoTokenizer

    prepare_tokenizer(tokenizer, read_template(name, tokenizer))
    template = ChatTemplate(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    theirs = again.apply_chat_template(
        [dataclasses.asdict(message) for message in WHOLE], return_dict=True, return_assistant_tokens_mask=True
    )
    ours = template.encode(WHOLE)
    assert (theirs["input_ids"], [bool(bit) for bit in theirs["assistant_masks"]]) == ours
    prompt = again.apply_chat_template(
        [dataclasses.asdict(message) for message in WHOLE[:4]], add_generation_prompt=True, return_dict=True
    )
    assert prompt["input_ids"] == template.prompt(WHOLE[:4])


def test_truncation_keeps_whole_turns_then_the_beginning_of_the_first_answer(template) -> None:
    whole, first = (len(template.encode(WHOLE[:stop])[0]) for stop in (5, 3))
    cuts = Samples({})
    assert fitted(template, WHOLE, whole, cuts) == template.encode(WHOLE)
    assert cuts == Samples({})
    assert fitted(template, WHOLE, whole - 1, cuts) == template.encode(WHOLE[:3])
    ids, said = fitted(template, WHOLE, first - 1, cuts)
    assert ids == template.encode(WHOLE[:3])[0][: first - 1]
    assert any(said)
    assert end_of_answers(template) not in [token for token, trained in zip(ids, said, strict=True) if trained]
    assert fitted(template, WHOLE, len(template.prompt(WHOLE[:2])), cuts) == ([], [])
    assert (cuts.turns, cuts.answers, cuts.dropped) == (1, 1, 1)
    with pytest.raises(InputError, match="longer than the context of 3"):
        conversation_samples([Conversation(WHOLE)], template, 3)


def test_of_a_long_conversation_as_many_exchanges_stay_as_fit(template) -> None:
    """Three exchanges; at every context the longest beginning that fits, the context itself included."""
    third = (Message("user", "Three?"), Message("assistant", "The sun is not."))
    talk = (*WHOLE, *third)
    beginnings = [template.encode(talk[:stop]) for stop in (3, 5, 7)]
    for context in range(len(beginnings[0][0]), len(beginnings[2][0]) + 1):
        expected = [part for part in beginnings if len(part[0]) <= context][-1]
        assert fitted(template, talk, context, Samples({})) == expected
    assert fitted(template, talk, len(beginnings[0][0]) - 1, Samples({}))[0] == beginnings[0][0][:-1]


def jinja(said: str, prompt: str, before: str = "") -> str:
    """A template: each message after <|s|>, the assistant's as `said`."""
    turn = "{% if m['role'] == 'assistant' %}" + said + "{% else %}{{ m['content'] }}{% endif %}"
    loop = "{% for m in messages %}<|s|>" + turn + "{% endfor %}"
    return before + loop + "{% if add_generation_prompt %}" + prompt + "{% endif %}"


MARKED = "{% generation %}{{ m['content'] }}<|e|>{% endgeneration %}"
ENDLESS = "{% generation %}{{ m['content'] }}{% endgeneration %}"


@pytest.mark.parametrize(
    ("source", "needle"),
    [
        (jinja("{{ m['content'] }}<|e|>", "<|s|>"), "no generation marks"),
        (jinja(MARKED, "<|s|><|s|>"), "generation prompt"),
        (jinja(MARKED, "<|s|>", "{{ messages|length }}"), "prefix-preserving"),
        (jinja(ENDLESS, "<|s|>"), "no end token"),
        (jinja(ENDLESS + "<|e|>", "<|s|>"), "no end token"),
        (jinja(MARKED.replace("<|e|>", "<|{{ loop.index }}|>"), "<|s|>", "{# <|3|> <|5|> #}"), "no end token"),
        (jinja(MARKED.replace("<|e|>", "fin"), "<|s|>"), "no end token"),  # a token, not a special one
        (jinja("says " + MARKED, "<|s|>"), "generation prompt"),
        (
            jinja(MARKED.replace("{{ m", "<|h|>{{ m"), "<|s|><|h|>"),
            "generation prompt",
        ),  # its end would be trained, too
        (jinja("{{ m['content'] }}<|e|>{% generation %}{% endgeneration %}", "<|s|>"), "generation prompt"),
        (jinja(MARKED, "<|s|>", "{{ 1 / 0 }}"), "template fails: division by zero"),
        (jinja(MARKED, "<|s|>", "{{ raise_exception('no\nsystem') }}"), "template fails: no system"),
        (
            jinja(MARKED, "<|s|>", "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}"),
            "template fails: maximum recursion",
        ),
        (jinja(MARKED, "<|s|>", "{% if %}"), "template fails"),
        (jinja(MARKED, "<|s|>"), None),
    ],
)
def test_templates_without_the_properties_are_refused(tokenizer, tmp_path, source: str, needle: str | None) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(source, encoding="utf-8")
    tokenizer.add_tokens(["fin"])

    def check() -> None:
        prepare_tokenizer(tokenizer, read_template(str(path), tokenizer))
        end_of_answers(ChatTemplate(tokenizer))

    if needle is None:
        return check()
    with pytest.raises(InputError, match=needle):
        check()


def test_one_without_marks_is_not_trained(tokenizer) -> None:
    prepare_tokenizer(tokenizer, jinja("{{ m['content'] }}<|e|>", "<|s|>"))
    template = ChatTemplate(tokenizer)
    assert tokenizer.decode(template.prompt(WHOLE[:2])) == "<|s|>Be brief.<|s|>One?<|s|>"
    with pytest.raises(InputError, match="no generation marks"):
        end_of_answers(template)


def test_a_tokenizer_without_padding_pads_with_its_end_and_its_own_template_is_kept(tokenizer) -> None:
    tokenizer.pad_token = None
    own = jinja(MARKED, "<|s|>")
    assert prepare_tokenizer(tokenizer, own) == ["<|s|>", "<|e|>"]
    assert tokenizer.pad_token == tokenizer.eos_token
    assert read_template(None, tokenizer) == own
    assert read_template("chatml", tokenizer) != own
    tokenizer.chat_template = jinja("{{ m['content'] }}<|e|>", "<|s|>")  # not one to train with
    assert read_template(None, tokenizer) == read_template("harmony", tokenizer)


def test_shown_samples_mark_what_is_trained(template, monkeypatch) -> None:
    rows = conversation_samples([Conversation(WHOLE[1:3])], template, 1000).columns
    text = shown(template, rows["input_ids"][0], rows["labels"][0], color=False)
    assert text == "<|start|>user<|message|>One?<|end|><|start|>assistant<|message|>⟦It is blue.<|end|>⟧"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert shown(template, rows["input_ids"][0], rows["labels"][0]).endswith("\x1b[32mIt is blue.<|end|>\x1b[0m")
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown(template, rows["input_ids"][0], rows["labels"][0]) == text


def test_with_train_on_all_every_token_is_a_label(template) -> None:
    rows = conversation_samples([Conversation(WHOLE)], template, 1000, "all").columns
    assert rows["labels"] == rows["input_ids"]


def test_a_pair_with_either_answer_too_long_is_dropped(template) -> None:
    long = "It is blue and so on and so on."
    answers = [(long, "No."), ("No.", long), ("Yes.", "No.")]
    pairs = [to_preference({"prompt": ONE.content, "chosen": good, "rejected": bad}) for good, bad in answers]
    limit = len(template.encode((ONE, Message("assistant", long)))[0]) - 1
    rows = preference_samples(pairs, template, limit)
    assert (rows.samples, rows.dropped) == (1, 2)
    end = [end_of_answers(template)]
    yes, no = (template.plain(text) + end for text in ("Yes.", "No."))
    prompt = template.prompt((ONE,))
    assert rows.columns == {"prompt_ids": [prompt], "chosen_ids": [yes], "rejected_ids": [no]}
    assert (rows.tokens, rows.trained_tokens) == (len(prompt + yes + no), len(yes + no))
    assert preference_samples(pairs, template, limit + 1).dropped == 0  # what just fits is whole


def test_replayed_text_is_what_a_base_model_reads(template) -> None:
    texts = ["The sea is blue.", "The sky spells <|end|> and is blue too.", "Who knows?"]
    stream = [id_ for text in texts for id_ in (*template.plain(text), template.tokenizer.eos_token_id)]
    rows = Samples({"input_ids": [], "labels": []})
    assert add_texts(rows, texts, template, 8, 1000) == len(stream) // 8 == rows.samples
    assert [id_ for row in rows.columns["input_ids"] for id_ in row] == stream[: len(stream) // 8 * 8]
    assert rows.columns["labels"] == rows.columns["input_ids"]
    assert end_of_answers(template) not in stream
    talks = conversation_samples([Conversation(WHOLE)], template, 1000)
    alone = talks.counts()
    assert add_texts(talks, texts, template, 8, 17) == 2
    assert len(talks.columns["labels"]) == len(talks.columns["input_ids"]) == talks.samples == 3
    assert talks.counts() == alone | {
        "samples": 3, "tokens": alone["tokens"] + 16, "trained_tokens": alone["trained_tokens"] + 16,
    }  # fmt: skip
