"""Whatever is wrong with a source is said in one line that names the file, the place and what to do."""

import gzip
import io
import json
import os
import re
import sys

import pyarrow
import pyarrow.parquet
import pytest
from document_files import COMPRESS, as_jsonl, as_parquet

from gpt3.corpus import formats
from gpt3.corpus.files import open_files
from gpt3.corpus.sources import open_sources
from gpt3.errors import InputError, install_command

WORDS = [f"document {number} of many words" for number in range(2000)]


def message(spec, **options) -> str:
    """The one line that opening and reading `spec` ends in."""
    with pytest.raises(InputError) as caught:
        [list(part.read()) for source in open_sources(str(spec), **options) for part in source.parts()]
    text = str(caught.value)
    assert "\n" not in text
    return text


def check(spec, *expected, **options):
    text = message(spec, **options)
    for words in expected:
        assert words in text, text


# ---- nothing there


@pytest.mark.parametrize("spec", ["", " , ", []])
def test_nothing_is_named(spec):
    with pytest.raises(InputError, match="names nothing"):
        open_sources(spec)


def test_missing(tmp_path):
    check(
        tmp_path / "nothing.txt",
        "nothing.txt: no such file or folder",
        "known sources are wiki, fineweb[:CONFIG], hf:OWNER/NAME",
    )
    check("wikki", "wikki: no such file or folder", "wiki")
    check(tmp_path / "*.txt", "*.txt: no file matches this pattern")
    check(f"wiki,{tmp_path / 'nothing.txt'}", "nothing.txt: no such file")
    (tmp_path / "link.txt").symlink_to(tmp_path / "nothing.txt")
    check(tmp_path / "link.txt", "link.txt: no such file (a broken link")


def test_empty(tmp_path):
    check(tmp_path, "the folder is empty")
    (tmp_path / "a.txt").touch()
    check(tmp_path / "a.txt", "a.txt: no text, the file is empty")
    (tmp_path / "b.jsonl").touch()
    check(tmp_path, "all files are empty")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", b" \n\n"),
        ("a.txt.gz", gzip.compress(b"", mtime=0)),
        ("a.jsonl", b'{"text": ""}\n{"text": null}\n\n'),
        ("a.json", b"[]"),
        ("a.csv", b"text,id\n"),
        ("a.tsv", b"id\tbody\tx\n"),
        ("a.parquet", as_parquet([])),
        ("a.parquet", as_parquet([None, " "])),
    ],
)
def test_no_documents(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    check(tmp_path / name, f"{name}: no documents")


def test_unknown_kinds(tmp_path):
    for name in ["paper.odt", "a.tar.gz", "noextension", "a.parquet.gz", "b.gz"]:
        (tmp_path / name).write_bytes(b"x")
        check(
            tmp_path / name,
            f"{name}: unknown kind of file",
            ".txt .md .jsonl .ndjson .json .csv .tsv .warc .wet .html .htm .epub .pdf .docx .parquet",
        )
    check(tmp_path, "none of 5 files is of a known kind", ".txt .md")


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs users")
def test_unreadable(tmp_path):
    for name in ["a.txt", "b.jsonl", "c.parquet", "d.txt.gz"]:
        file = tmp_path / name
        file.write_bytes(
            as_parquet(["one"]) if name == "c.parquet" else gzip.compress(b"x") if "gz" in name else b'"x"'
        )
        file.chmod(0)
    (tmp_path / "locked").mkdir(mode=0)
    sources = {file.name: open_files(str(file)) for file in tmp_path.iterdir() if file.is_file()}
    root = os.geteuid() == 0  # whom no mode keeps out
    try:
        if root:
            os.seteuid(65534)
        for name, source in sources.items():
            with pytest.raises(InputError, match=f"{name}: no permission to read it"):
                [list(part.read()) for part in source.parts()]
        if not root:
            check(tmp_path, "locked: cannot read the folder (Permission denied)")
    finally:
        if root:
            os.seteuid(0)
        (tmp_path / "locked").chmod(0o700)


# ---- not text


PLACES = [*((place, "") for place in (0, 700, 65_535, 1_048_575, 1_048_577, 1_500_000))]
PLACES += [(1_048_577, compression) for compression in COMPRESS if compression]


@pytest.mark.parametrize(("place", "compression"), PLACES)
@pytest.mark.parametrize("suffix", ["txt", "jsonl", "json", "csv"])
def test_not_utf8(tmp_path, suffix, compression, place):
    """The offset is that of the first bad byte in the text, decompressed."""
    data = bytearray({
        "txt": b"one line\n" * 200_000,
        "jsonl": b'{"text": "one line"}\n' * 90_000,
        "json": b"[" + b'{"text": "one line"},\n' * 90_000 + b'""]',
        "csv": b"text\n" + b"one line\n" * 200_000,
    }[suffix])  # fmt: skip
    if place == 0:
        data[:0] = b"\xff\xfe"  # as UTF-16 begins
    else:
        place += next(index for index in range(40) if data[place + index] in b"onlie")
        data[place] = 0xE9  # é in Latin-1
    file = tmp_path / f"a.{suffix}{compression}"
    file.write_bytes(gzip.compress(data, 1) if compression == ".gz" else COMPRESS[compression](bytes(data)))
    check(
        file,
        f"a.{suffix}{compression}: not UTF-8 at byte {place} (0x{data[place]:02x})",
        f"iconv -f {'CP1252' if place else 'UTF-16'} -t UTF-8",
    )


def test_not_utf8_in_a_later_part(tmp_path):
    data = as_jsonl(WORDS)
    place = data.index(b"document 1900") + 3
    (tmp_path / "a.jsonl").write_bytes(data[:place] + b"\xc3" + data[place + 1 :])
    check(tmp_path / "a.jsonl", f"a.jsonl: not UTF-8 at byte {place} (0xc3)", part_bytes=10_000)


def test_not_utf8_at_the_end(tmp_path):
    (tmp_path / "a.txt").write_bytes("né".encode()[:-1])
    check(tmp_path / "a.txt", "a.txt: not UTF-8 at byte 1 (0xc3)")


def test_not_utf8_in_parquet(tmp_path):
    bad = (
        pyarrow.array([b"one", b"two", b"t\xe9", b"four"], pyarrow.binary())
        .cast(pyarrow.binary())
        .view(pyarrow.string())
    )
    pyarrow.parquet.write_table(pyarrow.table({"text": bad}), tmp_path / "a.parquet", row_group_size=2)
    check(tmp_path / "a.parquet", "a.parquet: row 3: not UTF-8 at byte 1")
    check(tmp_path / "a.parquet", "a.parquet: row 3: not UTF-8 at byte 1", part_bytes=1)


# ---- damaged


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst"])
@pytest.mark.parametrize("cut", [3, 0.5, -1])
def test_cut_off(tmp_path, suffix, cut):
    data = COMPRESS[suffix](as_jsonl(WORDS))
    (tmp_path / f"a.jsonl{suffix}").write_bytes(data[: int(cut * len(data)) if cut == 0.5 else cut])
    check(tmp_path / f"a.jsonl{suffix}", f"a.jsonl{suffix}: damaged or cut off (", "fetch or compress it again")


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst"])
def test_damaged(tmp_path, suffix):
    data = bytearray(COMPRESS[suffix](as_jsonl(WORDS)))
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    (tmp_path / f"a.jsonl{suffix}").write_bytes(data)
    text = message(tmp_path / f"a.jsonl{suffix}")
    assert re.search(rf"a.jsonl{suffix}: (damaged or cut off|not UTF-8|line \d+: not JSON)", text)
    (tmp_path / f"b.jsonl{suffix}").write_bytes(as_jsonl(WORDS))
    check(tmp_path / f"b.jsonl{suffix}", f"b.jsonl{suffix}: damaged or cut off (")


@pytest.mark.parametrize("data", [b"PAR1", as_parquet(WORDS)[:-100], as_jsonl(WORDS)])
def test_damaged_parquet(tmp_path, data):
    (tmp_path / "a.parquet").write_bytes(data)
    check(tmp_path / "a.parquet", "a.parquet: damaged, cut off or not parquet (")


def test_damaged_parquet_pages(tmp_path):
    data = bytearray(as_parquet(WORDS, group=1000))
    pages = pyarrow.parquet.ParquetFile(io.BytesIO(data)).metadata.row_group(1).column(1)
    start = pages.data_page_offset + pages.total_compressed_size // 4
    data[start : start + 1000] = bytes(1000)
    (tmp_path / "a.parquet").write_bytes(data)
    check(tmp_path / "a.parquet", "a.parquet: damaged, cut off or not parquet (")


def test_zstd_without_its_package(tmp_path, monkeypatch):
    (tmp_path / "a.txt.zst").write_bytes(COMPRESS[".zst"](b"one"))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    if sys.version_info < (3, 14):
        check(tmp_path / "a.txt.zst", "reading a.txt.zst needs zstandard", install_command("data"))


# ---- bad records


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.jsonl", b'{"text": "one"}\n\n{"text": "two"\n', "line 3: not JSON: "),
        ("a.jsonl", b'{"text": "one"}\nplain text\n', "line 2: not JSON: Expecting value at column 1"),
        ("a.jsonl", b'{"text": "one"}\n{"body": 1, "id": 2}\n', "line 2: no field 'text'; there are body, id"),
        ("a.jsonl", b'{"text": "one"}\n{"text": 7}\n', "line 2: field 'text' is a number, not a string"),
        ("a.jsonl", b'{"text": "one"}\n{"text": ["x"]}\n', "line 2: field 'text' is a list, not a string"),
        ("a.jsonl", b'{"text": "one"}\n[1]\n', "line 2: expected an object or a string, found a list"),
        ("a.jsonl", b'{"text": "one"}\n{"text": "\\ud800"}\n', "line 2: the escape \\ud800 is half a character"),
        ("a.jsonl", b'[{"text": "one"},\n{"text": "two"}]', "line 1: a list, not an object. If the whole file"),
        ("a.jsonl", b'{"a": "one", "b": "x"}\n', "line 1: which field is the text? none is called 'text'; there are a, b"),
        ("a.jsonl", b'{"a": 1}\n', "line 1: which field is the text? none is called 'text'; there are a"),
        ("a.json", b'[{"text": "one"},\n\n{"txt": "two"}]', "line 3: no field 'text'; there are txt"),
        ("a.json", b'["one"\n"two"]', "line 2: not JSON: expected a comma, found '\"'"),
        ("a.json", b'["one",\n"two"', "line 2: not JSON: the list is never closed"),
        ("a.json", b'["one", {"text": "tw\n"}', "line 1: not JSON: "),
        ("a.json", b'["one",\n"two"]\n"three"', "line 3: not JSON: '\"' after the list's end"),
        ("a.json", b'["one",]', "line 1: not JSON: "),
        ("a.json", b'["one", "\\udfff"]', "line 1: the escape \\udfff is half a character"),
        ("a.json", b"plain text", "line 1: not JSON: "),
        ("a.csv", b"a,b\n1,2\n", "line 2: which field is the text? none is called 'text'; there are a, b"),
        ("a.csv", b"id,text\n1,one\n2\n", "line 3: 1 columns where the header has 2"),
        ("a.csv", b"id,text\n1,one\n2,two,3\n", "line 3: 3 columns where the header has 2"),
        ("a.csv", b"text\nShips came, and went\n", "line 2: 2 columns where the header has 1 (separated by ',')"),
        ("a.csv", b"id;text\n1;Ships came; and went\n", "line 2: 3 columns where the header has 2 (separated by ';')"),
        ("a.csv", b"id;text|x\n", "line 1: which of ';' '|' separates the columns? Use ','"),
        ("a.csv", b"text,id,text\none,1,two\n", "line 1: two columns are called 'text'"),
        ("a.csv", b'id,text\n1,one\n2,"two\n', "line 3: not CSV: unexpected end of data"),
        ("a.tsv", b"id\tbody\tx\n1\t2\t3\n", "line 2: which field is the text? none is called 'text'; there are id, body, x"),
    ],
)  # fmt: skip
def test_bad_records(tmp_path, name, data, expected):
    (tmp_path / name).write_bytes(data)
    check(tmp_path / name, f"{name}: {expected}")


def test_lines_are_counted_through_parts(tmp_path):
    lines = as_jsonl(WORDS).split(b"\n")
    lines[1700] = b'{"text": '
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    check(tmp_path / "a.jsonl", "a.jsonl: line 1701: not JSON", part_bytes=10_000)


def test_fields_that_are_not_there(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl(WORDS, "body"))
    check(f"{tmp_path / 'a.jsonl'}#text", "a.jsonl: line 1: no field 'text'; there are id, body")
    (tmp_path / "a.txt").write_bytes(b"one")
    check(f"{tmp_path / 'a.txt'}#text", "a.txt#text: text files have no field 'text'")
    (tmp_path / "a.csv").write_bytes(b"id,text\n1,2\n")
    check(f"{tmp_path / 'a.csv'}#body", "a.csv: line 2: no field 'body'; there are id, text")
    (tmp_path / "a.parquet").write_bytes(as_parquet(["one"]))
    check(f"{tmp_path / 'a.parquet'}#body", "a.parquet: no field 'body'; there are id, text")
    check(f"{tmp_path / 'a.parquet'}#id", "a.parquet: field 'id' is int64, not a string")
    pyarrow.parquet.write_table(pyarrow.table({"a": ["one"], "b": ["two"]}), tmp_path / "b.parquet")
    check(
        tmp_path / "b.parquet",
        "b.parquet: which field is the text? none is called 'text'; there are a, b",
        "as in FILE#b",
    )


def test_many_fields_are_told_in_short(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{f"field{n}": "x" for n in range(1000)}]), encoding="utf-8")
    assert len(message(tmp_path / "a.json")) < 600


def test_brackets_and_quotes_that_never_close(tmp_path, monkeypatch):
    """They end the reading after so many bytes, not when memory is full."""
    monkeypatch.setattr(formats, "RECORD_BYTES", 3_000_000)
    body = "many words, " * 500_000
    (tmp_path / "a.json").write_text('["one", "' + body, encoding="utf-8")
    check(tmp_path / "a.json", "a.json: line 1: not JSON: a value of over 3000000 characters")
    (tmp_path / "a.csv").write_text('id,text\n1,"' + body, encoding="utf-8")
    check(tmp_path / "a.csv", "a.csv: line 2: not CSV: field larger than field limit")
    (tmp_path / "b.json").write_text('["one", [[' + "1," * 3_000_000, encoding="utf-8")
    check(tmp_path / "b.json", "b.json: line 1: not JSON: a value of over 3000000 characters")


def test_too_deep(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": ' + "[" * 100_000 + "]" * 100_000 + "}", encoding="utf-8")
    check(tmp_path / "a.jsonl", "a.jsonl: line 1: nested too deeply")
    (tmp_path / "a.json").write_text("[" * 100_000 + "]" * 100_000, encoding="utf-8")
    check(tmp_path / "a.json", "a.json: line 1: nested too deeply")


def test_files_that_go_away(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("one", encoding="utf-8")
    (part,) = open_files(str(file)).parts()
    file.unlink()
    with pytest.raises(InputError, match=r"a.txt: no such file \(a broken link, or gone since\)"):
        next(part.read())
