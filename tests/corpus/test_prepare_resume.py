"""A preparation killed at any moment goes on, and ends in the bytes of one that was never interrupted."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from gpt3.corpus import segments
from gpt3.corpus.options import PrepareOptions
from gpt3.corpus.prepare import prepare
from gpt3.corpus.shards import ShardWriter, open_shards
from gpt3.errors import InputError
from gpt3.tokenizer.train import train_tokenizer

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")

KILLED_AT_FILE_OPERATIONS = """
import json, os, signal, sys
import gpt3.corpus.prepare, transformers, tokenizers  # loaded once, before the forks
from gpt3.corpus import segments
from gpt3.corpus.options import PrepareOptions
from gpt3.corpus.prepare import prepare
from gpt3.corpus.shards import open_shards

segments.SEGMENT_BYTES, segments.BATCH_BYTES = 6000, 2000
CHANGING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}

def attempt(options, place):
    '''Prepare in a child that is killed just before its file operation number `place`; whether it came to the end.'''
    child = os.fork()
    if child == 0:
        count = 0
        def watch(event, arguments):
            nonlocal count
            writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
            if event in CHANGING or writes:
                count += 1
                if count == place:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(watch)
        prepare(PrepareOptions(**options))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True

options, stride = json.loads(sys.argv[1]), int(sys.argv[2])
place, kills = 1, 0
while True:
    options["out"] = f"{sys.argv[3]}/{place}"
    if attempt(options, place):
        break
    kills += 1
    if os.path.exists(options["out"]):  # it shows only when it is whole
        open_shards(options["out"], verify=True)
    assert attempt(options, place + 2) or attempt(options, 0)  # killed a second time, a little later
    place += stride
print(kills)
"""


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Options of a preparation of two sources, several segments and shards, without ``out``."""
    folder = tmp_path_factory.mktemp("data")
    for name, count in (("a", 90), ("b", 50)):
        lines = (json.dumps({"text": f"{name} {i}: " + "all work and no play " * (i % 17)}) for i in range(count))
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    train_tokenizer(["all work and no play makes Jack a dull boy"] * 5, vocab_size=270).save_pretrained(folder / "own")
    return {
        "data": [str(folder / "a.jsonl"), str(folder / "b.jsonl")],
        "tokenizer": str(folder / "own"),
        "validation_fraction": 0.1,
        "shard_tokens": 4000,
    }


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@needs_fork
@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_file_operation(tmp_path, options, stride):
    whole = contents(prepare(PrepareOptions(**options, out=str(tmp_path / "whole"))))
    assert len(whole) > 12
    (tmp_path / "killed").mkdir()
    command = [
        sys.executable,
        "-c",
        KILLED_AT_FILE_OPERATIONS,
        json.dumps(options),
        str(stride),
        str(tmp_path / "killed"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 80 / stride
    left = {path for path in (tmp_path / "killed").iterdir() if path.name.isdigit()}
    assert len(left) == int(result.stdout) + 1
    for folder in left:
        assert contents(folder) == whole, folder
    assert set((tmp_path / "killed").iterdir()) == left  # no working folder, no lock


def test_what_was_done_is_not_done_again(tmp_path, options, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 6000)
    monkeypatch.setattr(segments, "BATCH_BYTES", 2000)
    asked = PrepareOptions(**options, out=str(tmp_path / "out"))
    encode, sizes = segments.encode, []

    def interrupted(texts, *rest):
        sizes.append(sum(map(len, texts)))
        if len(sizes) == 8:
            raise KeyboardInterrupt
        return encode(texts, *rest)

    monkeypatch.setattr(segments, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(asked)
    prepare(asked)
    total = open_shards(tmp_path / "out").manifest.splits
    once = total["train"].text_bytes + total["validation"].text_bytes
    assert once < sum(sizes) <= once + 6000 + 2 * 2000  # at most one segment, and the batch that was interrupted, twice


def test_finished_shards_are_kept_though_the_tokens_behind_them_are_gone(tmp_path, options, monkeypatch):
    """Every document a shard of its own, so that shards end where segments end; interrupted before every 25th shard."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 6000)
    monkeypatch.setattr(segments, "BATCH_BYTES", 2000)
    close = ShardWriter.close
    asked = PrepareOptions(**{**options, "shard_tokens": 1, "out": str(tmp_path / "whole")})
    whole = contents(prepare(asked))
    asked = dataclasses.replace(asked, out=str(tmp_path / "out"))
    closed = []

    def interrupted(writer):
        if len(closed) % 25 == 24:
            closed.append("interrupted")
            raise KeyboardInterrupt
        closed.append(writer.name)
        return close(writer)

    monkeypatch.setattr(ShardWriter, "close", interrupted)
    while not (tmp_path / "out").exists():
        try:
            prepare(asked)
        except KeyboardInterrupt:
            continue
    assert contents(tmp_path / "out") == whole
    assert closed.count("interrupted") > 4
    trained = [name for name in closed if name.startswith("train")]
    assert len(set(trained)) == len(trained) > 100  # none is written twice


def test_the_record_of_validation_of_an_earlier_version_is_read(tmp_path, options, monkeypatch):
    """It listed all shards of the split in one file."""
    whole = contents(prepare(PrepareOptions(**options, out=str(tmp_path / "whole"))))
    close = ShardWriter.close

    def interrupted(writer):
        if writer.name == "train-00001.bin":
            raise KeyboardInterrupt
        return close(writer)

    asked = PrepareOptions(**options, out=str(tmp_path / "out"))
    monkeypatch.setattr(ShardWriter, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(asked)
    monkeypatch.setattr(ShardWriter, "close", close)
    folder = tmp_path / "out.preparing" / "records"
    records = sorted(folder.glob("validation-*.json"))
    entries = [json.loads(path.read_text()) for path in records]
    for path in records:
        path.unlink()
    (folder / "validation.json").write_text(json.dumps(entries))
    assert contents(prepare(asked)) == whole


def test_an_interrupted_preparation_of_other_data_is_not_mixed_in(tmp_path, options, monkeypatch):
    asked = PrepareOptions(**options, out=str(tmp_path / "out"))
    encode = segments.encode
    monkeypatch.setattr(segments, "encode", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(asked)
    monkeypatch.setattr(segments, "encode", encode)
    other = {**options, "data": options["data"][:1], "out": str(tmp_path / "out")}
    with pytest.raises(
        InputError, match=r"out\.preparing, unfinished, was prepared with other options: .*--resume never"
    ):
        prepare(PrepareOptions(**other))
    folder = prepare(PrepareOptions(**other, resume="never"))
    assert [source["name"] for source in open_shards(folder, verify=True).manifest.sources] == other["data"]


POOLED = """
import json, sys
from gpt3.corpus import prepare as preparation
from gpt3.corpus.options import PrepareOptions
from gpt3.corpus.prepare import prepare
from gpt3.errors import InputError, RunError
preparation.POOL_BYTES = 0
try:
    prepare(PrepareOptions(**json.loads(sys.argv[1])))
except (InputError, RunError) as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def start_pooled(options):
    command = [sys.executable, "-c", POOLED, json.dumps(options)]
    hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background job is born deaf to Ctrl-C
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=hear)


PARTS = 100


def children(pid):
    """The processes below a process, running ones only (Linux)."""
    found = []
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        found += [child, *children(child)]
    return found


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def pooled(tmp_path, options):
    """Options of a preparation of many parts by two processes: enough that it still runs when it is interrupted."""
    text = " ".join(str(i) for i in range(20_000))
    for i in range(PARTS):
        (tmp_path / f"{i}.jsonl").write_text(json.dumps({"text": f"{i} {text}"}) + "\n", encoding="utf-8")
    return {
        **options,
        "data": [str(tmp_path / f"{i}.jsonl") for i in range(PARTS)],
        "workers": 2,
        "out": str(tmp_path / "out"),
    }


@needs_proc
def test_processes_killed_in_the_middle(tmp_path, pooled):
    whole = contents(prepare(PrepareOptions(**{**pooled, "out": str(tmp_path / "whole"), "workers": 1})))
    segments_folder = tmp_path / "out.preparing" / "segments"

    process = start_pooled(pooled)
    wait_until(lambda: any(segments_folder.glob("*.json")))
    workers = children(process.pid)
    process.kill()
    process.wait()
    process.stderr.close()
    assert len(workers) >= 2
    wait_until(lambda: not any(map(running, workers)))  # they do not outlive the parent
    assert not (tmp_path / "out").exists()
    done = len(list(segments_folder.glob("*.json")))
    assert 1 <= done < PARTS

    process = start_pooled(pooled)
    wait_until(lambda: len(list(segments_folder.glob("*.json"))) > done)
    tokenising = [pid for pid in children(process.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(tokenising[0], signal.SIGKILL)
    assert "RunError: a worker process was killed" in process.communicate()[1]
    assert process.returncode == 1

    process = start_pooled(pooled)
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    assert "Resuming after" in errors
    assert contents(tmp_path / "out") == whole


@needs_proc
def test_control_c_stops_all_processes_quietly(tmp_path, pooled):
    process = start_pooled(pooled)
    wait_until(lambda: any((tmp_path / "out.preparing" / "segments").glob("*.json")))
    workers = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    errors = process.communicate(timeout=60)[1]
    assert "out.preparing. Run the same command to resume." in errors
    assert (
        errors.count("Traceback") <= 1
    )  # the parent's own, of KeyboardInterrupt, which the command line turns into 130
    assert "SpawnProcess" not in errors
    wait_until(lambda: not any(map(running, workers)))


@needs_proc
def test_bad_data_met_by_a_process_is_told_and_all_stop(tmp_path, pooled):
    (tmp_path / "7.jsonl").write_bytes(b'{"text": "fine"}\n{"text": "caf\xe9"}\n')
    process = start_pooled(pooled)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "InputError" in errors
    assert "7.jsonl" in errors
    assert not (tmp_path / "out").exists()
