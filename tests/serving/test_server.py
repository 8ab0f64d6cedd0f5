"""The server around the API: keys, limits, clients that go away, full queues, time limits, an orderly end."""

import hmac
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from live_server import fixtures, save_model, serving, slowed, wait_for

from gpt3.cli.serve import run
from gpt3.errors import InputError
from gpt3.serving.host import listen
from gpt3.serving.options import ServeOptions


def begin(live, **body) -> http.client.HTTPConnection:
    """Send a request and do not read the answer."""
    host, port = live.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    return connection


LONG = {"prompt": "The", "max_tokens": 126, "n": 100, "logit_bias": {"0": -100}}  # minutes, if nobody stops it


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_is_written_for_no_longer(live, language_model, stream: bool) -> None:
    cancelled = metric(live, "gpt3_cancelled_total")
    connection = begin(live, **LONG, stream=stream)
    wait_for(lambda: live.worker.running == 4)
    with slowed(language_model.engine, 0.02):  # so that it is not simply done in time
        connection.close()
        wait_for(lambda: live.worker.running == 0 and live.worker.waiting == 0)
    assert metric(live, "gpt3_cancelled_total") == cancelled + 1
    assert stream or 'status="499"' in live.ask("/metrics")[1]
    live.complete(prompt="The", max_tokens=2)


def test_a_full_queue_is_told_at_once_and_slots_are_shared_fairly(language_model) -> None:
    with serving(language_model, queue=2) as live:
        first = begin(live, **LONG)
        wait_for(lambda: live.worker.running == 4)
        second = threading.Thread(target=live.complete, kwargs={"prompt": "The", "max_tokens": 2})
        second.start()
        second.join(30)  # although the first has 96 texts more that wait
        assert not second.is_alive()
        slow = language_model.engine.forward
        held = threading.Event()
        language_model.engine.forward = lambda *a: (held.wait(30), slow(*a))[1]
        try:
            more = [begin(live, prompt="The", max_tokens=2) for _ in range(2)]
            wait_for(lambda: live.worker.waiting == 2)
            status, answer, headers = live.ask("/v1/completions", {"prompt": "x"})
        finally:
            held.set()
            del language_model.engine.forward
        assert status == 429
        assert answer["error"]["code"] == "queue_full"
        assert 1 <= int(headers["Retry-After"]) <= 60
        assert all(connection.getresponse().status == 200 for connection in more)
        for connection in [first, *more]:
            connection.close()


def test_without_a_queue_free_slots_are_given_and_no_more(language_model) -> None:
    with serving(language_model, queue=0) as live:
        live.complete(prompt="The", max_tokens=2)
        connection = begin(live, **LONG)
        wait_for(lambda: live.worker.running == 4)
        assert live.ask("/v1/completions", {"prompt": "x"})[0] == 429
        connection.close()


def test_a_request_that_takes_too_long_is_ended(language_model) -> None:
    with serving(language_model, timeout=0.3) as live:
        status, answer, _ = live.ask("/v1/completions", LONG)
        assert (status, answer["error"]["code"]) == (504, "timeout")
        *_, last = live.stream(**LONG)
        assert last["error"]["code"] == "timeout"


def test_what_is_being_written_is_finished_when_the_server_stops(language_model) -> None:
    with serving(language_model) as live:
        connection = begin(live, prompt="The", max_tokens=120, stream=True)
        wait_for(lambda: live.worker.running == 1)
        live.stop()
        text = connection.getresponse().read().decode()
        assert text.endswith("data: [DONE]\n\n")
        assert '"finish_reason":"length"' in text
        live.thread.join(60)
        assert not live.thread.is_alive()
        with pytest.raises(OSError):  # noqa: PT011
            begin(live, prompt="The").getresponse()


def test_a_server_that_stops_takes_no_more(language_model) -> None:
    with serving(language_model) as live:
        connection = begin(live, prompt="The", max_tokens=100)
        wait_for(lambda: live.worker.running == 1)
        live.compute.drain(20)
        status, answer, headers = live.ask("/v1/completions", {"prompt": "The"})
        assert (status, answer["error"]["code"], headers["Retry-After"]) == (503, "shutting_down", "5")
        assert live.ask("/health")[:2] == (503, {"status": "stopping", "models": ["tiny"]})
        assert connection.getresponse().status == 200


def test_what_cannot_be_finished_is_told(language_model) -> None:
    with serving(language_model, grace=0) as live:
        connection = begin(live, **LONG, stream=True)
        wait_for(lambda: live.worker.running == 4)
        live.stop()
        text = connection.getresponse().read().decode()
        assert '"code":"shutting_down"' in text
        assert text.endswith("data: [DONE]\n\n")


def test_a_step_that_does_not_end_keeps_no_server_from_stopping(language_model) -> None:
    held, forward = threading.Event(), language_model.engine.forward
    language_model.engine.forward = lambda *a: (held.wait(60), forward(*a))[1]
    try:
        with serving(language_model, grace=0) as live:
            connection = begin(live, **LONG)
            wait_for(lambda: live.worker.running == 4)
            live.stop()
            live.thread.join(60)
            assert not live.thread.is_alive()
            connection.close()
    finally:
        held.set()
        del language_model.engine.forward


def test_a_failing_engine_ends_its_requests_and_no_others(live, language_model, capsys) -> None:
    def broken(*_):
        raise MemoryError

    language_model.engine.forward = broken
    try:
        status, answer, _ = live.ask("/v1/completions", {"prompt": "The"})
    finally:
        del language_model.engine.forward
    assert (status, answer["error"]["type"]) == (500, "server_error")
    assert "MemoryError" in capsys.readouterr().err
    live.complete(prompt="The", max_tokens=2)


def test_a_key_is_asked_for(language_model) -> None:
    with serving(language_model, api_key="secret") as live:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic secret"},
            {"Authorization": "secret"},
        ):
            for path, body in (("/v1/completions", {}), ("/v1/models", None), ("/metrics", None)):
                status, answer, _ = live.ask(path, body, headers)
                assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
        assert live.ask("/v1/completions", {"max_tokens": 1}, {"Authorization": "Bearer secret"})[0] == 200
        assert live.ask("/health")[0] == live.ask("/")[0] == 200


def test_keys_are_compared_in_constant_time(language_model, monkeypatch) -> None:
    """Time does not tell how much of a key is right: only hmac's comparison looks at one."""
    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda one, other: compared.append((one, other)) or one == other)
    with serving(language_model, api_key="secret") as live:
        for given in ("s", "secret"):
            live.ask("/v1/models", None, {"Authorization": f"Bearer {given}"})
    assert compared == [(b"s", b"secret"), (b"secret", b"secret")]


def test_every_answer_tells_browsers_what_it_is_not(live) -> None:
    answers = [
        live.ask(path, body)
        for path, body in (("/", None), ("/v1/models", None), ("/no", None), ("/v1/completions", b"x"))
    ]
    assert [status for status, *_ in answers] == [200, 200, 404, 400]
    for _, _, headers in answers:
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cross-origin-resource-policy"] == "same-origin"


def test_only_this_machine_is_served_without_a_key(monkeypatch) -> None:
    monkeypatch.delenv("GPT3_API_KEY", raising=False)
    with pytest.raises(InputError, match=r"--host 0.0.0.0 is open to other machines.*--api-key"):
        ServeOptions(host="0.0.0.0")
    assert ServeOptions(host="0.0.0.0", unprotected=True)
    assert ServeOptions(host="::1").loopback
    monkeypatch.setenv("GPT3_API_KEY", "k")
    assert ServeOptions(host="0.0.0.0").key == "k"
    for key in ("", "a\nb", "schlüssel"):
        with pytest.raises(InputError, match="--api-key is empty or has other than"):
            ServeOptions(api_key=key)
    monkeypatch.setenv("GPT3_API_KEY", "schlüssel")
    with pytest.raises(InputError, match="GPT3_API_KEY is empty or has other than"):
        ServeOptions()


def test_all_bad_options_are_told_at_once() -> None:
    with pytest.raises(InputError, match=r"--port 70000 .*; --slots 0 .*; --queue -1 .*; --timeout 0"):
        ServeOptions(port=70000, slots=0, queue=-1, timeout=0)


def test_a_taken_port_is_told_before_the_model_is_loaded() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(InputError, match=r"--port .* is not available"):
        listen("127.0.0.1", taken.getsockname()[1])


def test_a_foreign_page_cannot_use_the_local_server(live) -> None:
    """A host name that leads here (DNS rebinding), and forms, which can send no JSON."""
    for host in (
        "evil.example",
        "127.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "localhost.evil.example",
        "",
    ):
        status, answer, _ = live.ask("/v1/completions", {}, {"Host": host})
        assert (status, answer["error"]["code"]) == (403, "host")
    for host in ("127.0.0.1:99", "127.1.2.3", "localhost", "[::1]:8000"):
        assert live.ask("/health", None, {"Host": host})[0] == 200
    assert live.ask("/v1/completions", {}, {"Content-Type": "text/plain"})[0] == 415
    assert live.ask("/v1/models", None, {"Host": "localhost:99"})[0] == 200


def test_bodies_are_limited_with_and_without_a_length(live) -> None:
    status, answer, _ = live.ask("/v1/completions", b" " * 1_000_001)
    assert (status, answer["error"]["code"]) == (413, "body_too_large")
    host, port = live.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    chunks = (b" " * 100_000 for _ in range(11))
    connection.request("POST", "/v1/completions", chunks, {"Content-Type": "application/json"}, encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "body",
    [
        b" ",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"n": 1e999}',
        b'{"seed": 1' + b"0" * 5000 + b"}",
    ],
)
def test_what_is_no_request_is_the_clients_fault(live, body: bytes) -> None:
    status, answer, _ = live.ask("/v1/completions", body)
    assert status == 400, answer
    assert answer["error"]["message"]


def test_without_any_model_one_line_says_what_to_do(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gpt3.model_folder.locate.STARTER", tmp_path / "none")
    with pytest.raises(
        InputError, match=r"^no model is given and no trained model is in \./runs\. Give a model folder, or"
    ):
        run(ServeOptions(port=0, host="0.0.0.0", unprotected=True))  # who loads others is not known there


def test_models_health_metrics_and_reference(live) -> None:
    status, models, _ = live.ask("/v1/models")
    assert [model["id"] for model in models["data"]] == ["tiny"]
    assert live.ask("/v1/models/tiny")[1] == models["data"][0] == live.ask("/v1/engines/tiny")[1]
    for path, body in (
        ("/v1/models/other", None),
        ("/v1/engines/other/completions", {}),
        ("/v1/engines/tiny/completions", {"model": "other"}),
        ("/v1/completions", {"model": "other"}),
    ):
        status, answer, _ = live.ask(path, body)
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert live.ask("/v1/completions", {"model": "\ud800"})[0] == 404  # half a character can be told, too
    assert live.ask("/v1/engines/tiny/completions", {"max_tokens": 1})[0] == 200
    assert live.ask("/health")[1] == {"status": "ok", "models": ["tiny"]}
    before = metric(live, "gpt3_completion_tokens_total")
    live.complete(prompt="The", max_tokens=5)
    assert metric(live, "gpt3_completion_tokens_total") == before + 5
    text = live.ask("/metrics")[1]
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families)) > 8
    reference = live.ask("/docs")[1]
    assert "best_of" in reference
    assert "http" not in reference.replace("HTTP", "")  # nothing from elsewhere


def metric(live, name: str) -> float:
    return next(float(line.split()[1]) for line in live.ask("/metrics")[1].splitlines() if line.startswith(name + " "))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("kind", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_the_command_serves_and_ends_in_order(language_model, tokenizer, tmp_path, kind: int) -> None:
    save_model(tokenizer, tmp_path / "small")
    command = [sys.executable, "-m", "gpt3", "serve", str(tmp_path / "small"), "--port", "0", "--grace", "5"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = next(line for line in process.stderr if "is ready" in line)
        assert "small is ready (no key)" in line
        port = int(line.split("API http://127.0.0.1:")[1].split("/")[0])
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert b'"ok"' in connection.makefile("rb").read()
        process.send_signal(kind)
        rest = process.stderr.read()
        assert process.wait(60) == 0, rest
        assert "Traceback" not in rest


def test_several_models_take_turns(language_model, tokenizer) -> None:
    """Each request's text is that of the model it names; the first one is meant where none is named."""
    from gpt3.inference.language_model import LanguageModel, make_engine

    network = fixtures.make_model(tokenizer, seed=5)
    other = LanguageModel(network, tokenizer, make_engine(network, "fp32"))

    def computing() -> int:
        return [thread.name for thread in threading.enumerate()].count("gpt3-compute")

    before = computing()  # of servers for other tests
    with serving({"tiny": language_model, "someone/other": other}) as live:  # an id of the hub
        assert [model["id"] for model in live.ask("/v1/models")[1]["data"]] == ["tiny", "someone/other"]
        for slash in ("/", "%2F"):  # as people type it, as the openai client sends it
            assert live.ask(f"/v1/models/someone{slash}other")[1]["id"] == "someone/other"
        assert computing() == before + 1  # see gpt3.serving.worker
        body = {"prompt": "The sea", "max_tokens": 12, "seed": 3}
        long = begin(live, **LONG, model="tiny")  # keeps the first busy: the other has its turns all the same
        wait_for(lambda: live.worker.running == 4)
        answer = live.complete(**body, model="someone/other")
        long.close()
        expected = {name: one.complete("The sea", max_new_tokens=12, seed=3)[0].text for name, one in
                    (("tiny", language_model), ("someone/other", other))}  # fmt: skip
        theirs = expected["someone/other"]
        assert (answer["model"], answer["choices"][0]["text"]) == ("someone/other", theirs)
        assert live.complete(**body)["choices"][0]["text"] == expected["tiny"] != theirs
        for slash in ("/", "%2F"):
            assert live.ask(f"/v1/engines/someone{slash}other/completions", body)[1]["choices"][0]["text"] == theirs
        assert 'path="/v1/engines/{engine}/completions"' in live.ask("/metrics")[1]
        assert "'tiny', 'someone/other'" in live.ask("/v1/completions", {"model": "third"})[1]["error"]["message"]


@pytest.mark.slow
def test_clients_that_behave_badly_harm_nobody() -> None:
    """The load benchmark, shortened: no 5xx, every stream ends well, memory stays, no slot is lost."""
    script = Path(__file__).parents[2] / "benchmarks" / "serve_load.py"
    command = [sys.executable, str(script), "--seconds", "16", "--clients", "24"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no fault" in done.stdout


def test_head_and_a_last_slash_are_understood(live) -> None:
    """Probes of load balancers send HEAD; a redirect would name http:// behind a proxy that speaks TLS."""
    for path, status in (("/health", 200), ("/", 200), ("/v1/models/", 200), ("/other", 404)):
        request = urllib.request.Request(live.url + path, method="HEAD")
        try:
            answer = urllib.request.build_opener().open(request)
        except urllib.error.HTTPError as error:
            answer = error
        assert (answer.status, answer.read()) == (status, b"")
    body = {"prompt": "The sea", "max_tokens": 1}
    assert live.ask("/v1/completions/", body)[0] == 200
    assert live.ask("/v1/models/")[1] == live.ask("/v1/models")[1]
