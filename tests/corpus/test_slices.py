"""SOURCE@SLICE: beginnings and random choices of any source, and larger slices that use smaller ones' work."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt3.cli.main import main
from gpt3.corpus import segments
from gpt3.corpus.options import PrepareOptions
from gpt3.corpus.prepare import prepare, prepare_cached
from gpt3.corpus.shards import documents, open_shards
from gpt3.corpus.slices import Slice, split_slice
from gpt3.corpus.sources import open_rows, open_sources
from gpt3.errors import InputError
from gpt3.tokenizer.loading import load_tokenizer

pytestmark = pytest.mark.usefixtures("one_gpt2")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """A folder of ten documents: the numbers' names, in two files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path / "cache"))
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    for name, part in (("a", words[:4]), ("b", words[4:])):
        Path("texts").mkdir(exist_ok=True)
        Path(f"texts/{name}.jsonl").write_text(
            "".join(json.dumps({"text": f"{word} is a number"}) + "\n" for word in part)
        )
    return tmp_path


def read(spec: str, **options) -> list[str]:
    """The first word of each document."""
    return [
        text.split()[0] for source in open_sources(spec, **options) for part in source.parts() for text in part.read()
    ]


ALL = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wiki@500", Slice(500, "documents", False)),
        ("wiki@20M", Slice(20_000_000, "tokens", False)),
        ("wiki@2.5B", Slice(2_500_000_000, "tokens", False)),
        ("wiki@100MB", Slice(100_000_000, "bytes", False)),
        ("wiki@1.5kB~", Slice(1500, "bytes", True)),
        ("wiki@500~", Slice(500, "documents", True)),
        ("hf:a/b:c#text@10k", Slice(10_000, "tokens", False)),
    ],
)
def test_names(name, expected):
    assert split_slice(name) == (name.rpartition("@")[0], expected)


@pytest.mark.parametrize("name", ["wiki", "me@home", "a@b.txt", "x@", "@5", "user@host:5"])
def test_names_without_a_slice(name):
    assert split_slice(name) == (name, None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wiki@5Q", "'Q' is no unit of a slice"),
        ("wiki@5MiB", "'MiB' is no unit of a slice"),
        ("wiki@0", "a slice of nothing"),
        ("wiki@0.2", "a slice of nothing"),
        ("wiki@0MB", "a slice of nothing"),
    ],
)
def test_bad_slices(name, message, capsys):
    with pytest.raises(InputError, match=message):
        split_slice(name)
    assert main(["prepare", "--data", name, "--out", "out"]) == 2
    assert message in capsys.readouterr().err


def test_what_is_no_slice_of_a_file_that_is_there_says_how_to_write_one(tmp_path, capsys):
    (tmp_path / "novels.txt").write_text("some words")
    assert main(["data", f"{tmp_path / 'novels.txt'}@xx"]) == 2
    told = capsys.readouterr().err
    assert "novels.txt@xx: no such file or folder. For a slice of" in told
    assert "write @500 for documents" in told


def test_a_path_that_ends_so_is_a_path():
    Path("talks@2").mkdir()
    Path("talks@2/a.txt").write_text("a talk\n\nanother talk")
    assert split_slice("talks@2") == ("talks@2", None)
    assert read("talks@2") == read("talks@2/a.txt") == ["a"]
    assert read("talks@2@1") == ["a"]


def test_beginnings():
    assert read("texts@3") == ALL[:3]
    assert read("texts/a.jsonl#text@2,texts/b.jsonl@1") == ["zero", "one", "four"]
    assert read("texts@1kB") == ALL  # 15 bytes or more each: all of it
    assert read("texts@0.04kB") == ALL[:3]  # up to the one that reaches it
    tokenizer = load_tokenizer("gpt2")
    most = sum(len(tokenizer.encode(f"{word} is a number")) + 1 for word in ALL[:4])
    for tokens, documents_ in ((most, 4), (most + 1, 5), (1, 1)):
        assert read(f"texts@{tokens / 1000}k", tokenizer="gpt2") == ALL[:documents_]


def test_tokens_need_a_tokenizer(capsys):
    with pytest.raises(InputError, match=r"no tokenizer is known yet to count tokens; give documents \(@500\)"):
        read("texts@1k")
    assert main(["tokenizer", "train", "--data", "texts@1k", "--vocab-size", "300", "--out", "tokenizer"]) == 2
    assert main(["tokenizer", "train", "--data", "texts@4", "--vocab-size", "300", "--out", "tokenizer"]) == 0


def test_a_source_that_is_shorter_is_said(capsys):
    assert read("texts@500") == ALL
    assert "texts@500: the source ends before 500 documents; all of it is used" in capsys.readouterr().err
    assert read("texts@500~") == ALL
    assert "all of it is used" in capsys.readouterr().err


@given(st.integers(1, 10))
def test_random_choices(amount):
    found = read(f"texts@{amount}~")
    assert len(found) == amount
    assert found == [word for word in ALL if word in found]  # in the source's order
    assert set(found) <= set(read(f"texts@{min(10, amount + 1)}~"))  # a larger choice holds the smaller
    assert found == read(f"texts@{amount}~")


def test_random_choice_by_size_is_no_beginning():
    found = read("texts@0.05kB~")
    assert 2 <= len(found) <= 4
    assert found != ALL[: len(found)]


def test_parts_go_to_other_processes():
    (source,) = open_sources("texts@2", tokenizer="gpt2")
    (part,) = source.parts()
    list(part.documents())
    assert [text.split()[0] for text in pickle.loads(pickle.dumps(part)).read(1)] == ["one"]


def test_rows(capsys):
    assert [row["text"].split()[0] for _, row in open_rows("texts@3")] == ALL[:3]
    with pytest.raises(InputError, match="a slice of rows is a number of rows"):
        list(open_rows("texts@3MB"))


def test_every_slice_has_its_own_fingerprint():
    names = ["texts", "texts@3", "texts@4", "texts@0.003kB", "texts@3~"]
    assert len({open_sources(name)[0].fingerprint() for name in names}) == len(names)


def test_prepared_and_named(capsys):
    folder = open_shards(prepare_cached("texts@3", "gpt2", validation_fraction=0))
    assert folder.path.name.startswith("texts-3-")
    assert folder.manifest.sources[0]["slice"] == "3 documents"
    assert folder.split("train").documents == 3
    assert prepare_cached("texts@3", "gpt2", validation_fraction=0) == folder.path
    assert prepare_cached("texts@4", "gpt2", validation_fraction=0) != folder.path


def test_a_larger_slice_uses_the_work_of_a_smaller_one(monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 30)
    monkeypatch.setattr(segments, "BATCH_BYTES", 10)
    whole = prepare(PrepareOptions(["texts@8"], out="whole", validation_fraction=0))
    for path in Path("cache/segments").rglob("*"):
        if path.is_file():
            path.unlink()
    prepare_cached("texts@5", "gpt2", validation_fraction=0)
    encoded: list[str] = []
    real = segments.encode
    monkeypatch.setattr(segments, "encode", lambda texts, *rest: encoded.extend(texts) or real(texts, *rest))
    larger = prepare_cached("texts@8", "gpt2", validation_fraction=0)
    assert len(encoded) == 4  # documents 4 to 7; a segment of two, and another, were there
    train = [list(ids) for ids in documents(open_shards(larger).split("train"))]
    assert train == [list(ids) for ids in documents(open_shards(whole).split("train"))]
    assert (larger / "train-00000.bin").read_bytes() == (whole / "train-00000.bin").read_bytes()
