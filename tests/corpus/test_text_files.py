"""Text files: one document each, or several between separators; long ones are cut where it hurts least."""

import itertools
import random

import pytest
from document_files import as_text, read

from gpt3.corpus import files, formats
from gpt3.corpus.files import open_files


def test_a_text_file_is_one_document(tmp_path):
    (tmp_path / "a.txt").write_text("One.\n\nTwo <|endoftext|> in a line.\n\n\n", encoding="utf-8")
    (tmp_path / "b.md").write_text("\n\n  # Title\n", encoding="utf-8")
    assert read(open_files(str(tmp_path))) == ["One.\n\nTwo <|endoftext|> in a line.", "  # Title"]


@pytest.mark.parametrize("blank", ["\n\n", "\n", " ", ""])
def test_long_text_is_cut_where_it_hurts_least(blank, tmp_path):
    """At blank lines, else line ends, else spaces, never within a character; nothing is lost but the lines between."""
    random.seed(0)
    words = ["ein", "Wort", "größer", "als", "日本語", "🙂"]
    paragraphs = ["".join(random.choice(words) for _ in range(40)) for _ in range(2000)]
    text = blank.join(paragraphs)
    (tmp_path / "book.txt").write_text(text, encoding="utf-8", newline="\n")
    documents = read(open_files(str(tmp_path / "book.txt")))
    assert len(documents) > 4
    assert all(len(document.encode()) <= formats.TEXT_BLOCK for document in documents)
    assert min(len(document.encode()) for document in documents[:-1]) > formats.TEXT_BLOCK // 2 - 10
    assert ("" if blank in ("", " ") else blank).join(documents) == text
    for left, right in itertools.pairwise(documents):
        assert blank not in (" ",) or (not left.endswith(" ") and right.startswith(" "))


def test_a_separator_is_a_line_of_its_own(tmp_path):
    """Not the rest of a line, even where a long line is read in two."""
    text = "x" * formats.TEXT_BLOCK + "<|endoftext|>\nmore"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8", newline="\n")
    documents = read(open_files(str(tmp_path / "a.txt")))
    assert "".join(documents) == text
    (tmp_path / "b.txt").write_text("one\n<|endoftext|>  \n\ntwo\n<|endoftext|>", encoding="utf-8", newline="\n")
    assert read(open_files(str(tmp_path / "b.txt"))) == ["one", "two"]


def test_an_endless_line_is_cut_in_parts_too(tmp_path, monkeypatch):
    """No character is cut, and nothing lost."""
    monkeypatch.setattr(files, "SEARCH_BYTES", 100)
    text = "日本語🙂é" * 3000
    (tmp_path / "line.txt").write_text(text, encoding="utf-8")
    for part_bytes in range(5000, 5020):
        source = open_files(str(tmp_path / "line.txt"), part_bytes=part_bytes)
        assert len(source.parts()) == 9
        assert "".join(read(source)) == text


@pytest.mark.parametrize("blank", ["\n\n", "\r\n\r\n", "\n"])
def test_parts_of_a_book_begin_with_paragraphs(tmp_path, monkeypatch, blank):
    monkeypatch.setattr(files, "SEARCH_BYTES", 1000)
    paragraphs = [f"Paragraph {number} is of some words." for number in range(2000)]
    (tmp_path / "book.txt").write_text(blank.join(paragraphs), encoding="utf-8", newline="")
    documents = read(open_files(str(tmp_path / "book.txt"), part_bytes=10_000))
    assert len(documents) > 5
    assert all(document.startswith("Paragraph ") and document.endswith(" words.") for document in documents)
    assert blank.replace("\r", "").join(documents) == blank.replace("\r", "").join(paragraphs)


def test_parts_of_a_text_file_begin_with_documents(tmp_path):
    documents = [f"Story {number}.\n\nIt has two paragraphs." for number in range(1000)]
    (tmp_path / "stories.txt").write_bytes(as_text(documents))
    source = open_files(str(tmp_path / "stories.txt"), part_bytes=4000)
    assert len(source.parts()) > 8
    assert read(source) == documents
