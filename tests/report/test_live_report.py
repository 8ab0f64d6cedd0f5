"""The page of a run that trains: served on this machine, with a state that changes when the run writes."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from test_report import Page, curve, make_run

from gpt3.cli import main as cli
from gpt3.serving.host import listen
from gpt3.serving.live_report import report_server


@pytest.fixture
def ask(tmp_path: Path) -> Iterator:
    """A function that asks a server of the runs a and b; answers with status, a header (the ETag) and text."""
    runs = [make_run(tmp_path / name, curve(3)) for name in "ab"]
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        server = report_server(runs, listening)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()

        def ask(
            method: str = "GET", path: str = "/", host: str = "localhost", header: str = "ETag"
        ) -> tuple[int, str, str]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request(method, path, headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.headers[header], answer.read().decode()

        yield ask
        server.shutdown()


def test_the_page_follows_its_runs(ask, tmp_path: Path) -> None:
    status, before, text = ask()
    data = Page(text).data
    assert (status, data["live"]["state"]) == (200, before)
    assert [run["series"]["loss"]["step"] for run in data["runs"]] == [[1, 2, 3]] * 2
    assert ask("HEAD") == (200, before, "")
    make_run(tmp_path / "b", curve(5))
    assert ask("HEAD")[1] != before
    assert [run["series"]["loss"]["step"][-1] for run in Page(ask()[2]).data["runs"]] == [3, 5]
    for name in "ab":
        (tmp_path / name / "model").mkdir()
    assert Page(ask()[2]).data["live"] is None  # both are finished: nothing more comes


def test_it_loads_nothing_from_elsewhere_and_answers_this_machine_only(ask, tmp_path: Path) -> None:
    text = ask()[2]
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'; ")
    assert " connect-src 'self';" in policy
    assert not re.search(r"(src|href)=[\"']", text)
    assert ask(host="example.com")[0] == 403
    assert "loss" not in ask(host="example.com")[2]
    assert ask(path="/metrics.jsonl")[0] == 404
    (tmp_path / "a" / "metrics.jsonl").unlink()
    assert ask(header="Refresh")[:2] == (500, "5")  # another run may begin in its place: a browser looks again
    assert "is not a run folder" in ask()[2]
    make_run(tmp_path / "a", curve(2))
    assert ask(header="Refresh")[:2] == (200, None)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "a", curve(3))
    served = []

    def interrupted(server: ThreadingHTTPServer) -> None:
        served.append(server.server_address[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", interrupted)
    assert cli.main(["report", "--live", "--port", "0", str(run)]) == 0
    assert served == ["127.0.0.1"]
    assert re.search(r"http://127\.0\.0\.1:\d+/ follows .*a; Ctrl-C ends it", capsys.readouterr().err)
    assert cli.main(["report", "--live", "--out", "x.html", str(run)]) == 2
    with listen("127.0.0.1", 0) as taken:
        assert cli.main(["report", "--live", "--port", str(taken.getsockname()[1]), str(run)]) == 2
    error = capsys.readouterr().err
    assert re.search(r"report: --port \d+ is not available on 127\.0\.0\.1 .*Use another port", error)
    assert "--host" not in error  # which it does not have
    assert cli.main(["report", "--live", str(tmp_path)]) == 2
    assert len(served) == 1
