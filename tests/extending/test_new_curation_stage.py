"""A new stage of gpt3 corpus is one file and one line of registration, as CONTRIBUTING.md shows."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gpt3.cli import main as cli
from gpt3.curation import recipe

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
TEXTS = ["One river and no link.", "http://a http://b http://c http://d", "http://e alone is fine here."]


@pytest.fixture(autouse=True)
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's stage, registered by the page's line."""
    page = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(\"\"\"Documents full of links.*?)^```", page, flags=re.M | re.S)
    ((name, stage),) = re.findall(r'^    "(links)": (Stage.*),$', page, flags=re.M)
    module = ModuleType("gpt3.curation.links")
    monkeypatch.setitem(sys.modules, "gpt3.curation.links", module)
    exec(code, vars(module))
    monkeypatch.setitem(recipe.STAGES, name, eval(stage, {"Stage": recipe.Stage}))
    monkeypatch.setattr(recipe, "KEYS", (*recipe.KEYS, name))
    monkeypatch.chdir(tmp_path)
    for source in ("good", "web"):
        lines = [json.dumps({"text": f"{source} {text}"}) + "\n" for text in TEXTS]
        (tmp_path / f"{source}.jsonl").write_text("".join(lines), encoding="utf-8")


def write(links: str) -> None:
    sources = "sources: [{name: good, data: good.jsonl, trusted: true}, {name: web, data: web.jsonl}]"
    Path("recipe.yaml").write_text(f"{sources}\nlinks: {links}\nvalidation_fraction: 0\n", encoding="utf-8")


def test_it_drops_documents_and_is_in_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    write("{most: 3}")
    assert cli.main(["corpus", "recipe.yaml", "--plan"]) == 0
    assert re.findall(r"links, near_duplicates$|near_duplicates, links$", capsys.readouterr().out, flags=re.M)
    assert cli.main(["corpus", "recipe.yaml", "--out", "out", "--workers", "1"]) == 0
    report = json.loads(Path("out/report.json").read_text(encoding="utf-8"))
    assert report["sources"]["web"]["dropped"]["links"]["documents"] == 1
    assert report["sources"]["good"]["kept_documents"] == 3  # a trusted source is spared
    assert Path("out/dropped/links.jsonl.zst").is_file()


def test_its_options_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    for given, message in (("{most: -1}", "links: most -1 must be"), ("{least: 1}", "links: unknown key 'least'")):
        write(given)
        assert cli.main(["corpus", "recipe.yaml", "--out", "out"]) == 2
        assert message in capsys.readouterr().err
