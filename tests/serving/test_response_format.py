"""`response_format`: texts that follow it, streamed and in parallel; what cannot be followed is a 400 that names it."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import pytest
from live_server import TEMPLATE, serving

pytest.importorskip("llguidance")

SHIP = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 5}, "sails": {"type": "integer", "maximum": 999}},
    "required": ["name", "sails"],
    "additionalProperties": False,
}


def as_format(schema, **more) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "ship", "schema": schema, **more}}


@pytest.mark.parametrize(
    ("form", "follows"),
    [
        ({"type": "text"}, lambda text: len(text) > 0),
        ({"type": "json_object"}, lambda text: text.startswith("{")),
        (as_format(SHIP, strict=True), lambda text: jsonschema.validate(json.loads(text), SHIP) is None),
        ({"type": "regex", "pattern": "[ab]{4}"}, lambda text: re.fullmatch("[ab]{4}", text)),
        ({"type": "choice", "choices": ["Paris, France", "ship"]}, lambda text: text in ("Paris, France", "ship")),
        ({"type": "choice", "choices": ["Paris, France"]}, lambda text: text == "Paris, France"),
    ],
)
def test_a_completion_follows_its_format(live, form, follows) -> None:
    body = {"prompt": "The sea", "max_tokens": 100, "seed": 1, "n": 2, "response_format": form}
    choices = live.complete(**body)["choices"]
    assert all(follows(choice["text"]) for choice in choices)
    assert form["type"] in ("text", "json_object") or {choice["finish_reason"] for choice in choices} == {"stop"}
    pieces = live.stream(**body)
    for number, choice in enumerate(choices):
        assert (
            "".join(one["choices"][0]["text"] for one in pieces if one["choices"][0]["index"] == number)
            == choice["text"]
        )


def test_requests_of_all_formats_run_in_parallel(live) -> None:
    """Each text is what it is alone."""
    forms = [
        None,
        {"type": "regex", "pattern": r"\d{20}"},
        as_format(SHIP),
        {"type": "choice", "choices": ["a", "b c"]},
    ]
    bodies = [{"prompt": "The sea", "max_tokens": 60, "seed": n, "response_format": forms[n % 4]} for n in range(12)]
    alone = [live.complete(**body)["choices"][0]["text"] for body in bodies]
    with ThreadPoolExecutor(len(bodies)) as pool:
        together = list(pool.map(lambda body: live.complete(**body)["choices"][0]["text"], bodies))
    assert together == alone


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"type": "xml"}, "response_format must be"),
        ({"type": "json_schema"}, "response_format must be"),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": True}}, "response_format must be"),
        ({"type": "json_object", "schema": {}}, "response_format must be"),
        ({"type": "choice", "choices": []}, "response_format must be"),
        ({"type": "choice", "choices": [""]}, "response_format must be"),
        ("json", "response_format must be"),
        ({"type": "regex", "pattern": "("}, "response_format '(' cannot be followed: unclosed group"),
        ({"type": "regex", "pattern": ""}, "response_format '' cannot be followed: no text but the empty one"),
        (as_format({"requried": []}), "response_format has the unknown keyword 'requried'; did you mean 'required'?"),
        (as_format({"type": "text"}), "response_format cannot be followed: Invalid type: text"),
        (as_format({"$ref": "#"}), "response_format cannot be followed: no text but the empty one"),
        (as_format({"enum": ["a" * 70_000]}), "characters, more than 65,536"),
    ],
)
def test_what_cannot_be_followed_is_a_bad_request(live, form, words) -> None:
    status, answer, _ = live.ask("/v1/completions", {"prompt": "x", "max_tokens": 3, "response_format": form})
    assert status == 400
    assert answer["error"]["param"] == "response_format"
    assert words in answer["error"]["message"]
    assert "\n" not in answer["error"]["message"]
    assert live.complete(prompt="x", max_tokens=2)["choices"]


def test_a_server_without_llguidance_says_so(live, monkeypatch) -> None:
    monkeypatch.setattr("gpt3.serving.served_model.find_spec", lambda name: None)
    body = {"prompt": "x", "response_format": {"type": "json_object"}}
    status, answer, _ = live.ask("/v1/completions", body)
    assert (status, answer["error"]["message"]) == (
        400,
        "response_format needs llguidance, which this server does not have.",
    )


def test_the_openai_client_parses_an_answer_into_a_pydantic_model(language_model) -> None:
    openai = pytest.importorskip("openai")
    from pydantic import BaseModel, Field

    class Ship(BaseModel):
        name: str = Field(max_length=4)
        kind: str = Field(pattern="^(brig|yawl)$")

    language_model.tokenizer.chat_template = TEMPLATE
    try:
        with serving(language_model) as live, openai.OpenAI(base_url=live.url + "/v1", api_key="none") as client:
            talk = [{"role": "user", "content": "A ship?"}]
            answer = client.chat.completions.parse(
                model="tiny", messages=talk, response_format=Ship, seed=2, max_tokens=90
            )
    finally:
        language_model.tokenizer.chat_template = None
    ship = answer.choices[0].message.parsed
    assert ship.kind in ("brig", "yawl")
