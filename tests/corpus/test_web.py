"""Web archives and pages: which records are read, their encodings, damage; archives are written here byte by byte."""

import gzip
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from gpt3.cli import main as cli
from gpt3.corpus import page_parser
from gpt3.corpus.shards import documents, open_shards
from gpt3.corpus.skipped import take
from gpt3.corpus.sources import open_rows, open_sources
from gpt3.corpus.web import MOST_BYTES
from gpt3.errors import InputError

PAGE = (
    "<html><head><title>News</title></head><body><nav><a href=x>Home</a> <a href=y>Contact</a></nav><main><article><h1>Water</h1>"
    "<p>The river rises in the hills to the north of the town.</p><p>Most of the mills are gone.</p></article></main>"
    "<footer>© nobody</footer></body></html>"
)
TEXT = ["Water", "The river rises in the hills to the north of the town.", "Most of the mills are gone."]


def record(kind: str, url: str, payload: bytes, http: str = "") -> bytes:
    body = (http.encode() + b"\r\n\r\n" if http else b"") + payload
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2020-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:{len(url):032d}>\r\n"
        f"Content-Type: {'application/http; msgtype=response' if http else 'text/plain'}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def response(url: str, payload: bytes, kind: str = "text/html; charset=utf-8", status: str = "200 OK") -> bytes:
    return record(
        "response", url, payload, f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(payload)}"
    )


RECORDS = [
    record("warcinfo", "", b"software: none"),
    response("http://a/page", PAGE.encode()),
    response("http://a/image", b"PNG", "image/png"),
    response("http://a/gone", PAGE.encode(), status="404 Not Found"),
    response(
        "http://a/latin",
        "<p>Ein Café über den Dächern, ganz sicher.".encode("latin-1"),
        "text/html; charset=iso-8859-1",
    ),
    response("http://a/guess", "<p>Ein Café über den Dächern, so sicher.".encode("latin-1"), "text/html"),
    response("http://a/wrong", b"<p>Not in UTF-8: \xe9 is replaced.", "text/html; charset=utf-8"),
    response("http://a/large", b"<p>" + b"x " * MOST_BYTES),
    record("conversion", "http://a/wet", "Plain text, as WET has it: ü".encode()),
    response("http://a/empty", b"<html></html>"),
]
READ = ["Ein Café über den Dächern, ganz sicher.", "Ein Café über den Dächern, so sicher."]


def texts(path: Path) -> list[str]:
    return [text for source in open_sources(str(path)) for part in source.parts() for text in part.documents()]


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "a.warc.wet.gz"])
def test_pages_of_an_archive(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    join = gzip.compress if name.endswith(".gz") else bytes
    (tmp_path / name).write_bytes(b"".join(map(join, RECORDS)))
    found = texts(tmp_path / name)
    assert [line for line in found[0].splitlines() if line] == TEXT
    assert found[1:3] == READ
    assert found[3].startswith("Not in UTF-8:")
    assert found[4:] == ["Plain text, as WET has it: ü"]
    assert "a.warc" in (err := capsys.readouterr().err)
    assert "1 page over 8 MB" in err
    assert next(open_rows(str(tmp_path / name)))[1]["url"] == "http://a/page"


def test_an_archive_that_is_cut_off_is_read_up_to_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [response(f"http://a/{n}", bytes(1 << 20), "image/png") for n in range(4)]
    whole = b"".join(map(gzip.compress, [*RECORDS[:5], *images]))
    (tmp_path / "a.warc.gz").write_bytes(whole[:-60])
    assert texts(tmp_path / "a.warc.gz")[1:] == READ[:1]
    (tmp_path / "b.warc.gz").write_bytes(b"".join(map(gzip.compress, RECORDS[:6]))[:-20])
    assert texts(tmp_path / "b.warc.gz")[1:] == READ[:1]
    (tmp_path / "c.warc").write_bytes(b"".join(RECORDS[:6])[:-20])
    assert texts(tmp_path / "c.warc")[1:] == READ[:1]
    assert capsys.readouterr().err.count("1 record that is cut off") == 3


def test_a_damaged_member_costs_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = [
        bytearray(gzip.compress(response(f"http://a/{n}", f"<p>Page number {n} is here.".encode()))) for n in range(6)
    ]
    members[2][40:50] = bytes(10)
    members[4] = members[4][:60]
    (tmp_path / "a.warc.gz").write_bytes(b"".join(members))
    take()
    assert texts(tmp_path / "a.warc.gz") == [f"Page number {n} is here." for n in (0, 1, 3, 5)]
    assert "a.warc.gz skipped: 2 record that is cut off" in capsys.readouterr().err
    (tmp_path / "b.warc.gz").write_bytes(gzip.compress(b"".join(map(gzip.decompress, map(bytes, members[:2])))))
    assert texts(tmp_path / "b.warc.gz") == ["Page number 0 is here.", "Page number 1 is here."]  # one member


PARSER = """
import os, re, signal, time
def extract_plain_text(page, **options):
    if "crash" in page:
        os.kill(os.getpid(), signal.SIGSEGV)
    while "hang" in page:
        pass
    if "refuse" in page:
        raise ValueError("no")
    return re.sub("<[^>]*>", "", page)
"""


ENCODING = """
def detect_encoding(data):
    return "utf-8"
def bytes_to_str(data, charset):
    return data.decode(charset)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system does not limit a process's CPU time by itself")
def test_a_page_that_crashes_or_hangs_the_parser_costs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A parser planted in place of the real one; the funnel of `gpt3 corpus` names the pages."""
    package = tmp_path / "planted" / "resiliparse"
    for name, code in (("extract", PARSER), ("parse", ENCODING)):
        (package / name).mkdir(parents=True)
        module = {"extract": "html2text", "parse": "encoding"}[name]
        (package / name / f"{module}.py").write_text(code, encoding="utf-8")
        (package / name / "__init__.py").touch()
    (package / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(page_parser, "CPU_SECONDS", 0.2)
    monkeypatch.setattr(page_parser, "_idle", [])
    pages = ["one", "crash", "two", "hang", "refuse", "three", *(f"page {n}" for n in range(40)), "crash"]
    records = [response(f"http://a/{n}", f"<p>{text} is here.".encode()) for n, text in enumerate(pages)]
    (tmp_path / "a.warc").write_bytes(b"".join(records))
    kept = [f"{text} is here." for text in pages if text not in ("crash", "hang", "refuse")]
    assert texts(tmp_path / "a.warc") == kept
    assert f"skipped: 3 {page_parser.CRASHED}, 1 {page_parser.FAILED}" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    recipe = "sources: [{name: web, data: a.warc}]\nnear_duplicates: false\nvalidation_fraction: 0\n"
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    assert cli.main(["corpus", "recipe.yaml", "--out", "out", "--workers", "1"]) == 0
    found = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["sources"]["web"]
    assert found["kept_documents"] == len(kept)
    assert found["skipped"] == {
        page_parser.CRASHED: {"count": 3, "places": ["http://a/1", "http://a/3", f"http://a/{len(pages) - 1}"]},
        page_parser.FAILED: {"count": 1, "places": ["http://a/4"]},
    }


def test_comments_and_dates_are_not_the_text(tmp_path: Path) -> None:
    below = '<div class="comments"><h2>Comments</h2><p class="comment">First! I have a mill to sell.</p></div></main>'
    (tmp_path / "a.html").write_text(PAGE.replace("</main>", below), encoding="utf-8")
    (found,) = texts(tmp_path / "a.html")
    assert [line for line in found.splitlines() if line] == TEXT


def test_a_recipe_chooses_the_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """trafilatura finds what it finds when it is called itself; elsewhere the usual parser remains."""
    trafilatura = pytest.importorskip("trafilatura")
    monkeypatch.chdir(tmp_path)
    page = PAGE.replace("</p>", " and the wheels turn in the water of the river.</p>" * 3)
    (tmp_path / "a.warc").write_bytes(response("http://a/1", page.encode()))
    recipe = "sources: [{name: web, data: a.warc}]\nhtml: trafilatura\nvalidation_fraction: 0\n"
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    assert cli.main(["corpus", "recipe.yaml", "--out", "out", "--workers", "1"]) == 0
    shards = open_shards(tmp_path / "out/shards/web")
    (ids,) = documents(shards.split("train"))
    text = shards.tokenizer().decode(ids)
    assert text == trafilatura.extract(page, include_comments=False)
    assert text not in texts(tmp_path / "a.warc")
    monkeypatch.setitem(sys.modules, "trafilatura", None)
    with pytest.raises(InputError, match=r"html: trafilatura needs trafilatura; install it with: .*\[trafilatura\]"):
        page_parser.check_parser("trafilatura")


def test_a_page_is_a_document(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(PAGE, encoding="utf-8")
    (found,) = texts(tmp_path / "a.html")
    assert [line for line in found.splitlines() if line] == TEXT


def test_a_page_that_is_too_large_is_skipped_and_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.html").write_bytes(PAGE.encode().replace(b"</p>", b" and mills" * (MOST_BYTES // 10) + b"</p>"))
    (tmp_path / "b.html").write_text(PAGE, encoding="utf-8")
    (found,) = texts(tmp_path)
    assert found.endswith(TEXT[-1])
    assert "a.html skipped: 1 page over 8 MB" in capsys.readouterr().err
