"""Files that matter: written to a temporary name, fsynced, renamed. A kill leaves the old file or the new one, never half."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gpt3.errors import InputError

TEMPORARY_SUFFIX = ".partial"
PROCESS = secrets.token_hex(4)
"""With its number, no other process' name, not even on another machine that shares the disk."""
PRIVATE = 0o600
"""Permissions of a file that its owner alone reads and writes."""


def fsync_file(path: Path) -> None:
    """Flush a closed file's content to the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def fsync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut. Windows has no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path to write; on success it is fsynced and renamed over `path`, on an error removed.

    `path` may become a file or a folder; of a link, the file or folder that it leads to. A folder's files are fsynced one by
    one, then the folder itself; an existing folder at `path` is replaced. Permissions are those of any new file.

    Raises:
        InputError: a device, a pipe or a socket is there, which no file may replace.
    """
    if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
        raise InputError(f"{path} is a device or a pipe. Name a file.")
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = f"{path.name}.{os.getpid()}-{PROCESS}"
    temporary = path.with_name(f"{mine}{TEMPORARY_SUFFIX}")
    discard(temporary)
    try:
        yield temporary
        _share(temporary)
        for written in (*sorted(temporary.rglob("*")), temporary):
            fsync_folder(written) if written.is_dir() else fsync_file(written)
        if temporary.is_dir() and path.is_dir():  # os.replace cannot replace a folder that holds files
            old = path.with_name(f"{mine}.old{TEMPORARY_SUFFIX}")
            os.replace(path, old)
            try:
                os.replace(temporary, path)
            except BaseException:
                os.replace(old, path)
                raise
            discard(old)
        else:
            os.replace(temporary, path)
        fsync_folder(path.parent)
    finally:
        discard(temporary)


def _share(written: Path) -> None:
    """Give files that only their owner may read, as safetensors 0.8 makes them, the permissions of any new file.

    Without that a model would be served or copied by nobody but who trained it.
    """
    files = [path for path in (written, *written.rglob("*")) if path.is_file()]
    private = [path for path in files if stat.S_IMODE(path.stat().st_mode) == PRIVATE]
    if not private:
        return
    probe = written.with_name(f"{written.name}.mode")  # the umask can be asked for only by changing it
    try:
        probe.touch()
        for path in private:
            path.chmod(stat.S_IMODE(probe.stat().st_mode))
    finally:
        probe.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Replace the file at `path` by `data`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_hashed(path: Path, contents: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Write a new file, flushed to the disk. Returns its bytes and its sha256 in hex. Other threads can run during it."""
    digest, size = hashlib.sha256(), 0
    with open(path, "wb") as file, ThreadPoolExecutor(1) as hashing:  # while the disk works
        for content in contents:
            hashing.submit(digest.update, content)
            file.write(content)
            size += len(content)
        file.flush()
        os.fsync(file.fileno())
    return size, digest.hexdigest()


def write_text(path: Path | str, text: str) -> None:
    """Replace the file at `path` by `text` in UTF-8 with line feeds, whole or not at all."""
    write_bytes(path, utf8(text))


def utf8(text: str) -> bytes:
    r"""`text` in UTF-8. A byte of a file's name that is not UTF-8 becomes ``\udcff``, which JSON reads back as that name."""
    return text.encode("utf-8", "backslashreplace")


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; links are not followed; what vanishes while it is counted counts nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(place) / name).lstat().st_size
    return total


def sha256_of(path: Path) -> str:
    """A file's sha256 in hex. Other threads can run during it."""
    digest, block = hashlib.sha256(), memoryview(bytearray(1 << 22))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
    return digest.hexdigest()


def packaged(path: Path, sha256: str, what: str) -> bytes:
    """A data file of this package, whole.

    Args:
        what: it, for an error: ``the embedded corpus``.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{what} is missing ({path}); reinstall gpt3") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputError(f"{what} is damaged ({path} has another sha256 than it should); reinstall gpt3")
    return data


def check_room(folder: Path | str, need: int, *, purpose: str, elsewhere: str = "another --out") -> None:
    """Refuse before the work when the disk of `folder` (which need not exist yet) has fewer than `need` bytes free.

    Args:
        elsewhere: what the user may choose in place of `folder`.

    Raises:
        InputError: naming the folder, the bytes needed and the bytes free; or a file that stands where a folder must.
    """
    existing = Path(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(f"{folder} cannot be made: {existing} is a file; choose {elsewhere}")
    free = shutil.disk_usage(existing).free
    if free < need:
        raise InputError(
            f"no room for {purpose} in {folder}: about {need / 1e6:,.0f} MB needed, {free / 1e6:,.0f} MB free; "
            f"free some space or choose {elsewhere}"
        )
