"""Datasets are streamed from a hub on the loopback: what it holds arrives once, whatever goes wrong on the way.

Everything between the socket and our code is the real thing: `datasets`, `huggingface_hub`, pyarrow. The reading process
runs by itself, as `HF_ENDPOINT` is read when they are imported; its waits between tries are cut to nothing.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from gpt3.corpus import hub
from gpt3.errors import InputError
from loopback_hub import REVISION, LoopbackHub

READER = """
import functools, json, os, sys, time
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.01))
ask = json.loads(sys.argv[1])
if ask.get("impatient"):  # the libraries give up at the first failure, and leave it to us
    import datasets, huggingface_hub.hf_file_system as hf
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
    hf.http_backoff = functools.partial(hf.http_backoff, max_retries=0)
    if hasattr(hf, "http_stream_backoff"):
        hf.http_stream_backoff = functools.partial(hf.http_stream_backoff, max_retries=0)
from gpt3.corpus.sources import open_sources
from gpt3.errors import InputError
try:
    (source,) = open_sources(ask["spec"], **ask.get("options", {}))
    parts = source.parts()
    texts = [list(part.read(ask.get("start", 0))) for part in parts]
    answer = {"texts": texts, "names": [part.name for part in parts], "sizes": [part.size for part in parts],
              "about": source.describe(), "size": source.size_bytes(), "fingerprint": source.fingerprint(),
              "torch": "torch" in sys.modules}
except InputError as error:
    answer = {"error": str(error)}
print(json.dumps(answer))
"""


def read(endpoint: str, home: Path, spec: str, **ask: Any) -> dict[str, Any]:
    """Open and read `spec` in a process that knows the loopback hub alone."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    environment |= {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **ask.pop("env", {}),
    }
    done = subprocess.run(
        [sys.executable, "-c", READER, json.dumps({"spec": spec, **ask})],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "stderr": done.stderr}


def as_parquet(documents: list[str | None], rows: int) -> bytes:
    file = io.BytesIO()
    table = pyarrow.table({"id": list(range(len(documents))), "text": documents, "url": ["u"] * len(documents)})
    pyarrow.parquet.write_table(table, file, row_group_size=rows)
    return file.getvalue()


def as_jsonl(documents: list[str], field: str = "body") -> bytes:
    return "".join(json.dumps({"id": n, field: d}) + "\n" for n, d in enumerate(documents)).encode()


random.seed(0)
DOCUMENTS = [f"document {n} " + random.randbytes(1500).hex() for n in range(600)]
"""About 1.8 MB, and hard to compress."""

PARQUET = {
    "README.md": b"---\nlicense: cc0-1.0\n---\n# A dataset\n",
    "data/train-00000-of-00002.parquet": as_parquet(DOCUMENTS[:400], 20),
    "data/train-00001-of-00002.parquet": as_parquet([None, "", *DOCUMENTS[400:]], 20),
    "data/test-00000-of-00001.parquet": as_parquet(["a test"], 20),
}
CONFIGS = b"""---
configs:
- config_name: small
  data_files: small/*.jsonl
- config_name: large
  data_files:
  - {split: train, path: large/*.jsonl.gz}
  - {split: held_out, path: large.jsonl}
---
"""
JSONL = {
    "README.md": CONFIGS,
    "small/a.jsonl": as_jsonl(DOCUMENTS[:3]),
    "large/a.jsonl.gz": gzip.compress(as_jsonl(DOCUMENTS[:100])),
    "large/b.jsonl.gz": gzip.compress(as_jsonl(DOCUMENTS[100:200])),
    "large.jsonl": as_jsonl(DOCUMENTS[200:203]),
}


def flat(answer: dict[str, Any]) -> list[str]:
    return [text for texts in answer.get("texts", [[answer]]) for text in texts]


def fail_at_first(method: str, path: str, number: int) -> str | int | None:
    """Every address answers 503 at first, then 500, then drops the connection, then works; files drop now and again."""
    if number <= 3:
        return [503, 500, "drop"][number - 1]
    return "drop" if path.endswith((".parquet", ".gz")) and number % 4 == 0 else None


def drop_files(method: str, path: str, number: int) -> str | None:
    """Every third answer with data breaks off in the middle."""
    return "drop" if method == "GET" and path.endswith((".parquet", ".gz")) and number % 3 == 2 else None


def test_parquet_in_parts(tmp_path):
    with LoopbackHub("me/tiny", PARQUET) as served:
        answer = read(served.endpoint, tmp_path, "hf:me/tiny", options={"part_bytes": 500_000})
    assert flat(answer) == DOCUMENTS
    assert len(answer["texts"]) >= 4
    assert all(answer["texts"])
    assert answer["names"][0].startswith("hf:me/tiny file 1/2 range 1/")
    assert answer["about"] == {
        "kind": "hub", "spec": "hf:me/tiny", "files": 2, "repository": "me/tiny", "revision": REVISION,
        "config": None, "split": "train", "field": "text", "licence": "cc0-1.0",
    }  # fmt: skip
    assert answer["size"] == sum(answer["sizes"]) > 1_000_000
    assert not answer["torch"]


def test_parquet_row_groups_are_read_by_themselves(tmp_path):
    """Parts together fetch hardly more than the files hold, though each opens its file anew."""
    sent = 0
    with LoopbackHub("me/tiny", PARQUET) as served:
        send_file = served.send_file

        def counted(request: Any, name: str, drop: bool) -> None:
            nonlocal sent
            start, stop = request.headers.get("Range", "bytes=0-0").removeprefix("bytes=").split("-")
            sent += min(int(stop or 10**9), len(PARQUET[name])) - int(start)
            send_file(request, name, drop)

        served.send_file = counted
        whole = read(served.endpoint, tmp_path, "hf:me/tiny")
        once, sent = sent, 0
        parts = read(served.endpoint, tmp_path, "hf:me/tiny", options={"part_bytes": 500_000})
    assert len(parts["texts"]) > len(whole["texts"]) == 2
    assert flat(parts) == flat(whole)
    assert parts["fingerprint"] != whole["fingerprint"]
    assert sent < 2.5 * once


def test_start(tmp_path):
    with LoopbackHub("me/tiny", PARQUET) as served:
        answer = read(served.endpoint, tmp_path, "hf:me/tiny::train:text", start=150)
    assert answer["texts"] == [DOCUMENTS[150:400], DOCUMENTS[550:]]


@pytest.mark.parametrize("impatient", [False, True])
@pytest.mark.parametrize("failure", [fail_at_first, drop_files])
def test_failures_lose_and_repeat_nothing(tmp_path, failure, impatient):
    """Whether the libraries below retry or give up at once and leave it to our own resuming."""
    with LoopbackHub("me/tiny", PARQUET, failure) as served:
        answer = read(served.endpoint, tmp_path, "hf:me/tiny", impatient=impatient, options={"part_bytes": 1_200_000})
    assert flat(answer) == DOCUMENTS
    assert served.failed > 5
    if impatient:
        assert "next try in" in answer["stderr"]


@pytest.mark.parametrize("impatient", [False, True])
def test_failures_of_compressed_lines(tmp_path, impatient):
    with LoopbackHub("me/lines", JSONL, drop_files) as served:
        answer = read(served.endpoint, tmp_path, "hf:me/lines:large", impatient=impatient)
    assert [len(texts) for texts in answer["texts"]] == [100, 100]
    assert flat(answer) == DOCUMENTS[:200]
    assert served.failed > 0
    assert answer["about"]["field"] == "body"


def test_configurations_and_splits(tmp_path):
    with LoopbackHub("me/lines", JSONL) as served:
        assert flat(read(served.endpoint, tmp_path, "hf:me/lines:small:train:body")) == DOCUMENTS[:3]
        assert flat(read(served.endpoint, tmp_path, "hf:me/lines:large:held_out")) == DOCUMENTS[200:203]


def test_fineweb(tmp_path):
    """The name stands for the repository, its sample of ten billion tokens, and the column text."""
    card = b"---\nconfigs:\n- {config_name: default, data_files: data/*}\n- {config_name: sample-10BT, data_files: s/*}\n---\n"
    files = {"README.md": card, "data/a.parquet": as_parquet(["no"], 1), "s/a.parquet": as_parquet(["yes"], 1)}
    with LoopbackHub("HuggingFaceFW/fineweb", files) as served:
        assert flat(read(served.endpoint, tmp_path, "fineweb")) == ["yes"]
        assert flat(read(served.endpoint, tmp_path, "fineweb:default")) == ["no"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("hf:me/nothing", ["hf:me/nothing: no such dataset on the hub", "hf auth login"]),
        ("hf:me/lines", ["pick one among the available configs", "small", "large"]),
        ("hf:me/lines:huge", ["huge", "small", "large"]),
        ("hf:me/lines:large:test", ["test", "train", "held_out"]),
        ("hf:me/lines:small::text", ["no column 'text'; there are id, body"]),
        ("hf:me/lines:small::id", ["column 'id' is not of strings; those are: body"]),
        ("hf:me/lines:a:b:c:d", ["named hf:owner/name[:config][:split][:field]"]),
        ("hf:", ["named hf:owner/name[:config][:split][:field]"]),
    ],
)
def test_what_does_not_exist(tmp_path, spec, expected):
    with LoopbackHub("me/lines", JSONL) as served:
        error = read(served.endpoint, tmp_path, spec)["error"]
    assert "\n" not in error
    for words in expected:
        assert words in error, error


def test_no_network(tmp_path):
    with LoopbackHub("me/tiny", {}) as served:
        endpoint = served.endpoint
    error = read(endpoint, tmp_path, "fineweb")["error"]
    assert error.startswith(f"fineweb: the hub does not answer after {hub.ATTEMPTS} tries (")
    assert "--data wiki" in error


def test_a_server_that_stays_down(tmp_path):
    """Documents that came before are not taken for all there are."""
    with LoopbackHub(
        "me/tiny", PARQUET, lambda method, path, n: 503 if path.endswith(".parquet") and n > 9 else None
    ) as served:
        error = read(served.endpoint, tmp_path, "hf:me/tiny", impatient=True)["error"]
    assert "the hub does not answer after" in error


def test_switched_off(tmp_path):
    with LoopbackHub("me/tiny", PARQUET) as served:
        error = read(served.endpoint, tmp_path, "hf:me/tiny", env={"HF_HUB_OFFLINE": "1"})["error"]
    assert "HF_HUB_OFFLINE" in error


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("fineweb", ("HuggingFaceFW/fineweb", "sample-10BT", "train", None)),
        ("fineweb:CC-MAIN-2024-10", ("HuggingFaceFW/fineweb", "CC-MAIN-2024-10", "train", None)),
        ("hf:a/b", ("a/b", None, "train", None)),
        ("hf:a/b:c", ("a/b", "c", "train", None)),
        ("hf:a/b::test", ("a/b", None, "test", None)),
        ("hf:a/b:::body", ("a/b", None, "train", "body")),
        ("hf:a/b:c:d:e", ("a/b", "c", "d", "e")),
    ],
)
def test_names(spec, parsed):
    assert hub.parse(spec) == parsed


def test_a_bad_name():
    with pytest.raises(InputError, match="owner/name"):
        hub.parse("hf:a/b/c")
