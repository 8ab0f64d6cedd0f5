"""Files as streams of bytes, decompressed: .gz .xz .bz2 .zst, including files of several members or frames."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import Any, BinaryIO, cast

from gpt3.errors import require

RATIOS = {".gz": 3.0, ".bz2": 4.0, ".xz": 4.0, ".zst": 3.3}
"""Known suffixes, and roughly how many bytes of English prose one compressed byte holds."""

BUFFER_BYTES = 1024 * 1024


class DamagedError(Exception):
    """The compressed data is cut off, or is not what its name says."""


def open_stream(path: Path, start: int = 0, stop: int | None = None) -> BinaryIO:
    """Open `path` for reading its bytes, decompressed if the suffix says so.

    Args:
        start, stop: the range of bytes to read; for plain files only.

    Raises:
        OSError: as `open` does; here or on the first read.
        DamagedError: on reading compressed data that is cut off or damaged.
        InputError: on reading .zst without the package for it.
    """
    suffix = path.suffix.lower()
    if suffix not in RATIOS and stop is None:
        return open(path, "rb", buffering=BUFFER_BYTES)
    if suffix not in RATIOS:
        chunks = _range(path, start, cast(int, stop))
    elif suffix == ".zst" and sys.version_info < (3, 14):
        chunks = _zstd_frames(path)
    else:
        chunks = _decompressed(path, suffix)
    return cast(BinaryIO, io.BufferedReader(_Chunks(chunks), BUFFER_BYTES))


def _range(path: Path, start: int, stop: int) -> Generator[bytes, None, None]:
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while data := file.read(min(BUFFER_BYTES, stop - file.tell())):
            yield data


def _decompressed(path: Path, suffix: str) -> Generator[bytes, None, None]:
    """By the standard library, which has zstd from Python 3.14 on."""
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    if suffix == ".zst":
        openers[suffix] = require("compression.zstd", extra="data", purpose=f"reading {path.name}").open
    with openers[suffix](path, "rb") as file:
        while data := file.read(BUFFER_BYTES):
            yield data


def _zstd_frames(path: Path) -> Generator[bytes, None, None]:
    """By the package `zstandard`, frame by frame: its own reader does not notice that a file is cut off."""
    zstandard: Any = require("zstandard", extra="data", purpose=f"reading {path.name}")
    decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)  # for files made with `zstd --long`, too
    frame: Any = None
    with open(path, "rb") as file:
        while data := (frame.unused_data if frame and frame.eof else b"") or file.read(64 * 1024):
            if frame is None or frame.eof:
                frame = decompressor.decompressobj()
            yield frame.decompress(data)
    if frame is not None and not frame.eof:
        raise EOFError("compressed file ended before the end-of-frame marker was reached")


class _Chunks(io.RawIOBase):
    """A stream out of chunks of bytes; the libraries' various errors of damaged data become `DamagedError`."""

    def __init__(self, chunks: Generator[bytes, None, None]) -> None:
        self.chunks = chunks
        self.rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            while not self.rest and (chunk := next(self.chunks, None)) is not None:
                self.rest = memoryview(chunk)
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise DamagedError(str(error)) from error
        except OSError as error:
            if error.errno is not None:  # the disk's; gzip.BadGzipFile and bz2's "Invalid data stream" have no number
                raise
            raise DamagedError(str(error)) from error
        except Exception as error:  # ZstdError, of a package that may be missing
            if type(error).__name__ != "ZstdError":
                raise
            raise DamagedError(str(error)) from error
        size = min(len(buffer), len(self.rest))
        buffer[:size] = self.rest[:size]
        self.rest = self.rest[size:]
        return size

    def close(self) -> None:
        self.chunks.close()
        super().close()
