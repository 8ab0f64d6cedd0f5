"""`gpt3 bench serve`: every system generates what it is asked; shares and ratios are what they say."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import queue
import threading
from pathlib import Path
from typing import Any

import pytest

from gpt3.bench import harness
from gpt3.bench.generate import make_models
from gpt3.bench.harness import Case, System
from gpt3.bench.serve import (
    PROBES,
    BenchServeOptions,
    bodies,
    make_request,
    measure,
    needed_flops,
    run_clients,
    stream,
    summary,
    table,
)
from gpt3.errors import InputError
from gpt3.ladder.presets import preset

CASE = Case("demo", 4, 20)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_models(str(tmp_path_factory.mktemp("bench")), "demo", seed=1)


def request_for(name: str, models: dict[str, Any]) -> dict[str, Any]:
    return {**models, **make_request(CASE, 1, 6), "name": name, "weights": "fp32", "threads": 1, "seed": 1}


@pytest.mark.parametrize("name", ["engine", pytest.param("one-at-a-time", marks=pytest.mark.slow), "transformers"])
def test_systems_without_a_server_generate_in_one_process(models: dict[str, Any], name: str) -> None:
    found = measure(request_for(name, models))
    assert found["tokens"] == [6] * 4
    assert 0 < max(found["firsts"]) < found["total"]
    assert found["cpu_seconds"] > 0
    assert found["idle"] == found["busy"] == []


@pytest.mark.skipif(importlib.util.find_spec("uvicorn") is None, reason="needs uvicorn")
def test_clients_time_a_live_server(models: dict[str, Any]) -> None:
    """The very requests that are sent; half of the slots are busy while first tokens are timed."""
    from gpt3.serving.app import assemble
    from gpt3.serving.host import address_of, listen, serve
    from gpt3.serving.options import ServeOptions

    options = ServeOptions(port=0, slots=4, grace=0.0)
    listening = listen(options.host, options.port)
    app, compute = assemble({"bench": harness.load_model(models["model"], "fp32")}, options)
    ready = queue.Queue()
    thread = threading.Thread(target=serve, args=(app, compute, listening, options, ready.put))
    thread.start()
    stop = ready.get(timeout=60)
    try:
        request = bodies(request_for("server", models))
        for body in request["background"]:
            body["max_tokens"] = 100  # as many as the demo's context holds
        where = {"address": address_of(listening), "path": "/v1/completions"}
        found = run_clients({**where, "process": os.getpid(), **request})
        with pytest.raises(RuntimeError, match="max_tokens"):
            stream(**where, body={"max_tokens": -1}, started=threading.Event())
    finally:
        stop()
        thread.join(60)
        listening.close()
    assert found["tokens"] == [6] * 4
    assert all(0 < first < found["total"] for first in found["firsts"])
    assert len(found["idle"]) == len(found["busy"]) == PROBES


def test_all_prompts_begin_differently() -> None:
    request = make_request(CASE, 1, 6)
    parts = ("prompts", "warm", "background", "idle", "busy")
    assert [len(request[part]) for part in parts] == [4, 4, 2, PROBES, PROBES]
    prompts = list(itertools.chain.from_iterable(request[part] for part in parts))
    assert len({tuple(ids[:4]) for ids in prompts}) == len(prompts)
    assert make_request(CASE, 1, 6) == request
    assert make_request(Case("demo", 1, 20), 1, 6)["background"] == []


def answers(total: float, clients: int = 4) -> dict[str, Any]:
    return {
        "firsts": [0.1, 0.2, 0.3, 0.6][:clients],
        "total": total,
        "tokens": [6] * clients,
        "idle": [0.1],
        "busy": [0.3],
        "cpu_seconds": total * 2,
    }


def test_shares_and_ratios(undocumented) -> None:
    shape = preset("demo")
    per_token = 2 * shape.n_layers * 12 * shape.d_model**2
    assert needed_flops(shape, 20, 6) == 25 * per_token + 6 * 2 * shape.vocab_size * shape.d_model
    found = summary(CASE, System("server"), [answers(2.0), answers(1.0), answers(4.0)], 6, 1e9)
    assert (found["tokens_per_s"], found["slowest"], found["fastest"]) == (12.0, 6.0, 24.0)
    assert found["per_cpu_second"] == 6.0
    assert (found["first"], found["last_first"]) == (0.25, 0.6)
    assert found["flops_share"] == pytest.approx(4 * needed_flops(shape, 20, 6) / 2.0 / 1e9)
    assert undocumented(found) == []
    totals = {"server": 2.0, "engine": 1.9, "one-at-a-time": 4.0, "transformers": 5.0, "llama.cpp": 1.0}
    results = [summary(CASE, System(name), [answers(total)], 6, 1e9) for name, total in totals.items()]
    results.append(summary(Case("demo", 1, 20), System("server"), [answers(1.0, clients=1)], 6, 1e9))
    row = table(results).splitlines()[2].strip("| ").split(" | ")
    assert row[-6:] == ["100 → 300 ms (3.00)", "2.00", "0.95", "2.00", "2.50", "0.50"]


def test_unknown_processor_seconds_are_null(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only Linux reports those of another process; NaN is no JSON."""
    assert harness.cpu_seconds(os.getpid()) is None or Path("/proc").exists()
    monkeypatch.setattr(harness, "Path", lambda _: Path("does not exist"))
    assert harness.cpu_seconds(os.getpid()) is None
    for seconds in (None, 0.0):  # or a clock too coarse to measure it
        rounds = [answers(2.0), answers(2.0) | {"cpu_seconds": seconds}]
        result = summary(Case("demo", 1, 20), System("server"), rounds, 6, 1e9)
        assert result["per_cpu_second"] is None
        assert table([result]).splitlines()[2].split("|")[6].strip() == ""
        harness.print_results(True, {}, [result], "", "")
        printed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
        assert printed["results"][0]["per_cpu_second"] is None


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        ({"cases": ["17M:8x600"]}, "600 tokens and 512 generated ones exceed the 1,024 positions of 17M"),
        ({"cases": ["17M"]}, "MODEL:BATCHxCONTEXT"),
        ({"formats": ["fp8"]}, "--formats fp8 must be one of fp32, int8, int4"),
        ({"formats": []}, "--formats is empty"),
        ({"new_tokens": 1, "rounds": 0}, "--new-tokens 1 must be a whole number of at least 2; --rounds 0 must be"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, Any], needle: str) -> None:
    with pytest.raises(InputError) as raised:
        BenchServeOptions(**options)
    assert needle in str(raised.value)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("uvicorn") is None, reason="needs uvicorn")
def test_the_whole_command(capsys: pytest.CaptureFixture[str]) -> None:
    from gpt3.cli.main import main

    words = [
        "bench",
        "serve",
        "--cases",
        "17M:2x8",
        "--formats",
        "fp32",
        "--new-tokens",
        "4",
        "--rounds",
        "1",
        "--json",
    ]
    assert main([*words, "--no-transformers"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [result["who"] for result in found["results"]] == ["server", "engine", "one-at-a-time"]
    assert found["results"][0]["busy_first"] > 0
    assert len(found["machine"]["gemm_flops"]) == 2  # before the round and after it
