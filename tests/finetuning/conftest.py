"""A base model of two layers, a dozen conversations, and the options of a run over them: seconds for everything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

TEXTS = ["What is the colour of the sea? The sea is blue, and the sky is blue too. Who wrote it? Nobody knows. " * 30]
THINGS = ("sea", "sky", "sun", "moon", "grass", "snow", "coal", "rose", "sand", "rain", "fire", "leaf")
COLOURS = ("blue", "blue", "gold", "grey", "green", "white", "black", "red", "pale", "grey", "red", "green")
CONTEXT = 64


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model folder: random weights, its own tokenizer, no chat template, padding rows in the vocabulary."""
    from gpt3 import GPT3Config, GPT3ForCausalLM
    from gpt3.tokenizer.train import train_tokenizer

    tokenizer = train_tokenizer(TEXTS, 300)
    torch.manual_seed(0)
    config = GPT3Config(
        vocab_size=len(tokenizer) + 5, real_vocab_size=len(tokenizer), max_position_embeddings=CONTEXT, hidden_size=32,
        num_hidden_layers=2, num_attention_heads=2, sliding_window=16, bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("base") / "tiny"
    GPT3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tokenizer(base: Path):
    from gpt3.tokenizer.loading import load_tokenizer

    return load_tokenizer(base)


@pytest.fixture
def template(tokenizer):
    from gpt3.finetuning.samples import prepare_tokenizer, read_template
    from gpt3.tokenizer.chat_template import ChatTemplate

    prepare_tokenizer(tokenizer, read_template("harmony", tokenizer))
    return ChatTemplate(tokenizer)


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers of unequal lengths."""
    rows = [
        {
            "instruction": f"Which colour has the {thing}?",
            "output": f"The {thing} is {colour}" + " and so on" * (n % 4) + ".",
        }
        for n, (thing, colour) in enumerate(zip(THINGS, COLOURS, strict=True))
    ]
    path = tmp_path_factory.mktemp("data") / "colours.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {"prompt": f"Which colour has the {thing}?", "chosen": f"It is {colour}.", "rejected": "Who knows?"}
        for thing, colour in zip(THINGS, COLOURS, strict=True)
    ]
    path = tmp_path_factory.mktemp("data") / "pairs.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.fixture
def tiny(base: Path, questions: Path, tmp_path: Path):
    """A function of changes that gives the options of a tiny run in tmp_path/run."""
    from gpt3.finetuning.options import FinetuneOptions

    def make(**changes: Any) -> FinetuneOptions:
        values: dict[str, Any] = {
            "model": str(base), "data": [str(questions)], "val": [str(questions)], "filter": ["none"], "steps": 6, "batch": 4,
            "micro_batch": 2, "lr": 3e-3, "evaluate_every": 2, "device": "cpu", "out": str(tmp_path / "run"),
        }  # fmt: skip
        return FinetuneOptions(**(values | changes))

    return make
