"""A run small enough for a test: a hundred articles, a model of two layers."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kill_server import Server

from gpt3.corpus.wiki import articles, document
from gpt3.training.options import TrainOptions


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """A run does not measure the machine's speed, which takes half a second (tests/bench does), and its samples are short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpt3.training.distributed.gemm_flops", lambda *arguments: 1e11)
        patch.setattr("gpt3.training.validation.NEW_TOKENS", 12)
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One process with everything imported, whose forks are the sessions and scripts of all files here."""
    server = Server(tmp_path_factory.mktemp("server") / "log.txt")
    yield server
    server.close()


@pytest.fixture(scope="session")
def script(request: pytest.FixtureRequest) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function of a Python file and its arguments that runs it in a process of its own: on Linux a fork of the server."""
    if sys.platform == "linux":
        return request.getfixturevalue("server").script
    return lambda *words: subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "articles.jsonl"
    lines = [json.dumps({"text": document(article)}) for article in itertools.islice(articles(), 100)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny(text_file: Path, shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function of changes that gives the options of a tiny run in tmp_path/run."""
    monkeypatch.setenv("GPT3_CACHE", str(shared_cache))

    def make(**changes: Any) -> TrainOptions:
        values = {
            "data": [str(text_file)], "tokenizer": "own:300", "out": str(tmp_path / "run"), "steps": 12, "context": 32,
            "batch_tokens": 256, "micro_batch": 8, "layers": 2, "width": 32, "heads": 2, "window": 8, "lr": 3e-3,
            "validation_fraction": 0.1, "dtype": "fp32", "device": "cpu", "sample_prompt": ["The "], "workers": 1,
            "validate_every": 6, "sample_every": 1000,
        }  # fmt: skip
        return TrainOptions(**(values | changes))

    return make
