"""/v1/completions: what the API documents, what the model itself says, and independence of who else is served."""

import copy
import math
import threading

import pytest
from live_server import serving
from tokenizers.processors import TemplateProcessing

from gpt3.inference.language_model import LanguageModel
from gpt3.inference.scoring import score_tokens

PROMPTS = ["The sea", "Once upon a time there was", "naïve café 🎉", "The captain looked at"]


def test_a_completion_has_the_documented_shape(live) -> None:
    answer = live.complete(prompt="The sea", max_tokens=4, seed=1, model="tiny")
    assert set(answer) == {"id", "object", "created", "model", "choices", "usage"}
    assert answer["id"].startswith("cmpl-")
    assert (answer["object"], answer["model"]) == ("text_completion", "tiny")
    (choice,) = answer["choices"]
    assert set(choice) == {"text", "index", "logprobs", "finish_reason"}
    assert (choice["index"], choice["logprobs"], choice["finish_reason"]) == (0, None, "length")
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}


def test_the_texts_are_those_of_the_model_in_process(live, language_model) -> None:
    """n and lists of prompts are numbered p x n + s, and each is what `complete` gives for the seed."""
    options = {"temperature": 0.9, "top_p": 0.8, "presence_penalty": 0.5, "frequency_penalty": 0.25, "seed": 7}
    answer = live.complete(prompt=PROMPTS, n=3, max_tokens=12, **options)
    expected = language_model.complete(PROMPTS, n=3, max_new_tokens=12, **options)
    assert [choice["text"] for choice in answer["choices"]] == [text.text for texts in expected for text in texts]
    assert [choice["index"] for choice in answer["choices"]] == list(range(12))


def test_every_seed_of_the_range_is_another(live, language_model) -> None:
    seeds = [7, 7 + 2**31, 7 + 2**62, -7]
    texts = [live.complete(prompt="The sea", max_tokens=12, seed=seed)["choices"][0]["text"] for seed in seeds]
    assert len(set(texts)) == len(seeds)
    assert texts[1] == language_model.complete("The sea", max_new_tokens=12, seed=seeds[1])[0].text


def test_prompts_of_ids_are_those_of_their_text(live, language_model) -> None:
    ids = language_model.encode_prompt(PROMPTS[1])
    texts = [
        live.complete(prompt=prompt, max_tokens=8, temperature=0)["choices"][0]["text"]
        for prompt in (PROMPTS[1], ids, [PROMPTS[1]], [ids])
    ]
    assert len(set(texts)) == 1
    assert (
        live.complete(max_tokens=5, temperature=0)["choices"]
        == live.complete(prompt="", max_tokens=5, temperature=0)["choices"]
    )


@pytest.mark.parametrize("prompt", PROMPTS)
def test_log_probabilities_are_the_models_and_offsets_point_into_the_text(live, language_model, prompt: str) -> None:
    choice = live.complete(prompt=prompt, max_tokens=10, echo=True, logprobs=3, temperature=0)["choices"][0]
    logprobs = choice["logprobs"]
    assert set(logprobs) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    assert len({len(entries) for entries in logprobs.values()}) == 1
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    assert choice["text"].startswith(prompt)
    for token, start in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert token.startswith("bytes:\\x") or choice["text"][start:].startswith(token)
    result = language_model.complete(prompt, max_new_tokens=10, temperature=0)[0]
    ids = language_model.encode_prompt(prompt) + result.tokens
    scores = score_tokens(language_model.engine, ids, top=3)
    assert logprobs["token_logprobs"][1:] == pytest.approx(scores.logprobs.tolist(), abs=1e-4)
    for place, entries in enumerate(logprobs["top_logprobs"][1:]):
        assert 3 <= len(entries) <= 4  # the likeliest and the chosen
        assert max(entries.values()) == pytest.approx(float(scores.top_logprobs[place, 0]), abs=1e-4)
    alone = live.complete(prompt=prompt, max_tokens=10, logprobs=3, temperature=0)["choices"][0]
    known = len(language_model.encode_prompt(prompt))
    assert alone["logprobs"]["text_offset"] == logprobs["text_offset"][known:]  # counted from the prompt's start
    assert prompt + alone["text"] == choice["text"]


def test_a_prompt_is_scored_without_writing(live, language_model) -> None:
    """lm-eval's recipe: ids, echo, max_tokens 0."""
    ids = (language_model.encode_prompt(PROMPTS[1]) * 20)[:128]  # the whole context
    answer = live.complete(prompt=[ids, ids[:40]], max_tokens=0, echo=True, logprobs=1)
    expected = score_tokens(language_model.engine, ids)
    first, second = (choice["logprobs"]["token_logprobs"] for choice in answer["choices"])
    assert first[1:] == pytest.approx(expected.logprobs.tolist(), abs=1e-5)
    assert second[1:] == pytest.approx(expected.logprobs.tolist()[:39], abs=1e-5)
    assert answer["usage"]["completion_tokens"] == 0
    counted = live.complete(prompt=ids, max_tokens=0)
    assert (counted["choices"][0]["text"], counted["usage"]["prompt_tokens"]) == ("", 128)


def test_best_of_returns_the_likeliest_per_token(live) -> None:
    all_ = live.complete(prompt="The sea", n=6, max_tokens=8, seed=3, logprobs=0)["choices"]
    means = {choice["text"]: sum(choice["logprobs"]["token_logprobs"]) / 8 for choice in all_}
    best = live.complete(prompt="The sea", n=2, best_of=6, max_tokens=8, seed=3)
    assert [choice["text"] for choice in best["choices"]] == sorted(means, key=means.__getitem__, reverse=True)[:2]
    assert best["usage"]["completion_tokens"] == 48
    assert best["choices"][0]["logprobs"] is None


def test_stop_strings_bias_and_penalties(live, tokenizer) -> None:
    text = live.complete(prompt="The sea", max_tokens=30, seed=5)["choices"][0]["text"]
    stop = text[9:11]
    stopped = live.complete(prompt="The sea", max_tokens=30, seed=5, stop=[stop, "never"], logprobs=1)["choices"][0]
    assert stopped["text"] == text[: text.index(stop)]
    assert stopped["finish_reason"] == "stop"
    assert all(7 <= start < 7 + len(stopped["text"]) for start in stopped["logprobs"]["text_offset"])
    forced = tokenizer(" sea")["input_ids"][0]
    answer = live.complete(prompt="The", max_tokens=3, logit_bias={str(forced): 100}, temperature=0)
    assert answer["choices"][0]["text"] == " sea" * 3
    ended = live.complete(prompt="The", max_tokens=9, logit_bias={str(tokenizer.eos_token_id): 100})
    assert (ended["choices"][0]["text"], ended["choices"][0]["finish_reason"]) == ("", "stop")
    told = live.complete(
        prompt="The", max_tokens=9, logit_bias={str(tokenizer.eos_token_id): 100}, echo=True, logprobs=1
    )
    told = told["choices"][0]["logprobs"]  # lm-eval counts on a last token that the prompt has not
    assert (told["tokens"], told["text_offset"]) == (["The", "<|endoftext|>"], [0, 3])
    assert [len(entries) for entries in told.values()] == [2] * 4
    least = live.complete(prompt="The", max_tokens=9, top_p=0, seed=1)["choices"][0]["text"]
    assert least == live.complete(prompt="The", max_tokens=9, temperature=0)["choices"][0]["text"]


@pytest.mark.parametrize("echo", [False, True])
def test_a_stream_joined_is_the_answer(live, echo: bool) -> None:
    body = {"prompt": PROMPTS[:2], "n": 2, "max_tokens": 12, "seed": 2, "logprobs": 2, "echo": echo, "stop": "e"}
    whole = live.complete(**body)
    chunks = live.stream(**body, stream_options={"include_usage": True})
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    joined = [{"text": "", "logprobs": {key: [] for key in whole["choices"][0]["logprobs"]}} for _ in range(4)]
    for chunk in chunks[:-1]:
        assert chunk["usage"] is None
        (choice,) = chunk["choices"]
        into = joined[choice["index"]]
        assert "finish_reason" not in into or into["finish_reason"] is None
        into["text"] += choice["text"]
        into["finish_reason"] = choice["finish_reason"]
        for key, values in choice["logprobs"].items():
            into["logprobs"][key] += values
    assert joined == [
        {key: choice[key] for key in ("text", "logprobs", "finish_reason")} for choice in whole["choices"]
    ]


def test_nobody_changes_anothers_text(live, language_model) -> None:
    """Bit for bit: log-probabilities of the same request alone, and in a crowd of others that come and go."""
    ids = language_model.encode_prompt(PROMPTS[1])
    body = {"prompt": ids, "max_tokens": 24, "seed": 11, "logprobs": 2, "echo": True}
    alone = live.complete(**body)["choices"]
    stop = threading.Event()

    def crowd(number: int) -> None:
        while not stop.is_set():
            live.complete(prompt=PROMPTS[number % 4] * (1 + number), max_tokens=3 + 5 * number, n=1 + number % 2)

    others = [threading.Thread(target=crowd, args=(number,)) for number in range(5)]
    for other in others:
        other.start()
    try:
        crowded = [live.complete(**body)["choices"] for _ in range(6)]
    finally:
        stop.set()
        for other in others:
            other.join()
    assert all(choices == alone for choices in crowded)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"prompt": 3}, "prompt", "list of token ids"),
        ({"prompt": []}, "prompt", "empty list"),
        ({"prompt": [[]]}, "prompt", "no ids"),
        ({"prompt": [300]}, "prompt", "the id 300"),
        ({"prompt": "\ud800"}, "prompt", "half a character"),
        ({"max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
        (
            {"prompt": "The sea", "max_tokens": 127},
            "max_tokens",
            "maximum context length is 128 tokens.*129 tokens.*2 in your prompt",
        ),
        ({"temperature": 2.5}, "temperature", "2.5"),
        ({"temperature": "hot", "n": 0}, "temperature", "'hot'.*; n is 0"),
        ({"temperature": math.nan}, "temperature", "finite"),
        ({"logprobs": 6}, "logprobs", "less than or equal to 5"),
        ({"n": 3, "best_of": 2}, "best_of", "best_of is 2 and n is 3"),
        ({"n": 1, "best_of": 2, "stream": True}, "best_of", "cannot be streamed"),
        ({"n": 100, "prompt": ["a", "b"]}, None, "200 texts"),
        ({"stop": list("abcde")}, "stop", "up to 4"),
        ({"stop": ""}, "stop", "empty text"),
        ({"suffix": "x"}, "suffix", "not supported"),
        ({"logit_bias": {"5": 101}}, "logit_bias", "-100 to 100"),
        ({"logit_bias": {"300": 1}}, "logit_bias", "'300'"),
        ({"logit_bias": {"-1": 1}}, "logit_bias", "'-1'"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "without stream"),
        ({"temprature": 1}, None, "unrecognized request argument: temprature"),
        ({"model": 3, "x": 1}, "model", "model is 3; .*unrecognized request argument: x"),
    ],
)
def test_bad_input_is_told_in_openais_json(live, body, param, words: str) -> None:
    status, answer, _ = live.ask("/v1/completions", body)
    assert status == 400
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["param"] == param
    assert __import__("re").search(words, answer["error"]["message"]), answer["error"]["message"]
    assert "\n" not in answer["error"]["message"]


def test_offsets_fit_a_text_that_leaves_out_the_start_token(language_model) -> None:
    """Of a tokenizer that, as OPT's, puts a start token before each text; whole and streamed."""
    tokenizer = copy.deepcopy(language_model.tokenizer)
    name = tokenizer.eos_token
    processor = TemplateProcessing(single=f"{name} $A", special_tokens=[(name, tokenizer.eos_token_id)])
    tokenizer.backend_tokenizer.post_processor = processor
    model = LanguageModel.__new__(LanguageModel)
    model.__dict__.update(language_model.__dict__, tokenizer=tokenizer)
    ids = tokenizer("The sea")["input_ids"]
    assert ids[0] == tokenizer.eos_token_id
    body = {"max_tokens": 3, "echo": True, "logprobs": 0, "seed": 1}
    with serving(model) as live:
        for prompt, start in (("The sea", 0), (ids, len(name))):
            (choice,) = live.complete(prompt=prompt, **body)["choices"]
            assert choice["text"].startswith("The sea" if start == 0 else f"{name}The sea")
            listed = choice["logprobs"]
            assert len(listed["tokens"]) == len(ids) + 3
            assert listed["text_offset"][:2] == [0, start]
            for token, offset in list(zip(listed["tokens"], listed["text_offset"], strict=True))[1:]:
                assert token.startswith("bytes:") or choice["text"].startswith(token, offset)
            chunks = [chunk["choices"][0]["logprobs"] for chunk in live.stream(prompt=prompt, **body)]
            streamed = [offset for logprobs in chunks if logprobs for offset in logprobs["text_offset"]]
            assert streamed == listed["text_offset"]
