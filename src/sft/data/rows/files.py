"""Data files as bytes: regular files only, decompressed on the way, in bounded memory.

What a file says about its size is never believed. A compressed file may hold a thousand times
its size, so what comes out of it is counted while it is read.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from sft.data.rows.lines import refuse_other_kinds
from sft.errors import DataError

TEXT_EXTENSIONS = (".jsonl", ".json", ".csv", ".tsv")
# The command that decompresses a file, by what its name ends in.
COMPRESSED = {".gz": "gunzip -k", ".bz2": "bunzip2 -k", ".zst": "zstd -d"}
EXTENSIONS = (*TEXT_EXTENSIONS, ".parquet")

# A file may decode to FREE_BYTES, whatever its size, and to MAX_RATIO times what was read of it.
# Text compresses five- to tenfold; a bomb a thousandfold.
FREE_BYTES = 64_000_000
MAX_RATIO = 200
# What a line costs besides its bytes: a hundred million empty ones are a bomb too.
_LINE_BYTES = 200

_BUFFER_BYTES = 1 << 20


def kind_of(path: Path, texts: bool = False) -> str:
    """What the file holds, by its name: one of `EXTENSIONS`, or empty when it is not known.

    With `texts`, .txt is known too.
    """
    known = (*TEXT_EXTENSIONS, ".txt") if texts else TEXT_EXTENSIONS
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSED:
        return suffixes[0] if len(suffixes) > 1 and suffixes[0] in known else ""
    return suffixes[-1] if suffixes and suffixes[-1] in (*known, ".parquet") else ""


def decoded_limit(size: int) -> int:
    """The bytes that `size` bytes may decode to."""
    return FREE_BYTES + MAX_RATIO * size


@contextmanager
def open_regular(path: Path) -> Iterator[io.BufferedReader]:
    """The bytes of a regular file as they are on disk.

    Raises:
        DataError: it is a folder, pipe or device, or cannot be read. Opening never waits.
    """
    try:
        # Without O_NONBLOCK the opening of a pipe waits for its writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _O_BINARY)
        with open(descriptor, "rb", buffering=_BUFFER_BYTES) as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise DataError(f"{path}: is {_what(mode)}, and a regular file is needed")
            yield cast(io.BufferedReader, file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


_O_BINARY = getattr(os, "O_BINARY", 0)


def _what(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return "a device"
    return "a folder" if stat.S_ISDIR(mode) else "no file"


def sha256_of(path: Path) -> str:
    """The SHA-256 of the file as it is on disk."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def open_text(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a text file, decompressed, with line feeds as line ends.

    Raises:
        DataError: it is no regular file, damaged, decodes to too much, or is another kind of
            file than its name says.
    """
    with open_regular(path) as file:
        decoded, suffix = file, path.suffix.lower()
        if suffix in COMPRESSED:
            stream = _Decoded(file, _decompressor(file, suffix), path)
            decoded = io.BufferedReader(stream, _BUFFER_BYTES)
        head = decoded.peek(_BUFFER_BYTES)
        refuse_other_kinds(head, str(path), kind_of(path, texts=True), suffix in COMPRESSED)
        if b"\r" in head and b"\n" not in head:  # line ends as they were on the first Macs
            decoded = io.BufferedReader(_LineFeeds(decoded), _BUFFER_BYTES)
        yield cast(BinaryIO, decoded)


def _decompressor(file: BinaryIO, suffix: str) -> BinaryIO:
    if suffix == ".gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if suffix == ".bz2":
        return cast(BinaryIO, bz2.BZ2File(file))
    import pyarrow

    return cast(BinaryIO, pyarrow.CompressedInputStream(file, "zstd"))


class _Decoded(io.RawIOBase):
    """What a decompressor makes of a file, counted; too much for what was read is refused."""

    def __init__(self, file: BinaryIO, source: BinaryIO, path: Path) -> None:
        self._file = file
        self._source = source
        self._path = path
        self._count = 0
        self._cost = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._source.read(len(buffer))
        except (OSError, EOFError, ValueError, zlib.error) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            after = f" after {self._count:,} decompressed bytes" if self._count else ""
            raise DataError(f"{self._path}: damaged or cut off{after} ({lines[0]:.200})") from None
        buffer[: len(data)] = data
        self._count += len(data)
        self._cost += len(data) + _LINE_BYTES * data.count(b"\n")
        read = self._file.tell()
        if self._cost > decoded_limit(read):
            raise DataError(
                f"{self._path}: {read:,} of its bytes decompress to {self._count:,}; text is not "
                f"compressed more than {MAX_RATIO} times, so this is taken for a decompression "
                "bomb. If the file is right, decompress it first: "
                f"{COMPRESSED[self._path.suffix.lower()]} '{self._path}'"
            )
        return len(data)


class _LineFeeds(io.RawIOBase):
    """Another file, with carriage returns turned into line feeds."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data.replace(b"\r", b"\n")
        return len(data)
