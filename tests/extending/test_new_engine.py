"""A new engine of gpt3 corpus is one function and one line of registration, as CONTRIBUTING.md shows."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gpt3.cli import main as cli
from gpt3.curation import chunks, engines

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def made(*words: str) -> dict[str, str]:
    """Sums of all files of a corpus, which is moved away."""
    assert cli.main(["corpus", "recipe.yaml", "--out", "out", *words]) == 0
    paths = [path for path in Path("out").rglob("*") if path.is_file() and path.suffix != ".lock"]
    found = {path.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    Path("out").rename(f"out-{len(words)}")
    return found


def test_the_engine_of_the_page_makes_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(\"\"\"Threads of this process.*?)^```", page, flags=re.M | re.S)
    ((name, place),) = re.findall(r'^    "(threads)": "(.*)",$', page, flags=re.M)
    module = ModuleType("gpt3.curation.threads")
    monkeypatch.setitem(sys.modules, "gpt3.curation.threads", module)
    exec(code, vars(module))
    monkeypatch.setattr(chunks.read_sources, "__defaults__", (600,))
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"text": f"River {n} of the village and river {n * n} of the town."}) + "\n" for n in range(60)]
    for source, mine in (("a", lines[:40]), ("b", lines[30:])):
        Path(f"{source}.jsonl").write_text("".join(mine), encoding="utf-8")
    recipe = "sources: [{name: a, data: a.jsonl}, {name: b, data: b.jsonl}]\nvalidation_fraction: 0.1\n"
    Path("recipe.yaml").write_text(recipe, encoding="utf-8")
    usual = made("--workers", "1", "--accept-loss")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(engines.ENGINES, name, place)
        assert made("--engine", "threads", "--workers", "3", "--accept-loss") == usual
    assert len([path for path in usual if "work/documents" in path]) > 5
    assert cli.main(["corpus", "recipe.yaml", "--engine", "threads"]) == 2
