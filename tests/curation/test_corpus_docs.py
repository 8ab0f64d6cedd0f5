"""The two recipes that ship run on small inputs, and the page names every key and every file that comes out."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from gpt3.cli import main as cli
from gpt3.corpus.sources import open_sources
from gpt3.curation.recipe import KEYS, STAGES, read_recipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "corpus.md").read_text(encoding="utf-8")
SHIPPED = sorted((ROOT / "examples").glob("corpus_*.yaml"))


def write(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_recipes_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With parts of the embedded Wikipedia as all sources, half of the web with junk at its end."""
    monkeypatch.chdir(tmp_path)
    source = open_sources("wiki@1200")[0]
    articles = [text for part in source.parts() for text in part.documents() if len(text.split()) > 60]
    write(tmp_path / "books/a.jsonl", articles[150:250])
    junk = " Buy shoes here. Click for cheap shoes!"
    write(tmp_path / "web/a.jsonl", [text + junk * (n % 2) for n, text in enumerate(articles[250:400])])
    write(tmp_path / "tasks/a.jsonl", articles[300:301])
    recipe = path.read_text(encoding="utf-8").replace("data: wiki,", "data: wiki@150,").replace("alpha: 9", "alpha: 1")
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    assert cli.main(["corpus", "recipe.yaml", "--workers", "1", "--accept-loss"]) == 0
    out = tmp_path / "corpus"
    made = {item.name for item in out.iterdir() if not item.name.endswith(".lock")}
    table = PAGE.partition("## What comes out")[2].partition("**Interrupted")[0]
    assert made == {
        name.partition("/")[0] for name in re.findall(r"`([a-z]+(?:\.[a-z]+|/)[^`]*)`,? ?", table) if "--" not in name
    } - {"data"}
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert set(report["sources"]) == {"wiki", "books", "web"}
    assert report["sources"]["web"]["kept_documents"] > 0


def test_the_page_names_every_key() -> None:
    assert len(SHIPPED) == 2
    for key in KEYS:
        assert f"`{key}`" in PAGE, key
    for stage in STAGES.values():
        if stage.settings != "rules_of":
            for field in dataclasses.fields(stage.read({})):
                assert f"`{field.name}`" in PAGE, field.name
    for path in SHIPPED:
        assert f"examples/{path.name}" in PAGE
        assert read_recipe(path).sources[0].trusted
