"""Data sets by name, streamed from a hub on the loopback with rows of each one's real shape."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from gpt3.finetuning.catalogue import CATALOGUE
from loopback_hub import LoopbackHub

READER = """
import json, sys
from gpt3.errors import InputError
from gpt3.finetuning.gathering import gather
from gpt3.finetuning.options import FinetuneOptions
for name in json.loads(sys.argv[1]):
    try:
        method = "dpo" if name.startswith("hh-rlhf@9") else "sft"
        found = gather(FinetuneOptions(data=[name], validation_fraction=0, method=method))
        answer = [[item.question, item.answers] for item in found.train], found.reports[0].line()
    except InputError as error:
        answer = str(error)
    print(json.dumps(answer))
"""
ROLES = [{"role": "user", "content": "Q", "x": "1"}, {"role": "assistant", "content": "A", "x": "2"}]
SHARES = [
    {"from": "system", "value": "Be good."}, {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"},
]  # fmt: skip
TREE = [  # OpenAssistant: a root with two answers, of which rank 0 is the better, and a question after it
    {"message_id": "1", "parent_id": None, "text": "Q", "role": "prompter", "rank": None, "deleted": False, "lang": "en"},
    {"message_id": "2", "parent_id": "1", "text": "worse", "role": "assistant", "rank": 1, "deleted": False, "lang": "en"},
    {"message_id": "6", "parent_id": "1", "text": "gone", "role": "assistant", "rank": 0, "deleted": True, "lang": "en"},
    {"message_id": "3", "parent_id": "1", "text": "A", "role": "assistant", "rank": 0, "deleted": False, "lang": "en"},
    {"message_id": "4", "parent_id": "3", "text": "Why?", "role": "prompter", "rank": 0, "deleted": False, "lang": "en"},
    {"message_id": "5", "parent_id": None, "text": "lonely", "role": "prompter", "rank": None, "deleted": False, "lang": "en"},
]  # fmt: skip
ROWS: dict[str, list[dict[str, Any]]] = {
    "helpsteer": [
        {
            "prompt": "Q",
            "response": "A",
            "helpfulness": 4,
            "correctness": 4,
            "coherence": 4,
            "complexity": 1,
            "verbosity": 1,
        },
        {
            "prompt": "Q",
            "response": "bad",
            "helpfulness": 1,
            "correctness": 1,
            "coherence": 2,
            "complexity": 1,
            "verbosity": 1,
        },
    ],
    "no_robots": [{"prompt": "Q", "prompt_id": "x", "messages": ROLES, "category": "Open QA"}],
    "dolly": [
        {"instruction": "Q", "context": "", "response": "A", "category": "open_qa"},
        {"instruction": "unanswered", "context": "", "response": " ", "category": "open_qa"},
    ],
    "alpaca-cleaned": [{"output": "A", "input": "", "instruction": "Q"}] * 3,
    "lima": [{"conversations": ["Q", "A"], "source": "stackexchange"}],
    "oasst2": TREE,
    "ultrachat": [{"prompt": "Q", "prompt_id": "x", "messages": ROLES}],
    "slimorca": [{"conversations": [share | {"weight": None} for share in SHARES]}],
    "openhermes": [{"conversations": SHARES, "source": "airoboros", "system_prompt": None, "title": None}],
    "hh-rlhf": [{"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: no"}],
}


def file_of(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def test_every_named_data_set_reads_its_real_shape(tmp_path: Path) -> None:
    assert set(ROWS) == set(CATALOGUE)
    repositories = {
        CATALOGUE[name].repository: {f"data/{CATALOGUE[name].split}-00000-of-00001.parquet": file_of(rows)}
        for name, rows in ROWS.items()
    }
    repositories["me/odd"] = {"data/train-00000-of-00001.parquet": file_of([{"a": "1", "b": "2"}])}
    asks = [
        *ROWS,
        "hh-rlhf@9",
        "alpaca-cleaned@1",
        "hf:HuggingFaceH4/no_robots",
        "hf:me/odd",
        "hf:me/none",
        "hf:HuggingFaceH4/no_robots::test",
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}

    def failure(method: str, path: str, count: int) -> int | None:
        return 503 if method == "GET" and path.endswith(".parquet") and "dolly" in path and count == 1 else None

    with LoopbackHub(repositories, failure) as hub:
        done = subprocess.run(
            [sys.executable, "-c", READER, json.dumps(asks)], capture_output=True, text=True, timeout=120, encoding="utf-8",
            env=environment | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for name, answer in zip(ROWS, answers, strict=False):
        assert answer[0] == [["Q", ["A"]]], (name, answer)
        assert CATALOGUE[name].licence in answer[1]
    pair, first, plain, odd, missing, split = answers[len(ROWS) :]
    assert pair[0] == [["Q", ["A", "no"]]]
    assert first[1].startswith("alpaca-cleaned: 1 row, 1 to train on")  # the rest of the stream is not read
    assert "1 dropped (malformed)" in answers[list(ROWS).index("dolly")][1]
    assert plain[0] == [["Q", ["A"]]]
    assert "hf:me/odd: row 1" in odd
    assert "found: a, b" in odd
    assert "no such dataset" in missing
    assert "test" in split
