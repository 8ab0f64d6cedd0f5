"""Constrained output: masks against an oracle of sets of texts; texts against jsonschema and re; and it changes nothing else."""

import copy
import json
import re
import sys
from random import Random

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from random_schemas import random_schema
from sampling_rows import edit, quick, seeds

pytest.importorskip("llguidance")

from gpt3.cli.generate import run
from gpt3.errors import InputError
from gpt3.evaluation import protocol
from gpt3.inference import constraint
from gpt3.inference.constraint import ConstraintCompiler
from gpt3.inference.decoding import Decoder, ModelDraft, PromptLookup
from gpt3.inference.generation import RunningSequence
from gpt3.inference.language_model import LanguageModel, make_engine
from gpt3.inference.options import GenerateOptions, SamplingOptions
from gpt3.tokenizer.gpt2 import gpt2_tokenizer

OBJECT = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 9999}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def language_model(new_model, tokenizer):
    model = new_model(max_position_embeddings=256)
    return LanguageModel(model, tokenizer, make_engine(model))


def allowed(state, V) -> list[int]:
    return np.flatnonzero(np.unpackbits(state.mask(), count=V, bitorder="little")).tolist()


def endings(model) -> dict[int, float]:
    """A bias to what ends texts and their parts, so that random ones end."""
    ids = [model.encode_word(text) for text in ('"', "}", "]", "1", ",")]
    return {**{one[0]: 3.0 for one in ids if len(one) == 1}, **dict.fromkeys(model.ends, 6.0)}


def texts_of(model, many, **more) -> list[RunningSequence]:
    """One text for each of many options, in one batch."""
    decoder = Decoder(model.engine, 16, model.engine.context)
    prompt = model.encode_prompt("The sea")
    rows = [
        RunningSequence(model, prompt, SamplingOptions(**one, **more), seed=0, number=n) for n, one in enumerate(many)
    ]
    for row in rows:
        decoder.join(row)
    while decoder.rows or decoder.waiting:
        for row, tokens in decoder.step():
            row.take(tokens)
            if row.finish_reason is not None:
                decoder.leave(row)
    return rows


def follow_random_schemas(model, seeds) -> tuple[int, int]:
    """How many texts ended by themselves, each checked, and how many the limit cut."""
    schemas, refused = [], []
    for seed in seeds:
        schema = random_schema(seed)
        jsonschema.Draft202012Validator.check_schema(schema)
        try:
            model.constraint(SamplingOptions(json_schema=schema))
            schemas.append(schema)
        except InputError as error:
            refused.append(str(error))
    assert len(refused) <= 0.1 * len(seeds), refused
    assert all("Unsatisfiable" in message or "is supported only" in message for message in refused), refused
    rows = texts_of(model, [{"json_schema": one} for one in schemas], max_new_tokens=150, logit_bias=endings(model))
    ended = [(row, schema) for row, schema in zip(rows, schemas, strict=True) if row.finish_reason == "stop"]
    for row, schema in ended:
        value = json.loads(row.text)
        faults = [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(value)]
        assert not faults, (row.text, schema, faults)
    return len(ended), len(rows) - len(ended)


def test_texts_of_random_schemas_parse_and_validate(language_model):
    ended, cut = follow_random_schemas(language_model, range(60))
    assert ended >= 40, (ended, cut)


@pytest.mark.slow
@pytest.mark.parametrize(("vocabulary", "count"), [("own", 1100), ("gpt2", 300)])
def test_texts_of_many_random_schemas(language_model, new_model, vocabulary, count):
    if vocabulary == "gpt2":
        tokenizer = gpt2_tokenizer()
        model = new_model.func(tokenizer, max_position_embeddings=256)
        language_model = LanguageModel(model, tokenizer, make_engine(model))
    ended, cut = follow_random_schemas(language_model, range(1000, 1000 + count))
    print(f"{ended} ended and follow their schema, {cut} were cut by the length")
    assert ended >= count / 2, (ended, cut)


REGEXES = [
    r"[a-c]{3}", r"(sea|ships)( on the sea){0,2}", r"\d{1,3}(\.\d+)?", "é{2}🎉?", r"[^a-z]{1,4}", r"\p{Lu}.{0,5}", "(?i)yes|no",
    ".{3}", r"[\x00-\x1f]{2}", "^a/b$", r"\w+@\w+\.(de|org)", "[😀-😎]{1,3}", r"a\nb", "[一-龥]{2}",
]  # fmt: skip


def test_texts_match_their_regular_expressions(language_model):
    more = {"max_new_tokens": 40, "logit_bias": endings(language_model)}
    rows = texts_of(language_model, [{"regex": one} for one in REGEXES * 5], **more)
    ended = [(row.text, one) for row, one in zip(rows, REGEXES * 5, strict=True) if row.finish_reason == "stop"]
    assert len(ended) >= 0.9 * len(rows)
    for text, one in ended:
        assert re.fullmatch(one.replace(r"\p{Lu}", "[^\\W\\d_a-z]"), text), (one, text)
    assert len({text for text, _ in ended}) > len(REGEXES)


@quick
@given(st.lists(st.text("ab é🎉<|", min_size=1, max_size=6), min_size=1, max_size=6), seeds)
@example(["ab|é", "b|é<|a", "<|aé"], 0)
def test_a_mask_is_what_some_choice_continues_with(compiled, choices, seed):
    """Of all ids, special ones and those without a token too: exactly those after which a choice can still come."""
    (model, compiler), random = compiled, Random(seed)
    state = compiler.new("choices", SamplingOptions(choices=choices).constraint[1])
    texts, so_far, past = {choice.encode() for choice in choices}, b"", []
    spelled = [b"" if token in model.ends else model.token_bytes[token] for token in range(model.vocabulary)]
    while True:
        rests = [text.removeprefix(so_far) for text in texts if text.startswith(so_far)]
        expected = [token for token, it in enumerate(spelled) if it and any(rest.startswith(it) for rest in rests)]
        ends = sorted(model.ends) if so_far in texts else []
        assert state.complete == bool(ends)
        assert allowed(state, model.vocabulary) == sorted(expected + ends)
        if not expected:
            break
        if past and random.random() < 0.3:
            count = random.randint(1, len(past))
            state.push(random.choice(sorted(model.ends)))  # of a draft: what is after EOS is taken back, too
            state.push(past[0])
            state.take_back(count + 2)
            so_far, past = b"".join(spelled[token] for token in past[:-count]), past[:-count]
            continue
        past.append(random.choice(expected))
        state.push(past[-1])
        so_far += spelled[past[-1]]


@pytest.fixture(scope="module")
def compiled(language_model, new_model):
    """A model that ends its turns with an added token, and its compiler: EOS, "<|" as plain text, special tokens, padding."""
    tokenizer = copy.deepcopy(language_model.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|end|>"]})
    tokenizer.add_tokens(["<|a", "b|é"])
    model = new_model.func(tokenizer, max_position_embeddings=256)
    tuned = LanguageModel(model, tokenizer, make_engine(model))
    tuned.ends.add(tokenizer.convert_tokens_to_ids("<|end|>"))
    tuned.ends.add(tokenizer.convert_tokens_to_ids("b|é"))
    return tuned, ConstraintCompiler(tuned.token_bytes, tuned.vocabulary, tuned.ends)


def test_an_end_of_turn_ends_a_text_once_it_is_complete(compiled):
    model, _ = compiled
    end = model.tokenizer.convert_tokens_to_ids("<|end|>")
    (made,) = model.complete("The sea", json_schema=OBJECT, seed=4, max_new_tokens=200, logit_bias={end: 100})
    assert made.finish_reason == "stop"
    jsonschema.validate(json.loads(made.text), OBJECT)
    assert made.text.endswith("}")
    assert not set(made.tokens) & set(model.tokenizer.all_special_ids)


def test_numpy_and_torch_rule_out_the_same(language_model):
    options = SamplingOptions(regex="[a-m]+ ?", temperature=0)
    rows = [RunningSequence(language_model, [1], options, seed=0, number=number) for number in range(3)]
    for row, text in zip(rows, ("", "a", "b "), strict=True):
        for token in language_model.encode_word(text) if text else []:
            row.push(token)
    logits = torch.randn(3, language_model.vocabulary + 4, generator=torch.Generator().manual_seed(1))
    logits[:, language_model.vocabulary :] = 99
    ours = edit("numpy", logits, rows)
    assert torch.equal(ours, edit("torch", logits, rows))
    for line, row in zip(ours, rows, strict=True):
        assert torch.isfinite(line).nonzero()[:, 0].tolist() == allowed(row.constraint, language_model.vocabulary)
    assert rows[2].constraint.complete
    assert torch.isfinite(ours[2]).sum() == 1


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("how", ["lookup", "same model", "other model"])
def test_a_text_is_the_same_with_drafts(language_model, new_model, how, temperature):
    """Also where a draft goes on after EOS."""
    others = {
        "same model": language_model.engine,
        "other model": make_engine(new_model(seed=3, max_position_embeddings=256)),
    }
    more = {"max_new_tokens": 60, "seed": 5, "temperature": temperature, "logit_bias": endings(language_model)}
    prompt = 'The sea {"name":"sea","age":1} {"name":"sea","age":1} '
    for must in (
        {"json_schema": OBJECT},
        {"regex": "(sea|ship)( sea)*"},
        {"choices": ["The sea", "The sea was", "ships"]},
    ):
        draft = PromptLookup() if how == "lookup" else ModelDraft(others[how])
        plain = language_model.complete([prompt, "Once"], **must, **more)
        drafted = language_model.complete([prompt, "Once"], draft=draft, **must, **more)
        for [one], [other] in zip(plain, drafted, strict=True):
            assert (one.tokens, one.finish_reason) == (other.tokens, other.finish_reason)


def test_a_text_depends_on_no_other_and_streams_in_pieces(language_model):
    prompts = ["The sea", "Once upon", "", "sky"]
    more = {"json_schema": OBJECT, "max_new_tokens": 80, "seed": 2, "logit_bias": endings(language_model)}
    together = [made.text for [made] in language_model.complete(prompts, **more)]
    assert together[0] == language_model.complete(prompts[0], **more)[0].text
    pieces = list(language_model.stream(prompts[0], **more))
    assert "".join(pieces) == together[0]
    assert len(pieces) > 3
    jsonschema.validate(json.loads(together[0]), OBJECT)


def test_an_unfinished_text_is_never_called_complete(language_model):
    """No token is left before the end: another option rules out all that the constraint allows, or a step exceeds the limits."""
    (made,) = language_model.complete("The sea", regex="q{3}", no_repeat_ngram=1, seed=0)
    assert (made.text, made.finish_reason) == ("q", "length")
    assert made.unmet(SamplingOptions())
    (made,) = language_model.complete("The sea", regex="q{1}", no_repeat_ngram=1, seed=0)
    assert (made.text, made.finish_reason) == ("q", "stop")
    beyond = language_model.constraint(SamplingOptions(regex="ab*"))
    beyond.push(language_model.encode_word("a")[0])
    assert beyond.complete
    beyond.push(language_model.encode_word("c")[0])  # puts llguidance into its error state, as a limit does
    assert not allowed(beyond, language_model.vocabulary)
    assert not beyond.complete


def test_whitespace_between_parts_of_json_is_bounded(language_model):
    space = {language_model.encode_word(text)[0]: 100.0 for text in (" ", "\n")}
    (made,) = language_model.complete("The sea", json_schema=OBJECT, seed=0, logit_bias=space, max_new_tokens=200)
    assert not re.search(r"\s{18}", made.text)
    assert re.search(r"\n {16}\S", made.text)


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        ({"choices": ["a", ""]}, "--choices ['a', ''] must be texts of at least one character"),
        ({"regex": "("}, "--regex '(' cannot be followed: unclosed group."),
        ({"regex": "(?=a)b"}, "look-ahead"),
        ({"regex": r"(a)\1"}, "backreferences are not supported"),
        ({"regex": ""}, "no text but the empty one"),
        ({"regex": "\ud800"}, "--regex is not text at character 0"),
        ({"regex": "a" * 70_000}, "--regex has 70,000 characters, more than 65,536."),
        ({"regex": "a", "choices": ["b"]}, "--regex and --choices are given together"),
        ({"json_schema": "{"}, "--json-schema '{' is not JSON"),
        ({"json_schema": "[1]"}, "--json-schema '[1]' is not a JSON object."),
        ({"json_schema": {1: {2}}}, "--json-schema {1: {2}} must be a text"),
        ({"json_schema": {"requried": ["a"]}}, "unknown keyword 'requried'; did you mean 'required'?"),
        (
            {"json_schema": {"properties": {"not": {"items": {"no": 1}}}}},
            "unknown keyword 'no' at properties.not.items",
        ),
        ({"json_schema": {"not": {}}}, "the keyword 'not' is not supported."),
        ({"json_schema": {"$ref": "#"}}, "no text but the empty one"),
        ({"json_schema": {"$ref": "http://example.org/a"}}, "does not fetch"),
        ({"json_schema": {"type": "text"}}, "Invalid type: text"),
        (
            {"json_schema": {"type": "string", "minLength": 5, "maxLength": 2}},
            "minLength (5) is greater than maxLength (2)",
        ),
        ({"json_schema": {"type": "string", "pattern": "(?=a)"}}, "look-ahead"),
        ({"json_schema": {"oneOf": [{"type": "number"}, {"type": "integer"}]}}, "Use anyOf."),
        ({"json_schema": '{"items":' * 100 + "{}" + "}" * 100}, "more than 64 levels"),
        ({"json_schema": '{"items":' * 7000}, "is not JSON: "),
    ],
)
def test_what_cannot_be_followed_is_refused_in_one_line(language_model, options, needle):
    with pytest.raises(InputError) as caught:
        language_model.complete("The sea", max_new_tokens=1, **options)
    assert needle in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_schema_that_takes_long_to_compile_is_refused_in_time(language_model, monkeypatch):
    monkeypatch.setattr(constraint, "SECONDS", 0.5)
    slow = {"allOf": [{"type": "string", "pattern": f".*{letter}.*"} for letter in "abcdefghijklmnopqrst"]}
    with pytest.raises(InputError, match=r"--json-schema takes more than 0.5 s to compile"):
        language_model.constraint(SamplingOptions(json_schema=slow))


def test_a_schema_of_many_patterns_is_followed(language_model):
    schema = {"type": "array", "prefixItems": [{"type": "string", "pattern": f"^{letter}$"} for letter in "abcdefgh"]}
    assert language_model.constraint(SamplingOptions(json_schema=schema | {"minItems": 8})) is not None


def test_without_llguidance_the_extra_is_named(language_model, monkeypatch):
    monkeypatch.setattr(language_model, "_compiler", None)
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(InputError, match=r"needs llguidance; install it with: .*constrain"):
        language_model.complete("The sea", choices=["a"])


def test_beams_are_refused(language_model):
    with pytest.raises(InputError, match="beam search cannot follow --regex"):
        protocol.write(language_model, [[1]], SamplingOptions(regex="a"), 4, 0.6, 1)


def test_the_command_reads_a_schema_file_and_choices_between_commas(home, capfd):
    (home / "ship.json").write_text(json.dumps(OBJECT), encoding="utf-8")
    run(GenerateOptions(prompt="The sea", json_schema="ship.json", max_new_tokens=200, seed=1))
    jsonschema.validate(json.loads(capfd.readouterr().out), OBJECT)
    run(GenerateOptions(prompt="The sea", choices=["ships,a captain"], seed=1))
    assert capfd.readouterr().out in ("ships\n", "a captain\n")
    with pytest.raises(InputError, match=r"^--json-schema none.json cannot be read"):
        run(GenerateOptions(prompt="The sea", json_schema="none.json"))


def test_an_output_file_remembers_what_the_schema_was(home):
    (home / "prompts.txt").write_text("The sea\n", encoding="utf-8")
    options = {"input": "prompts.txt", "output": "out.jsonl", "json_schema": "s.json", "max_new_tokens": 9, "seed": 1}
    (home / "s.json").write_text('{"type": "integer"}', encoding="utf-8")
    run(GenerateOptions(**options))
    (home / "s.json").write_text('{"type": "string"}', encoding="utf-8")
    with pytest.raises(InputError, match="--json-schema was"):
        run(GenerateOptions(**options))
