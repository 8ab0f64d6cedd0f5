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
import functools, json, sys, time
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.01))
asks, impatient = json.loads(sys.argv[1])
if impatient:  # the libraries give up at the first failure, and leave it to us
    import datasets, huggingface_hub.hf_file_system as hf
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
    hf.http_backoff = functools.partial(hf.http_backoff, max_retries=0)
    hf.http_stream_backoff = functools.partial(hf.http_stream_backoff, max_retries=0)
    from gpt3.corpus import hub, records  # and row groups come in several requests and batches
    hub.REQUEST_BYTES = records.BATCH_BYTES = 10_000
from gpt3.corpus.sources import open_sources
from gpt3.errors import InputError
for ask in asks:
    start, clip = ask.pop("start", 0), ask.pop("clip", None)
    try:
        (source,) = open_sources(**ask)
        parts = source.parts()
        texts = [[text[:clip] for text in part.read(start)] for part in parts]
        answer = {"texts": texts, "names": [part.name for part in parts], "sizes": [part.size for part in parts],
                  "about": source.describe(), "size": source.size_bytes(), "fingerprint": source.fingerprint(),
                  "torch": "torch" in sys.modules}
    except InputError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))
"""


def read(endpoint: str, home: Path, *asks: Any, impatient: bool = False, **environment: str) -> list[dict[str, Any]]:
    """Open and read sources (a name or options of `open_sources`) in a process that knows the loopback hub alone."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))
    } | environment
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    options = [ask if isinstance(ask, dict) else {"specs": ask} for ask in asks]
    done = subprocess.run(
        [sys.executable, "-c", READER, json.dumps([options, impatient])],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [{**json.loads(line), "stderr": done.stderr} for line in done.stdout.splitlines()]


def as_parquet(documents: list[str | None], rows: int) -> bytes:
    file = io.BytesIO()
    table = pyarrow.table({"id": list(range(len(documents))), "text": documents, "url": ["u"] * len(documents)})
    pyarrow.parquet.write_table(
        table, file, row_group_size=rows, data_page_size=8_000, write_batch_size=1, use_dictionary=False,
        write_statistics=False,
    )  # fmt: skip
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


FINEWEB = {
    "README.md": b"""---
configs:
- {config_name: default, data_files: data/*}
- {config_name: sample-10BT, data_files: sample/*}
---
""",
    "data/a.parquet": as_parquet(["all of it"], 1),
    "sample/a.parquet": as_parquet(["a sample"], 1),
}
LONG = [f"{number} " + "words " * 17_000 for number in range(250)]
"""25 MB: `datasets` reads JSON lines 10 MB at a time."""

REPOSITORIES = {
    "me/long": {"long.jsonl": as_jsonl(LONG, "text")},
    "me/tiny": PARQUET,
    "me/lines": JSONL,
    "HuggingFaceFW/fineweb": FINEWEB,
}


def flat(answer: dict[str, Any]) -> list[str]:
    return [text for texts in answer.get("texts", [[answer]]) for text in texts]


def test_parquet_in_parts(tmp_path):
    """Parts are stretches of row groups; together they fetch hardly more than the column in all files."""
    column = sum(len(text) for text in DOCUMENTS)
    with LoopbackHub(REPOSITORIES) as served:
        parts, start = read(
            served.endpoint,
            tmp_path,
            {"specs": "hf:me/tiny", "part_bytes": 800_000},
            {"specs": "hf:me/tiny::train:text", "start": 150},
        )
        (torch,) = {parts["torch"], start["torch"]}
        sent = served.sent
    assert flat(parts) == DOCUMENTS
    assert len(parts["texts"]) == len(parts["names"]) == 5
    assert all(parts["texts"])
    assert parts["names"][0] == "hf:me/tiny file 1/2 stretch 1/3"
    assert parts["about"] == {
        "kind": "hub", "spec": "hf:me/tiny", "files": 2, "repository": "me/tiny", "revision": REVISION,
        "config": None, "split": "train", "field": "text", "licence": "cc0-1.0",
    }  # fmt: skip
    assert parts["size"] == sum(parts["sizes"]) > column // 2
    assert start["texts"] == [DOCUMENTS[150:400], DOCUMENTS[550:]]
    assert start["fingerprint"] != parts["fingerprint"]
    assert not torch
    footer = (
        65_536 + 126_420
    )  # what pyarrow fetches to read it: here it is large, as it holds texts of 3 kB as statistics
    opened = 2 * (6 + 2) + 4  # each part twice, once to check that there are documents; and the look for the columns
    assert sent < 2 * column + opened * (footer + 70_000)


def fail_at_first(method: str, path: str, number: int) -> str | int | None:
    """Every address answers 503 at first, then works; data files answer 500 next, and break off now and again."""
    if number == 1:
        return 503
    if not path.endswith((".parquet", ".gz")):
        return None
    return 500 if number == 2 else "drop" if number % 4 == 3 else None


def fail_now_and_then(method: str, path: str, number: int) -> str | int | None:
    """The dataset's record is busy at first; every eleventh answer with data breaks off in the middle, some are a 500."""
    if path == "/api/datasets/me/tiny":
        return 429 if number == 1 else None
    if path.endswith("/long.jsonl"):
        return "drop" if number in (2, 6) else None  # the sixth: the second half of the file
    if method == "HEAD" or not path.endswith((".parquet", ".gz")):
        return None
    return 500 if number % 17 == 0 else "drop" if number % 11 == 0 else None


@pytest.mark.parametrize(("failure", "impatient"), [(fail_at_first, False), (fail_now_and_then, True)])
def test_failures_lose_and_repeat_nothing(tmp_path, failure, impatient):
    """Whether the libraries below try again or give up at once and leave it to our own resuming: each document once."""
    with LoopbackHub(REPOSITORIES, failure) as served:
        whole, parts, lines, long = read(
            served.endpoint,
            tmp_path,
            "hf:me/tiny",
            {"specs": "hf:me/tiny", "part_bytes": 800_000},
            "hf:me/lines:large",
            {"specs": "hf:me/long", "clip": 10},
            impatient=impatient,
        )
    assert flat(whole) == flat(parts) == DOCUMENTS
    assert [len(part) for part in whole["texts"]] == [400, 200]
    assert [len(part) for part in lines["texts"]] == [100, 100]
    assert flat(lines) == DOCUMENTS[:200]
    assert flat(long) == [text[:10] for text in LONG]
    assert lines["about"]["field"] == "body"
    assert served.failed > 10
    assert ("next try in" in whole["stderr"]) or not impatient


def test_configurations_splits_and_names(tmp_path):
    """Also: `fineweb` stands for the repository, its sample of ten billion tokens, and the column text."""
    names = [
        "hf:me/lines:small:train:body",
        "hf:me/lines:large:held_out",
        "fineweb",
        "fineweb:default",
        "hf:me/tiny::test",
    ]
    with LoopbackHub(REPOSITORIES) as served:
        answers = read(served.endpoint, tmp_path, *names)
    texts = [DOCUMENTS[:3], DOCUMENTS[200:203], ["a sample"], ["all of it"], ["a test"]]
    assert [flat(answer) for answer in answers] == texts
    assert not any(answer["torch"] for answer in answers)


def test_what_does_not_exist(tmp_path):
    expected = {
        "hf:me/nothing": ["hf:me/nothing: no such dataset on the Hub", "hf auth login"],
        "hf:me/lines": ["pick one among the available configs", "small", "large"],
        "hf:me/lines:huge": ["huge", "small", "large"],
        "hf:me/lines:large:test": ["test", "train", "held_out"],
        "hf:me/lines:small::text": ["no field 'text'; there are id, body"],
        "hf:me/lines:small::id": ["field 'id' is int64, not a string; there are id, body"],
        "hf:me/tiny:::id": ["field 'id' is int64, not a string; there are id, text, url"],
        "hf:me/broken": ["hf:me/broken: ", "its files cannot be read"],
    }
    broken = bytearray(PARQUET["data/test-00000-of-00001.parquet"])
    broken[40:120] = bytes(80)
    with LoopbackHub({**REPOSITORIES, "me/broken": {"train.parquet": bytes(broken)}}) as served:
        answers = read(served.endpoint, tmp_path, *expected)
    for (spec, words), answer in zip(expected.items(), answers, strict=True):
        assert "\n" not in answer["error"], spec
        for word in words:
            assert word in answer["error"], (spec, answer["error"])


def test_a_server_that_stays_down(tmp_path):
    """What came before is not taken for all there is."""
    with LoopbackHub(
        REPOSITORIES, lambda method, path, n: 503 if path.endswith(".parquet") and n > 9 else None
    ) as served:
        (answer,) = read(served.endpoint, tmp_path, "hf:me/tiny", impatient=True)
    assert f"the Hub does not answer after {hub.ATTEMPTS} tries" in answer["error"]


def test_no_network(tmp_path):
    with LoopbackHub({}) as served:
        endpoint = served.endpoint
    (answer,) = read(endpoint, tmp_path, "fineweb")
    assert answer["error"].startswith(f"fineweb: the Hub does not answer after {hub.ATTEMPTS} tries (")
    assert "--data PATH" in answer["error"]


def test_switched_off(tmp_path):
    (answer,) = read("http://127.0.0.1:9", tmp_path, "hf:me/tiny", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in answer["error"]


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


@pytest.mark.parametrize("spec", ["hf:", "hf:a/b/c", "hf:a/b:c:d:e:f"])
def test_bad_names(spec):
    with pytest.raises(InputError, match=r"named hf:owner/name\[:config\]\[:split\]\[:field\]"):
        hub.parse(spec)
