"""A tiny random model in its folder."""

from pathlib import Path

import pytest
import torch


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
