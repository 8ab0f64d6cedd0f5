"""The embedded corpus is what its documentation says."""

import hashlib
import lzma
import re
import runpy
from pathlib import Path

import pytest

from gpt3.corpus import wiki
from gpt3.corpus.sources import open_sources
from gpt3.errors import InputError

clean = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "wiki_corpus.py"))["clean"]


@pytest.fixture(scope="module")
def articles() -> list[wiki.Article]:
    return list(wiki.articles())


def test_all_vital_articles_are_there(articles):
    assert len(articles) == 10_033
    assert sum(len(wiki.document(article).encode()) for article in articles) == wiki.TEXT_BYTES
    assert len({article.title for article in articles}) == len({article.text for article in articles}) == 10_033


def test_a_known_article(articles):
    (tower,) = [article for article in articles if article.title == "Eiffel Tower"]
    assert tower.description == "Tower in Paris, France"
    assert tower.topic == "Arts"
    assert wiki.document(tower).startswith("The Eiffel Tower is a lattice tower on the Champ de Mars in Paris, France.")


def test_order_is_that_of_titles(articles):
    titles = [article.title for article in articles]
    assert titles == sorted(titles)


def test_topics(articles):
    topics = {article.topic for article in articles}
    assert len(topics) == 12
    assert {"Arts", "History", "Physical sciences", "Uncategorized"} <= topics
    assert sum(article.topic == "Uncategorized" for article in articles) == 1_000
    assert sum(not article.description for article in articles) == 171


def test_nothing_is_left_to_clean(articles):
    """No trace of the extraction that the cleaning knows is in the data, and cleaning twice is cleaning once."""
    for article in articles:
        assert clean(article.text) == article.text
        assert article.text
        assert not re.search(r"\u00a0|\u2060|  |\n\n| ,|,,|\( |\(\)|^\s|\s$", article.text)


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("Hiroshima  is the capital", "Hiroshima is the capital"),
        ("Koi , or more specifically nishikigoi , are", "Koi, or more specifically nishikigoi, are"),
        ("Zalman,, also known", "Zalman, also known"),
        ("A chair ( ) is a type of seat", "A chair is a type of seat"),
        ("Cerreto (, also, Italian)", "Cerreto (also, Italian)"),
        ("the tallest church \nin the world", "the tallest church in the world"),
        ("three laws state that:The orbit", "three laws state that:\nThe orbit"),
        ("or great apes.The family", "or great apes. The family"),
        ("885\u00a0km\u2060\u2060 (1,\u200d2\u2009miles)", "885 km (1,2 miles)"),
        ("0, 1, ..., 9 in 'short ...' form", "0, 1, ..., 9 in 'short ...' form"),
    ],
)
def test_cleaning(broken, mended):
    assert clean(broken) == mended


def test_as_a_source(articles):
    (source,) = open_sources("wiki")
    (part,) = source.parts()
    assert list(part.read()) == [article.text for article in articles]
    assert list(part.read(10_000)) == [article.text for article in articles[10_000:]]
    assert source.size_bytes() == part.size == wiki.TEXT_BYTES
    assert "CC BY-SA" in source.describe()["licence"]
    assert source.fingerprint() == hashlib.sha256(wiki.FILE.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: lzma.compress(lzma.decompress(data), preset=0)]
)
def test_damaged_data_is_refused(tmp_path, monkeypatch, damage):
    file = tmp_path / "wiki.jsonl.xz"
    file.write_bytes(damage(wiki.FILE.read_bytes()))
    monkeypatch.setattr(wiki, "FILE", file)
    with pytest.raises(InputError, match=r"damaged.*reinstall"):
        next(wiki.articles())


def test_missing_data_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(wiki, "FILE", tmp_path / "wiki.jsonl.xz")
    with pytest.raises(InputError, match=r"missing.*reinstall"):
        next(wiki.articles())
