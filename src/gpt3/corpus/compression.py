"""Compressed files read as streams of bytes: .gz .xz .bz2 .zst, several members or frames in one file included."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from gpt3.errors import require

RATIOS = {".gz": 3.0, ".bz2": 4.0, ".xz": 4.0, ".zst": 3.3}
"""Known suffixes, and how many bytes of text one compressed byte stands for, roughly, in English prose."""

BUFFER_BYTES = 1024 * 1024


class DamagedError(Exception):
    """The compressed data is cut off or is not what its name says."""


def open_stream(path: Path) -> BinaryIO:
    """Open `path` for reading its bytes, decompressed when the suffix says so.

    Raises:
        OSError: as `open` does.
        InputError: .zst without the package that reads it.
    """
    suffix = path.suffix.lower()
    if suffix not in RATIOS:
        return open(path, "rb", buffering=BUFFER_BYTES)
    opener: Any = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": open_zstd}[suffix]
    return cast(BinaryIO, io.BufferedReader(Checked(opener(path, "rb")), BUFFER_BYTES))


def open_zstd(path: Path, mode: Literal["rb"] = "rb") -> io.RawIOBase:
    """Open a .zst file: by the standard library from Python 3.14 on, by the package `zstandard` before."""
    if sys.version_info >= (3, 14):
        zstd = require("compression.zstd", extra="data", purpose=f"reading {path.name}")
        return cast(io.RawIOBase, zstd.open(path, mode))
    zstandard = require("zstandard", extra="data", purpose=f"reading {path.name}")
    return ZstdFrames(open(path, mode), zstandard)


class Checked(io.RawIOBase):
    """A decompressing file whose many errors of damaged data become one: `DamagedError`."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer or less; 0 at the end."""
        try:
            data = self.file.read(len(buffer))
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise DamagedError(str(error)) from error
        except OSError as error:
            if error.errno is not None:  # the disk's; gzip.BadGzipFile and bz2's "Invalid data stream" have no number
                raise
            raise DamagedError(str(error)) from error
        except Exception as error:  # compression.zstd.ZstdError, which older Pythons cannot name
            if type(error).__name__ != "ZstdError":
                raise
            raise DamagedError(str(error)) from error
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file below."""
        self.file.close()
        super().close()


class ZstdFrames(io.RawIOBase):
    """All frames of a .zst file, one after another; `zstandard`'s own reader does not notice a file that is cut off."""

    def __init__(self, file: BinaryIO, zstandard: Any) -> None:
        self.file = file
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)  # files made with `zstd --long` too
        self.zstandard = zstandard
        self.frame: Any = None  # the frame under way
        self.data = memoryview(b"")  # decompressed, not yet given

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer or less; 0 at the end."""
        while not self.data:
            if not self.advance():
                return 0
        size = min(len(buffer), len(self.data))
        buffer[:size] = self.data[:size]
        self.data = self.data[size:]
        return size

    def advance(self) -> bool:
        """Decompress some more; False at the file's end."""
        data = self.frame.unused_data if self.frame is not None and self.frame.eof else b""
        data = data or self.file.read(64 * 1024)
        if not data:
            if self.frame is not None and not self.frame.eof:
                raise EOFError("compressed file ended before the end-of-frame marker was reached")
            return False
        if self.frame is None or self.frame.eof:
            self.frame = self.decompressor.decompressobj()
        try:
            self.data = memoryview(self.frame.decompress(data))
        except self.zstandard.ZstdError as error:
            raise EOFError(str(error)) from error
        return True

    def close(self) -> None:
        """Close the file below."""
        self.file.close()
        super().close()


class Stretch(io.RawIOBase):
    """The bytes [start, stop) of a file, as a stream."""

    def __init__(self, path: Path, start: int, stop: int) -> None:
        self.file = open(path, "rb", buffering=0)  # noqa: SIM115  # closed by close()
        self.file.seek(start)
        self.left = stop - start

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer or less; 0 at the end."""
        view = memoryview(buffer)[: self.left]
        size = self.file.readinto(view) or 0
        self.left -= size
        return size

    def close(self) -> None:
        """Close the file below."""
        self.file.close()
        super().close()


def open_stretch(path: Path, start: int, stop: int) -> BinaryIO:
    """Open the bytes [start, stop) of a plain file as a buffered stream."""
    return cast(BinaryIO, io.BufferedReader(Stretch(path, start, stop), BUFFER_BYTES))
