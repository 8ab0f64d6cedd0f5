"""benchmarks/init_from.py runs, at toy size; its numbers mean nothing there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "init_from.py"


@pytest.mark.slow
def test_it_trains_each_case_and_draws_a_table(tmp_path: Path, text_file: Path, shared_cache: Path) -> None:
    lines = text_file.read_text(encoding="utf-8").splitlines(keepends=True)
    for name, part in (("old", lines[:40]), ("new", lines[40:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(part), encoding="utf-8")
    texts = ["--new", str(tmp_path / "new.jsonl"), "--old", str(tmp_path / "old.jsonl")]
    words = [*texts, "--out", str(tmp_path / "out"), "--seeds", "1", "--steps", "2", "--peaks", "1", "--toy"]
    environment = {**os.environ, "GPT3_CACHE": str(shared_cache)}
    done = subprocess.run([sys.executable, str(SCRIPT), *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()]
    assert [row[0] for row in rows[2:]] == [
        "base", "from scratch, own tokenizer", "from scratch, the base's tokenizer", "from the base", "from the base, 5% replay",
        "from the base, peak 1 of a fresh start's",
    ]  # fmt: skip
    assert [bool(row[1]) for row in rows[2:]] == [False, True, True, True, True, True]
    assert [bool(row[2]) for row in rows[2:]] == [True, False, True, True, True, True]
    (found,) = json.loads((tmp_path / "out" / "results.json").read_text())["seeds"]
    assert 4 < found["from the base"]["new"] < 12
