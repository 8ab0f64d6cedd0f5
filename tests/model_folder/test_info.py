"""`gpt3 info` says of any family's folder what its files hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from foreign_models import gpt2, gpt_neo, opt, saved
from transformers import PreTrainedModel

from gpt3.cli import main as cli
from gpt3.ladder.presets import preset
from gpt3.model import GPT3ForCausalLM
from gpt3.tokenizer.loading import tokenizer_hash
from gpt3.tokenizer.train import train_tokenizer


def info(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert cli.main(["info", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("make", [gpt2, gpt_neo, opt])
def test_shape_parameters_and_files_of_each_family(make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model: PreTrainedModel = make()
    found = info(capsys, str(saved(model, tmp_path)))
    shape, parameters = found["shape"], found["parameters"]
    assert (shape["width"], shape["heads"], shape["head_width"], shape["mlp_width"]) == (24, 3, 8, 96)
    assert (shape["context"], shape["vocabulary"], shape["tied_head"]) == (64, 67, True)
    assert parameters["total"] == sum(count for part, count in parameters.items() if part != "total")
    assert parameters["token embedding"] == 67 * 24
    assert parameters["position embedding"] == 64 * 24
    assert shape["window"] == (8 if make is gpt_neo else None)
    assert found["tokenizer"] is None
    for file in found["files"]:
        content = (tmp_path / file["name"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_our_own_folders_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    tokenizer = train_tokenizer(["the sea and the ships on the sea " * 20], 270)
    config = preset("17M").config(
        vocab_size=272, real_vocab_size=len(tokenizer), hidden_size=32, num_attention_heads=2, num_hidden_layers=3,
        max_position_embeddings=64, sliding_window=16, intermediate_size=None, head_dim=None, layer_types=None,
    )  # fmt: skip
    model = GPT3ForCausalLM(config)
    run = tmp_path / "runs" / "night"
    model.save_pretrained(run / "model")
    tokenizer.save_pretrained(run / "model")
    (run / "metrics.jsonl").write_text("", encoding="utf-8")
    (run / "config.yaml").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for words in ([], ["night"], ["runs/night"], ["runs/night/model"]):
        found = info(capsys, *words)
        assert found["family"] == "gpt3"
        assert found["parameters"]["total"] == model.num_parameters()
        assert found["shape"]["layer_types"] == ["dense", "banded", "dense"]
        assert found["shape"]["padding_ids"] == 272 - len(tokenizer)
        assert found["tokenizer"]["hash"] == tokenizer_hash(tokenizer)
        assert found["origin"] == {"run": "night"}
        assert found["dtypes"] == {"F32": len(list(model.parameters()))}
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    assert f"parameters: {model.num_parameters():,} (output head tied)" in text
    assert "layers: 2 dense and 1 banded (dense, banded, dense); window 16 keys" in text
    assert "origin: run night" in text


def test_what_does_not_run_here_is_told_and_the_rest_shown(tmp_path: Path, capsys) -> None:
    saved(opt(word_embed_proj_dim=16, do_layer_norm_before=False), tmp_path)
    found = info(capsys, str(tmp_path))
    assert "OPT-350M" in found["problem"]
    assert found["model_type"] == "opt"
    assert found["dtypes"]["F32"] > 10
    assert cli.main(["info", str(tmp_path)]) == 0
    assert "cannot run here: " in capsys.readouterr().out


def test_a_gguf_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_name("tiny")
    writer.add_block_count(3)
    writer.add_embedding_length(24)
    writer.add_context_length(64)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "c"])
    writer.add_tensor("token_embd.weight", np.zeros((3, 24), dtype=np.float16))
    writer.add_tensor("output_norm.weight", np.ones(24, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = info(capsys, str(path))
    assert (found["family"], found["name"]) == ("GGUF, architecture gpt2", "tiny")
    assert found["shape"] == {"layers": 3, "width": 24, "heads": None, "mlp_width": None, "context": 64}
    assert found["parameters"] == {"total": 3 * 24 + 24}
    assert found["dtypes"] == {"F16": 1, "F32": 1}
    assert found["tokenizer"]["ids"] == 3
    assert cli.main(["info", str(path)]) == 0
    assert "shape: layers 3, width 24, context 64\nparameters: 96\n" in capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:100])
    assert cli.main(["info", str(path)]) == 2
    assert "is not a complete GGUF file" in capsys.readouterr().err


def test_what_is_no_model_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for words in (["info"], ["info", "empty"], ["info", "typo"]):
        assert cli.main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("gpt3 info: ")
        assert error.count("\n") == 1
