"""Progress in its plain form, as a file or a pipe sees it."""

import contextlib
import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpt3 import progress
from gpt3.progress import Progress, clock


def test_clock() -> None:
    assert [clock(s) for s in (0, 59.6, 61, 3600, 3723)] == ["0:00", "1:00", "1:01", "1:00:00", "1:02:03"]


def test_plain_lines_come_seldom_and_hold_the_numbers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    with Progress("reading", 200, "MB", start=100) as bar:
        for _ in range(50):
            now += 1
            bar.advance(1, note="2 files")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5  # one every ten seconds
    assert (
        lines[-1] == "reading: 150/200 MB, 75%, 2 files, elapsed 0:50, ETA 0:50"
    )  # 1 MB/s: what was done before does not count


def test_without_a_total_there_is_no_eta(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    with Progress("streaming", None, "documents") as bar:
        now = 11.0
        bar.update(1234)
        bar.say("a line of its own")
    assert capsys.readouterr().err.splitlines() == ["streaming: 1,234 documents, elapsed 0:11", "a line of its own"]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("fails", [False, True])
def test_a_bar_is_full_at_the_end_and_says_100_per_cent_only_then(fails: bool, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", Terminal())
    total = 0.000482  # 80 * total / total is less than 80
    with contextlib.suppress(KeyboardInterrupt), Progress("reading", total) as bar:
        bar.update(0.996 * total)  # of an estimate
        assert "99%" in bar.line(bar.began + 1)
        if fails:
            raise KeyboardInterrupt
    last = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", sys.stderr.getvalue()).rstrip().splitlines()[-1]
    assert ("100%" in last, "╸" in last) == (not fails, fails), last


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_SECONDS", 0.0)
    with Progress("reading", 4) as bar:
        bar.advance(2)
    assert sys.stderr.getvalue().startswith("reading: 2/4, 50%, elapsed")


def test_no_test_replaces_the_clock_of_the_process() -> None:
    """Only a module's name for it: the event loop of a server in this process would sleep until the clocks agree again."""
    tests = [path for path in Path(__file__).parent.rglob("*.py") if not any("made_by" in part for part in path.parts)]
    found = [
        path.name
        for path in tests
        if re.search(
            r'(setattr\(\s*([\w.]*\btime|"time"), *"|"time\.)(monotonic|time|perf_counter)"', path.read_text("utf-8")
        )
    ]
    assert not found, f"replaced in {found}: write monkeypatch.setattr(module, 'time', SimpleNamespace(monotonic=...))"
