"""Documents written to files come back equal and in order, whatever the format, the compression and the cuts."""

import pyarrow
import pytest
from document_files import (
    COMPRESS,
    as_csv,
    as_json,
    as_json_values,
    as_jsonl,
    as_jsonl_unescaped,
    as_parquet,
    as_strings,
    as_text,
    as_tsv,
    as_windows_text,
    read,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt3.corpus.files import open_files
from gpt3.corpus.sources import open_sources

PROPERTY = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

TEXT = st.text(max_size=60).filter(lambda text: text and not text.isspace())
"""Any characters but lone surrogates, blank texts left out."""

PLAIN = TEXT.map(lambda text: text.replace("\r", "").lstrip("\ufeff").strip("\n")).filter(
    lambda text: text and not text.isspace() and "<|endoftext|>" not in text
)
"""What a text file holds as it is: Unix line ends, none at its ends."""

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
    pieces = [piece for part in source.parts() for piece in part.stretches]
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
    pieces = [piece for part in source.parts() for piece in part.stretches]
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
