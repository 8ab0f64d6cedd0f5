"""Standard streams that are closed, full or ASCII, and limits of the system: one line, the right exit code, nothing lost."""

import errno
import io
import json
import os
import subprocess
import sys

import pytest

from gpt3.cli import main as cli
from gpt3.durable import utf8, write_text
from gpt3.progress import say

UNIX = pytest.mark.skipif(os.name == "nt", reason="Unix's devices and file names")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux's device that is always full")  # noqa: PTH110
@pytest.mark.parametrize("words", [["ladder"], ["train", "--help"], ["train", "--print_config"]])
def test_a_full_disk_behind_standard_output_is_told(words, monkeypatch, capsys) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.main(words) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "No space left on device. Free some space" in shown


def test_an_ascii_terminal_gets_utf8(monkeypatch) -> None:
    stream = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream, encoding="ascii"))
    assert cli.main(["train", "--help"]) == 0
    assert "17M, … 175B" in stream.getvalue().decode("utf-8")


@UNIX
def test_closed_streams_lend_their_numbers_to_no_file(tmp_path) -> None:
    """Else what a library prints would end in that file."""
    code = (
        "import sys; from gpt3.cli.main import main; code = main(['ladder']); sys.exit(code or open('x', 'w').fileno())"
    )
    command = f'exec {sys.executable} -c "{code}" <&- >&- 2>&-'
    assert subprocess.run(command, shell=True, cwd=tmp_path).returncode > 2
    assert (tmp_path / "x").read_bytes() == b""


def test_nobody_need_read_the_messages(monkeypatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    say("step 1")


@pytest.mark.parametrize(
    ("error", "needle"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "Free some space"),
        (OSError(errno.EFBIG, "File too large"), "ulimit -f"),
        (OSError(errno.EMFILE, "Too many open files", "a.txt"), "a.txt: Too many open files. Raise the limit (ulimit -n)"),
        (OSError(errno.EROFS, "Read-only file system", "runs"), "runs: Read-only file system. Use another path."),
        (MemoryError(), "Out of memory"),
        (Exception("Error while serializing: I/O error (os error 28)"), "No space left on device. Free some space"),
        (OSError("4800 requested and 424 written"), "No space left on device. Free some space"),  # NumPy's
        (RuntimeError("Could not determine home directory."), "No home directory is known. Set HOME"),
    ],
)  # fmt: skip
def test_limits_of_the_system_are_one_line(error, needle, monkeypatch, capsys) -> None:
    def fail(options):
        raise error

    kind, _ = cli.COMMANDS["ladder"].load()
    monkeypatch.setattr(cli.Command, "load", lambda self: (kind, fail))
    assert cli.main(["ladder"]) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert needle in shown


@pytest.mark.parametrize(
    "error", [RuntimeError("a fault of ours"), KeyError("x"), OSError("of some library"), OSError(errno.EBADF, "x")]
)
def test_other_errors_keep_their_traceback(error, monkeypatch) -> None:
    def fail(options):
        raise error

    kind, _ = cli.COMMANDS["ladder"].load()
    monkeypatch.setattr(cli.Command, "load", lambda self: (kind, fail))
    with pytest.raises(type(error)):
        cli.main(["ladder"])


def test_a_name_of_any_bytes_comes_back_from_json(tmp_path) -> None:
    """As `os.fsdecode` reads it: a byte that is not UTF-8 is half a character."""
    name = "b\udcff 📚.txt"
    assert json.loads(utf8(json.dumps(name, ensure_ascii=False))) == name
    write_text(tmp_path / "a.json", json.dumps({name: name}, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {name: name}
