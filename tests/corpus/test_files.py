"""Which files a source is: folders, patterns, lists, links; and how they are decompressed."""

import json
import random
from pathlib import Path

import pytest
import zstandard
from document_files import COMPRESS, read

from gpt3.corpus import formats
from gpt3.corpus.files import open_files
from gpt3.corpus.records import KNOWN, RATIOS, format_of, open_stream
from gpt3.corpus.sources import SOURCES, open_sources
from gpt3.errors import InputError


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in [
        "b.txt",
        "a.txt",
        "deep/er/c.TXT",
        ".hidden.txt",
        ".git/d.txt",
        "picture.png",
        "LICENSE",
        "z.jsonl.gz.old",
    ]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.stem, encoding="utf-8")
    (tmp_path / "empty.txt").touch()
    return tmp_path


def test_folders(folder):
    source = open_files(str(folder))
    assert read(source) == ["a", "b", "c"]
    about = source.describe()
    assert (about["files"], about["skipped_files"]) == (4, 3)
    json.dumps(about)


def test_what_people_give_that_is_no_text_is_named_with_what_to_do(tmp_path):
    for name, told in (("train.bin", "give the text that they were made from"), ("a.ODT", "save it as plain text")):
        (tmp_path / name).write_bytes(b"PK")
        for given in (tmp_path, tmp_path / name):
            with pytest.raises(InputError, match=rf"{name}: .*{told}.*; known are \.txt"):
                open_files(str(given))
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    ("pattern", "documents"),
    [
        ("*.txt", ["a", "b"]),
        ("[b].txt", ["b"]),
        ("**/*.[tT]*", ["a", "b", "c"]),
        ("d*", ["c"]),
        ("*", ["a", "b", "c"]),
        ("a.txt,b.txt", ["a", "b"]),
        ("b.txt, a.txt,b.txt", ["b", "a", "b"]),
    ],
)
def test_patterns_and_lists(folder, monkeypatch, pattern, documents):
    monkeypatch.chdir(folder)
    sources = open_sources(pattern)
    assert [text for source in sources for text in read(source)] == documents
    assert [text for source in open_sources(pattern.split(",")) for text in read(source)] == documents


def test_a_comma_in_a_name(tmp_path):
    (tmp_path / "a,b.txt").write_text("one", encoding="utf-8")
    first, _ = open_sources([str(tmp_path / "a,b.txt"), "wiki"])
    assert read(first) == ["one"]


def test_a_link_in_a_circle(folder):
    (folder / "deep" / "round").symlink_to(folder, target_is_directory=True)
    (folder / "self").symlink_to(folder, target_is_directory=True)  # two of them: 2**40 paths, for glob
    assert read(open_files(str(folder))) == ["a", "b", "c"]
    assert read(open_files(str(folder / "**" / "*.[tT]*"))) == ["a", "b", "c"]
    assert read(open_files(str(folder / "**" / "deep"))) == ["c"]


def test_small_files_share_a_part(tmp_path):
    documents = [f"document {number}" for number in range(300)]
    for number, document in enumerate(documents):
        (tmp_path / f"{number:03}.txt").write_text(document, encoding="utf-8")
    source = open_files(str(tmp_path), part_bytes=4000)
    assert 3 <= len(source.parts()) <= 5
    assert read(source) == documents
    assert [list(part.read(7)) for part in source.parts()] == [list(part.read())[7:] for part in source.parts()]


def test_the_fingerprint_changes_with_the_files(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("one", encoding="utf-8")
    before = open_files(str(tmp_path)).fingerprint()
    assert open_files(str(tmp_path)).fingerprint() == before
    file.write_text("other", encoding="utf-8")
    size = open_files(str(tmp_path)).fingerprint()
    (tmp_path / "b.txt").write_text("two", encoding="utf-8")
    assert len({before, size, open_files(str(tmp_path)).fingerprint()}) == 3


def test_a_file_with_a_hash_in_its_name(tmp_path):
    (tmp_path / "a#b.txt").write_text("one", encoding="utf-8")
    assert read(open_files(str(tmp_path / "a#b.txt"))) == ["one"]


def test_the_page_has_a_row_for_every_source():
    page = (Path(__file__).parents[2] / "docs" / "sources.md").read_text(encoding="utf-8")
    for name, kind in SOURCES.items():
        assert kind.form.startswith(name)
        assert f"| `{kind.form}` | {kind.summary} |\n" in page


def test_all_known_suffixes_are_told():
    assert set(KNOWN.replace(",", "").split()) >= {*formats.TEXT, *formats.READERS, *RATIOS, ".parquet"}
    assert format_of(Path("a.jsonl.GZ")) == ".jsonl"
    assert format_of(Path("a.gz")) is None


# ---- compression


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst"])
def test_members_one_after_another(suffix, tmp_path):
    """Files joined with `cat`, as large downloads often are, are read to their end."""
    file = tmp_path / f"a.txt{suffix}"
    file.write_bytes(COMPRESS[suffix](b"one ") + COMPRESS[suffix](b"") + COMPRESS[suffix](b"two"))
    with open_stream(file) as stream:
        assert stream.read() == b"one two"


def test_zstd_of_a_large_window(tmp_path):
    data = random.Random(0).randbytes(1000) * 200
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()  # as from a pipe: size unknown
    (tmp_path / "a.txt.zst").write_bytes(compressor.compress(data) + compressor.flush())
    with open_stream(tmp_path / "a.txt.zst") as stream:
        assert stream.read() == data
