"""Model folders: loaded as a registered model, and as remote code where this package is not there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import random_ids, tiny_model
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from gpt3.model import GPT3Config, GPT3ForCausalLM, GPT3Model
from without_gpt3 import python

MODELLING_FILES = {"banded_attention.py", "configuration_gpt3.py", "loss.py", "modeling_gpt3.py", "packed_documents.py"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model(
        layer_types=["sliding_attention", "full_attention", "sliding_attention"], real_vocab_size=60
    ).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_folder_holds_all_that_is_needed(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "gpt3"
    assert config["auto_map"] == {
        "AutoConfig": "configuration_gpt3.GPT3Config",
        "AutoModelForCausalLM": "modeling_gpt3.GPT3ForCausalLM",
    }
    assert not any("attn_implementation" in key for key in config)
    assert {path.name for path in folder.glob("*.py")} == MODELLING_FILES
    for name in MODELLING_FILES:  # nothing but Python's own, torch, transformers (and its hub library), and each other
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            if line.startswith(("import ", "from ")):
                root = line.split()[1].split(".")[0]
                assert root in {"", "huggingface_hub", "torch", "transformers"} | sys.stdlib_module_names


def test_registered_models_load_without_remote_code(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model) is GPT3ForCausalLM
    assert type(AutoConfig.from_pretrained(folder)) is GPT3Config
    assert type(AutoModel.from_pretrained(folder)) is GPT3Model
    assert model.config._attn_implementation == "banded"
    reference = tiny_model(layer_types=["sliding_attention", "full_attention", "sliding_attention"], real_vocab_size=60)
    ids = random_ids(2, 40)
    torch.testing.assert_close(model(ids).logits, reference(ids).logits)
    assert model.config.to_dict() == AutoConfig.from_pretrained(folder).to_dict()


def test_remote_code_computes_the_same_where_this_package_is_absent(folder: Path, tmp_path: Path) -> None:
    ids = random_ids(2, 40)
    model = GPT3ForCausalLM.from_pretrained(folder)
    loss = model(ids % 60, labels=ids % 60, skip_logits=True).loss
    code = """
folder, ids, out = sys.argv[1], torch.tensor(json.loads(sys.argv[2])), sys.argv[3]
try:
    import gpt3
except ModuleNotFoundError:
    print("no gpt3")
try:
    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
except ValueError as error:
    print("trust_remote_code" in str(error))
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
print(type(model).__name__, model.config._attn_implementation, float(model(ids % 60, labels=ids % 60, skip_logits=True).loss))
prompt = ids[:1, :3]
mask = torch.ones_like(prompt)
made = model.generate(prompt, attention_mask=mask, max_new_tokens=20, do_sample=False, pad_token_id=0)
print(made.tolist())
model.save_pretrained(out)
again = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)
print(torch.equal(again(ids).logits, model(ids).logits))
"""
    out = tmp_path / "again"
    lines = python(code, tmp_path, str(folder), json.dumps(ids.tolist()), str(out)).splitlines()
    assert lines[0] == "no gpt3"
    assert lines[1] == "True"  # it runs only if trusted
    name, attention, remote_loss = lines[2].split()
    assert (name, attention) == ("GPT3ForCausalLM", "banded")
    assert float(remote_loss) == pytest.approx(float(loss.detach()), rel=1e-5)
    made = model.generate(
        ids[:1, :3],
        attention_mask=torch.ones(1, 3, dtype=torch.long),
        max_new_tokens=20,
        do_sample=False,
        pad_token_id=0,
    )
    assert lines[3] == str(made.tolist())
    assert lines[4] == "True"
    # The folder that remote code saved is a model folder like the first.
    assert {path.name for path in out.glob("*.py")} == MODELLING_FILES
    torch.testing.assert_close(GPT3ForCausalLM.from_pretrained(out)(ids).logits, model(ids).logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_dtype_survives(dtype: torch.dtype, tmp_path: Path) -> None:
    tiny_model().to(dtype).save_pretrained(tmp_path)
    assert GPT3ForCausalLM.from_pretrained(tmp_path, dtype="auto").dtype == dtype
    loaded = GPT3ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    rounded, ids = tiny_model().to(dtype).float(), random_ids(2, 40)
    torch.testing.assert_close(loaded(ids).logits, rounded(ids).logits)


def test_large_models_are_saved_in_shards(tmp_path: Path) -> None:
    model, ids = tiny_model(), random_ids(1, 20)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    torch.testing.assert_close(GPT3ForCausalLM.from_pretrained(tmp_path)(ids).logits, model(ids).logits)
