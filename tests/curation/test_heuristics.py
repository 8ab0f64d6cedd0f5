"""Figures and rules against plain Python, written from the papers' words with lists, sets and counters."""

import itertools
import json
import random
import re
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.cli import main as cli
from gpt3.corpus.ngrams import TABLE_SIZE
from gpt3.corpus.shards import open_shards
from gpt3.curation.heuristics import SETS, broken, figures, rules_of
from gpt3.curation.options import FILTERS
from gpt3.curation.statistics import ABBREVIATIONS, FIELDS, STOP_WORDS, TERMINAL, measure
from gpt3.errors import InputError

PIECES = st.sampled_from(
    ["the", "of", "and", "with", "word", "Word", "naïve", "日本", "(cat)", "it's", "don’t", "well-known", "a--b", "c...d", "x…y",
     "--e", "f-", "--", "g-\"",
     "Mr.", "A.", "\"B.,\"", "I'll", "WE'VE",
     "...", "…", "#", "12", "- item", "• item", " ",
     "\n", "\n\n", "\n\n\n", "the cat sat.", "Is it?", "{", "Lorem ipsum", "lorem\nipsum", "\t", "🎉", "\"x.\"",
     "e.g. this!", "𠀀"]
)  # fmt: skip
SHORT = st.text(st.characters(exclude_categories=("Cs",), max_codepoint=TABLE_SIZE - 1), max_size=3)
"""Characters beyond the table are all taken for letters."""
TEXTS = st.lists(PIECES | SHORT, max_size=40).map(lambda pieces: " ".join(pieces).replace(" \n ", "\n"))


def is_symbol(c: str) -> bool:
    return unicodedata.category(c)[0] in "PS"


def is_letter(c: str) -> bool:
    return c.isalpha() or ord(c) >= 0x20000


def symbols_of(text: str) -> list[str]:
    return re.findall(r"\.+|-+|.", text, flags=re.DOTALL)


def parts_of(word: str) -> list[str]:
    """A word without punctuation at its ends, cut at dashes between letters and at ellipses; 's and n't cut off."""
    cuts = {0, len(word)}
    if ending := re.search(r"(?<=.)(n['’]t|['’](s|m|d|ll|re|ve))$", word, flags=re.DOTALL | re.IGNORECASE | re.ASCII):
        cuts.add(ending.start())
    for mark in re.finditer(r"\.\.+|…|-+|[–—~]", word):
        ends = word[mark.start() - 1 : mark.start()], word[mark.end() : mark.end() + 1]
        if mark[0][0] in ".…" or all(end and is_letter(end) for end in ends):
            cuts |= {mark.start(), mark.end()}
    places = sorted(cuts)
    return [word[a:b] for a, b in itertools.pairwise(places)]


def plain_words(text: str) -> list[str]:
    found: list[str] = []
    for chunk in re.split(r"\s+", "".join(" " if c.isspace() else c for c in text)):
        start, stop = 0, len(chunk)
        while start < stop and is_symbol(chunk[start]) and chunk[start] != "-":
            start += 1
        while stop > start and is_symbol(chunk[stop - 1]) and chunk[stop - 1] != "-":
            stop -= 1
        word = chunk[start:stop]
        if re.fullmatch(r"\.([^.].*)?", chunk[stop:], flags=re.DOTALL) and (
            word in ABBREVIATIONS or re.fullmatch("[A-Z]", word)
        ):
            parts, stop = [f"{word}."], stop + 1
        else:
            parts = parts_of(word)
        found += [*symbols_of(chunk[:start]), *parts, *symbols_of(chunk[stop:])]
    return found


def repeats(items: list[str]) -> list[str]:
    return [item for number, item in enumerate(items) if item in items[:number]]


def plain_figures(text: str) -> dict[str, int]:
    words, lines = plain_words(text), [line for line in text.split("\n") if line.strip()]
    paragraphs = [piece.strip("\n") for piece in re.split(r"\n{2,}", text) if piece.strip()]
    plain = [word for word in words if not all(map(is_symbol, word))]
    found = {
        "characters": len(text), "words": len(words), "symbols": len(words) - len(plain),
        "word_characters": sum(map(len, plain)), "letter_words": sum(any(map(is_letter, word)) for word in words),
        "stop_words": len(set(words) & set(STOP_WORDS)), "hashes": text.count("#"),
        "ellipses": text.count("...") + text.count("…"), "lines": len(lines), "line_characters": sum(map(len, lines)),
        "line_feeds": text.count("\n"), "bullet_lines": sum(line.lstrip()[0] in "•-" for line in lines),
        "ellipsis_lines": sum(line.rstrip().endswith(("...", "…")) for line in lines),
        "ended_lines": sum(line[-1] in TERMINAL for line in lines), "short_lines": sum(len(line) <= 30 for line in lines),
        "repeated_lines": len(repeats(lines)), "repeated_line_characters": sum(map(len, repeats(lines))),
        "paragraphs": len(paragraphs), "repeated_paragraphs": len(repeats(paragraphs)),
        "repeated_paragraph_characters": sum(map(len, repeats(paragraphs))),
        "braces": text.count("{"), "lorem_ipsum": text.lower().count("lorem ipsum"),
    }  # fmt: skip
    for n in (2, 3, 4):
        grams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        ((gram, count),) = grams.most_common(1) or [((), 0)]
        found[f"top_{n}_gram_characters"] = len(" ".join(gram)) * count
    for n in range(5, 11):
        seen, i, total = set(), 0, 0
        while i + n <= len(words):
            gram = tuple(words[i : i + n])
            total += len("".join(gram)) if gram in seen else 0
            i += n if gram in seen else 1
            seen.add(gram)
        found[f"repeated_{n}_gram_characters"] = total
    found["sentences"] = 0
    for line in map(str.strip, lines):
        if line.endswith((".", "!", "?", '"', "'")) and not line.endswith("...") and len(line.split()) >= 3:
            ends = [
                i
                for i, c in enumerate(line)
                if c in ".!?" and not (line[i + 1 : i + 2].isalpha() or line[i + 1 : i + 2] in [*".!?"])
            ]
            found["sentences"] += max(1, len(ends))
    return found


@given(st.lists(TEXTS, min_size=1, max_size=3))
@settings(max_examples=120, deadline=None)
def test_figures_are_those_of_plain_python(texts: list[str]) -> None:
    assert [dict(zip(FIELDS, row, strict=True)) for row in measure(texts).tolist()] == [
        {name: plain_figures(text)[name] for name in FIELDS} for text in texts
    ]


GOOD = (
    "The river rises in the hills to the north of the town, and it has been dammed twice for the mills that once stood on its "
    "banks. Most of them are gone now. What remains of the oldest one is a wall of grey stones with a small door in it, through "
    "which the children of the village used to crawl when they wanted to reach the island without wet feet.\n"
    "In spring the water comes up to the door. People say that a miller drowned there in 1820, but nobody can show his grave."
)
BAD = {
    "words<50 or words>100000": "Too short, and that is all there is to it.",
    "repeated_lines>0.3": "\n".join([*GOOD.split(". ")[:3], *["Read more about it here."] * 9, GOOD]),
    "top_2_gram>0.2": GOOD + " buy shoes" * 40,
    "hashes_per_word>0.1": GOOD.replace(" the ", " # the # "),
    "ellipses_per_word>0.1": GOOD.replace(" the ", "... the... "),
    "bullet_lines>0.9": "\n".join(f"- {line}." for line in GOOD.replace("\n", " ").split(". ")),
    "letter_words<0.8": GOOD + " " + " ".join(str(n * 7919) for n in range(60)),
    "stop_words<2": " ".join(word for word in GOOD.split() if word.lower() not in STOP_WORDS),
    "word_length<3 or word_length>10": " ".join(word * 4 for word in GOOD.split()),
    "braces>0": GOOD + "\nfunction() { return it; }",
    "lorem_ipsum>0": GOOD + " Lorem ipsum dolor sit amet.",
    "short_lines>0.67": "\n".join(" ".join(GOOD.split()[i : i + 4]) + "." * (i % 8 == 0) for i in range(0, 100, 4)),
    "ended_lines<0.12": GOOD.replace(".\n", "\n").removesuffix("."),
}


def test_each_rule_drops_what_it_is_for() -> None:
    rules = SETS["fineweb"]
    for reason, text in {"": GOOD, **BAD}.items():
        verdict = int(broken(rules, measure([text]))[0])
        assert (rules[verdict].name if verdict >= 0 else "") == reason
    assert [int(n) for n in broken(SETS["c4"], measure([GOOD, "One. Two. Three. Four words here."]))] == [-1, 0]
    assert tuple(SETS) == ("none", "gopher", "c4", "fineweb")
    assert set(FILTERS) == set(SETS)


def test_rules_of_a_recipe() -> None:
    rules = rules_of({"words": {"least": 5, "most": 9.5}, "braces": {"most": 0}})
    assert [rule.name for rule in rules] == ["words<5 or words>9.5", "braces>0"]
    assert figures(measure(["a b c {"]))["words"].tolist() == [3.0]
    for given_rules, message in (
        ("webby", "must be one of none, gopher, c4, fineweb"),
        (
            {"word": {"least": 1}, "words": {"above": 1}, "braces": {"most": "few"}},
            "word is no figure.*words must have.*'few' must be",
        ),
    ):
        with pytest.raises(InputError, match=message):
            rules_of(given_rules)


def test_prepare_with_a_filter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path / "cache"))
    texts = [*BAD.values(), GOOD, GOOD + " Truly."]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    for more, count in (([], 2), (["--near-duplicates"], 1)):
        out = str(tmp_path / f"shards{count}")
        command = ["prepare", "--data", str(path), "--out", out, "--validation-fraction", "0", "--filter", "fineweb"]
        assert cli.main([*command, *more]) == 0
        assert open_shards(out).split("train").documents == count
    assert cli.main(["prepare", "--data", str(path), "--filter", "web"]) == 2
    assert "--filter web must be one of none, gopher, c4, fineweb" in capsys.readouterr().err
    assert np.asarray(broken((), measure([GOOD]))).tolist() == [-1]


def plain_grams(words: list[str]) -> list[int]:
    """Characters in the most frequent grams of 2 to 4 words, and in those of 5 to 10 that came before."""
    found = []
    for n in range(2, 11):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        if n < 5:
            most = max((grams.count(gram) for gram in grams), default=0)
            first = next((gram for gram in grams if grams.count(gram) == most), ())
            found.append(most * len(" ".join(first)))
            continue
        seen, characters, i = set(), 0, 0
        while i < len(grams):
            repeated = grams[i] in seen
            seen.add(grams[i])
            characters += len("".join(grams[i])) * repeated
            i += n if repeated else 1
        found.append(characters)
    return found


def test_repeated_grams_of_few_different_words() -> None:
    draw = random.Random(0)
    first, last = FIELDS.index("top_2_gram_characters"), FIELDS.index("repeated_10_gram_characters")
    documents = [[draw.choice(["a", "bb", "ccc"][: draw.randrange(1, 4)]) for _ in range(n)] for n in range(80)]
    found = measure([" ".join(words) for words in documents])
    for words, row in zip(documents, found, strict=True):
        assert row[first : last + 1].tolist() == plain_grams(words), words
