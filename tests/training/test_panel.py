"""The panel of a run, as a terminal shows it, and its plain form."""

import io
import itertools
import math
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gpt3 import progress
from gpt3.training import panel as panel_module
from gpt3.training.panel import ASCII, BLOCKS, Panel, resampled, sparkline

RECORD = {
    "step": 500, "tokens": 256_000, "loss": 3.2146, "lr": 6e-4, "grad_norm": 0.718, "tokens_per_s": 10512.3, "mfu": 0.478,
    "seconds": 24.3,
}  # fmt: skip
VALIDATION = {
    "step": 500, "val/loss": 3.3, "val/loss_low": 3.25, "val/loss_high": 3.35, "val/perplexity": 27.1, "val/bits_per_byte": 1.84,
    "val/books/loss": 3.9,
}  # fmt: skip


def terminal(encoding: str = "utf-8", width: int = 100) -> Console:
    file = io.TextIOWrapper(
        io.BytesIO(), encoding=encoding
    )  # a character it cannot write is an error, as on a terminal
    return Console(force_terminal=True, record=True, width=width, height=40, file=file)


def shown(panel: Panel) -> str:
    page = terminal(panel.console.encoding, panel.console.width)
    page.print(panel.render())
    return page.export_text()


def test_it_shows_where_the_run_stands() -> None:
    with Panel("training demo", 2000, console=terminal()) as panel:
        for step in range(1, 500):
            panel.log(RECORD | {"step": step, "loss": 9 - step / 100})
        panel.log(RECORD)
        panel.log({"step": 501, "loss": 9.1, "skipped": "loss 9.1 is far off", "windows": [7, 9]})
        assert "skipped" not in shown(panel)  # a lone one
        panel.log({"step": 502, "loss": 9.2, "skipped": "loss 9.2 is far off", "windows": [10, 12]})
        panel.log(VALIDATION)
        panel.log(VALIDATION | {"val/loss": 3.4})
        panel.sample("The history", " of [bold]it\n\nis long. " * 40)
        text = shown(panel)
    for needle in (
        "training demo", "step 502 of 2,000", "25%", "ETA", "loss 3.215", "lr 6.00e-04", "grad norm 0.72", "10,512 tok/s",
        "MFU 48%",
        "tokens 256,000", "held-out", "(3.250 to 3.350)", "perplexity 27.1", "1.840 bits per byte", "best 3.300", "books",
        "loss 3.900",
        "skipped 2 in a row", "step 502: loss 9.2", "The history of [bold]it", "…",
    ):  # fmt: skip
        assert needle in text, needle
    assert any(block in text for block in BLOCKS[1:])


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
@pytest.mark.parametrize("width", [20, 45, 100])
def test_a_terminal_of_another_encoding_or_width_gets_what_it_can_show(encoding: str, width: int) -> None:
    with Panel("training 漢", 2000, console=terminal(encoding, width)) as panel:  # writes to the console would raise
        for step in range(1, 60):
            panel.log(RECORD | {"step": step, "loss": 9 - step / 100})
        for step in (60, 61):
            panel.log({"step": step, "loss": 9.1, "skipped": "a reason " * 20})
        panel.log(VALIDATION)
        panel.sample("漢 é \x1b[31m", "\x07\x9b31m🙂 text " * 30)
        text = shown(panel)
    text.encode(encoding)
    assert "\x07" not in text
    assert "\x9b" not in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("loss", [None, math.nan, math.inf])
def test_numbers_that_are_none_are_left_out(loss: float | None) -> None:
    with Panel("training", 10, console=terminal()) as panel:
        assert "waiting for the first step" in shown(panel)
        panel.log({"step": 1, "loss": loss, "lr": 1e-3, "mfu": None})
        panel.log({"step": 1, "val/loss": loss})
        text = shown(panel)
    assert "lr 1.00e-03" in text
    assert "nan" not in text
    assert "inf" not in text


def test_it_is_drawn_at_most_four_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(panel_module, "time", SimpleNamespace(monotonic=lambda: now))
    with Panel("training", 10_000, console=terminal()) as panel:
        drawn = []
        monkeypatch.setattr(panel._live, "refresh", lambda: drawn.append(now))
        for step in range(1, 2001):
            now += 0.005  # ten seconds in all
            panel.log(RECORD | {"step": step})
    assert 35 <= len(drawn) <= 40


def test_a_pipe_gets_plain_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    with Panel("training", 200, start=100) as panel:
        for step in range(101, 151):
            now += 1
            panel.log(RECORD | {"step": step})
        panel.log(VALIDATION)
        panel.sample("a prompt", "a text")
        for step in (151, 153, 154):
            panel.log({"step": step, "loss": 9.1, "skipped": "loss 9.1 is far off", "windows": [step - 2, step]})
    lines = capsys.readouterr().err.splitlines()
    numbers = "loss 3.215, grad norm 0.72, 10,512 tok/s, MFU 48%"
    assert lines[:5] == [  # one every ten seconds; steps of an earlier session do not count into the speed
        f"training: {100 + n}/200 steps, {50 + n // 2}%, {numbers}, elapsed 0:{n}, ETA {progress.clock(100 - n)}"
        for n in (10, 20, 30, 40, 50)
    ]
    assert lines[5:] == [
        "step 500: validation loss 3.300 (3.250 to 3.350), perplexity 27.1, 1.840 bits per byte",
        "step 500: validation on books: loss 3.900",
        "step 154 skipped, 2 in a row: loss 9.1 is far off (windows 152 to 154)",
    ]


def test_standard_output_in_a_file_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with Panel("training", 10, console=terminal()) as panel:
        print("a sample")
        assert "a sample" not in panel.console.export_text()
    assert capsys.readouterr().out == "a sample\n"


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(1, 80), st.integers(1, 5), st.booleans())
def test_a_sparkline_is_as_high_as_its_values(values: list[float], width: int, lines: int, unicode: bool) -> None:
    rows, low, high = sparkline(values, width, lines, unicode)
    glyphs = BLOCKS if unicode else ASCII
    assert [len(row) for row in rows] == [width] * lines
    columns = resampled(values, width)
    heights = [sum(glyphs.index(row[i]) for row in rows) for i in range(width)]
    assert min(heights) >= 1
    assert low == min(columns)
    assert high <= max(columns)
    order = sorted(range(width), key=columns.__getitem__)
    assert all(heights[a] <= heights[b] for a, b in itertools.pairwise(order))


@pytest.mark.parametrize("width", [50, 66, 80])
def test_no_number_is_parted_from_its_name_nor_cut_on_a_narrow_terminal(width: int) -> None:
    panel = Panel("training demo", 2000, console=terminal(width=width))
    panel.last = RECORD
    panel.log(VALIDATION)
    lines = shown(panel).splitlines()
    for item in (
        "grad norm 0.72",
        "10,512 tok/s",
        "tokens 256,000",
        "loss 3.300 (3.250 to 3.350)",
        "1.840 bits per byte",
    ):
        assert any(item in line for line in lines), item


def test_a_notebook_shows_a_table_and_the_curve(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    ipython = pytest.importorskip("IPython.display", reason="needs .[notebook]")
    drawn: list[str] = []
    texts: list[str] = []  # for notebooks shown as text

    def display(view: object, display_id: bool) -> SimpleNamespace:
        assert display_id
        update = lambda view: (drawn.append(view._repr_html_()), texts.append(repr(view)))  # noqa: E731
        update(view)
        return SimpleNamespace(update=update)

    monkeypatch.setattr(ipython, "display", display)
    with Panel("training <demo>", 2000, console=Console(force_jupyter=True)) as panel:
        for step in range(1, 501):
            panel.log(RECORD | {"step": step, "loss": 9 - step / 100})
        assert len(drawn) < 50  # at most once a second, however many steps
        panel.log(VALIDATION)
        panel.log(VALIDATION | {"step": 501, "val/loss": 3.2})
        panel.sample("The <b>history", " of it")
    page = ElementTree.fromstring(f"<html>{drawn[-1]}</html>")
    cells = [[cell.text for cell in row] for row in page.iter("tr")]
    assert [name for name, _ in cells] == ["training <demo>", "train", "held-out", "books", "sample"]
    assert cells[0][1].startswith("step 500 of 2,000, 25%")
    assert "loss 4.000" in cells[1][1]
    assert "loss 3.200" in cells[2][1]
    assert cells[-1][1] == "The <b>history of it"
    assert texts[-1].splitlines() == [f"{name}: {text}" for name, text in cells]
    paths = (path.get("d") for path in page.iter("{http://www.w3.org/2000/svg}path"))
    train, held_out = (path for path in paths if "," in path)
    heights = [float(point.split(",")[1]) for point in train.removeprefix("M").split("L")]
    assert len(heights) == 40
    assert heights == sorted(heights)  # a falling loss: downwards
    assert held_out.count(",") == 2
    assert capsys.readouterr() == ("", "")


def test_elsewhere_nothing_asks_for_a_notebook() -> None:
    assert not Panel("training demo", 10).console.is_jupyter
