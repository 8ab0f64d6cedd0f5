"""The clients in examples/clients get an answer and a stream from a live server, and say what is wrong."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from live_server import serving

CLIENTS = Path(__file__).parents[2] / "examples" / "clients"
TOOLS = {
    "curl.sh": ["sh"],
    "urllib_client.py": [sys.executable],
    "openai_client.py": [sys.executable],
    "fetch_client.mjs": ["node"],
}


@pytest.fixture(scope="module")
def locked(language_model):
    with serving(language_model, api_key="secret") as server:
        yield server


def run(name: str, url: str, key: str) -> subprocess.CompletedProcess[str]:
    tools = [*TOOLS[name][:1], *(["curl"] if name == "curl.sh" else [])]
    if not all(map(shutil.which, tools)) or (name.startswith("openai") and importlib.util.find_spec("openai") is None):
        pytest.skip(f"needs {' and '.join(tools)}")
    system = {**os.environ, "GPT3_URL": url, "GPT3_API_KEY": key, "NO_PROXY": "*", "PYTHONIOENCODING": "utf-8"}
    command = [*TOOLS[name], str(CLIENTS / name), "The sea"]
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=system, timeout=120)


def test_all_of_them_are_tried() -> None:
    assert {path.name for path in CLIENTS.iterdir()} == TOOLS.keys()


@pytest.mark.parametrize("name", TOOLS)
def test_a_client(name: str, locked) -> None:
    done = run(name, locked.url, "secret")
    assert done.returncode == 0, done.stderr
    if name == "curl.sh":
        whole, *events = done.stdout.split("\n", 1)
        assert '"object":"text_completion"' in whole
        assert events[0].rstrip().endswith("data: [DONE]")
    else:
        whole = done.stdout[: done.stdout.index("The sea", 1)]
        assert len(whole) > len("The sea\n") + 20
        assert done.stdout[len(whole) :].startswith(whole)  # the stream, by the same seed


@pytest.mark.parametrize("name", [name for name in TOOLS if name != "openai_client.py"])
def test_a_wrong_key_is_an_error(name: str, locked) -> None:
    done = run(name, locked.url, "wrong")
    assert done.returncode != 0
    assert "401" in done.stderr if name == "curl.sh" else "Incorrect API key" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_client_of_a_server_without_a_model_says_so(tmp_path, monkeypatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.chdir(tmp_path)
    with serving({}, model=[]) as live:
        command = [sys.executable, str(CLIENTS / "openai_client.py")]
        environment = {**os.environ, "GPT3_URL": live.url}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert (done.returncode, done.stderr.strip()) == (1, f"the server has no model yet; open {live.url} and choose one")
