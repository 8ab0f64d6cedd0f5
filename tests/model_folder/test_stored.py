"""A folder read without torch and transformers is the one that transformers reads: shape, tensors, tokenizer, texts."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import foreign_models
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt3 import GPT3Config, GPT3ForCausalLM
from gpt3.inference.cpu_engine import CpuEngine
from gpt3.inference.language_model import load
from gpt3.inference.packing import WEIGHT_FORMATS
from gpt3.model_folder.load import load_transformers, open_converted
from gpt3.model_folder.stored import mapped_arrays, open_stored
from gpt3.tokenizer.encoder import HARD_TEXTS
from gpt3.tokenizer.loading import load_tokenizer, prompt_start
from gpt3.tokenizer.plain import read_plain

OLD = Path(__file__).parents[1] / "compatibility" / "made_by_0_1"
FOLDERS = [OLD / "trained/whole/model", OLD / "tuned/lora/model"]


def save(folder, dtype=torch.float32, shards="5GB", **changes):
    shape = {"vocab_size": 280, "real_vocab_size": 270, "hidden_size": 24, "num_hidden_layers": 3} | changes
    shape = {"num_attention_heads": 2, "max_position_embeddings": 40, "sliding_window": 8} | shape
    torch.manual_seed(0)
    model = GPT3ForCausalLM(GPT3Config(bos_token_id=269, eos_token_id=269, **shape)).to(dtype)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder, max_shard_size=shards)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(FOLDERS[0] / name, folder)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("shards", ["5GB", "20KB"])
@pytest.mark.parametrize(
    "changes", [{}, {"tie_word_embeddings": False, "head_dim": 7, "use_pre_layernorm": False, "intermediate_size": 31}]
)
def test_packed_weights_are_those_of_transformers_model(tmp_path, dtype, shards, changes):
    folder = save(tmp_path, dtype, shards, **changes)
    assert (folder / "model.safetensors.index.json").exists() == (shards != "5GB")
    stored, (model, _) = open_stored(folder), load_transformers(folder, device="cpu", dtype="fp32")
    assert stored.parameters == model.num_parameters()
    assert stored.config.tensors() == {name: tuple(x.shape) for name, x in model.named_parameters()}
    assert stored.whole_config().to_dict() == model.config.to_dict()
    for weight_format in WEIGHT_FORMATS:
        ours, theirs = (CpuEngine(each, weight_format) for each in (stored, model))
        assert ours.shape == theirs.shape
        assert (ours.context, ours.vocabulary, ours.nbytes) == (theirs.context, theirs.vocabulary, theirs.nbytes)
        for one, other in zip(ours.weights, theirs.weights, strict=True):
            assert one.dtype == other.dtype
            assert np.array_equal(one, other)
    theirs = model.config
    for field in ("head_dim", "intermediate_size", "activation_function", "sliding_window", "layer_norm_epsilon"):
        assert getattr(stored.config, field) == getattr(theirs, field)
    assert list(stored.config.layer_types) == theirs.layer_types


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_tokenizer_is_transformers(folder):
    whole = load_tokenizer(folder)
    plain = read_plain(folder, lambda: whole)
    special = [token.content for token in whole.added_tokens_decoder.values()]
    texts = [*HARD_TEXTS, *special, f"a{special[-1]}b {special[0]}", ""]
    for options in (
        {},
        {"add_special_tokens": False},
        {"split_special_tokens": True},
        {"add_special_tokens": False, "split_special_tokens": False, "verbose": False},
    ):
        only_ids = {**options, "return_attention_mask": False}
        assert plain(texts, **only_ids)["input_ids"] == whole(texts, **only_ids)["input_ids"]
        assert [plain(x, **only_ids)["input_ids"] for x in texts] == whole(texts, **only_ids)["input_ids"]
        assert dict(plain("The sea", **options)) == dict(whole("The sea", **options))
    for name in (
        "bos_token", "eos_token", "pad_token", "unk_token", "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id",
        "split_special_tokens", "chat_template", "special_tokens_map", "model_max_length", "is_fast",
    ):  # fmt: skip
        assert getattr(plain, name) == getattr(whole, name), name
    assert len(plain) == len(whole)
    assert plain.get_vocab() == whole.get_vocab()
    assert {i: str(x) for i, x in plain.added_tokens_decoder.items()} == {
        i: str(x) for i, x in whole.added_tokens_decoder.items()
    }
    assert prompt_start(plain) == prompt_start(whole)
    assert plain.decode([3, 4, 5]) == whole.decode([3, 4, 5])


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("tokenizer_config.json", {"add_bos_token": True}),
        ("tokenizer_config.json", {"add_prefix_space": True}),
        ("tokenizer_config.json", {"pad_token": "<|new|>"}),
        ("tokenizer_config.json", {"eos_token": {"content": "<|endoftext|>"}}),
        ("tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer"}),
        ("config.json", {"n_embd": 24}),
        ("config.json", {"hidden_size": 25}),
        ("config.json", {"hidden_size": "24"}),
        ("config.json", {"num_hidden_layers": 2}),
        ("config.json", {"layer_types": ["full_attention"]}),
        ("config.json", {"quantization_config": {}}),
        ("config.json", {"model_type": "gpt2"}),
        ("config.json", {"layer_norm_epsilon": 0}),
        ("generation_config.json", {"eos_token_id": ...}),
    ],
)
def test_what_is_not_plain_is_left_to_transformers(tmp_path, file, change):
    folder = save(tmp_path)
    assert open_stored(folder) is not None
    content = json.loads((folder / file).read_text()) | change
    (folder / file).write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    assert open_stored(folder) is None


def test_damaged_weights_are_left_to_transformers(tmp_path):
    folder = save(tmp_path)
    file = folder / "model.safetensors"
    weights = load_file(file)
    content = file.read_bytes()
    for damaged in (content[:-1], content[:50], b"", content + b"x"):
        file.write_bytes(damaged)
        assert open_stored(folder) is None
    name = "transformer.ln_f.bias"
    for changed in (
        {key: value for key, value in weights.items() if key != name},
        weights | {"extra": torch.ones(1)},
        weights | {name: torch.ones(25)},
        weights | {name: torch.ones(24, dtype=torch.int32)},
    ):
        save_file(changed, file)
        assert open_stored(folder) is None


def test_mapped_tensors_are_safetensors_own(tmp_path):
    tensors = {
        "a": torch.randn(3, 5),
        "b": torch.randn(7).bfloat16(),
        "c": torch.randn(2, 2).half(),
        "d": torch.ones(0, 3),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    for name, stored in mapped_arrays(tmp_path / "x.safetensors").items():
        assert stored.shape == tuple(tensors[name].shape)
        assert torch.equal(torch.from_numpy(stored.read().copy()).float(), tensors[name].float())


@pytest.mark.parametrize("folder", FOLDERS)
def test_texts_are_those_of_a_model_of_transformers(folder, monkeypatch):
    quick = load(folder, device="cpu")
    monkeypatch.setattr("gpt3.inference.language_model.open_stored", lambda folder: None)
    slow = load(folder, device="cpu")
    assert quick.summary == slow.summary
    assert quick.ends == slow.ends
    assert quick.config.to_dict() == slow.config.to_dict()
    for options in ({"temperature": 0}, {"seed": 3, "n": 3, "top_p": 0.9, "logprobs": 2}):
        for prompt in ("", "The sea", "The sea was calm, and nobody on the boat thought of the long way home."):
            ours, theirs = (model.complete(prompt, max_new_tokens=24, **options) for model in (quick, slow))
            assert [one.tokens for one in ours] == [one.tokens for one in theirs]
    assert quick.score("The sea was calm.").nats == slow.score("The sea was calm.").nats


def test_generating_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from gpt3.cli.main import main; assert main(sys.argv[1:]) == 0; "
        "print(sorted({'torch', 'transformers', 'scipy'} & set(sys.modules)))"
    )
    command = ["generate", "The sea", "--model", str(FOLDERS[0]), "--max-new-tokens", "5", "--temperature", "0"]
    found = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", ["gpt2", "gpt_neo", "opt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_converted_weights_are_packed_as_read(tmp_path, name, dtype):
    """Without a model of torch's: each tensor is converted when the engine packs it."""
    folder = foreign_models.saved(getattr(foreign_models, name)(vocab_size=280).to(dtype), tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(FOLDERS[0] / file, folder)
    stored, (model, _) = open_converted(folder), load_transformers(folder, device="cpu", dtype="fp32")
    assert (stored.parameters, stored.family) == (model.num_parameters(), model.family)
    assert stored.eos_token_id == model.generation_config.eos_token_id
    for weight_format in ("fp32", "int8"):
        for one, other in zip(*(CpuEngine(each, weight_format).weights for each in (stored, model)), strict=True):
            assert np.array_equal(one, other)
