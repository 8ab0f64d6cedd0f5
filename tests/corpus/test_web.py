"""Web archives and pages: which records are read, their encodings, damage; archives are written here byte by byte."""

import gzip
from pathlib import Path

import pytest

from gpt3.corpus.sources import open_rows, open_sources
from gpt3.corpus.web import MOST_BYTES

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
    assert "1 pages skipped" in err
    assert next(open_rows(str(tmp_path / name)))[1]["url"] == "http://a/page"


def test_an_archive_that_is_cut_off_is_read_up_to_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [response(f"http://a/{n}", bytes(1 << 20), "image/png") for n in range(4)]
    whole = b"".join(map(gzip.compress, [*RECORDS[:5], *images]))
    (tmp_path / "a.warc.gz").write_bytes(whole[:-60])
    assert texts(tmp_path / "a.warc.gz")[1:] == READ[:1]
    assert "is cut off" in capsys.readouterr().err


def test_a_page_is_a_document(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(PAGE, encoding="utf-8")
    (found,) = texts(tmp_path / "a.html")
    assert [line for line in found.splitlines() if line] == TEXT


def test_a_page_that_is_too_large_is_skipped_and_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.html").write_bytes(PAGE.encode().replace(b"</p>", b" and mills" * (MOST_BYTES // 10) + b"</p>"))
    (tmp_path / "b.html").write_text(PAGE, encoding="utf-8")
    (found,) = texts(tmp_path)
    assert found.endswith(TEXT[-1])
    assert "a.html: 1 pages skipped" in capsys.readouterr().err
