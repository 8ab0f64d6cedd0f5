"""`gpt3 import` writes a model folder like any other, whole or not at all; `--model` takes the source as it is."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from foreign_models import gpt2, gpt_neo, logits, opt, random_ids, saved
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from gpt3.cli import main as cli
from gpt3.model import GPT3ForCausalLM
from gpt3.model_folder.load import load_transformers as load
from gpt3.model_folder.load import open_checkpoint
from gpt3.model_folder.write import write_weights
from gpt3.tokenizer.train import train_tokenizer


@pytest.fixture(scope="session")
def own() -> PreTrainedTokenizerFast:
    return train_tokenizer(["The ships on the sea were small and the captain looked at the sea. " * 20], 300)


@pytest.fixture
def source(own: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    end = own.eos_token_id
    folder = saved(gpt_neo(vocab_size=len(own), bos_token_id=end, eos_token_id=end), tmp_path / "neo")
    own.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [x]\n---\n# Neo\n", encoding="utf-8")
    (folder / "LICENSE").write_text("MIT\n", encoding="utf-8")
    return folder


def test_an_imported_folder_is_a_model_folder(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made" / "out"
    assert cli.main(["import", str(source), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("GPT-Neo: 4 layers x 24, ")
    assert said.endswith(f"model saved in {out}\n")
    theirs = AutoModelForCausalLM.from_pretrained(source).eval()
    ids = random_ids(60, vocabulary=290)
    for model in (load(out)[0], load(source)[0], AutoModelForCausalLM.from_pretrained(out).eval()):
        assert type(model) is GPT3ForCausalLM
        assert float((logits(model, ids) - logits(theirs, ids)).abs().max()) <= 1e-5
        assert model.generation_config.eos_token_id == theirs.generation_config.eos_token_id
    origin = json.loads((out / "origin.json").read_text(encoding="utf-8"))
    assert (origin["family"], origin["source"]) == ("GPT-Neo", "neo")
    weights = source / "model.safetensors"
    assert origin["sha256"][weights.name] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert "license: mit\n" in (out / "README.md").read_text(encoding="utf-8")
    assert (out / "LICENSE").read_text(encoding="utf-8") == "MIT\n"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("damage", ["out", "file", "weights", "ours"])
def test_nothing_is_written_or_replaced_where_something_is_wrong(
    source: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    if damage == "out":
        out.mkdir()
        (out / "mine.txt").write_text("keep", encoding="utf-8")
    elif damage == "file":
        out.write_text("keep", encoding="utf-8")
    elif damage == "weights":
        (source / "model.safetensors").write_bytes(b"")
    else:
        assert cli.main(["import", str(source), "--out", str(tmp_path / "first")]) == 0
        source = tmp_path / "first"
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["import", str(source), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("gpt3 import: ")
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_pickles_need_a_word_and_a_folder_without_tokenizer_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = opt()
    folder = saved(model, tmp_path / "opt")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    out = tmp_path / "out"
    assert cli.main(["import", str(folder), "--out", str(out)]) == 2
    assert "--allow-pickle" in capsys.readouterr().err
    assert cli.main(["import", str(folder), "--out", str(out), "--allow-pickle"]) == 0
    assert "tokenizer: none: there are no tokenizer files next to the weights" in capsys.readouterr().out
    ids = random_ids(20)
    again = GPT3ForCausalLM.from_pretrained(out).eval()
    torch.testing.assert_close(logits(again, ids), logits(model, ids), atol=1e-5, rtol=0)
    assert not list(out.glob("*token*"))


def test_what_is_loaded_writes_what_the_original_would(source: Path) -> None:
    """Greedy, through the cache, from beyond the window on."""
    theirs = AutoModelForCausalLM.from_pretrained(source).eval()
    ours, tokenizer = load(source)
    prompt = tokenizer("The sea and the ships", return_tensors="pt")
    greedy = {"max_new_tokens": 30, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(ours.generate(**prompt, **greedy), theirs.generate(**prompt, **greedy))


def test_a_model_without_tokenizer_cannot_generate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved(gpt2(), tmp_path)
    assert cli.main(["generate", "x", "--model", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "no tokenizer" in error
    assert error.count("\n") == 1


def test_weights_are_split_into_files_that_transformers_reads(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(saved(gpt2(), tmp_path / "source"))
    checkpoint.empty_model().config.save_pretrained(tmp_path / "out")
    write_weights(checkpoint, tmp_path / "out", shard_bytes=20_000)
    names = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(names) > 2
    assert names == [f"model-{n:05}-of-{len(names):05}.safetensors" for n in range(1, len(names) + 1)]
    again = GPT3ForCausalLM.from_pretrained(tmp_path / "out").eval()
    ids = random_ids(20)
    torch.testing.assert_close(logits(again, ids), logits(checkpoint.model(), ids))


class Hub(SimpleHTTPRequestHandler):
    """As much of huggingface.co as single files need: /OWNER/NAME/resolve/REVISION/FILE out of a folder of OWNER/NAME."""

    def do_GET(self) -> None:
        _, owner, name, _, _, *rest = [*self.path.partition("?")[0].split("/"), "", "", "", "", ""][:6]
        path = Path(self.directory) / owner / name / (rest[0] if rest else "")
        known = (Path(self.directory) / owner / name).is_dir()
        body = path.read_bytes() if known and path.is_file() else b"{}"
        self.send_response(200 if known and path.is_file() else 404)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{path.name}-{len(body)}"')
        if not (known and path.is_file()):
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *_: object) -> None:
        """Say nothing."""


def test_from_a_hub(own: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Sharded weights and a tokenizer from a hub on 127.0.0.1, and an adapter; what is said of pickles and where none is."""
    peft = pytest.importorskip("peft")
    end = own.eos_token_id
    model = gpt_neo(vocab_size=len(own), bos_token_id=end, eos_token_id=end)
    folder = saved(model, tmp_path / "hub" / "someone" / "neo", max_shard_size="30KB")
    own.save_pretrained(folder)
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
    torch.nn.init.normal_(adapted.base_model.model.transformer.h[0].attn.attention.q_proj.lora_B.default.weight)
    adapted.peft_config["default"].base_model_name_or_path = "someone/neo"
    adapted.save_pretrained(tmp_path / "hub" / "someone" / "adapter", save_embedding_layers=False)
    pickled = saved(opt(), tmp_path / "hub" / "facebook" / "opt-125m")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=str(tmp_path / "hub")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home")}
    environment["PYTHONPATH"] = str(Path(cli.__file__).parents[2])
    code = """
import os, sys
from gpt3.cli import main as cli
names = {"someone/neo": "out", "someone/adapter": "merged", "nobody/nothing": "none"}
print([cli.main(["import", name, "--out", out]) for name, out in names.items()])
pickles = ["import", "opt-125m", "--out", "opt"]
print([cli.main(["generate", "x", "--model", "opt-125m"]), cli.main(pickles), cli.main([*pickles, "--allow-pickle"])])
"""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            encoding="utf-8",
            env=environment,
            timeout=120,
            cwd=tmp_path,
        )
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    assert "\n[0, 0, 2]\n" in done.stdout, done.stderr
    assert done.stdout.endswith("\n[2, 2, 0]\n"), done.stderr
    assert (
        done.stderr.count("facebook/opt-125m: its weights are pickles only (pytorch_model.bin), which can hold code")
        == 2
    )
    assert done.stderr.count("use the new folder: gpt3 import facebook/opt-125m --out DIR --allow-pickle") == 2
    assert f"nobody/nothing: no such folder or run, and {address} did not give it" in done.stderr
    assert "give its folder" in done.stderr
    ids = random_ids(20, vocabulary=290)
    ours, tokenizer = load(tmp_path / "out")
    merged, _ = load(tmp_path / "merged")
    torch.testing.assert_close(logits(merged, ids), logits(adapted, ids), atol=1e-5, rtol=0)
    with adapted.disable_adapter():
        torch.testing.assert_close(logits(ours, ids), logits(model, ids), atol=1e-5, rtol=0)
    assert not torch.allclose(logits(ours, ids), logits(merged, ids), atol=1e-3)
    assert tokenizer.get_vocab() == own.get_vocab()
    assert json.loads((tmp_path / "out" / "origin.json").read_text(encoding="utf-8"))["source"] == "someone/neo"
