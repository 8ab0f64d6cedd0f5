"""`gpt3 publish` to a hub on the loopback: what arrives is loaded by transformers and gpt3; what it refuses, and how."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import yaml
from huggingface_hub import constants
from huggingface_hub.utils import _http

from gpt3.cli.main import main
from gpt3.cli.publish import PublishOptions
from gpt3.errors import InputError
from gpt3.export.card import published_card, read_results
from gpt3.export.hub import check_names, gguf_name, llama_cpp_choice
from gpt3.model_folder.load import load_transformers
from gpt3.training.origin import NO_LICENCE
from model_hub import ModelHub
from without_gpt3 import python

TOKEN = "hf_theTokenOfTheTest"
CARD = f"""---
library_name: transformers
tags: [gpt3, other]
base_model: someone/base
---
# demo

{NO_LICENCE}

`gpt3 generate --model PATH_OF_THIS_FOLDER`
"""


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with ModelHub(TOKEN) as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        address = served.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
        no_pause = SimpleNamespace(sleep=lambda seconds: None, time=time.time)  # between the library's attempts
        monkeypatch.setattr(_http, "time", no_pause)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield served


@pytest.fixture
def run(home) -> Path:
    """runs/demo with a card, an evaluation, and files that are nobody's business."""
    folder = home / "runs/demo/model"
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    (folder / "secrets.txt").write_text("mine")
    (folder / "optimizer.safetensors.partial").write_text("mine")
    task = {
        "task": "lambada",
        "shots": 3,
        "examples": 1000,
        "main": "acc",
        "metrics": {"acc": {"value": 0.4321, "error": 0.01}},
    }
    hub_task = {"data": {"hub": "someone/lambada"}}
    own_task = {**task, "task": "own", "data": {"file": "/home/me/private/own.jsonl"}}
    (home / "eval/demo").mkdir(parents=True)
    results = {"model": str(folder), "results": [task | hub_task, own_task, {"group": "all", "metrics": {}}]}
    (home / "eval/demo/results.json").write_text(json.dumps(results))
    return folder


def publish(*words: str) -> int:
    return main(["publish", *words])


READER = """
import dataclasses
import json
texts = []
for name in ("me/tiny", "me/pushed"):
    model = AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=True)
    ids = tokenizer("The sea", return_tensors="pt")["input_ids"]
    mask = torch.ones_like(ids)
    texts.append(model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0).tolist())
    if name == "me/tiny":
        model.push_to_hub("me/pushed")
        tokenizer.push_to_hub("me/pushed")
print(json.dumps(texts))
"""


def test_what_is_published_is_loaded_by_its_name(hub, run, tmp_path, capfd):
    gguf = pytest.importorskip("gguf")
    assert publish("runs/demo", "me/tiny", "--gguf", "f16,q8_0", "--license", "mit") == 0
    out, err = capfd.readouterr()
    assert TOKEN not in out + err
    assert out.splitlines()[0].startswith("me/tiny (private), 14 files, 1.")
    assert f"published: {hub.endpoint}/me/tiny" in out
    assert hub.private == {"me/tiny"}
    assert len(hub.commits) == 1
    files = hub.files["me/tiny"]
    ours = {path.name for path in run.iterdir()} - {"secrets.txt", "optimizer.safetensors.partial"}
    assert set(files) == ours | {"tiny-F16.gguf", "tiny-Q8_0.gguf", "evaluation/results.json"}
    for name in ours - {"README.md"}:
        assert files[name] == (run / name).read_bytes()

    _, front, body = files["README.md"].decode().split("---\n", 2)
    head = yaml.safe_load(front)
    assert {key: head[key] for key in ("library_name", "pipeline_tag", "license", "base_model", "tags")} == {
        "library_name": "transformers", "pipeline_tag": "text-generation", "license": "mit", "base_model": "someone/base",
        "tags": ["gpt3", "other", "gguf"],
    }  # fmt: skip
    _, index = huggingface_hub.repocard_data.model_index_to_eval_results(head["model-index"])
    assert [(each.dataset_type, each.metric_type, each.metric_value) for each in index] == [
        ("someone/lambada", "acc", 43.21), ("own", "acc", 43.21),
    ]  # fmt: skip
    assert "gpt3 generate --model me/tiny`" in body
    assert "llama-completion -hf me/tiny:Q8_0" in body
    assert "lms get me/tiny@q8_0" in body
    assert NO_LICENCE not in body
    assert b"/home/me" not in files["evaluation/results.json"]

    (tmp_path / "q8.gguf").write_bytes(files["tiny-Q8_0.gguf"])
    assert gguf.GGUFReader(tmp_path / "q8.gguf").get_field("general.name").contents() == "tiny"
    variables = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    texts = json.loads(python(READER, tmp_path, **variables).splitlines()[-1])
    model, tokenizer = load_transformers(run)
    ids = tokenizer("The sea", return_tensors="pt")["input_ids"]
    expected = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert texts == [expected.tolist()] * 2
    assert main(["generate", "The sea", "-m", "me/tiny", "--temperature", "0", "-n", "8", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["text"] == tokenizer.decode(expected[0, ids.shape[1] :])


def test_a_dry_run_shows_all_and_uploads_nothing(run, capsys, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", None)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    before = sorted(Path().rglob("*"))
    assert publish("me/tiny", "--dry-run", "--public") == 0  # the newest run
    out, err = capsys.readouterr()
    assert out.startswith("me/tiny (public), 12 files")
    size = (run / "model.safetensors").stat().st_size
    assert re.search(rf"^  model.safetensors +{size:,} bytes$", out, re.MULTILINE)
    assert "\n# demo\n" in out
    assert "names no licence" in err
    assert sorted(Path().rglob("*")) == before


def test_again_sends_only_what_changed_and_removes_what_has_no_successor(hub, run, capsys):
    assert publish("runs/demo", "me/tiny", "--gguf", "q8_0") == 0
    hub.files["me/tiny"] |= {
        "model-00001-of-00002.safetensors": b"old",
        "notes.md": b"theirs",
        "tiny-Q4_K_M.gguf": b"theirs",
    }
    sent = len(hub.sent)
    hub.reads_configurations = False  # a moment after the commit
    assert publish("runs/demo", "me/tiny", "--public") == 0
    assert len(hub.sent) == sent
    assert set(hub.commits[-1]["deleted"]) == {"model-00001-of-00002.safetensors", "tiny-Q8_0.gguf"}
    assert "other files stay in the repository: notes.md, tiny-Q4_K_M.gguf" in capsys.readouterr().err
    assert hub.private == set()
    assert publish("runs/demo", "me/tiny") == 2
    assert "me/tiny exists and is public. Add --public" in capsys.readouterr().err


def test_overwrite_publishes_beside_files_of_others(hub, run, capsys):
    hub.files["me/pile"] = {"data.csv": b"1"}
    assert publish("runs/demo", "me/pile", "--overwrite", "--public") == 0
    assert "other files stay in the repository: data.csv" in capsys.readouterr().err
    assert {"data.csv", "config.json"} <= set(hub.files["me/pile"])


def test_an_upload_that_breaks_off_resumes(hub, run, capsys):
    hub.refuse = lambda method, path: 503 if "/commit/" in path else None
    assert publish("runs/demo", "me/tiny") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "me/tiny: the upload was interrupted" in error
    assert error.endswith("Run the same command to resume")
    assert hub.files["me/tiny"] == {}
    hub.refuse = lambda method, path: None
    assert publish("runs/demo", "me/tiny") == 0
    assert len(hub.sent) == 1  # the weights, the first time


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs/demo", "tiny"], "'tiny' is not the name of a repository. Give OWNER/NAME"),
        (["runs/demo", "me/a--b"], "'me/a--b' is not the name"),
        (["runs/demo", "me/tiny.git"], "'me/tiny.git' is not the name"),
        (["runs/demo"], "give the run and the repository"),
        ([], "give the run and the repository"),
        (["a", "b", "c/d"], "give the run and the repository"),
        (["runs/demo", "me/tiny", "--gguf", "q4_k"], "--gguf q4_k must be one of f32, f16, bf16, q8_0, q4_0"),
        (
            ["runs/demo", "me/tiny", "--gguf", "f16,bf16"],
            "-hf me/tiny:F16 would take tiny-BF16.gguf, not tiny-F16.gguf",
        ),
        (["runs/demo", "me/tiny", "--evaluation", "nowhere"], "nowhere has no results.json"),
        (["runs/none", "me/tiny"], "runs/none: no such folder"),
        (["runs/half", "me/tiny"], "step-3 has no card"),
        (["runs/adapted", "me/tiny"], "is an adapter"),
        (["someone/else", "me/tiny"], "someone/else is not a folder on this machine"),
        (["stock", "me/tiny"], "stock is a gpt2 model"),
        (["runs/demo", "me/llama"], "me/llama exists and holds a llama model"),
        (["runs/demo", "me/pile"], r"me/pile exists and holds other files \(data.csv\)"),
        (["runs/demo", "me/talks"], "me/talks is a dataset on the hub"),
    ],
)
def test_refusals_are_one_line(hub, run, capsys, words, message):
    half = run.parents[1] / "half/checkpoints/step-3"
    half.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (half / name).write_bytes((run / name).read_bytes())
    adapter = run.parents[1] / "adapted/adapter"
    adapter.mkdir(parents=True)
    settings = {"peft_type": "LORA", "base_model_name_or_path": "runs/demo"}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    stock = run.parents[2] / "stock"
    stock.mkdir()
    (stock / "config.json").write_text('{"model_type": "gpt2"}')
    for name in ("model.safetensors", "tokenizer.json"):
        (stock / name).write_bytes((run / name).read_bytes())
    hub.files |= {"me/llama": {"config.json": b'{"model_type": "llama"}'}, "me/pile": {"data.csv": b"1"}}
    hub.others = {("datasets", "me/talks"), ("datasets", "runs/demo")}
    assert publish(*words) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("gpt3 publish: ")
    assert re.search(message, error), error
    assert not hub.commits


@pytest.mark.parametrize(
    ("token", "message"),
    [(None, "no Hugging Face token is set. Log in with hf auth login"), ("hf_wrong", "the hub refuses the token")],
)
def test_the_token_is_needed_and_never_printed(hub, run, capsys, monkeypatch, tmp_path, token, message):
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    assert publish("runs/demo", "me/tiny") == 2
    out, err = capsys.readouterr()
    assert message in err
    assert "hf_wrong" not in out + err


def test_a_message_of_the_hub_never_shows_the_token(hub, run, capsys, monkeypatch):
    def fails(*arguments, **options):
        raise ValueError(f"bad header Bearer {TOKEN}")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", fails)
    assert publish("runs/demo", "me/tiny") == 2
    assert "bad header Bearer ***" in capsys.readouterr().err


def test_llama_cpp_finds_each_file_by_its_tag():
    names = [gguf_name("me/Tiny-GGUF", dtype) for dtype in ("f16", "q8_0", "f32")]
    assert names == ["Tiny-F16.gguf", "Tiny-Q8_0.gguf", "Tiny-F32.gguf"]
    assert [llama_cpp_choice(names, tag) for tag in ("f16", "Q8_0", "F32", "Q4_K_M")] == [*names, None]
    with pytest.raises(InputError, match="would take no file"):
        check_names("me/mtp-1", ["f16"])
    with pytest.raises(InputError, match=r"would take a-q8_0-1\.gguf, not tiny-Q8_0\.gguf"):
        check_names("me/tiny", ["q8_0"], ["a-q8_0-1.gguf"])


def test_old_results_are_left_out(run, capsys):
    os.utime("eval/demo/results.json", (1, 1))
    assert publish("runs/demo", "me/tiny", "--dry-run") == 0
    out, err = capsys.readouterr()
    assert "evaluation/" not in out
    assert "is older than the weights and is left out" in err


@pytest.mark.parametrize("front", ["- a\n- b\n", "{"])
def test_a_front_matter_that_is_no_mapping_is_refused(front):
    with pytest.raises(InputError, match="front matter is not YAML"):
        published_card(f"---\n{front}\n---\n# x\n", "me/tiny")


def test_results_of_another_program_are_refused(tmp_path):
    (tmp_path / "results.json").write_text('{"results": {"hellaswag": {"acc,none": 0.3}}}')  # lm-eval's
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match=r"has no results\.json of gpt3 eval"):
            read_results(folder, "me/tiny")


def test_a_card_with_one_tag_keeps_it():
    assert "tags:\n- sea\n- gpt3\n" in published_card("---\ntags: sea\n---\n# x\n", "me/tiny")


def test_a_card_without_front_matter_gets_one():
    card = published_card("# x\n", "me/tiny")
    assert card == "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- gpt3\n---\n# x\n"


def test_the_commands_of_the_page(hub, run, capsys):
    pytest.importorskip("gguf")
    page = (Path(__file__).parents[2] / "docs" / "publish.md").read_text(encoding="utf-8")
    (commands,) = re.findall(r"^```sh\n(.*?)^```", page, flags=re.M | re.S)
    for line in commands.splitlines():
        assert main(shlex.split(line, comments=True)[1:]) == 0
    assert "demo-Q8_0.gguf" in hub.commits[0]["added"]
    for field in dataclasses.fields(PublishOptions):
        assert field.name == "names" or f"`--{field.name.replace('_', '-')}`" in page
