"""Benchmark text is cut out as the paper's Appendix C says; what is left holds none of it."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.cli import main as cli
from gpt3.corpus import benchmark_text
from gpt3.corpus.benchmark_text import clean, index_benchmarks
from gpt3.corpus.ngrams import NgramIndex
from gpt3.corpus.sources import open_sources
from gpt3.errors import InputError
from gpt3.tokenizer.train import train_tokenizer

FILLER = "It was a fine day and nothing in particular happened, so they walked on along the quiet river. "
LEAK = "Which of these thirteen words, in just this very order, stands in a benchmark question"
TEXTS = st.lists(st.sampled_from(["a ", "b ", "C, ", "dd\n", "e.f ", "   "]), max_size=60).map("".join)


def plainly_cleaned(text: str, benchmark: str, n: int, window: int, shortest: int, most: int) -> list[str]:
    """The rule, character by character."""
    spans, word = [], None
    for i, c in enumerate(text + " "):
        inside = not (c.isspace() or unicodedata.category(c)[0] in "PS")
        if inside and word is None:
            word = i
        if not inside and word is not None:
            spans.append((word, i))
            word = None
    names = [text[a:b].lower() for a, b in spans]
    plain = "".join(" " if unicodedata.category(c)[0] in "PS" else c for c in benchmark.lower()).split()
    grams = [plain[i : i + n] for i in range(len(plain) - n + 1)]
    removed = set()
    for i in range(len(spans) - n + 1):
        if names[i : i + n] in grams:
            removed |= set(range(spans[i][0] - window, spans[i + n - 1][1] + window))
    pieces = "".join("\0" if i in removed else c for i, c in enumerate(text)).split("\0")
    if not removed & set(range(len(text))):
        return [text]
    pieces = [piece for piece in pieces if piece]
    return [] if len(pieces) > most else [p for p in pieces if len(p) >= shortest and not p.isspace()]


@given(TEXTS, TEXTS, st.integers(0, 5), st.integers(1, 6), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_pieces_are_those_of_the_rule_spelled_out(
    text: str, benchmark: str, window: int, shortest: int, most: int
) -> None:
    index = NgramIndex.of([(benchmark, 2)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark_text, "WINDOW", window)
        patch.setattr(benchmark_text, "SHORTEST_PIECE", shortest)
        patch.setattr(benchmark_text, "MOST_PIECES", most)
        assert clean(text, index) == plainly_cleaned(text, benchmark, 2, window, shortest, most)


def test_the_papers_figures() -> None:
    index = index_benchmarks([LEAK + "?"])
    before, behind = FILLER * 5, FILLER * 5
    first, second = clean(f"{before}{LEAK.upper()} {behind}", index)
    assert first == before[:-200]  # LEAK has 15 words: three 13-grams, one stretch
    assert second == behind[199:]  # of the 200 one is the space
    assert clean(f"{FILLER * 3}{LEAK} {behind}", index) == [second]  # 88 characters before it are under 200
    apart = f"{LEAK} {FILLER * 7}"
    assert len(clean(apart * 10, index)) == 10
    assert clean(apart * 11, index) == []  # eleven pieces
    assert clean(FILLER, index) == [FILLER]  # short, but nothing in it collides
    twelve = LEAK[: LEAK.index(" a benchmark")]
    assert clean(twelve, index) == [twelve]
    assert clean(f"{twelve} A", index) == []


def benchmark_file(folder: Path) -> str:
    path = folder / "exam.jsonl"
    path.write_text(json.dumps({"query": f"Question: {LEAK}?", "choices": ["yes", "no"], "gold": 0}))
    return str(path)


def prepare_words(folder: Path, *more: str) -> list[str]:
    train_tokenizer([LEAK], 260).save_pretrained(folder / "own")
    return [
        "prepare",
        "--data",
        str(folder / "text.jsonl"),
        "--out",
        str(folder / "data"),
        "--tokenizer",
        str(folder / "own"),
        *more,
    ]


@pytest.mark.parametrize("copies", [10, 11])
def test_prepare_removes_it_unless_more_than_ten_documents_hold_it(
    copies: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"{i}. {FILLER * 5}{LEAK}. {FILLER * 5}" for i in range(copies)] + ["A document that collides with none."]
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    words = prepare_words(tmp_path, "--validation-fraction", "0")
    assert cli.main([*words, "--decontaminate", benchmark_file(tmp_path)]) == 0
    kept = [text for part in open_sources(str(tmp_path / "data"))[0].parts() for text in part.read()]
    if copies > 10:
        assert kept == texts
    else:
        assert len(kept) == 2 * copies + 1
        assert not any("thirteen" in text for text in kept)
        assert kept[-1] == texts[-1]
    assert cli.main([*words, "--decontaminate", benchmark_file(tmp_path)]) == 0  # prepared already
    capsys.readouterr()
    assert cli.main(words) == 2
    assert "--decontaminate was exam (" in capsys.readouterr().err


def test_a_missing_benchmark_file_is_named(tmp_path: Path) -> None:
    from gpt3.corpus.options import PrepareOptions

    with pytest.raises(InputError, match=r"--decontaminate nil\.jsonl: no such file"):
        PrepareOptions(decontaminate=["nil.jsonl"])
