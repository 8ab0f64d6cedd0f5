"""The two recipes that ship run on small inputs, and the page names every key and every file that comes out."""

import dataclasses
import json
import random
import re
from pathlib import Path

import pytest
from test_corpus import prose

from gpt3.cli import main as cli
from gpt3.curation.recipe import KEYS, LanguageOptions, QualityOptions, read_recipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "corpus.md").read_text(encoding="utf-8")
SHIPPED = sorted((ROOT / "examples").glob("corpus_*.yaml"))


def write(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_recipes_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 1% of the embedded Wikipedia in place of all of it."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    write(tmp_path / "books/a.jsonl", [prose(draw, 12) for _ in range(30)])
    write(tmp_path / "web/a.jsonl", [prose(draw, draw.randrange(4, 12)) + " Buy shoes here." * 3 for _ in range(80)])
    write(tmp_path / "tasks/a.jsonl", [prose(draw, 3)])
    recipe = path.read_text(encoding="utf-8").replace("data: wiki,", "data: wiki@100,")
    recipe = recipe.replace("quality: {", "quality: {samples: 200, ")
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    assert cli.main(["corpus", "recipe.yaml", "--workers", "1", "--accept-loss"]) == 0
    out = tmp_path / "corpus"
    made = {item.name for item in out.iterdir() if not item.name.endswith(".lock")}
    listed = {
        name
        for line in re.findall(r"^\\| (`.*?) \\|", PAGE, re.MULTILINE)
        for name in re.findall(r"`([\\w.]+)[`/]", line)
    }
    assert made <= listed | {"shards", "dropped"}
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert set(report["sources"]) == {"wiki", "books", "web"}
    assert report["sources"]["web"]["kept_documents"] > 0


def test_the_page_names_every_key() -> None:
    assert len(SHIPPED) == 2
    for key in KEYS:
        assert f"`{key}`" in PAGE, key
    for kind in (LanguageOptions, QualityOptions):
        for field in dataclasses.fields(kind):
            assert f"`{field.name}`" in PAGE, field.name
    for path in SHIPPED:
        assert f"examples/{path.name}" in PAGE
        assert read_recipe(path).sources[0].trusted
