"""Small random models whose every parameter matters, a byte-level BPE of 300 ids, and a run folder of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt3.model import GPT3Config, GPT3ForCausalLM
from gpt3.tokenizer.train import train_tokenizer

TEXTS = [
    "Once upon a time there was a sea, and the ships on the sea were small. The captain looked at the sky. " * 20,
    "Ἐν ἀρχῇ ἦν ὁ λόγος. 你好，世界。 naïve café 🎉🎉 Привет, мир! " * 10,
]
WINDOW = 16


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(TEXTS, 300)


def random_model(tokenizer: Any, **changes: Any) -> GPT3ForCausalLM:
    """4 layers of width 64, context 96, window 16, 4 padding ids; no bias is 0 and no gain 1."""
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer) + 4, "real_vocab_size": len(tokenizer), "max_position_embeddings": 96,
        "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "sliding_window": WINDOW,
        "bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    torch.manual_seed(0)
    model = GPT3ForCausalLM(GPT3Config(**(shape | changes))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.2 * model.config.hidden_size**-0.5 * torch.randn(parameter.shape))
    return model


@pytest.fixture(scope="session")
def new_model(tokenizer) -> Callable[..., GPT3ForCausalLM]:
    """Makes a model; arguments are GPT3Config's."""
    return lambda **changes: random_model(tokenizer, **changes)


@pytest.fixture(scope="session")
def saved(new_model, tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    new_model().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def home(saved, tmp_path, monkeypatch) -> Path:
    """A working directory with one finished run, runs/demo."""
    target = tmp_path / "runs" / "demo" / "model"
    target.mkdir(parents=True)
    for file in saved.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def some_ids(rows: int, length: int, batch: int = 2, seed: int = 1) -> torch.Tensor:
    return torch.randint(rows, (batch, length), generator=torch.Generator().manual_seed(seed))
