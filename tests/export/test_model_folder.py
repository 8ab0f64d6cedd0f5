"""The model folder itself: loaded, run, trained and published by programs that do not have this package."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt3.model_folder.load import load_transformers

BLOCKED = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "gpt3":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
"""


def python(code: str, tmp_path: Path, *arguments: str, **variables: str) -> str:
    """Standard output of a new process that runs `code` and cannot import gpt3."""
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", **variables}
    environment.pop("PYTHONPATH", None)
    process = subprocess.run(
        [sys.executable, "-c", BLOCKED + code, *arguments],
        capture_output=True,
        encoding="utf-8",
        env=environment | {"PYTHONIOENCODING": "utf-8"},
        timeout=300,
        cwd=tmp_path,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_it_generates_and_trains_a_step_with_transformers_alone(saved, tokenizer, tmp_path):
    code = """
import json
folder = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
say = pipeline("text-generation", model=folder, trust_remote_code=True)
made = say("The sea", max_new_tokens=12, do_sample=False, return_full_text=False)[0]["generated_text"]
ids = tokenizer("Once upon a time there was a sea, and the ships on the sea were small.", return_tensors="pt")["input_ids"]
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
model.train()
losses = []
for _ in range(3):
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
print(json.dumps([made, losses, "gpt3" in sys.modules]))
"""
    made, losses, ours = json.loads(python(code, tmp_path, str(saved)).splitlines()[-1])
    assert not ours
    assert losses[2] < losses[1] < losses[0]
    model, loaded = load_transformers(saved)
    prompt = loaded("The sea", return_tensors="pt")["input_ids"]
    text = model.generate(prompt, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, prompt.shape[1] :]
    assert made == loaded.decode(text)
    ids = torch.tensor([loaded("Once upon a time there was a sea, and the ships on the sea were small.")["input_ids"]])
    assert losses[0] == pytest.approx(float(model(ids, labels=ids).loss.detach()), rel=1e-5)


class Hub:
    """As much of a Hugging Face hub, on 127.0.0.1, as publishing and reading a model asks for. A context manager."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None:
                """Say nothing."""

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, content = hub.answer(self.command, self.path.partition("?")[0], body)
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("ETag", f'"{hash(data)}"')
                if status == 404:
                    self.send_header("X-Error-Code", "EntryNotFound")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_HEAD = do_POST = answer  # noqa: N815

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/api/repos/create":
            wish = json.loads(body)
            name = f"{wish.get('organization') or 'me'}/{wish['name']}"
            self.files.setdefault(name, {})
            return 200, {"url": f"{self.endpoint}/{name}", "id": name, "name": name}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            names = [file["path"] for file in json.loads(body)["files"]]
            return 200, {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.files[match[1]][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            return 200, {"commitUrl": f"{self.endpoint}/{match[1]}/commit/1", "commitOid": "0" * 40, "success": True}
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/main)?", path):
            siblings = [{"rfilename": name} for name in self.files.get(match[1], {})]
            return 200, {"id": match[1], "sha": "0" * 40, "siblings": siblings}
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            data = self.files.get(match[1], {}).get(match[2])
            return (404, b"") if data is None else (200, data)
        return 404, b""


def test_it_is_published_and_read_from_a_hub(saved, tmp_path):
    """As a folder, its card with it; and by `push_to_hub`."""
    (tmp_path / "model").mkdir()
    for file in saved.iterdir():
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    card = b"---\nlicense: mit\n---\n# A card\n"
    (tmp_path / "model" / "README.md").write_bytes(card)
    code = """
import huggingface_hub, json
folder = sys.argv[1]
api = huggingface_hub.HfApi()
api.create_repo("me/folder")
api.upload_folder(folder_path=folder, repo_id="me/folder")
AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).push_to_hub("me/pushed")
AutoTokenizer.from_pretrained(folder, trust_remote_code=True).push_to_hub("me/pushed")
texts = []
for name in ("me/folder", "me/pushed"):
    model = AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True)
    ids = AutoTokenizer.from_pretrained(name, trust_remote_code=True)("The sea", return_tensors="pt")["input_ids"]
    mask = torch.ones_like(ids)
    texts.append(model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0).tolist())
print(json.dumps(texts))
"""
    with Hub() as hub:
        variables = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_x", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        texts = json.loads(python(code, tmp_path, str(tmp_path / "model"), **variables).splitlines()[-1])
    for name in ("me/folder", "me/pushed"):
        files = {"modeling_gpt3.py", "config.json", "model.safetensors", "tokenizer.json", "README.md"}
        assert files <= set(hub.files[name])
    assert hub.files["me/folder"]["README.md"] == card
    model, tokenizer = load_transformers(saved)
    ids = tokenizer("The sea", return_tensors="pt")["input_ids"]
    mask = torch.ones_like(ids)
    ours = model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0).tolist()
    assert texts == [ours, ours]
