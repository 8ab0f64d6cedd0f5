"""`gpt3 export`: what it writes and says, what it refuses, and that nothing is left behind."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, GPT2LMHeadModel, GPTNeoForCausalLM

from gpt3.cli.main import main
from gpt3.errors import install_command


def export(*words: str) -> int:
    return main(["export", *words])


def test_gguf(home, capsys):
    assert export("--model", "runs/demo", "--format", "gguf", "--dtype", "q8_0", "--out", "out/demo.gguf") == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"runs/demo/model -> out/demo.gguf: gguf, q8_0, 0.\d MB", lines[0].replace("\\", "/"))
    assert lines[1].startswith(
        "context: 16 of the model's 96 tokens, its window: llama.cpp's gpt2 has no banded layers"
    )
    assert re.match(r"reloaded as GPT-2: largest logit difference 0\.\d+ .*from GELU by tanh", lines[2])
    assert lines[3].startswith("llama.cpp itself")
    assert [path.name for path in Path("out").iterdir()] == ["demo.gguf"]


@pytest.mark.parametrize(
    ("words", "kind", "context"),
    [
        (["--format", "gpt-neo"], GPTNeoForCausalLM, 96),
        (["--format", "gpt-neo", "--context", "40", "--dtype", "f16"], GPTNeoForCausalLM, 40),
        (["--format", "gpt2", "--context", "16"], GPT2LMHeadModel, 16),
    ],
)
def test_folders(home, capsys, words, kind, context):
    for _ in range(2):  # an earlier export is replaced
        assert export(*words, "--out", "stock") == 0
    out = capsys.readouterr().out
    assert f"reloaded by {kind.__name__}: largest logit difference" in out
    model = AutoModelForCausalLM.from_pretrained("stock")
    assert type(model) is kind
    assert model.config.max_position_embeddings == context
    assert json.loads(Path("stock/tokenizer_config.json").read_text())["model_max_length"] == context
    if "f16" not in words:
        assert float(re.search(r"difference ([\d.e-]+) ", out)[1]) < 1e-5


def test_verify_no(home, capsys):
    assert export("--format", "gguf", "--verify", "no", "--out", "demo.gguf") == 0
    assert capsys.readouterr().out.splitlines()[2:] == ["not verified"]


@pytest.mark.parametrize(("dtype", "fault"), [("f32", 0.05), ("bf16", 0.003)])  # the second is less than rounding makes
def test_an_export_that_computes_something_else_is_not_written(home, capsys, monkeypatch, dtype, fault):
    from gpt3.export import stock

    def fold(block, head_dim):
        folded = right(block, head_dim)
        return folded | {"ln_1.bias": folded["ln_1.bias"] + fault}

    right = stock.fold_attention
    monkeypatch.setattr(stock, "fold_attention", fold)
    assert export("--format", "gpt-neo", "--dtype", dtype, "--out", "stock") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "differs from the model: largest logit difference" in error
    assert not Path("stock").exists()
    assert not list(Path().glob("*.partial"))


@pytest.mark.parametrize(
    ("words", "broken"),
    [
        (["--format", "gguf", "--out", "out.gguf"], "gpt3.export.gguf.read_gguf"),
        (["--format", "gpt-neo", "--out", "out"], "gpt3.export.stock.reload"),
    ],
)
def test_one_that_breaks_off_leaves_the_earlier_one(home, capsys, monkeypatch, words, broken):
    assert export(*words, "--context", "8") == 0

    def files():
        return {path: path.read_bytes() for path in Path().glob("out*/**/*") if path.is_file()} or {
            path: path.read_bytes() for path in Path().glob("out*")
        }

    def dies(*arguments, **keywords):
        raise RuntimeError("power cut")

    before = files()
    assert before
    monkeypatch.setattr(broken, dies)
    with pytest.raises(RuntimeError, match="power cut"):
        export(*words)
    assert files() == before
    assert not list(Path().glob("*.partial"))


def llama_config(home):
    file = home / "runs/demo/model/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "mamba9"}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--format", "gpt2"],
            "the model's context of 96 would be wrong. Use --context 16 or less, or --format gpt-neo",
        ),
        (["--format", "gpt2", "--context", "17"], "--context 17 would be wrong"),
        (["--format", "gpt-neo", "--context", "97"], "--context 97 exceeds the model's 96 positions"),
        (
            ["--format", "gpt-neo", "--dtype", "q8_0"],
            "--dtype q8_0 is not for --format gpt-neo; use one of f32, f16, bf16",
        ),
        (["--format", "gguf"], "--out out must end in .gguf"),
        (["--format", "onnx"], "--format onnx must be one of gguf, gpt2, gpt-neo"),
        (["--format", "gpt-neo", "--out", "runs"], "--out runs is the model itself or a folder around it"),
        (["--format", "gpt-neo", "--out", "notes"], r"--out notes holds other files \(todo.txt\)"),
        (["--format", "gguf", "--out", "notes.gguf"], "--out notes.gguf exists, and gpt3 did not write it"),
        (
            ["--format", "gpt2", "--context", "8", "--out", "theirs"],
            r"--out theirs holds other files \(config.json, ",
        ),
        (["--format", "gpt-neo", "--model", "nothing"], "nothing: no such folder"),
    ],
)
def test_refusals(home, capsys, words, message):
    Path("notes").mkdir()
    Path("notes/todo.txt").write_text("x")
    Path("notes.gguf").write_bytes(b"GGUF of another program")
    shutil.copytree("runs/demo/model", "theirs", ignore=shutil.ignore_patterns("*.py"))  # by its names an export
    words = words if "--out" in words else [*words, "--out", "out"]
    assert export(*words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert not Path("out").exists()
    assert Path("notes.gguf").read_bytes() == b"GGUF of another program"
    assert Path("theirs/model.safetensors").read_bytes() == Path("runs/demo/model/model.safetensors").read_bytes()


def test_overwrite_replaces_what_others_wrote_but_no_folder_with_other_files(home, capsys):
    Path("notes.gguf").write_bytes(b"GGUF of another program")
    assert export("--format", "gguf", "--verify", "no", "--out", "notes.gguf", "--overwrite") == 0
    assert Path("notes.gguf").stat().st_size > 1000
    shutil.copytree("runs/demo/model", "theirs", ignore=shutil.ignore_patterns("*.py"))
    assert export("--format", "gpt-neo", "--verify", "no", "--out", "theirs", "--overwrite") == 0
    assert json.loads(Path("theirs/config.json").read_text())["model_type"] == "gpt_neo"
    assert main(["import", "theirs", "--out", "theirs", "--overwrite"]) == 2
    assert "is the model itself" in capsys.readouterr().err
    shutil.copytree("runs/demo/model", "ours")
    assert main(["import", "theirs", "--out", "ours"]) == 2
    assert main(["import", "theirs", "--out", "ours", "--overwrite"]) == 0
    assert json.loads(Path("ours/origin.json").read_text())["family"] == "GPT-Neo"
    Path("theirs/thesis.txt").write_text("mine")
    assert export("--format", "gpt-neo", "--verify", "no", "--out", "theirs", "--overwrite") == 2
    assert "(thesis.txt), which --overwrite does not replace" in capsys.readouterr().err


def test_without_the_gguf_package(home, capsys, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.delitem(sys.modules, "gpt3.export.gguf", raising=False)
    assert export("--format", "gguf", "--out", "a.gguf") == 2
    assert f"needs gguf; install it with: {install_command('export')}" in capsys.readouterr().err
