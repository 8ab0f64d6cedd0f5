"""Old runs, checkpoints, shards and models load and resume in every later version.

Each folder ``made_by_X_Y`` was written by that version, on its command line alone (make.py), and is never edited. A test that
fails here means that a user's files would no longer work: fix the code, not the folder.
"""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDERS = sorted(Path(__file__).parent.glob("made_by_*"))
TOLERANCE = {"rel": 1e-4, "abs": 1e-6}
"""Another CPU takes sums in another order."""
ONE_PROCESS = ["--nproc", "1"]
"""A run may resume with another number of processes; one does not have to be started."""


def gpt3(*words: str) -> None:
    """``python -m gpt3 WORDS`` in this process; it must succeed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gpt3", *words])
        with pytest.raises(SystemExit) as end:
            runpy.run_module("gpt3", run_name="__main__")
    assert not end.value.code


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def old(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is recorded of an old folder; a copy of the folder is the working directory."""
    copy = tmp_path / "copy"
    shutil.copytree(request.param, copy)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path / "cache"))
    return json.loads(Path("recorded.json").read_text(encoding="utf-8"))


def greedy(old: dict[str, Any], model: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    gpt3(*old["greedy"], "--model", model)
    return json.loads(capsys.readouterr().out)["text"]


def assert_same_metrics(run: str, expected: list[dict[str, Any]]) -> None:
    """The same steps, the same numbers but for rounding."""
    found = [json.loads(line) for line in Path(run, "metrics.jsonl").read_bytes().splitlines()]
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for there, here in zip(expected, found, strict=True):
        assert {key: here[key] for key in there} == pytest.approx(there, **TOLERANCE)


def lines(path: str) -> list[bytes]:
    return Path(path).read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    "model", ["trained/whole", "interrupted/averaged", "interrupted/ranks", "tuned/lora/model", "tuned/lora/adapter"]
)
def test_a_model_a_checkpoint_and_an_adapter_generate_the_same_text(old, model, capsys) -> None:
    if model.endswith("adapter"):
        pytest.importorskip("peft")
    assert greedy(old, model, capsys) == old["texts"][model]


@pytest.mark.parametrize("name", ["averaged", "ranks", "mixture", "sft", "dpo"])
def test_an_interrupted_run_resumes_and_ends_as_if_it_had_not_been(old, name, capsys) -> None:
    if name in ("sft", "dpo"):
        pytest.importorskip("trl")
        pytest.importorskip("peft")
    run = f"interrupted/{name}"
    before = lines(f"{run}/metrics.jsonl")
    done = json.loads(before[-1])["step"]
    assert Path(run, "checkpoints", f"step-{done}").is_dir()
    gpt3(*old["runs"][name], *(ONE_PROCESS if name == "ranks" else []))
    assert lines(f"{run}/metrics.jsonl")[: len(before)] == before  # with their times: these steps were not taken again
    assert_same_metrics(run, old["metrics"][name])
    assert greedy(old, run, capsys) == old["resumed_texts"][name]


def test_shards_are_found_prepared_and_the_same_text_becomes_the_same_shards(old) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path("fold").rglob("*")}
    gpt3(*old["fold"])
    assert {path: path.stat().st_mtime_ns for path in Path("fold").rglob("*")} == before
    gpt3(*old["prepare"])
    names = sorted(path.name for path in Path("shards").iterdir() if path.suffix in (".bin", ".idx"))
    assert names
    for name in names:
        assert Path("again", name).read_bytes() == Path("shards", name).read_bytes()


def test_old_shards_train_with_the_same_losses(old) -> None:
    gpt3(*old["on_fold"], "--recipe", "paper")  # the only one then
    assert_same_metrics("on-fold", old["on_fold_metrics"])


def test_an_evaluation_resumes_where_it_ended(old) -> None:
    recorded = json.loads(Path("evaluated/results.json").read_text(encoding="utf-8"))["results"]
    files = {str(path): lines(str(path)) for path in Path("evaluated/examples").iterdir()}
    assert files
    for path, rows in files.items():
        marked = json.loads(rows[1]) | {"answer": "kept"}  # a result that is kept is not scored again
        rows[1] = json.dumps(marked, ensure_ascii=False).encode() + b"\n"
        Path(path).write_bytes(b"".join(rows[:-1]) + rows[-1][:10])
    gpt3(*old["eval"])
    for path, rows in files.items():
        found = lines(path)
        assert found[:-1] == rows[:-1]
        assert_alike(json.loads(found[-1]), json.loads(rows[-1]))
    assert_alike(json.loads(Path("evaluated/results.json").read_text(encoding="utf-8"))["results"], recorded)


def test_a_file_of_samples_continues(old) -> None:
    rows = lines("samples.jsonl")
    half = len(rows) // 2
    Path("samples.jsonl").write_bytes(b"".join(rows[:half]) + rows[half][:20])
    gpt3(*old["samples"])
    assert lines("samples.jsonl") == rows


def test_a_text_has_the_same_score(old, capsys) -> None:
    gpt3(*old["score"])
    assert_alike([json.loads(line) for line in capsys.readouterr().out.splitlines()], old["scores"])


def test_reports_and_facts_of_old_runs(old) -> None:
    gpt3("report", "trained/whole", "interrupted/averaged", "tuned/lora", "--out", "report.html")
    page = Path("report.html").read_text(encoding="utf-8")
    sample = json.loads(lines("trained/whole/samples.jsonl")[0])["text"]
    version = json.loads(Path("trained/whole/environment.json").read_text(encoding="utf-8"))["torch"]
    source = '"sources":[{"name":"documents.jsonl"'
    for shown in ("interrupted/averaged", source, json.dumps(sample, ensure_ascii=False), version, "beta2"):
        assert shown in page
    gpt3("info", "trained/whole/model")
    gpt3("info", "tuned/lora/adapter")


def assert_alike(here: Any, there: Any) -> None:
    """Equal, but for the last digits of numbers; `here` may have further keys."""
    if isinstance(there, dict):
        assert there.keys() <= here.keys()
        for key, value in there.items():
            assert_alike(here[key], value)
    elif isinstance(there, list):
        assert len(here) == len(there)
        for one, other in zip(here, there, strict=True):
            assert_alike(one, other)
    elif isinstance(there, float):
        assert here == pytest.approx(there, **TOLERANCE)
    else:
        assert here == there
