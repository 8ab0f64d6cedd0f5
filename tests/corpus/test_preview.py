"""`gpt3 data`: what it says of data, against counts made here."""

from __future__ import annotations

import json
import re

import pytest

from gpt3.cli.main import main
from gpt3.corpus import preview
from gpt3.tokenizer.loading import load_tokenizer

pytestmark = pytest.mark.usefixtures("one_gpt2")


def look(capsys, *arguments: str) -> dict:
    assert main(["data", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def rows(tmp_path):
    texts = [f"Story {n}: " + " ".join(f"ship {n}-{i} came back." for i in range(n)) for n in range(1, 41)]
    path = tmp_path / "stories.jsonl"
    path.write_text("".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts)))
    return path, texts


def test_small_data_is_counted(rows, capsys):
    path, texts = rows
    tokenizer = load_tokenizer("gpt2")
    lengths = sorted(len(tokenizer.encode(text)) + 1 for text in texts)
    found = look(capsys, str(path), "--context", "64")
    assert found["whole"]
    assert (found["documents"], found["bytes"]) == (40, sum(map(len, texts)))
    assert found["tokens"] == sum(lengths)
    assert found["lengths"]["least"] == lengths[0]
    assert found["lengths"]["most"] == lengths[-1]
    assert found["longer_than_context"] == sum(length > 64 for length in lengths) / 40
    assert found["fields"] == [{"id": "int", "text": "str"}]
    assert len(found["shown"]) == 5
    for document in found["shown"]:
        assert (document["cut"] is not None) == (document["tokens"] - 1 > 64)
        if document["cut"]:
            before, after = document["cut"]
            whole = next(text for text in texts if text.startswith(document["text"]) and before + after in text)
            assert len(tokenizer.encode(whole[: whole.index(before + after) + len(before)])) == 64
    assert found["warnings"][0].startswith("Tiny: ")


def test_fields_of_a_file_whose_name_looks_like_a_slice(rows, capsys):
    path, _ = rows
    path = path.rename(path.with_name("mail@2#1.jsonl"))
    for name in (str(path), f"{path}#text", f"{path}@3", f"{path}#text@3"):
        assert look(capsys, name)["fields"] == [{"id": "int", "text": "str"}]


def test_large_data_is_sampled(rows, capsys, monkeypatch):
    path, _ = rows
    monkeypatch.setattr(preview, "SAMPLE_BYTES", 4000)
    found = look(capsys, str(path))
    assert not found["whole"]
    assert found["bytes"] == path.stat().st_size
    assert found["documents"] > 10
    assert main(["data", str(path)]) == 0
    assert "about " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("texts", "warning"),
    [
        (
            ["the same text again and again"] * 3,
            "Duplicates: 66.7% of the documents read are the same as an earlier one.",
        ),
        (["Привет, как дела? Всё хорошо. " * 30], "The tokenizer does not suit this text"),
        (["one", "two words", "three more words"], "Short documents: half have fewer than 4 tokens."),
        (["alone " * 50], "One document alone: nothing can be held out for validation."),
    ],
)
def test_warnings(tmp_path, capsys, texts, warning):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert any(told.startswith(warning) for told in look(capsys, str(path))["warnings"])
    assert main(["data", str(path)]) == 0
    assert warning in capsys.readouterr().out


def test_files_of_other_kinds_are_named(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("some words")
    (tmp_path / "b.odt").write_bytes(b"PK")
    told = look(capsys, str(tmp_path))["warnings"]
    assert told[0].startswith(f"Skipped: 1 of the files in {tmp_path} (b.odt), of other kinds than .txt .md")
    assert told[0].endswith(". b.odt: save it as plain text, UTF-8.")
    (tmp_path / "b.odt").unlink()
    assert not any("Skipped" in warning for warning in look(capsys, str(tmp_path))["warnings"])


def test_a_file_that_is_no_utf_8_is_named_and_the_others_are_read(tmp_path, capsys):
    (tmp_path / "b.txt").write_bytes("café".encode("latin-1"))
    assert main(["data", str(tmp_path)]) == 2
    assert "b.txt: not UTF-8 at byte 3" in capsys.readouterr().err
    for name in "ac":
        (tmp_path / f"{name}.txt").write_text(f"some words of {name}")
    found = look(capsys, str(tmp_path))
    assert found["documents"] == 2
    assert re.match(r"Not read: .*b\.txt: not UTF-8 at byte 3 .* Training refuses it\.", found["warnings"][0])


def test_every_line_fits_a_terminal(rows, capsys, monkeypatch):
    monkeypatch.chdir(rows[0].parent)
    assert main(["data", rows[0].name, "--context", "64"]) == 0
    page = capsys.readouterr().out
    assert "cut after 64 tokens" in " ".join(page.split())
    assert max(map(len, page.splitlines())) <= 80


def test_the_embedded_corpus_has_no_warnings(capsys):
    assert main(["data", "wiki"]) == 0
    page = capsys.readouterr().out
    assert page.endswith("No warnings.\n")
    assert "document 5: " in page


def test_slices_and_bad_names(rows, capsys):
    path, _ = rows
    assert look(capsys, f"{path}@7")["documents"] == 7
    assert main(["data", "nowhere.txt"]) == 2
    assert "nowhere.txt: no such file or folder" in capsys.readouterr().err
