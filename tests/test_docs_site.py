"""The documentation builds as a site without warnings, loads nothing from elsewhere, and can be searched."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="needs .[docs]")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
LOADED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href"}
"""What a browser loads with a page, and the attribute with its address."""


class Resources(HTMLParser):
    """The addresses that a page loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if address := dict(attrs).get(LOADED.get(tag, "")):
            self.found.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sphinx.cmd.build import main

    out = tmp_path_factory.mktemp("site")
    assert main(["-W", "--keep-going", "-q", "-c", str(ROOT / "docs"), "-d", f"{out}-trees", str(ROOT), str(out)]) == 0
    return out


def test_every_page_is_in_the_navigation(site: Path) -> None:
    first = (site / "README.html").read_text(encoding="utf-8")
    assert 'href="#"' in first
    for page in (ROOT / "docs").glob("*.md"):
        assert f'class="reference internal" href="docs/{page.stem}.html"' in first, page
    assert "url=README.html" in (site / "index.html").read_text(encoding="utf-8")


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    loaded = [address for page in pages for address in Resources(page.read_text(encoding="utf-8")).found]
    assert any("searchtools.js" in address for address in loaded)
    assert [address for address in loaded if re.match(r"(\w+:)?//", address)] == []
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", text), style


def test_the_search_finds_pages_by_their_words(site: Path) -> None:
    index = json.loads(re.fullmatch(r"Search\.setIndex\((.*)\)", (site / "searchindex.js").read_text("utf-8"), re.S)[1])

    def pages(word: str) -> set[str]:
        found = [index[words].get(word, []) for words in ("terms", "titleterms")]
        return {index["docnames"][n] for each in found for n in ([each] if isinstance(each, int) else each)}

    assert "docs/finetune" in pages("minhash")
    assert "docs/serve" in pages("playground")


def test_the_python_page_has_every_function_and_option(site: Path) -> None:
    import dataclasses

    import gpt3
    from gpt3.training.options import TrainOptions

    page = (site / "docs" / "python.html").read_text(encoding="utf-8")
    for name in gpt3.__all__:
        if not name.startswith(("GPT3", "__")):
            assert re.search(rf'id="gpt3\.([\w.]+\.)?{name}"', page), name
    for field in dataclasses.fields(TrainOptions):
        assert f">{field.name}</span>" in page, field.name
