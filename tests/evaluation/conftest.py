"""A tiny random model with a byte-level BPE of its own, and models that prefer a given text."""

from pathlib import Path

import pytest
import torch

TEXTS = [
    "Q: What is 48 plus 76?\n\nA: 124\n\nQ: What is 9 minus 17?\n\nA: -8\n\nThe sea is blue and the sky is grey. Topic: Arts\n"
    * 20
]


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer():
    from gpt3.tokenizer.train import train_tokenizer

    return train_tokenizer(TEXTS, 320)


@pytest.fixture(scope="session")
def network(tokenizer):
    from gpt3 import GPT3Config, GPT3ForCausalLM

    torch.manual_seed(0)
    return GPT3ForCausalLM(
        GPT3Config(
            vocab_size=len(tokenizer),
            max_position_embeddings=512,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            sliding_window=16,
            initializer_range=0.3,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    ).eval()


@pytest.fixture(scope="session")
def model(network, tokenizer):
    from gpt3.inference.language_model import LanguageModel

    return LanguageModel(network, tokenizer)


@pytest.fixture(scope="session")
def folder(network, tokenizer, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("saved") / "tiny"
    network.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place
