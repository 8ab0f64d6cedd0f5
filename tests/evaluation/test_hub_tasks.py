"""Every task takes its rows from a hub on the loopback as from files, once; later without any hub."""

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
import pytest
from task_rows import ROWS

from gpt3.evaluation import HubData, Source, Split
from gpt3.evaluation.tasks import TASKS
from loopback_hub import REVISION, LoopbackHub

NAMES = [name for name in ROWS if name not in ("mmlu", "storycloze", "pairs")] + ["mmlu_anatomy"]
READER = """
import json, sys
from gpt3.errors import InputError
from gpt3.evaluation import Source
from gpt3.evaluation.tasks import TASKS
for name in json.loads(sys.argv[1]):
    try:
        split = TASKS[name].split(Source())
        shots = None if split.shots is None else [item.demonstration for item in split.shots]
        answer = {"test": [[item.context, item.completions] for item in split.test], "shots": shots, "origin": split.origin}
    except InputError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))
print(json.dumps(sorted({"datasets", "torch"} & set(sys.modules))))
"""


def parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def hub_of(name: str) -> HubData:
    hub = TASKS[name].hub
    assert hub is not None
    return hub


def repositories() -> dict[str, dict[str, bytes]]:
    """The tasks' datasets: a scored row, and another and once more the same to be shown."""
    found: dict[str, dict[str, bytes]] = {}
    for name in NAMES:
        hub, row = hub_of(name), ROWS[name.partition("_anatomy")[0]]
        folder = hub.config or "plain_text"
        files = found.setdefault(hub.repository, {})
        files[f"{folder}/{hub.test}/0.parquet"] = parquet([row])
        if hub.shots is not None:
            files[f"{folder}/{hub.shots}/0.parquet"] = parquet([row, row])
    for files in found.values():
        folders: dict[str, list[str]] = {}
        for file in files:
            folder, split, _ = file.split("/")
            folders.setdefault(folder, []).append(f"  - {{split: {split}, path: {file}}}\n")
        card = "".join(f"- config_name: {name}\n  data_files:\n{''.join(lines)}" for name, lines in folders.items())
        files["README.md"] = f"---\nconfigs:\n{card}---\n".encode()
    del found["allenai/quac"]["README.md"]  # the branch of converted files has none
    return found


def read(endpoint: str, home: Path, names: list[str]) -> list[Any]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    environment |= {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home / "hf"),
        "GPT3_CACHE": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", READER, json.dumps(names)],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def from_files(name: str, folder: Path) -> Split:
    file = "mmlu" if name.startswith("mmlu") else name
    rows = [ROWS[file]]
    (folder / f"{file}.jsonl").write_text(json.dumps(ROWS[file]) + "\n", encoding="utf-8")
    if hub_of(name).shots is not None:
        (folder / f"{file}_train.jsonl").write_text((json.dumps(rows[0]) + "\n") * 2, encoding="utf-8")
    return TASKS[name].split(Source(str(folder)))


def check(name: str, found: Any, folder: Path) -> None:
    """That what came from the hub is what comes from files."""
    folder.mkdir()
    split, hub = from_files(name, folder), hub_of(name)
    assert "error" not in found, found
    assert found["test"] == [[item.context, list(item.completions)] for item in split.test]
    assert found["shots"] == (split.shots and [item.demonstration for item in split.shots])
    assert (found["origin"]["hub"], found["origin"]["revision"]) == (hub.repository, REVISION)
    assert found["origin"]["test"] == {"split": hub.test, "rows": 1}


def test_tasks_come_from_the_hub_once_and_what_it_cannot_give_is_told(tmp_path: Path) -> None:
    served = repositories()
    del served["Rowan/hellaswag"]
    row = b'{"goal": "x"}\n'
    served["baber/piqa"] = {"validation.jsonl": row, "train.jsonl": row}
    good = ["lambada", "coqa", "quac", "multirc", "wmt16_de_en", "mmlu_anatomy"]
    with LoopbackHub(served) as hub:
        *found, columns, missing, _ = read(hub.endpoint, tmp_path, [*good, "piqa", "hellaswag"])
    *again, gone, modules = read("http://127.0.0.1:9", tmp_path, [*good, "rte"])  # nobody listens there
    assert again == found  # and nobody asks
    assert modules == []
    for name, answer in zip(good, found, strict=True):
        check(name, answer, tmp_path / name)
    assert "piqa (dataset baber/piqa)" in columns["error"]
    assert "hellaswag (dataset Rowan/hellaswag): no such dataset on the Hub" in missing["error"]
    assert "hf download --repo-type dataset aps/super_glue" in gone["error"]
    for answer, name in ((columns, "piqa"), (gone, "rte")):
        assert f"and use --data-dir with a folder that has {name}.jsonl" in answer["error"]
        assert "\n" not in answer["error"]


@pytest.mark.slow
def test_every_task_comes_from_the_hub(tmp_path: Path) -> None:
    with LoopbackHub(repositories()) as hub:
        *found, _ = read(hub.endpoint, tmp_path, NAMES)
    for name, answer in zip(NAMES, found, strict=True):
        check(name, answer, tmp_path / name)
