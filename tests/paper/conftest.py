"""A tiny random model in its folder, a little text, and trainings of seconds."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gpt3.corpus.wiki import articles


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from gpt3 import GPT3Config, GPT3ForCausalLM
    from gpt3.tokenizer.train import train_tokenizer

    text = "Poor English input: He go home.\nGood English output: He goes home. A word is very good. The sea is blue.\n"
    tokenizer = train_tokenizer([text * 20], 300)
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    network = GPT3ForCausalLM(
        GPT3Config(
            vocab_size=len(tokenizer), max_position_embeddings=1024, hidden_size=16, num_hidden_layers=2,
            num_attention_heads=2, sliding_window=16, initializer_range=0.3, **ends,
        )
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """A run does not measure the machine's speed, and its samples are short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpt3.training.distributed.gemm_flops", lambda *arguments: 1e11)
        patch.setattr("gpt3.training.validation.NEW_TOKENS", 4)
        yield


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "articles.jsonl"
    lines = [json.dumps({"text": article.text}) for article in itertools.islice(articles(), 60)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")
