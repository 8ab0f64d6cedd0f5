"""EPUB, PDF and DOCX as sources: order of the text, hyphens, headers; the files are made here."""

import zipfile
from pathlib import Path

import pytest

from gpt3.corpus.books import paragraphs, without_headers
from gpt3.corpus.skipped import take
from gpt3.corpus.sources import open_sources
from gpt3.errors import InputError


def texts(path: Path) -> list[str]:
    return [text for source in open_sources(str(path)) for part in source.parts() for text in part.documents()]


def epub(path: Path, chapters: list[str]) -> None:
    """Chapters whose names are not in the order of the spine."""
    package = '<package xmlns="http://www.idpf.org/2007/opf"><manifest>'
    package += "".join(f'<item id="c{n}" href="text%20{9 - n}.xhtml"/>' for n in range(len(chapters)))
    package += '</manifest><spine><itemref idref="none"/>' + "".join(
        f'<itemref idref="c{n}"/>' for n in range(len(chapters))
    )
    with zipfile.ZipFile(path, "w") as book:
        rootfile = '<rootfiles><rootfile full-path="in/book.opf"/></rootfiles>'
        container = f'<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">{rootfile}</container>'
        book.writestr("META-INF/container.xml", container)
        book.writestr("in/book.opf", f"{package}</spine></package>")
        for number, text in enumerate(chapters):
            book.writestr(
                f"in/text {9 - number}.xhtml", f"<html><head><title>T</title></head><body>{text}</body></html>"
            )


def pdf(path: Path, pages: list[list[str]]) -> None:
    """Lines of text, byte by byte."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for lines in pages:
        shown = " T* ".join(f"({line}) Tj" for line in lines)
        stream = f"BT /F1 12 Tf 14 TL 72 720 Td {shown} ET"
        kids.append(len(objects) + 2)
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        resources = "/Resources << /Font << /F1 3 0 R >> >>"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects)} 0 R {resources} >>"
        )
    objects[1] = f"<< /Type /Pages /Count {len(pages)} /Kids [{' '.join(f'{kid} 0 R' for kid in kids)}] >>"
    data, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj\n{content}\nendobj\n".encode()
    start = len(data)
    data += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    data += b"".join(f"{place:010d} 00000 n \n".encode() for place in places)
    path.write_bytes(data + f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode())


def test_chapters_of_an_epub(tmp_path: Path) -> None:
    epub(
        tmp_path / "a.epub",
        ["<h1>One</h1><p>The co\u00adal is here.</p>", "<nav>Menu</nav><p>Second.</p>", "<p>Third.</p>"],
    )
    found = texts(tmp_path / "a.epub")
    assert [text.split() for text in found] == [["One", "The", "coal", "is", "here."], ["Menu", "Second."], ["Third."]]


def test_pages_of_a_pdf(tmp_path: Path) -> None:
    pytest.importorskip("pypdf")
    body = [["The river rises in the hills, and it has been dam-", "med twice for the mills that stood on its banks."],
            ["Most of them are gone now, and what is left of them", "is a wall.",
              "The children of the village know well-", "Known paths."],
            ["The end."]]  # fmt: skip
    pdf(tmp_path / "a.pdf", [["A Book of Rivers", *lines, str(number)] for number, lines in enumerate(body, 7)])
    (found,) = texts(tmp_path / "a.pdf")
    assert found == (
        "The river rises in the hills, and it has been dammed twice for the mills that stood on its banks. Most of them are gone "
        "now, and what is left of them is a wall.\n\nThe children of the village know well- Known paths.\n\nThe end."
    )


def test_headers_of_few_pages_stay() -> None:
    assert without_headers([["Rivers 1", "a", "b", "c"], ["Rivers 2", "d", "e", "f"]]) == [
        ["a", "b", "c"],
        ["d", "e", "f"],
    ]
    assert without_headers([["One", "a"]]) == [["One", "a"]]
    assert paragraphs(iter(["a very long line that goes to the end", "short.", "next"])) == (
        "a very long line that goes to the end short.\n\nnext"
    )


def test_the_body_of_a_docx(tmp_path: Path) -> None:
    docx = pytest.importorskip("docx")
    made = docx.Document()
    made.sections[0].header.paragraphs[0].text = "Running header"
    made.add_paragraph("First.")
    table = made.add_table(rows=1, cols=2)
    table.cell(0, 0).text, table.cell(0, 1).text = "left", "right"
    made.add_paragraph("Last.")
    made.save(str(tmp_path / "a.docx"))
    assert texts(tmp_path / "a.docx") == ["First.\n\nleft\tright\n\nLast."]


def test_files_that_cannot_be_read_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    epub(tmp_path / "a.epub", ["<p>Good.</p>"])
    whole = (tmp_path / "a.epub").read_bytes()
    (tmp_path / "b.epub").write_bytes(whole[: len(whole) // 2])
    take()
    assert texts(tmp_path) == ["Good."]
    assert "b.epub skipped: file that cannot be read" in capsys.readouterr().err
    assert [skipped.places for skipped in take().values()] == [[str(tmp_path / "b.epub")]]
    with pytest.raises(InputError, match="no documents in it"):
        texts(tmp_path / "b.epub")


def test_long_texts_are_several_documents(tmp_path: Path) -> None:
    epub(
        tmp_path / "a.epub", ["<p>" + "</p><p>".join(f"Sentence {n} of a long chapter." for n in range(6000)) + "</p>"]
    )
    found = texts(tmp_path / "a.epub")
    assert len(found) > 2
    assert max(map(len, found)) <= 64 * 1024
