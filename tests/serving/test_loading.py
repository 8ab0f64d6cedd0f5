"""A server without a model: what it lists, who may have it load one, and how it serves that without a restart."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from live_server import save_model, serving, wait_for

import gpt3
from gpt3.errors import InputError
from gpt3.serving import catalog
from gpt3.serving.options import ServeOptions

BODY = {"prompt": "The sea", "max_tokens": 8, "seed": 3}


@pytest.fixture
def place(tmp_path, monkeypatch, language_model) -> Path:
    """An empty working folder without a network, and without models in the hub's cache. Kernels are compiled by then."""
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def available(live) -> dict:
    return {card["id"]: card for card in live.ask("/v1/models")[1]["available"]}


def load(live, model, **headers: str):
    status, answer, _ = live.ask("/v1/models/load", {"model": model}, headers)
    return status, answer["error"]["code"] if "error" in answer else answer["state"]


def test_a_run_that_is_found_later_is_loaded_and_served(place, tokenizer) -> None:
    with serving({}, model=[]) as live:
        for path, body in (
            ("/v1/completions", BODY),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ):
            status, answer, _ = live.ask(path, body)
            assert (status, answer["error"]["code"]) == (503, "no_model")
            assert "POST /v1/models/load" in answer["error"]["message"]
        assert live.ask("/v1/models")[:2] == (200, {"object": "list", "data": [], "available": []})
        assert live.ask("/health")[:2] == (503, {"status": "no model", "models": []})
        assert live.ask("/")[0] == live.ask("/docs")[0] == live.ask("/metrics")[0] == 200
        folder = save_model(tokenizer, place / "runs/demo/model")
        (place / "runs/unfinished").mkdir()
        (card,) = available(live).values()
        size = (folder / "model.safetensors").stat().st_size
        assert (card["id"], card["kind"], card["bytes"], card["stored"]) == ("demo", "run", size, True)
        assert card["state"] == "available"
        assert load(live, "demo") == (200, "loading")
        wait_for(lambda: live.ask("/health")[0] == 200)
        assert (
            live.complete(**BODY)["choices"][0]["text"]
            == gpt3.load(folder).complete("The sea", max_new_tokens=8, seed=3)[0].text
        )
        assert live.complete(**BODY, model="demo")["model"] == "demo"
        assert live.ask("/v1/models/demo")[1]["id"] == "demo"
        assert available(live) == {}
        assert load(live, "demo") == (200, "loaded")
        status, answer, _ = live.ask("/v1/completions", {"model": "other"})
        assert status == 404
        assert "this server has 'demo', and /v1/models lists those that can be loaded" in answer["error"]["message"]


def test_a_second_model_is_loaded_while_the_first_one_writes(place, tokenizer, language_model) -> None:
    save_model(tokenizer, place / "runs/other/model")
    with serving(language_model, model=[]) as live:
        answers = []
        body = {"prompt": "The", "max_tokens": 100, "n": 8, "seed": 1}
        writing = threading.Thread(target=lambda: answers.append(live.complete(**body)))
        writing.start()
        assert load(live, "other")[0] == 200
        wait_for(lambda: live.ask("/health")[1]["models"] == ["tiny", "other"])
        writing.join()
        assert answers[0]["choices"] == live.complete(**body)["choices"]
        assert live.complete(**BODY, model="other")["model"] == "other"
        assert live.complete(**BODY)["model"] == "tiny"


def test_only_what_is_listed_is_loaded(place, tokenizer, monkeypatch) -> None:
    """No folder, no repository, no name that leads out of ./runs."""
    outside = save_model(tokenizer, place / "elsewhere")
    (place / "runs").mkdir()
    loaded = []
    monkeypatch.setattr(catalog, "load_model", lambda *a: loaded.append(a))
    monkeypatch.setattr(catalog.locate, "fetch", lambda *a: loaded.append(a))
    with serving({}, model=[]) as live:
        for name in (
            str(outside),
            "elsewhere",
            "../elsewhere",
            "runs/../elsewhere",
            "someone/else",
            "gpt2",
            "",
            "\x00",
        ):
            assert load(live, name) == (404, "model_not_found"), name
        assert live.ask("/v1/models/load", {"model": ["a"]})[0] == 400
        assert live.ask("/v1/models/load", {"model": "a", "path": "/"})[0] == 400
        time.sleep(0.1)
    assert loaded == []


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({}, True),  # a program
        ({"Origin": "http://{host}", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "http://{host}"}, True),
        ({"Origin": "https://app.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://127.0.0.1:1"}, False),
        ({"Origin": "http://{host}", "Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
    ],
)
def test_pages_of_other_origins_load_nothing(place, tokenizer, headers, own: bool) -> None:
    """Not even those that --allow-origin lets use the models."""
    with serving({}, model=[], allow_origin=["*"]) as live:
        host = live.url.removeprefix("http://")
        found = load(live, "demo", **{name: value.format(host=host) for name, value in headers.items()})
        assert found == ((404, "model_not_found") if own else (403, "origin"))
        assert load(live, "demo", **{"Content-Type": "text/plain"})[0] == 415  # what forms can send


def test_a_server_of_given_models_loads_no_others(place, tokenizer, language_model) -> None:
    save_model(tokenizer, place / "runs/demo/model")
    for options in ({"model": ["tiny"]}, {"model": [], "unprotected": True, "host": "0.0.0.0"}):
        with serving(language_model, **options) as live:
            assert available(live) == {}
            assert load(live, "demo") == (403, "fixed")
    with serving(language_model, model=[], host="0.0.0.0", api_key="secret") as live:
        key = {"Authorization": "Bearer secret"}
        assert load(live, "demo") == (401, "invalid_api_key")
        assert live.ask("/v1/models/load", {"model": "demo"}, key)[0] == 200
        wait_for(lambda: live.ask("/health")[1]["models"] == ["tiny", "demo"])


def test_a_published_model_is_downloaded_and_a_failure_is_told(place, tokenizer, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    gate, folder = threading.Event(), save_model(tokenizer, place / "elsewhere")
    name, blobs = "distilbert/distilgpt2", place / "hub/models--distilbert--distilgpt2/blobs"

    def fetch(wanted: str) -> Path:
        assert wanted == name
        blobs.mkdir(parents=True, exist_ok=True)
        (blobs / "abc.incomplete").write_bytes(b"x" * 5000)
        gate.wait(30)
        if not fetched:
            fetched.append(1)
            raise InputError("the hub cannot be reached")
        return folder

    fetched = []
    monkeypatch.setattr(catalog.locate, "fetch", fetch)
    with serving({}, model=[]) as live:
        card = available(live)[name]
        assert (card["name"], card["kind"], card["parameters"]) == ("distilgpt2", "published", "82M")
        assert (card["bytes"], card["stored"]) == (328_000_000, False)
        assert load(live, name) == load(live, name) == (200, "downloading")
        wait_for(lambda: available(live)[name]["downloaded"] == 5000)
        assert available(live)[name]["state"] == "downloading"
        status, answer, headers = live.ask("/v1/completions", BODY)
        assert (status, answer["error"]["code"], headers["Retry-After"]) == (503, "model_loading", "5")
        assert load(live, "openai-community/gpt2") == (409, "loading")
        gate.set()
        wait_for(lambda: available(live)[name]["state"] == "failed")
        assert available(live)[name]["error"] == "the hub cannot be reached"
        assert live.ask("/v1/completions", BODY)[1]["error"]["code"] == "no_model"
        assert load(live, name)[0] == 200
        wait_for(lambda: live.ask("/health")[0] == 200)
        assert live.complete(**BODY)["model"] == name


def test_published_models_are_listed_that_fit_and_that_are_within_reach(place, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(catalog, "machine_memory", lambda: 4 << 30)
    options = ServeOptions()
    assert list(catalog.published(options)) == []  # there is no network
    snapshot = place / "hub/models--openai-community--gpt2/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text("abc")
    for name in ("config.json", "model.safetensors.index.json", "a.safetensors"):
        (snapshot / name).write_text('{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}')
    assert list(catalog.published(options)) == []  # half of it is there
    (snapshot / "b.safetensors").write_text("12345")
    (entry,) = catalog.published(options)
    assert (entry.name, entry.bytes) == ("gpt2", (snapshot / "a.safetensors").stat().st_size + 5)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def names(**changes) -> set[str]:
        return {entry.name for entry in catalog.published(ServeOptions(**changes))}

    assert "gpt2-large" in names()
    assert "gpt2-xl" in names(dtype="bf16") - names()
    assert "opt-2.7b" in names(quantize="int8") - names()
    assert "opt-66b" not in names(quantize="int4")


def test_the_command_starts_without_a_run_and_ends(tmp_path) -> None:
    command = [sys.executable, "-m", "gpt3", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            assert "starter model" in process.stderr.readline()
            assert "starter is ready (no key): Playground http://127.0.0.1:" in process.stderr.readline()
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_many_who_ask_at_once_have_one_model_loaded_once(place, tokenizer, monkeypatch) -> None:
    for name in ("one", "two"):
        save_model(tokenizer, place / "runs" / name / "model")
    begun, gate = [], threading.Event()
    real = catalog.load_model
    monkeypatch.setattr(catalog, "load_model", lambda *a: (begun.append(a), gate.wait(30), real(*a))[2])
    with serving({}, model=[]) as live, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda name: load(live, name), ["one", "two"] * 6))
        assert sorted(set(answers)) == [(200, "loading"), (409, "loading")]
        gate.set()
        wait_for(lambda: live.ask("/health")[0] == 200)
        assert len(begun) == 1


def test_a_damaged_run_fails_with_its_reason_and_the_next_one_loads(place, tokenizer) -> None:
    damaged = save_model(tokenizer, place / "runs/damaged/model") / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    save_model(tokenizer, place / "runs/whole/model")
    with serving({}, model=[]) as live:
        assert load(live, "damaged")[0] == 200
        wait_for(lambda: available(live)["damaged"]["state"] == "failed")
        assert "runs/damaged/model does not load" in available(live)["damaged"]["error"]
        assert load(live, "whole")[0] == 200
        wait_for(lambda: live.ask("/health")[0] == 200)


def test_a_server_that_downloads_ends_at_once(place, tmp_path) -> None:
    """Of a hub that sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = os.environ | {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        command = [sys.executable, "-m", "gpt3", "serve", "--port", "0"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment) as process:
            ready = next((line for line in process.stderr if "API http://" in line), "")
            port = int(ready.split("API http://127.0.0.1:")[1].split("/")[0])
            body, headers = json.dumps({"model": "openai-community/gpt2"}), {"Content-Type": "application/json"}
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", "/v1/models/load", body, headers)
            assert json.load(connection.getresponse())["state"] == "downloading"
            silent.accept()
            process.terminate()
            try:
                assert process.wait(60) == 0
            finally:
                process.kill()
            assert "Traceback" not in process.stderr.read()
