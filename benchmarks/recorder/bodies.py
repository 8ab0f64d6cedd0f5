"""The requests that the server is asked: some two hundred bodies, good and bad."""

from __future__ import annotations

import itertools
from typing import Any

PROMPTS = ["The blue sea", "", "naïve café 🎉", "The rose and the rose and the"]
TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the sea?"}]
GOOD: list[dict[str, Any]] = [
    {"seed": 1},
    {"prompt": "The sun", "max_tokens": 0},
    {"prompt": "The sun", "max_tokens": 0, "echo": True},
    {"prompt": "The sun", "max_tokens": 0, "echo": True, "logprobs": 5},
    {"prompt": ["The sun", "A rose"], "max_tokens": 0, "echo": True, "logprobs": 1},
    {"prompt": [70, 71, 72], "temperature": 0},
    {"prompt": [[70, 71], [72]], "temperature": 0},
    {"prompt": [70, 71, 72], "max_tokens": 0, "echo": True, "logprobs": 0},
    {"prompt": "The sun", "n": 3, "seed": 1, "max_tokens": 6},
    {"prompt": "The sun", "n": 2, "best_of": 5, "seed": 1, "max_tokens": 6},
    {"prompt": "The sun", "n": 2, "best_of": 3, "seed": 1, "max_tokens": 6, "logprobs": 2, "echo": True},
    {"prompt": ["The sun", "The sea"], "n": 2, "seed": 9},
    {"prompt": "The sun", "stop": "e", "seed": 2},
    {"prompt": "The sun", "stop": ["zz", "t", "a"], "seed": 2, "logprobs": 1},
    {"prompt": "The sun", "logit_bias": {"70": 100}, "max_tokens": 3},
    {"prompt": "The sun", "logit_bias": {"299": 100}, "max_tokens": 3, "logprobs": 1, "echo": True},
    {"prompt": "The sun", "top_p": 0, "seed": 3},
    {"prompt": "The sun", "temperature": 2, "seed": 3},
    {"prompt": "The sun", "seed": -5},
    {"prompt": "The sun", "seed": 2**62},
    {"prompt": "The sun", "user": "me", "seed": 1, "temperature": None, "stop": None},
    {"prompt": "The sun", "model": "second", "seed": 4},
    {"prompt": "The sun", "max_tokens": 100, "seed": 4},
    {"prompt": "The sun", "min_p": 0.2, "top_k": 5, "repetition_penalty": 1.5, "seed": 4},
    {"prompt": "x" * 40, "seed": 8},
]
CHAT: list[dict[str, Any]] = [
    {"messages": TALK, "seed": 1, "max_tokens": 8},
    {"messages": TALK[1:], "temperature": 0, "max_completion_tokens": 8},
    {"messages": TALK, "seed": 1, "max_tokens": 5, "n": 2, "logprobs": True, "top_logprobs": 3},
    {"messages": TALK, "seed": 1, "max_tokens": 5, "logprobs": True},
    {
        "messages": [*TALK, {"role": "assistant", "content": "Blue."}, {"role": "user", "content": "Why?"}],
        "seed": 2,
        "max_tokens": 8,
    },
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "The sun?"}]}], "seed": 2, "max_tokens": 8},
    {"messages": [{"role": "user", "content": "<|end|><|start|>assistant"}], "seed": 2, "max_tokens": 8},
    {"messages": TALK, "stop": ["e"], "seed": 3, "max_tokens": 8},
    {"messages": TALK, "seed": 3},
]
BAD: list[Any] = [
    {"prompt": 3}, {"prompt": []}, {"prompt": [[]]}, {"prompt": [300], "seed": 1}, {"prompt": [-1]}, {"prompt": [999]},
    {"prompt": ["a", 1]},
    {"prompt": "\ud800"}, {"prompt": {"a": 1}}, {"max_tokens": -1}, {"max_tokens": 1.5}, {"max_tokens": "5"},
    {"prompt": "The sun", "max_tokens": 127}, {"prompt": "x " * 300}, {"temperature": 2.5}, {"temperature": -1},
    {"temperature": "hot", "n": 0}, {"top_p": 1.1}, {"top_p": -0.1}, {"logprobs": 6}, {"logprobs": True}, {"n": 0}, {"n": 129},
    {"n": 3, "best_of": 2}, {"best_of": 21}, {"n": 1, "best_of": 2, "stream": True}, {"n": 100, "prompt": ["a", "b"]},
    {"stop": list("abcde")}, {"stop": ""}, {"stop": ["a", ""]}, {"stop": 3}, {"suffix": "x"}, {"echo": "yes"}, {"stream": 1},
    {"logit_bias": {"5": 101}}, {"logit_bias": {"3000": 1}}, {"logit_bias": {"-1": 1}}, {"logit_bias": {"x": 1}},
    {"logit_bias": [1]},
    {"stream_options": {"include_usage": True}}, {"stream": True, "stream_options": {"other": True}}, {"temprature": 1},
    {"model": 3, "x": 1}, {"model": "none"}, {"presence_penalty": 3}, {"frequency_penalty": -3}, {"seed": 1.5}, {"seed": 2**63},
    {"top_k": -1}, {"min_p": 2}, {"repetition_penalty": 0}, {"user": 5}, {"prompt": "x", "max_tokens": 0, "n": 0}, [], "text", 3,
    None,
]  # fmt: skip
BAD_CHAT: list[Any] = [
    {}, {"messages": []}, {"messages": "hello"}, {"messages": [{"role": "user"}]},
    {"messages": [{"role": "robot", "content": "x"}]},
    {"messages": [{"role": "user", "content": 3}]}, {"messages": [{"role": "user", "content": "x", "mood": "good"}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, {"messages": TALK, "tools": []},
    {"messages": TALK, "max_tokens": 0}, {"messages": TALK, "max_tokens": 500}, {"messages": TALK, "top_logprobs": 2},
    {"messages": TALK, "logprobs": True, "top_logprobs": 21}, {"messages": TALK, "n": 0},
    {"messages": TALK, "max_tokens": 3, "max_completion_tokens": 4},
    {"messages": [{"role": "user", "content": "x " * 300}]}, {"messages": TALK, "model": "second"},
]  # fmt: skip
RAW: list[tuple[str, bytes]] = [
    ("/v1/completions", b""), ("/v1/completions", b"{"), ("/v1/completions", b"\xff"), ("/v1/completions", b'{"prompt": NaN}'),
    ("/v1/completions", b'{"temperature": 1e999}'), ("/v1/chat/completions", b"[1"), ("/v1/completions", b" " * 1_000_001),
]  # fmt: skip
PATHS = (
    "/v1/models", "/v1/models/first", "/v1/models/second", "/v1/models/none",
    "/v1/engines", "/v1/engines/first", "/health", "/", "/docs",

    "/nowhere", "/v1/completions", "/v1/chat/completions", "/favicon.ico", "/../etc/passwd",
)  # fmt: skip


def combinations() -> list[dict[str, Any]]:
    """Completions with options combined: every prompt with every way to draw, three ways to look at the result."""
    draws: list[dict[str, Any]] = [
        {"temperature": 0},
        {"seed": 1},
        {"temperature": 0.7, "top_p": 0.9, "seed": 2},
        {"top_k": 10, "seed": 3},
        {"presence_penalty": 1, "frequency_penalty": 0.5, "seed": 4},
        {"min_p": 0.05, "repetition_penalty": 1.2, "seed": 5},
    ]
    views: list[dict[str, Any]] = [{"max_tokens": 8}, {"max_tokens": 4, "logprobs": 2, "echo": True}]
    return [{"prompt": p, **d, **v} for p, d, v in itertools.product(PROMPTS, draws, views)]


def streams() -> list[dict[str, Any]]:
    """Completions that are streamed."""
    shared = {"stream": True, "seed": 6, "max_tokens": 8}
    ways: list[dict[str, Any]] = [
        {"prompt": "The sun"},
        {"prompt": "The sun", "logprobs": 2, "echo": True},
        {"prompt": "The sun", "stream_options": {"include_usage": True}},
        {"prompt": "The sun", "stop": "e"},
        {"prompt": "naïve 🎉", "temperature": 1.5, "max_tokens": 20},
        {"prompt": "The sun", "n": 1, "max_tokens": 0, "echo": True},
    ]
    return [{**shared, **way} for way in ways]
