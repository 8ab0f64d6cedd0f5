"""A new family of checkpoints is one file and one line of registration, as CONTRIBUTING.md shows."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from gpt3.cli import main as cli
from gpt3.model import GPT3ForCausalLM
from gpt3.model_folder import families
from gpt3.model_folder.load import load_transformers
from gpt3.tokenizer.train import train_tokenizer

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, GPT2LMHeadModel]:
    """The page's family, registered; and a checkpoint of it: GPT-2's weights under other names, as (out, in)."""
    (code,) = re.findall(r"^```python\n(\"\"\"TinyLM.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "tinylm.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.delitem(sys.modules, "tinylm", raising=False)
    monkeypatch.setitem(families.FAMILIES, "tinylm", "tinylm")
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["The ships on the sea were small. " * 20], 280)
    end = tokenizer.eos_token_id
    ids = {"vocab_size": len(tokenizer), "bos_token_id": end, "eos_token_id": end}
    model = GPT2LMHeadModel(GPT2Config(n_embd=24, n_layer=2, n_head=3, n_positions=32, **ids)).eval()
    folder = tmp_path / "tiny"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    names = {"wte": "tokens", "wpe": "positions", "attn.c_attn": "attention.qkv", "attn.c_proj": "attention.out"}
    weights = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        conv1d = tensor.ndim == 2 and ".h." in name
        for ours, theirs in names.items():
            name = name.replace(f"{ours}.", f"{theirs}.")
        weights[name.removeprefix("transformer.").replace("h.", "blocks.", 1)] = (
            tensor.t().contiguous() if conv1d else tensor
        )
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"model_type": "tinylm", "width": 24, "depth": 2, "heads": 3, "context": 32, **ids}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder, model


@torch.no_grad()
def test_it_is_loaded_imported_described_and_named(tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, theirs = tiny
    ids = torch.randint(theirs.config.vocab_size, (2, 32))
    expected = theirs(ids).logits
    model, _ = load_transformers(folder, device="cpu")
    assert type(model) is GPT3ForCausalLM
    torch.testing.assert_close(model(ids).logits, expected, atol=1e-5, rtol=0)
    assert cli.main(["import", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("TinyLM: 2 layers x 24, ")
    torch.testing.assert_close(
        load_transformers(tmp_path / "out", device="cpu")[0](ids).logits, expected, atol=1e-5, rtol=0
    )
    assert cli.main(["info", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["family"], found["shape"]["width"], found["shape"]["activation"]) == ("TinyLM", 24, "gelu_new")
    (folder / "config.json").write_text('{"model_type": "other"}', encoding="utf-8")
    for words in (["import", str(folder), "--out", str(tmp_path / "x")], ["generate", "x", "--model", str(folder)]):
        assert cli.main(words) == 2
        error = capsys.readouterr().err
        assert "model_type 'other'" in error
        assert re.search(r"known families: .*tinylm", error)
