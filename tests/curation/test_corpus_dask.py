"""`gpt3 corpus --engine dask`: the bytes of an undisturbed run of one process, whatever dies; who may connect."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_corpus import sums, write_inputs

from gpt3 import __version__
from gpt3.cli import main as cli
from gpt3.corpus.pool import Task
from gpt3.curation import chunks, dask_cluster, engines
from gpt3.errors import InputError, RunError
from gpt3.tokenizer.train import train_tokenizer

pytest.importorskip("distributed", reason="needs .[cluster]")
psutil = pytest.importorskip("psutil")
CHUNK_BYTES = 16_000
RECIPE = """
sources:
  - {name: wiki, data: good.jsonl, weight: 3, trusted: true}
  - {name: web, data: [web1.jsonl, web2.jsonl], weight: 60}
heuristics: fineweb
quality: {alpha: 0.1}
near_duplicates: {at_least: 0.7, verify: exact}
decontaminate: tasks.jsonl
validation_fraction: 0.1
tokenizer: own
"""
DRIVER = f"""
import sys
from gpt3.cli.main import main
from gpt3.curation import chunks
chunks.read_sources.__defaults__ = ({CHUNK_BYTES},)
sys.exit(main(sys.argv[1:]))
"""
WORDS = ("corpus", "recipe.yaml", "--out", "out")


def inputs(folder: Path, documents: int) -> Path:
    write_inputs(folder, documents)
    train_tokenizer(["the river of the village and that hill have gone"], 270).save_pretrained(folder / "own")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return folder


@pytest.fixture
def undisturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What one process makes of a few documents; the working folder is that of the inputs, without what was made."""
    monkeypatch.chdir(inputs(tmp_path, 30))
    monkeypatch.setattr(chunks.read_sources, "__defaults__", (CHUNK_BYTES,))
    assert cli.main([*WORDS, "--workers", "1"]) == 0
    found = sums(Path("out"))
    shutil.rmtree("out")
    return found


def test_two_workers_of_dask_make_the_same_bytes(undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are threads here, of a scheduler that is there. No text passes through it."""
    import distributed

    passed: list[Any] = []
    submit = distributed.Client.submit
    monkeypatch.setattr(
        distributed.Client, "submit", lambda self, *all_, **named: passed.append(all_) or submit(self, *all_, **named)
    )
    settings = {"protocol": "tcp://", "dashboard_address": None, "threads_per_worker": 1}
    with distributed.LocalCluster(n_workers=2, processes=False, **settings) as cluster:
        assert cli.main([*WORDS, "--engine", cluster.scheduler_address.replace("tcp", "dask")]) == 0
    assert sums(Path("out")) == undisturbed
    assert {task.make.__name__ if hasattr(task.make, "__name__") else task.make.func.__name__ for task, _ in passed} == {
        "ChunkWriter", "RowWriter", "SignatureWriter", "SetWriter", "_scanner", "SegmentWriter",
    }  # fmt: skip
    import cloudpickle

    assert max(len(cloudpickle.dumps(each)) for each in passed) < 4000
    assert b"river" not in cloudpickle.dumps(passed)


def test_a_scheduler_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.jsonl").write_text('{"text": "River."}', encoding="utf-8")
    Path("recipe.yaml").write_text("sources: [{name: a, data: good.jsonl}]", encoding="utf-8")
    monkeypatch.setattr(dask_cluster, "SECONDS", 0.2)
    assert cli.main([*WORDS, "--engine", "dask://127.0.0.1:1"]) == 2
    assert "no scheduler answers there" in capsys.readouterr().err
    Path("out").mkdir(exist_ok=True)
    with pytest.raises(RunError, match="no scheduler in"):
        dask_cluster.work(Path("out"), 1, 1 << 30, None, 0)


def test_a_worker_of_another_version_or_without_the_folder_is_refused(tmp_path: Path) -> None:
    def make(report: Callable[[float], None]) -> Callable[[int], int]:
        return lambda item: report(0.5) or item + 1

    here = str(Path.cwd())
    assert Task("a", make, (), here, __version__)(1) == (2, 0.5)
    with pytest.raises(InputError, match="is not a folder of"):
        Task("b", make, (), str(tmp_path / "nowhere"), __version__)(1)
    with pytest.raises(InputError, match=f"is gpt3 {__version__}, the command 0.0.1; install one version"):
        Task("c", make, (), here, "0.0.1")(1)


def test_who_may_connect(tmp_path: Path) -> None:
    def said(*of: Any) -> str:
        return "; ".join(engines.engine_errors(*of))

    assert not said("processes", "127.0.0.1", None, False)
    assert not said("dask", "127.0.0.1", 0, False)
    assert not said("dask://[::1]:8786", "127.0.0.1", None, False)
    assert not said("dask", "10.0.0.7", 0, True)
    for engine, host in (
        ("dask", "10.0.0.7"),
        ("dask", "0.0.0.0"),
        ("dask", "node7"),
        ("dask://node7:8786", "127.0.0.1"),
    ):
        assert "is open to other machines, and what comes there is run. Use --tls-cert" in said(engine, host, 0, False)
    for engine, message in (("ray", "is unknown"), ("dask://node7", "has no port"), ("processes://a:1", "is unknown")):
        assert message in said(engine, "127.0.0.1", None, True)
    assert "are for --engine dask" in said("processes", "127.0.0.1", 0, False)
    (tmp_path / "a.pem").write_text("no key", encoding="utf-8")
    name = str(tmp_path / "a.pem")
    assert list(engines.tls_errors(name, None, name)) == ["--tls-cert, --tls-ca without --tls-key. Give all three"]
    assert list(engines.tls_errors(name, name, "nowhere")) == ["--tls-ca nowhere: no such file"]
    with pytest.raises(InputError, match="cannot be used"):
        engines.read_tls(name, name, name)
    for address, message in (("tcp://10.0.0.7:8786", "without TLS"), ("tls://10.0.0.7:8786", "is under TLS")):
        (tmp_path / engines.SCHEDULER).write_text(json.dumps({"address": address}), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            dask_cluster.work(tmp_path, 1, 1 << 30, None, 0)


# ---- whole processes


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with more documents, and what one process makes of them."""
    folder = inputs(tmp_path_factory.mktemp("whole"), 1500)
    subprocess.run(
        [sys.executable, "-c", DRIVER, *WORDS, "--workers", "1"], cwd=folder, check=True, capture_output=True
    )
    found = sums(folder / "out")
    assert len([name for name in found if name.startswith("work/documents")]) > 30
    shutil.rmtree(folder / "out")
    return folder, found


def start(folder: Path, *words: str, scratch: str = "tmp") -> subprocess.Popen[str]:
    """A process of gpt3, with temporary files of its own."""
    (folder / scratch).mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *words], cwd=folder, env=os.environ | {"TMPDIR": str(folder / scratch)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def until(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for a moment of a process' work."""
    end = time.monotonic() + 240
    while not there():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.01)


def files(folder: Path, stage: str, count: int) -> Callable[[], bool]:
    """Whether this many files of a stage are there."""
    return lambda: len([*(folder / "out/work").glob(f"{stage}-*/*")]) >= count


def listening(process: subprocess.Popen[str]) -> set[str]:
    """The addresses at which a process and those that it started can be reached."""
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    return {each.laddr.ip for one in tree for each in one.net_connections() if each.status == psutil.CONN_LISTEN}


def kill_a_worker(process: subprocess.Popen[str]) -> None:
    """SIGKILL one process that works for another."""
    workers = [
        each
        for each in psutil.Process(process.pid).children(recursive=True)
        if "spawn_main" in " ".join(each.cmdline())
    ]
    workers[0].send_signal(signal.SIGKILL)


def ended(process: subprocess.Popen[str]) -> None:
    said = process.communicate(timeout=500)[0]
    assert process.returncode == 0, said
    assert "Traceback" not in said


@pytest.fixture
def folder(whole: tuple[Path, dict[str, str]], tmp_path: Path) -> Iterator[Path]:
    """The inputs' folder, and a check of what is made in it."""
    yield whole[0]
    assert sums(whole[0] / "out") == whole[1]
    assert not [*(whole[0] / "out").rglob("*.partial"), *(whole[0] / "out").rglob(engines.SCHEDULER)]
    shutil.rmtree(whole[0] / "out")


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_worker_processes_make_the_same_bytes(folder: Path, workers: str) -> None:
    ended(start(folder, *WORDS, "--engine", "dask", "--workers", workers))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["documents", "signatures"])
def test_a_worker_is_killed(folder: Path, stage: str) -> None:
    process = start(folder, *WORDS, "--engine", "dask", "--workers", "2")
    until(files(folder, stage, 5), process)
    assert listening(process) == {"127.0.0.1"}
    kill_a_worker(process)
    ended(process)


@pytest.mark.slow
def test_the_driver_is_killed_and_its_workers_wait_for_the_next(folder: Path) -> None:
    driver = [*WORDS, "--engine", "dask", "--workers", "0"]
    process = start(folder, *driver)
    workers = [start(folder, "corpus", "worker", "out", "--workers", "1", scratch=f"tmp{n}") for n in range(2)]
    for stage in ("documents", "figures", "signatures"):
        until(files(folder, stage, 5), process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = start(folder, *driver)
    until(files(folder, "scores", 5), process)
    assert {*listening(process), *listening(workers[0]), *listening(workers[1])} == {"127.0.0.1"}
    workers[0].send_signal(signal.SIGKILL)
    ended(process)
    ended(workers[1])


@pytest.mark.slow
def test_the_scheduler_is_killed(folder: Path) -> None:
    """The command ends with one line; with another scheduler it resumes."""
    for last in (False, True):
        file = folder / f"scheduler-{last}.json"
        dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
        scheduler = subprocess.Popen([*dask, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(file.exists, scheduler)
        dask = [
            sys.executable,
            "-m",
            "distributed.cli.dask_worker",
            "--scheduler-file",
            str(file),
            "--nthreads",
            "1",
            "--no-dashboard",
        ]
        worker = subprocess.Popen(dask, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        address = json.loads(file.read_text())["address"].replace("tcp", "dask")
        process = start(folder, *WORDS, "--engine", address)
        if last:
            ended(process)
        else:
            until(files(folder, "figures", 5), process)
        scheduler.kill()
        if not last:
            said = process.communicate(timeout=60)[0]
            assert process.returncode == 1
            assert "the scheduler is gone; what is done is kept: run the same command again" in said
            assert "Traceback" not in said
        worker.kill()
        scheduler.wait()
        worker.wait()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_a_worker_joins_under_tls_and_a_stranger_does_not(folder: Path) -> None:
    for name in ("ours", "strange"):
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=corpus"]
        subprocess.run(
            [*make, "-keyout", f"{name}.key", "-out", f"{name}.pem"], cwd=folder, check=True, capture_output=True
        )
    tls, strange = (
        ["--tls-cert", f"{name}.pem", "--tls-key", f"{name}.key", "--tls-ca", f"{name}.pem"]
        for name in ("ours", "strange")
    )
    process = start(folder, *WORDS, "--engine", "dask", "--workers", "0", *tls)
    until((folder / "out" / engines.SCHEDULER).exists, process)
    stranger = start(folder, "corpus", "worker", "out", "--workers", "1", "--wait", "5", *strange)
    said = stranger.communicate(timeout=120)[0]
    assert stranger.returncode == 1, said
    assert "no scheduler in" in said
    worker = start(folder, "corpus", "worker", "out", "--workers", "1", *tls)
    ended(process)
    ended(worker)
