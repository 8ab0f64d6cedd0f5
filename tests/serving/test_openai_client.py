"""The official openai client against the live server."""

import pytest
from live_server import TEMPLATE, serving

openai = pytest.importorskip("openai")


@pytest.fixture
def client(live):
    with openai.OpenAI(base_url=live.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def test_completions(client, language_model) -> None:
    expected = [text.text for text in language_model.complete("The sea", n=2, max_new_tokens=8, seed=1)]
    answer = client.completions.create(model="tiny", prompt="The sea", max_tokens=8, n=2, seed=1, logprobs=2, echo=True)
    assert [choice.text for choice in answer.choices] == ["The sea" + text for text in expected]
    assert answer.choices[0].logprobs.token_logprobs[0] is None
    assert answer.choices[0].logprobs.text_offset[:2] == [0, 3]
    assert answer.usage.total_tokens == 2 + 16
    best = client.completions.create(model="tiny", prompt="The sea", max_tokens=8, n=1, best_of=3, seed=1)
    assert len(best.choices) == 1


def test_streams(client, language_model) -> None:
    expected = language_model.complete("The sea", max_new_tokens=8, seed=1)[0].text
    stream = client.completions.create(
        model="tiny", prompt="The sea", max_tokens=8, seed=1, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = stream
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected
    assert last.usage.completion_tokens == 8


def test_stop_bias_and_extras(client, tokenizer) -> None:
    sea = tokenizer(" sea")["input_ids"][0]
    answer = client.completions.create(
        model="tiny", prompt="The", logit_bias={str(sea): 100}, stop=[" sea sea"], extra_body={"top_k": 5, "min_p": 0.1}
    )
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("", "stop")


def test_errors_have_their_classes(client) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.completions.create(model="other", prompt="x")
    with pytest.raises(openai.BadRequestError, match="maximum context length is 128") as raised:
        client.completions.create(model="tiny", prompt="x", max_tokens=1000)
    assert raised.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}])
    assert [model.id for model in client.models.list()] == ["tiny"]


@pytest.fixture(scope="module")
def chat_client(language_model):
    language_model.tokenizer.chat_template = TEMPLATE
    try:
        with serving(language_model) as live, openai.OpenAI(base_url=live.url + "/v1", api_key="none") as client:
            yield client
    finally:
        language_model.tokenizer.chat_template = None


def test_what_changes_nothing_is_accepted(chat_client) -> None:
    """The client's own answer as a message, text parts, and every field of the client's types in its neutral form."""
    from openai.types import completion_create_params
    from openai.types.chat import completion_create_params as chat_params

    from gpt3.serving.openai_fields import IGNORED, NEUTRAL
    from gpt3.serving.schema import ChatBody, CompletionBody

    assert set(chat_params.CompletionCreateParamsBase.__annotations__) <= set(ChatBody.model_fields)
    assert set(completion_create_params.CompletionCreateParamsBase.__annotations__) <= set(CompletionBody.model_fields)
    create = chat_client.chat.completions.create
    asked = {"model": "tiny", "max_tokens": 4, "seed": 1}
    turns = [{"role": "user", "content": "The sea"}]
    first = create(**asked, messages=turns)
    assert (first.choices[0].message.refusal, first.choices[0].message.annotations) == (None, None)
    said = first.choices[0].message
    plain = {"role": "assistant", "content": said.content}
    dumped = said.model_dump() | {"annotations": [], "tool_calls": [], "name": "x"}
    parts = {
        **plain,
        "content": [{"type": "text", "text": said.content[:2]}, {"type": "text", "text": said.content[2:]}],
    }
    expected = create(**asked, messages=[*turns, plain, *turns]).choices[0].message.content
    for sent in (said, dumped, parts):
        assert create(**asked, messages=[*turns, sent, *turns]).choices[0].message.content == expected
    neutral = {name: values[0] for name, (values, _) in NEUTRAL.items() if values} | {"parallel_tool_calls": True}
    nothing = dict.fromkeys([*IGNORED, *NEUTRAL, "stream_options", "top_logprobs", "stop", "n"])
    metadata = {"metadata": {"a": "b"}, "stream_options": {"include_usage": None}, "top_logprobs": 0}
    for extra in (neutral, nothing, metadata):
        answer = create(**asked, messages=turns, max_completion_tokens=4, extra_body=extra)
        assert answer.choices[0].message.content == said.content


def test_chat(chat_client) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "The sea"}], "max_tokens": 8, "seed": 1}
    whole = chat_client.chat.completions.create(**body, n=2, logprobs=True, top_logprobs=2)
    chunks = list(chat_client.chat.completions.create(**body, stream=True))
    assert [choice.finish_reason for choice in whole.choices] == ["length"] * 2
    assert len(whole.choices[0].logprobs.content) <= 8
    assert all(len(token.top_logprobs) == 2 for token in whole.choices[0].logprobs.content)
    assert chunks[0].choices[0].delta.role == "assistant"
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == whole.choices[0].message.content
    assert whole.usage.completion_tokens == 16
