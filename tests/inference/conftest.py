"""A small byte-level BPE and tiny random models: a few milliseconds a token, every code path of the big ones."""

import io
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

TEXTS = [
    "Once upon a time there was a sea, and the ships on the sea were small. The captain looked at the sky. " * 20,
    "Ἐν ἀρχῇ ἦν ὁ λόγος. 你好，世界。 naïve café 🎉🎉 Привет, мир! " * 10,
]
CONTEXT = 48
WINDOW = 6


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Models this small lose more to a second thread than they win."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer():
    from gpt3.tokenizer.train import train_tokenizer

    return train_tokenizer(TEXTS, 300)


def make_model(tokenizer, seed=0, **changes):
    """Random weights of a spread that makes sharp distributions; context 48, banded layers of 6 keys, 4 padding ids."""
    from gpt3 import GPT3Config, GPT3ForCausalLM

    torch.manual_seed(seed)
    shape = {
        "vocab_size": len(tokenizer) + 4,
        "real_vocab_size": len(tokenizer),
        "max_position_embeddings": CONTEXT,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "sliding_window": WINDOW,
        "initializer_range": 0.4,
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return GPT3ForCausalLM(GPT3Config(**{**shape, **changes})).eval()


@pytest.fixture(scope="session")
def new_model(tokenizer):
    """Makes a model; arguments are GPT3Config's."""
    return partial(make_model, tokenizer)


@pytest.fixture(scope="session")
def model(new_model):
    return new_model()


@pytest.fixture(scope="session")
def saved(new_model, tokenizer, tmp_path_factory) -> Path:
    """A model folder. Its context is wider and end-of-text all but impossible, so that a text goes on for long."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    model = new_model(max_position_embeddings=256)
    end = model.transformer.wte.weight.data[tokenizer.eos_token_id]
    model.transformer.ln_f.bias.data -= 12 * end / end.square().sum()  # lowers its logit by 12
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def home(saved, tmp_path, monkeypatch) -> Path:
    """A working directory with one finished run, runs/demo."""
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    copy_folder(saved, tmp_path / "runs" / "demo" / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def copy_folder(source: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.fixture
def pipe_in(monkeypatch):
    """Make these bytes the piped standard input."""

    def pipe(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))

    return pipe
