"""N-grams found by hash are those that a plain search over lists of words finds."""

import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.corpus.ngrams import TABLE_SIZE, NgramIndex, words

TEXTS = st.text(alphabet="abAB .,'İΣσß\n\u00a0$\U0001f600", max_size=60)


def plain_words(text: str) -> list[str]:
    """The definition, character by character."""
    lowered = text.replace("İ", "i").lower()
    return "".join(" " if unicodedata.category(c)[0] in "PS" else c for c in lowered).split()


def grams(text: str, n: int) -> set[tuple[str, ...]]:
    found = plain_words(text)
    return {tuple(found[i : i + n]) for i in range(len(found) - n + 1)}


@given(st.text(max_size=80) | TEXTS)
@settings(max_examples=200, deadline=None)
def test_words_are_those_of_the_definition(text: str) -> None:
    assert words(text) == plain_words(text)


def test_beyond_the_table_every_character_is_of_words() -> None:
    for point in range(TABLE_SIZE, sys.maxunicode + 1):
        assert unicodedata.category(chr(point))[0] not in "PS"
        assert not chr(point).isspace()


def test_lower_case_keeps_the_places_of_all_characters() -> None:
    assert [chr(p) for p in range(sys.maxunicode + 1) if len(chr(p).lower()) != 1] == ["İ"]


@given(st.lists(st.tuples(TEXTS, st.integers(1, 4)), max_size=5), TEXTS)
@settings(max_examples=300, deadline=None)
def test_hits_are_those_of_brute_force(texts: list[tuple[str, int]], document: str) -> None:
    index = NgramIndex.of(texts)
    numbers, starts, stops = index.find(document)
    found = {(tuple(index.gram(g).split(" ")), text) for g in numbers.tolist() for text in index.texts_with(g)}
    assert found == {(gram, i) for i, (text, n) in enumerate(texts) for gram in grams(text, n) & grams(document, n)}
    lowered = document.replace("İ", "i").lower()
    for g, start, stop in zip(numbers.tolist(), starts.tolist(), stops.tolist(), strict=True):
        assert plain_words(lowered[start:stop]) == index.gram(g).split(" ")


@given(st.lists(st.sampled_from("ab"), min_size=30, max_size=200))
@settings(max_examples=50, deadline=None)
def test_every_place_is_found_once(letters: list[str]) -> None:
    """More hits than there is room for at first; overlapping ones."""
    document = " ".join(letters * 3)
    index = NgramIndex.of([("a b", 2), ("b a b", 3), ("A, B.", 2)])
    numbers, starts, _ = index.find(document)
    counted = sorted((index.gram(g), s) for g, s in zip(numbers.tolist(), starts.tolist(), strict=True))
    padded = document + " "
    assert counted == sorted(
        (gram, i) for gram in ("a b", "b a b") for i in range(0, len(padded), 2) if padded.startswith(gram + " ", i)
    )


def test_a_hash_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gram whose hash is in the index but whose words are not is no hit."""
    index = NgramIndex.of([("one two three", 3)])
    forged = index.points.copy()
    forged[0] = ord("x")
    other = NgramIndex(**{**vars(index), "points": forged})
    assert len(index.find("one two three")[0]) == 1
    assert len(other.find("one two three")[0]) == 0


def test_an_index_is_saved_and_mapped(tmp_path) -> None:
    index = NgramIndex.of([("to be or not to be", 3), ("be or not", 3)])
    index.save(tmp_path)
    again = NgramIndex.load(tmp_path)
    assert all(np.array_equal(a, b) for a, b in zip(vars(index).values(), vars(again).values(), strict=True))
    assert {again.gram(g): again.texts_with(g) for g in range(len(again))} == {
        "to be or": [0], "be or not": [0, 1], "or not to": [0], "not to be": [0],
    }  # fmt: skip
