"""The lines of a UTF-8 file, numbered, with everything that is not clean text refused."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from sft.data.problems import RowError
from sft.errors import DataError

MAX_ROW_BYTES = 10_000_000

# The BOM of UTF-32 begins with that of UTF-16, so it is looked for first.
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def refuse_other_encodings(head: bytes, name: str) -> None:
    """Raise `DataError` when a file that starts with `head` says it is UTF-16 or UTF-32."""
    for mark, encoding in _ENCODINGS:
        if head.startswith(mark):
            raise DataError(
                f"{name}: {encoding} text, and UTF-8 is needed. Convert it with: "
                f"iconv -f {encoding} -t UTF-8 '{name}' > new-file"
            )


def numbered_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Line numbers from 1, and lines with their end; None for a line that is too long.

    A too long line is passed over in pieces, so that it never is in memory as a whole.
    """
    number = 0
    while line := file.readline(MAX_ROW_BYTES + 2):
        number += 1
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if len(line.rstrip(b"\r\n")) <= MAX_ROW_BYTES:
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(1 << 20)
        yield number, None


def decode_line(line: bytes | None) -> str:
    """The text of a line from `numbered_lines`; raises `RowError` naming column and byte."""
    if line is None:
        raise RowError(f"longer than {MAX_ROW_BYTES:,} bytes")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        column = len(line[: error.start].decode()) + 1
        raise RowError(not_utf8(column, line[error.start])) from None
    if "\0" in text:
        column = text.index("\0") + 1
        raise RowError(f"column {column}: NUL byte (is this a text file in UTF-8?)")
    return text


def not_utf8(column: int, byte: int) -> str:
    """The reason why a line with a wrong byte cannot be used."""
    return f"column {column}: byte 0x{byte:02X} is not UTF-8"
