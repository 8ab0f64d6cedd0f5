"""Files that matter survive an error in the middle, and a full disk is told beforehand."""

import hashlib
import os
import shutil
import stat
from pathlib import Path

import pytest

from gpt3 import durable
from gpt3.errors import InputError, require


def test_an_error_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    durable.write_text(path, "old")

    def write_half() -> None:
        with durable.replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        write_half()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.skipif(os.name == "nt", reason="Unix's pipes and links")
def test_links_are_followed_and_pipes_stay(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"pipe is a device or a pipe\. Name a file\."):
        durable.write_text(tmp_path / "pipe", "x")
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere/file")
    for text in ("new", "replaced"):
        durable.write_text(tmp_path / "link", text)
        assert (tmp_path / "elsewhere" / "file").read_text() == text
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["file"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for content in ("one", "two"):
        with durable.replacing(folder) as temporary:
            (temporary / "sub").mkdir(parents=True)
            (temporary / "sub" / content).write_text(content)
            assert not folder.exists() or content == "two"
    assert [p.name for p in (folder / "sub").iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "one").touch()
    replace = os.replace

    def refused(source: Path, target: Path) -> None:
        if (source / "two").exists():  # as Windows does where a file in it is open
            raise PermissionError("in use")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)

    def write() -> None:
        with durable.replacing(folder) as temporary:
            temporary.mkdir()
            (temporary / "two").touch()

    with pytest.raises(PermissionError, match="in use"):
        write()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "one"]


def test_text_is_utf8_with_line_feeds(tmp_path: Path) -> None:
    durable.write_text(tmp_path / "text", "é\nß\n")
    assert (tmp_path / "text").read_bytes() == b"\xc3\xa9\n\xc3\x9f\n"


def test_a_full_disk_is_told_with_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    durable.check_room(tmp_path / "new" / "folder", 1_000_000, purpose="shards")
    with pytest.raises(InputError, match=r"no room for shards .*about 2 MB needed, 1 MB free"):
        durable.check_room(tmp_path / "new" / "folder", 2_000_000, purpose="shards")


def test_a_missing_extra_is_one_line_with_the_remedy() -> None:
    with pytest.raises(
        InputError, match=r"^reading spells needs no_such_module; install it with: .* -m pip install .*\[magic\]'?$"
    ):
        require("no_such_module", extra="magic", purpose="reading spells")
    assert require("json", extra="magic", purpose="reading").dumps([1]) == "[1]"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_what_a_library_wrote_for_its_owner_alone_may_be_read_as_any_new_file(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with durable.replacing(tmp_path / "folder") as temporary:
            (temporary / "inner").mkdir(parents=True)
            for name in ("private", "inner/private", "plain"):
                (temporary / name).write_text("x")
            (temporary / "private").chmod(0o600)
            (temporary / "inner/private").chmod(0o600)
        with durable.replacing(tmp_path / "file") as temporary:
            temporary.touch(0o600)
    finally:
        os.umask(old)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"private", "plain", "file"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}


@pytest.mark.skipif(os.name == "nt", reason="Windows flushes no folders")
def test_all_is_flushed_before_the_rename_and_the_rename_after_it(tmp_path: Path, monkeypatch) -> None:
    """A power cut cannot be had in a test; what the system was asked for, and when, can."""
    done: list[object] = []
    fsync, replace = os.fsync, os.replace

    def flushed(descriptor: int) -> None:
        done.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        done.append("renamed")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    with durable.replacing(tmp_path / "folder") as temporary:
        (temporary / "inner").mkdir(parents=True)
        (temporary / "inner/file").write_text("x")
    inside = {path.stat().st_ino for path in (tmp_path / "folder", *(tmp_path / "folder").rglob("*"))}
    where = done.index("renamed")
    assert set(done[:where]) == inside
    assert done[where + 1 :] == [tmp_path.stat().st_ino]


def test_a_files_sha256(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert durable.sha256_of(tmp_path / "empty") == hashlib.sha256().hexdigest()
    content = os.urandom((1 << 22) + 5)  # longer than one block
    (tmp_path / "long").write_bytes(content)
    assert durable.sha256_of(tmp_path / "long") == hashlib.sha256(content).hexdigest()
