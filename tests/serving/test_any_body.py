"""Whatever a client sends, the fault is told as the client's: no answer of 500 and above."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt3.serving.schema import ChatBody, CompletionBody

LONG, HALF = "9" * 5000, '"\\ud800"'
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=12)
    | st.characters(categories=["Cs"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
PLAUSIBLE = {
    "prompt": st.text(max_size=9)
    | st.lists(st.integers(-1, 310), max_size=5)
    | st.lists(st.text(max_size=4), max_size=3),
    "max_tokens": st.integers(-1, 5) | st.just(128),
    "temperature": st.floats(-0.1, 2.1) | st.sampled_from([0, 1e-9, 5e-324]),
    "top_p": st.floats(-0.1, 1.1) | st.just(5e-324),
    "top_k": st.integers(-1, 400),
    "min_p": st.floats(0, 1),
    "repetition_penalty": st.floats(0, 3) | st.just(5e-324),
    "presence_penalty": st.floats(-2, 2),
    "logit_bias": st.dictionaries(st.integers(-2, 305).map(str), st.floats(-101, 101), max_size=3),
    "n": st.integers(0, 3),
    "best_of": st.integers(0, 4),
    "logprobs": st.integers(0, 6),
    "echo": st.booleans(),
    "stream": st.booleans(),
    "stop": st.text(max_size=2) | st.lists(st.text(max_size=2), max_size=5),
    "seed": st.integers(-(2**65), 2**65),
    "response_format": st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "json_object", "json_schema", "regex", "choice"])},
        optional={
            "json_schema": st.fixed_dictionaries(
                {"schema": JSON | st.just({"type": "integer"})}, optional={"strict": JSON}
            ),
            "pattern": st.text(max_size=9),
            "choices": st.lists(st.text(max_size=3), max_size=3),
        },
    ),
    "stream_options": st.dictionaries(st.sampled_from(["include_usage", "x"]), st.booleans()),
}


def bodies(model: type) -> st.SearchStrategy:
    fields = {name: PLAUSIBLE.get(name, JSON) | JSON for name in model.model_fields if name != "max_tokens"}
    limits = st.fixed_dictionaries({"max_tokens": PLAUSIBLE["max_tokens"]})
    return st.tuples(st.fixed_dictionaries({}, optional=fields), limits).map(lambda pair: {**pair[0], **pair[1]}) | JSON


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("max_tokens", LONG, "max_tokens is 999999… (5,000 digits); it should be a valid integer"),
        ("temperature", LONG, "temperature is 999999… (5,000 digits); it should be a finite number"),
        ("prompt", f"[{LONG}]", "prompt must be a text"),
        ("logit_bias", f'{{"5": {LONG}}}', "logit_bias.5 is 999999…"),
        ("prompt", HALF, "prompt has half a character"),
        ("prompt", f'["a", {HALF}]', "prompt has half a character"),
        ("stop", f"[{HALF}]", "stop has half a character"),
        ("\\ud800", "1", "the name of a field has half a character"),
        ("user", HALF, None),
        ("user", LONG, None),
        ("metadata", f'{{"a": [{HALF}, {LONG}]}}', None),
        ("prompt", '"\\ud83c\\udf89"', None),  # a whole pair
    ],
)
def test_long_numbers_and_half_characters_are_told_by_field(live, field: str, value: str, named: str | None) -> None:
    start = "" if field == "prompt" else '"prompt": "a", '
    limit = "" if field == "max_tokens" else '"max_tokens": 1, '
    status, answer, _ = live.ask("/v1/completions", f'{{{start}{limit}"{field}": {value}}}'.encode())
    assert status == (200 if named is None else 400), answer
    assert named is None or answer["error"]["message"].startswith(named)


def test_a_body_nested_too_deeply_is_no_json(live) -> None:
    assert "not JSON" in live.ask("/v1/completions", b"[" * 100_000)[1]["error"]["message"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_body_is_the_servers_fault(live, data) -> None:
    path, model = data.draw(st.sampled_from([("/v1/completions", CompletionBody), ("/v1/chat/completions", ChatBody)]))
    status, answer, _ = live.ask(path, json.dumps(data.draw(bodies(model))).encode())
    assert status in (200, 400, 404), (status, answer)
    if status == 200 and isinstance(answer, str):
        assert answer.endswith("data: [DONE]\n\n")
        assert '"error"' not in answer or '"text"' in answer
    elif status != 200:
        assert answer["error"]["message"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries({}, optional={name: kind for name, kind in PLAUSIBLE.items() if name != "max_tokens"}))
def test_plausible_bodies_are_answered_or_told(live, body) -> None:
    status, answer, _ = live.ask("/v1/completions", {**body, "max_tokens": 3})
    assert status in (200, 400), (status, answer)
    if status == 200 and isinstance(answer, str):
        assert '"code":"engine"' not in answer
