"""Files of records: JSON value by value, what is passed over, and which field is the text."""

import io
import json

import pyarrow
import pyarrow.parquet
import pytest
from document_files import as_json, as_parquet, read
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.corpus.files import open_files
from gpt3.corpus.formats import JsonValues


@settings(max_examples=200, deadline=None)
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


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_what_no_text_field_needs_may_be_anything(suffix, tmp_path):
    """A lone surrogate, nested too, and a number of more digits than Python converts, in fields that are not used."""
    record = (
        f'{{"text": "Å sea", "n": {"9" * 5000}, "s": "\\ud83d", "list": [{{"s": "\\ud83d", "n": -{"9" * 5000}}}]}}\n'
    )
    (tmp_path / f"a.{suffix}").write_text(record * 2, encoding="utf-8")
    assert read(open_files(str(tmp_path / f"a.{suffix}"))) == ["Å sea"] * 2


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_delimiter_is_seen_in_the_header(suffix, mark, tmp_path):
    """Whatever the suffix; marks within quotation marks, and in the rows, count nothing."""
    others = "".join({",", ";", "\t", "|"} - {mark})
    rows = [["id", "a" + others, "text"], ["1", "x", f"Ships came{mark} and went"], ["2", "y", "one\ntwo"]]
    lines = (mark.join(f'"{cell}"' for cell in row) + "\r\n" for row in rows)
    (tmp_path / f"a.{suffix}").write_bytes(("\ufeff" + "".join(lines)).encode())
    assert read(open_files(str(tmp_path / f"a.{suffix}"))) == [f"Ships came{mark} and went", "one\ntwo"]


def test_nulls_and_blank_texts_are_passed_over(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": null}\n{"text": "one"}\n{"text": " \\n"}\n"two"\n', encoding="utf-8")
    (tmp_path / "b.json").write_text('["", "three", {"text": null}]', encoding="utf-8")
    (tmp_path / "c.csv").write_text("text,id\n,1\nfour,2\n\n", encoding="utf-8")
    (tmp_path / "d.parquet").write_bytes(as_parquet([None, "five", "", "six", None], group=2))
    assert read(open_files(str(tmp_path))) == ["one", "two", "three", "four", "five", "six"]


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
    assert read(open_files(f"{file}#text")) == ["the text"]
    assert open_files(str(file)).fingerprint() != open_files(f"{file}#body").fingerprint()


def test_the_only_field_of_strings(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"n": 1, "body": "one"}\n{"n": "x", "body": "two"}\n', encoding="utf-8")
    (tmp_path / "b.csv").write_text("body\nthree\n", encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.table({"n": [1], "body": ["four"]}), tmp_path / "c.parquet")
    assert read(open_files(str(tmp_path))) == ["one", "two", "three", "four"]
