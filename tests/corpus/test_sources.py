"""Documents written to files come back equal and in order, whatever the format, the compression and the cuts."""

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import pickle
import random
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt3.corpus import file_parts, formats
from gpt3.corpus.compression import open_stream
from gpt3.corpus.files import open_files
from gpt3.corpus.json_values import JsonValues
from gpt3.corpus.sources import open_sources

COMPRESS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}

PROPERTY = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

TEXT = st.text(max_size=60).filter(lambda text: text and not text.isspace())
"""Any characters but lone surrogates, blank texts left out."""

PLAIN = TEXT.map(lambda text: text.replace("\r", "").lstrip("\ufeff").strip("\n")).filter(
    lambda text: text and not text.isspace() and "<|endoftext|>" not in text
)
"""What a text file holds as it is: Unix line ends, none at its ends."""


def as_jsonl(documents, field="text"):
    return "".join(json.dumps({"id": n, field: d}) + "\n" for n, d in enumerate(documents)).encode()


def as_jsonl_unescaped(documents):
    return "\n".join(json.dumps({"text": d}, ensure_ascii=False) for d in documents).encode()


def as_strings(documents):
    return "\n".join(json.dumps(d, ensure_ascii=False) for d in documents).encode()


def as_json(documents):
    return json.dumps([{"text": d, "id": [n]} for n, d in enumerate(documents)], ensure_ascii=False, indent=1).encode()


def as_json_values(documents):
    return "".join(json.dumps({"text": d}, indent=2) for d in documents).encode()


def as_csv(documents, delimiter=","):
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(["id", "text"])
    writer.writerows(enumerate(documents))
    return b"\xef\xbb\xbf" + file.getvalue().encode()  # as spreadsheets write it


def as_tsv(documents):
    return as_csv(documents, "\t")


def as_text(documents):
    return "\n<|endoftext|>\n".join(documents).encode()


def as_windows_text(documents):
    return b"\xef\xbb\xbf" + as_text(documents).replace(b"\n", b"\r\n")


def as_parquet(documents, group=3, kind=pyarrow.string):
    file = io.BytesIO()
    table = pyarrow.table({"id": list(range(len(documents))), "text": pyarrow.array(documents, kind())})
    pyarrow.parquet.write_table(table, file, row_group_size=group)
    return file.getvalue()


STREAMS = {
    "jsonl": (as_jsonl, TEXT),
    "ndjson": (as_jsonl_unescaped, TEXT),
    "x.jsonl": (as_strings, TEXT),
    "json": (as_json, TEXT),
    "x.json": (as_json_values, TEXT),
    "csv": (as_csv, TEXT.filter(lambda text: "\0" not in text)),  # Python 3.10's csv refuses NUL
    "tsv": (as_tsv, TEXT.filter(lambda text: "\0" not in text)),
    "txt": (as_text, PLAIN),
    "md": (as_windows_text, PLAIN),
}


def read(source, start=0):
    """All documents of all parts, each part gone through a pickle as on its way to a worker."""
    return [text for part in pickle.loads(pickle.dumps(source.parts())) for text in part.read(start)]


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", STREAMS)
@PROPERTY
@given(data=st.data())
def test_round_trip(suffix, compression, data, tmp_path):
    write, texts = STREAMS[suffix]
    documents = data.draw(st.lists(texts, min_size=1, max_size=12))
    file = tmp_path / f"documents.{suffix}{compression}"
    file.write_bytes(COMPRESS[compression](write(documents)))
    (source,) = open_sources(str(file))
    assert read(source) == documents
    (part,) = source.parts()
    start = data.draw(st.integers(0, len(documents) + 2))
    assert list(part.read(start)) == documents[start:]


@PROPERTY
@given(documents=st.lists(TEXT, min_size=1, max_size=12), group=st.integers(1, 5), part=st.integers(1, 200))
@pytest.mark.parametrize("kind", [pyarrow.string, pyarrow.large_string])
def test_round_trip_parquet(documents, group, part, kind, tmp_path):
    file = tmp_path / "documents.parquet"
    file.write_bytes(as_parquet(documents, group, kind))
    source = open_files(str(file), part_bytes=part)
    assert read(source) == documents
    pieces = [piece for part in source.parts() for piece in part.pieces]
    assert [piece.start for piece in pieces] == [0, *[piece.stop for piece in pieces[:-1]]]
    assert pieces[-1].stop == -(-len(documents) // group)
    for start in (1, len(documents)):
        first = source.parts()[0]
        assert list(first.read(start)) == list(first.read())[start:]


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "x.jsonl", "txt", "md"])
@PROPERTY
@given(data=st.data(), part=st.integers(1, 120))
def test_any_cut_into_byte_ranges(suffix, data, part, tmp_path):
    """However small the parts, they hold the documents of the whole file, each once, and no part is much too large."""
    write, texts = STREAMS[suffix]
    documents = data.draw(st.lists(texts, min_size=1, max_size=30))
    file = tmp_path / f"documents.{suffix}"
    file.write_bytes(write(documents))
    source = open_files(str(file), part_bytes=part)
    assert read(source) == documents
    pieces = [piece for part in source.parts() for piece in part.pieces]
    assert sum(piece.size for piece in pieces) == file.stat().st_size == source.size_bytes()
    longest = max(len(line) for line in write(documents).split(b"\n<|endoftext|>" if "t" in suffix[:2] else b"\n"))
    assert all(piece.size <= part + 2 * longest + 40 for piece in pieces)


def test_large_files_are_cut_into_even_parts(tmp_path):
    file = tmp_path / "large.jsonl"
    documents = [f"document {number} " + "word " * 200 for number in range(5000)]
    file.write_bytes(as_jsonl(documents))
    source = open_files(str(file), part_bytes=1_000_000)
    sizes = [part.size for part in source.parts()]
    assert len(sizes) == 6
    assert max(sizes) - min(sizes) < 5_000
    assert read(source) == documents


# ---- text files


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
    monkeypatch.setattr(file_parts, "SEARCH_BYTES", 100)
    text = "日本語🙂é" * 3000
    (tmp_path / "line.txt").write_text(text, encoding="utf-8")
    for part_bytes in range(5000, 5020):
        source = open_files(str(tmp_path / "line.txt"), part_bytes=part_bytes)
        assert len(source.parts()) == 9
        assert "".join(read(source)) == text


@pytest.mark.parametrize("blank", ["\n\n", "\r\n\r\n", "\n"])
def test_parts_of_a_book_begin_with_paragraphs(tmp_path, monkeypatch, blank):
    monkeypatch.setattr(file_parts, "SEARCH_BYTES", 1000)
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


# ---- JSON


@settings(PROPERTY, max_examples=200)
@given(
    values=st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        ),
        max_size=8,
    ),
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 0, 2]),
)
def test_json_lists_are_read_value_by_value(values, chunk, indent):
    """The values are those of `json.load`, wherever the chunks end; lines are those the values begin on."""
    text = json.dumps(values, indent=indent, ensure_ascii=False)
    found = list(JsonValues(io.BytesIO(text.encode()), longest=10_000, chunk=chunk))
    assert [value for _, value in found] == values
    if indent is not None and all(not isinstance(value, (list, dict)) for value in values):
        assert [line for line, _ in found] == list(range(2, 2 + len(values)))


def test_json_is_not_read_at_once(tmp_path):
    """Ten thousand documents pass through a few kilobytes."""
    data = as_json([f"document {number}" for number in range(10_000)])
    file = io.BytesIO(data)
    values = iter(JsonValues(file, longest=10_000, chunk=4096))
    next(values)
    assert file.tell() < 20_000
    assert len(list(values)) == 9_999


def test_what_orjson_refuses_and_json_takes(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"text": "one", "score": NaN}\n\n{"text": "two", "n": 1e999}\n', encoding="utf-8"
    )
    assert read(open_files(str(tmp_path / "a.jsonl"))) == ["one", "two"]


def test_nulls_and_blank_texts_are_passed_over(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": null}\n{"text": "one"}\n{"text": " \\n"}\n"two"\n', encoding="utf-8")
    (tmp_path / "b.json").write_text('["", "three", {"text": null}]', encoding="utf-8")
    (tmp_path / "c.csv").write_text("text,id\n,1\nfour,2\n\n", encoding="utf-8")
    (tmp_path / "d.parquet").write_bytes(as_parquet([None, "five", "", "six", None], group=2))
    assert read(open_files(str(tmp_path))) == ["one", "two", "three", "four", "five", "six"]


# ---- which field


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_fields(suffix, tmp_path):
    file = tmp_path / f"documents.{suffix}"
    record = {"n": 1, "text": "the text", "body": "the body"}
    if suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({key: [value] for key, value in record.items()}), file)
    elif suffix == "csv":
        file.write_text("n,text,body\n1,the text,the body\n", encoding="utf-8")
    else:
        file.write_text(json.dumps(record if suffix == "jsonl" else [record]), encoding="utf-8")
    assert read(open_files(str(file))) == ["the text"]
    assert read(open_files(f"{file}#body")) == ["the body"]
    assert read(open_files(str(file), "body")) == ["the body"]
    assert read(open_files(f"{file}#text", "body")) == ["the text"]
    assert open_files(str(file)).fingerprint() != open_files(str(file), "body").fingerprint()


def test_the_only_field_of_strings(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"n": 1, "body": "one"}\n{"n": "x", "body": "two"}\n', encoding="utf-8")
    (tmp_path / "b.csv").write_text("body\nthree\n", encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.table({"n": [1], "body": ["four"]}), tmp_path / "c.parquet")
    assert read(open_files(str(tmp_path))) == ["one", "two", "three", "four"]


def test_a_file_with_a_hash_in_its_name(tmp_path):
    (tmp_path / "a#b.txt").write_text("one", encoding="utf-8")
    assert read(open_files(str(tmp_path / "a#b.txt"))) == ["one"]


# ---- which files


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
    assert read(open_files(str(folder))) == ["a", "b", "c"]


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


def test_all_known_suffixes_are_told():
    from gpt3.corpus.compression import RATIOS
    from gpt3.corpus.files import KNOWN

    assert set(KNOWN.replace(",", "").split()) >= {*formats.READERS, *RATIOS, ".parquet"}
    assert file_parts.format_of(Path("a.jsonl.GZ")) == ".jsonl"
    assert file_parts.format_of(Path("a.gz")) is None
