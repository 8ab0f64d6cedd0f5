"""A model is found by what a user would call it, and what is not a whole model is refused with the remedy."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt3.errors import InputError
from gpt3.inference.language_model import LanguageModel, generate
from gpt3.inference.language_model import load as load_model
from gpt3.model_folder.load import load_transformers as load
from gpt3.model_folder.locate import locate


def copy_folder(source: Path, target: Path, without: tuple[str, ...] = ()) -> Path:
    target.mkdir(parents=True)
    for file in source.iterdir():
        if file.name not in without:
            (target / file.name).write_bytes(file.read_bytes())
    return target


def age(folder: Path, seconds: int) -> None:
    """Make a model folder look as if written so long ago."""
    time = (folder / "config.json").stat().st_mtime - seconds
    os.utime(folder / "config.json", (time, time))


@pytest.fixture
def runs(saved, tmp_path, monkeypatch):
    """Three runs: an old finished one, the newest (unfinished, two checkpoints), one that has only begun."""
    monkeypatch.chdir(tmp_path)
    age(copy_folder(saved, tmp_path / "runs" / "an-old-one" / "model"), 1000)
    age(copy_folder(saved, tmp_path / "runs" / "new" / "checkpoints" / "step-900"), 20)
    age(copy_folder(saved, tmp_path / "runs" / "new" / "checkpoints" / "step-1000"), 10)
    (tmp_path / "runs" / "new" / "checkpoints" / "step-2000.17.partial").mkdir()
    (tmp_path / "runs" / "begun" / "checkpoints").mkdir(parents=True)
    (tmp_path / "runs" / "notes.txt").write_text("not a run")
    (tmp_path / "runs" / "model.gguf").write_text("not a run")
    return Path("runs")


def test_the_default_is_the_newest_run(runs):
    assert locate(None) == runs / "new" / "checkpoints" / "step-1000"


def test_a_finished_runs_model_comes_before_its_checkpoints(runs, saved):
    age(copy_folder(saved, runs / "new" / "model"), 500)
    assert locate("runs/new") == runs / "new" / "model"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("runs/an-old-one/model", "an-old-one/model"),
        ("runs/an-old-one", "an-old-one/model"),
        ("an-old-one", "an-old-one/model"),
        ("new", "new/checkpoints/step-1000"),
        ("runs/new/checkpoints", "new/checkpoints/step-1000"),
        ("runs/new/checkpoints/step-900", "new/checkpoints/step-900"),
        ("runs", "new/checkpoints/step-1000"),
    ],
)
def test_names_of_a_model(runs, name, place):
    assert Path(locate(name)).resolve() == (runs / place).resolve()
    assert Path(locate(Path(name).absolute() if "/" in name else name)).resolve() == (runs / place).resolve()


def test_a_folder_of_texts_does_not_hide_the_run_of_its_name(runs):
    Path("an-old-one").mkdir()
    Path("an-old-one", "a.txt").write_text("text")
    assert locate("an-old-one") == runs / "an-old-one" / "model"


def test_a_hub_id_is_left_to_the_hub(runs):
    assert locate("someone/some-model") == "someone/some-model"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("runs/typo", "no such folder"),
        ("typo", r"no such folder, and no run of that name in ./runs. .*train one first: gpt3 train"),
        ("./typo/model", "no such folder"),
        ("/no/such/folder", "no such folder"),
        ("125M", "is a model size, not a trained model. Train one first: gpt3 train --model 125M"),
        ("runs/model.gguf", "is a GGUF file, for llama.cpp. Give the model folder"),
        ("runs/notes.txt", "is a file. Give the folder that holds it: runs"),
        ("runs/begun", r"it is no model \(it holds checkpoints\)"),
        ("runs/begun/checkpoints", "it is empty"),
    ],
)
def test_what_is_not_there(runs, name, message):
    with pytest.raises(InputError, match=message) as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_nothing_trained_yet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"no trained model is in ./runs. Give a model folder, or train one first: gpt3 train"
    ):
        load()


def edit_config(folder, **values):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def drop_tensor(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def shard_missing(folder):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")


def only_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "it has weights but no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "is not a JSON object"),
        (lambda f: (f / "config.json").write_text("{}"), "has no model_type"),
        (lambda f: edit_config(f, model_type="mystery"), "model_type 'mystery', which neither gpt3 nor"),
        (lambda f: edit_config(f, hidden_size=33), "does not load"),
        (
            lambda f: edit_config(f, num_hidden_layers=6, layer_types=None),
            r"24 tensors are missing from .*transformer.h.4",
        ),
        (
            lambda f: edit_config(f, num_hidden_layers=2, layer_types=None),
            r"24 tensors have no place .*transformer.h.2",
        ),
        (lambda f: edit_config(f, intermediate_size=64), "does not load"),
        (lambda f: (f / "model.safetensors").unlink(), "no weights"),
        (only_pickle, "pytorch_model.bin is a pickle, which can hold code"),
        (shard_missing, r"1 of 2 weight files are missing \(model-00002-of-00002.safetensors\)"),
        (drop_tensor, r"1 tensors are missing from the weights \(transformer.h.1.mlp.c_fc.weight\)"),
        (cut_weights, "does not load"),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "does not load"),
    ],
)
def test_damaged_folders(saved, tmp_path, damage, message):
    folder = copy_folder(saved, tmp_path / "model")
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_loaded_model_is_the_saved_one(saved, tokenizer, capfd):
    model, loaded_tokenizer = load(saved)
    assert not model.training
    assert model.dtype == torch.float32
    assert loaded_tokenizer.get_vocab() == tokenizer.get_vocab()
    weights = load_file(saved / "model.safetensors")
    for name, tensor in weights.items():
        assert torch.equal(model.state_dict()[name], tensor), name
    text = generate(LanguageModel(model, loaded_tokenizer), "The sea", temperature=0, max_new_tokens=10)[0].text
    assert generate(saved, "The sea", temperature=0, max_new_tokens=10)[0].text == text
    assert capfd.readouterr().err == ""  # no progress bars


def test_sharded_weights(saved, tmp_path):
    folder = copy_folder(saved, tmp_path / "model", without=("model.safetensors",))
    model, _ = load(saved)
    model.save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert torch.equal(load(folder)[0].transformer.h[3].mlp.c_fc.weight, model.transformer.h[3].mlp.c_fc.weight)


def test_the_code_in_a_model_folder_is_not_run(saved, tmp_path):
    folder = copy_folder(saved, tmp_path / "model")
    for file in folder.glob("*.py"):
        file.write_text("raise SystemExit('this must not run')")
    load(folder)


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_dtypes(saved, name, dtype):
    assert load(saved, dtype=name)[0].dtype == dtype


def test_a_loaded_model_says_what_it_is(saved):
    parameters = f"{load(saved)[0].num_parameters():,} parameters"
    assert repr(load_model(saved, device="cpu", dtype="bf16")).startswith(f"LanguageModel(gpt3, {parameters}, context ")
    assert repr(load_model(saved, device="cpu", quantize="int8")).endswith(", int8, cpu)")


def test_a_device_that_is_not_here(saved):
    with pytest.raises(InputError, match=r"--device cuda:99 is not available; this machine has .*cpu"):
        load(saved, device="cuda:99")


class Hub(BaseHTTPRequestHandler):
    """As much of huggingface.co as loading a model asks for: /OWNER/NAME/resolve/REVISION/FILE."""

    folder: Path

    def do_GET(self):
        *_, owner, _, _, _, name = ["", "", "", "", *self.path.partition("?")[0].split("/")]
        file = self.folder / name
        found = owner == "someone" and file.is_file()
        body = file.read_bytes() if found else b"{}"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{name}-{len(body)}"')
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound" if owner == "someone" else "RepoNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


def test_a_hub_model(saved, tmp_path, tokenizer):
    """From a hub on 127.0.0.1; an id that it does not have is the user's mistake. One that is not reached is told in one line,
    though the hub's library would tell of each of its attempts."""
    (tmp_path / "hub").mkdir()
    Hub.folder = copy_folder(saved, tmp_path / "hub" / "model")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = """
import sys
import time
from gpt3.cli import main as cli
from gpt3.errors import InputError
from gpt3.inference.language_model import generate, load
print(generate("someone/tiny", "The sea", temperature=0, max_new_tokens=10)[0].tokens)
try:
    load("nobody/nothing")
except InputError as error:
    print(error, flush=True)
sys.stdin.readline()  # until the hub is gone
time.sleep = lambda seconds: None  # between attempts
print("gone", file=sys.stderr)
raise SystemExit(cli.main(["generate", "x", "--model", "nobody/nothing"]))
"""
    environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        encoding="utf-8", env=environment | {"HF_HUB_OFFLINE": "0"}, cwd=tmp_path,
    ) as process:  # fmt: skip
        tokens, message = process.stdout.readline(), process.stdout.readline()
        server.shutdown()
        server.server_close()
        _, error = process.communicate("\n", timeout=120)
    assert tokens == f"{generate(saved, 'The sea', temperature=0, max_new_tokens=10)[0].tokens}\n", error
    tried = f"no such folder or run, and {environment['HF_ENDPOINT']} did not give it"
    assert message.startswith(f"nobody/nothing: {tried}")
    assert process.returncode == 2
    assert error.partition("gone\n")[2].count("\n") == 1, error
    assert tried in error.partition("gone\n")[2]
