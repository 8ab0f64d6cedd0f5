"""The serving benchmark: every contender writes what it is asked for, and shares and ratios are what they say."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt3.bench import clients, generators, servers
from gpt3.bench import serve as bench_serve
from gpt3.bench.generate_options import Contender
from gpt3.bench.options import Case
from gpt3.bench.serve import body_of, make_request, needed_flops, summary, table
from gpt3.bench.serve_options import BenchServeOptions
from gpt3.errors import InputError
from gpt3.ladder.presets import preset

CASE = Case("demo", 4, 20)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = str(tmp_path_factory.mktemp("bench") / "model")
    generators.make_models({"model": place, "ggufs": "", "preset": "demo", "seed": 1, "gguf_formats": []})
    return place


@pytest.mark.parametrize("who", ["engine", "one-at-a-time", "transformers"])
def test_who_has_no_server_writes_in_process(model: str, who: str) -> None:
    request = {**make_request(CASE, Contender(who, "fp32"), 1, 6), "model": model, "threads": 1}
    with torch.inference_mode():
        found = servers.IN_PROCESS[who](request)
    assert found["tokens"] == [6] * 4
    assert 0 < max(found["firsts"]) < found["total"]
    assert found["cpu_seconds"] > 0


@pytest.mark.skipif(importlib.util.find_spec("uvicorn") is None, reason="needs uvicorn")
def test_clients_time_a_live_server(model: str) -> None:
    """The very requests that are sent; half of the slots are busy while first tokens are timed."""
    import threading

    from gpt3.serving.host import address_of, assemble, listen, serve
    from gpt3.serving.options import ServeOptions

    request = make_request(CASE, Contender("server", "fp32"), 1, 6)
    language_model = servers.load_gpt3({"model": model, "weights": "fp32"})
    options = ServeOptions(port=0, slots=4, grace=0.0)
    listening = listen(options.host, options.port)
    app, workers = assemble({"bench": language_model}, options)
    ready, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=serve, args=(app, workers, listening, options, ready.set, stop))
    thread.start()
    try:
        assert ready.wait(30)
        counts = {"warm": 4, "bodies": 6, "idle": 1, "busy": 1, "background": 100}
        bodies = {
            part: [body_of("server", ids, count) for ids in request[part if part != "bodies" else "prompts"]]
            for part, count in counts.items()
        }
        asked = {"address": address_of(listening), "path": "/v1/completions", "process": os.getpid(), **bodies}
        found = asyncio.run(clients.timed(asked))
        broken = clients.Client(asked["address"], asked["path"], {"max_tokens": -1})
        with pytest.raises(RuntimeError, match="max_tokens"):
            asyncio.run(broken.ask())
    finally:
        stop.set()
        thread.join(30)
        listening.close()
    assert found["tokens"] == [6] * 4
    assert all(0 < first < found["total"] for first in found["firsts"])
    assert len(found["idle"]) == len(found["busy"]) == clients.PROBES


def test_no_two_prompts_begin_alike() -> None:
    request = make_request(CASE, Contender("server", "fp32"), 1, 6)
    parts = ("prompts", "warm", "background", "idle", "busy")
    assert [len(request[part]) for part in parts] == [4, 4, 2, clients.PROBES, clients.PROBES]
    prompts = list(itertools.chain.from_iterable(request[part] for part in parts))
    assert len({tuple(ids[:4]) for ids in prompts}) == len(prompts)
    assert request["prompts"] == make_request(CASE, Contender("llama.cpp", "int8"), 1, 6)["prompts"]
    assert make_request(Case("demo", 1, 20), Contender("server", "fp32"), 1, 6)["background"] == []


def answers(total: float, texts: int = 4) -> dict[str, Any]:
    return {
        "firsts": [0.1, 0.2, 0.3, 0.6][:texts],
        "total": total,
        "tokens": [6] * texts,
        "idle": [0.1],
        "busy": [0.3],
        "cpu_seconds": total * 2,
    }


def test_shares_and_ratios() -> None:
    shape = preset("demo")
    per_token = 2 * shape.n_layers * 12 * shape.d_model**2
    assert needed_flops(shape, 20, 6) == 25 * per_token + 6 * 2 * shape.vocab_size * shape.d_model
    found = summary(CASE, Contender("server", "fp32"), [answers(2.0), answers(1.0), answers(4.0)], 6, 1e9)
    assert (found.tokens_per_s, found.slowest, found.fastest) == (12.0, 6.0, 24.0)
    assert found.per_cpu_second == 6.0
    assert (found.first, found.last_first) == (0.25, 0.6)
    assert found.flops_share == pytest.approx(4 * needed_flops(shape, 20, 6) / 2.0 / 1e9)
    paces = {"server": 2.0, "engine": 1.9, "one-at-a-time": 4.0, "transformers": 5.0, "llama.cpp": 1.0}
    results = [summary(CASE, Contender(who, "fp32"), [answers(total)], 6, 1e9) for who, total in paces.items()]
    results.append(summary(Case("demo", 1, 20), Contender("server", "fp32"), [answers(1.0, texts=1)], 6, 1e9))
    row = table(results).splitlines()[2].strip("| ").split(" | ")
    assert row[-6:] == ["100 → 300 ms (3.00)", "2.00", "0.95", "2.00", "2.50", "0.50"]


def test_processor_seconds_that_no_system_tells_are_null(monkeypatch, capsys) -> None:
    """Only Linux tells those of another process; NaN is no JSON."""
    assert clients.cpu_seconds(os.getpid()) is None or Path("/proc").exists()
    monkeypatch.setattr(clients, "Path", lambda _: Path("does not exist"))
    assert clients.cpu_seconds(os.getpid()) is None
    case = Case("demo", 1, 20)
    for told in (None, 0.0):  # or a clock too coarse to tell
        result = summary(
            case, Contender("server", "fp32"), [answers(2.0), answers(2.0) | {"cpu_seconds": told}], 6, 1e9
        )
        assert result.per_cpu_second is None
        assert table([result]).splitlines()[2].split("|")[6].strip() == ""
        monkeypatch.setattr(bench_serve, "bench_serve", lambda _, result=result: ({}, [result]))
        assert bench_serve.run(BenchServeOptions(json=True)) == 0
        printed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
        assert printed["results"][0]["per_cpu_second"] is None


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        ({"cases": ["17M:8x600"]}, "a prompt of 600 and 512 new tokens are more than the 1,024 positions of 17M"),
        ({"cases": ["17M"]}, "MODEL:BATCHxCONTEXT"),
        ({"formats": ["fp8"]}, "--formats 'fp8' is unknown; choose from fp32, int8"),
        ({"formats": []}, "--formats '' is unknown"),
        ({"new_tokens": 1, "rounds": 0}, "--rounds 0 must be at least 1; --new-tokens 1 must be at least 2"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, Any], needle: str) -> None:
    with pytest.raises(InputError) as raised:
        BenchServeOptions(**options)
    assert needle in str(raised.value)
