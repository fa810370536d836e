"""The lines of a UTF-8 file, numbered, with everything that is not clean text refused."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from sft.data.rows.problems import RowError
from sft.errors import DataError

MAX_ROW_BYTES = 10_000_000

# A line number from 1, and the row's values or the reason why it cannot be used.
Numbered = tuple[int, dict[str, Any] | RowError]

# What a file of another kind begins with, what it is, and the ending its name should have.
_MAGIC = (
    (b"\x1f\x8b", "a gzip file", ".gz"),
    (b"BZh", "a bzip2 file", ".bz2"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", ".zst"),
    (b"PAR1", "a Parquet file", ".parquet"),
    (b"PK\x03\x04", "a ZIP file (or a workbook)", ""),
)
_ARRAY_OF_OBJECTS = re.compile(rb"\s*\[\s*\{")


def refuse_other_kinds(head: bytes, name: str, kind: str, compressed: bool = False) -> None:
    """Raise `DataError` when a file that starts with `head` is no text in UTF-8.

    `kind` is the ending that says how the file is read, such as `.jsonl`.
    """
    if encoding := _other_encoding(head):
        way = f"iconv -f {encoding} -t UTF-8 '{name}' > new-file"
        if compressed:
            way = f"decompress it, then {way}"
        raise DataError(f"{name}: {encoding} text, and UTF-8 is needed. Convert it with: {way}")
    for magic, what, ending in _MAGIC:
        if head.startswith(magic):
            whole = ending if ending in ("", ".parquet") else kind + ending
            better = f"its name should end in {whole}" if whole else "unpack it first"
            raise DataError(f"{name}: {what}, not {kind.lstrip('.')} text; {better}")
    if kind == ".jsonl" and _ARRAY_OF_OBJECTS.match(head.removeprefix(codecs.BOM_UTF8)):
        raise DataError(
            f"{name}: begins with '[', so it is one JSON document and not one object a line; "
            "its name should end in .json"
        )


def _other_encoding(head: bytes) -> str:
    """UTF-16 or UTF-32 by the name that `iconv` knows; empty when it is neither."""
    if b"\0" not in head[:4] and head[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return ""
    import charset_normalizer

    best = charset_normalizer.from_bytes(head[:4096]).best()
    if best is None or not best.encoding.startswith(("utf_16", "utf_32")):
        return ""
    return best.encoding.upper().replace("_", "-", 1).replace("_", "")


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


def text_rows(file: BinaryIO) -> Iterator[Numbered]:
    """The paragraphs of a plain text, each with its first line, as rows with one column, `text`.

    A paragraph is what stands between blank lines; its own line breaks are kept. One with a line
    that is not clean text is one unusable row.
    """
    first = size = 0
    lines: list[str] = []
    wrong: RowError | None = None
    for number, line in numbered_lines(file):
        if line is not None and not line.strip():
            if first:
                yield first, wrong or {"text": "\n".join(lines)}
            first, size, lines, wrong = 0, 0, [], None
            continue
        first = first or number
        size += len(line or b"")
        try:
            text = decode_line(line).rstrip("\r\n")
            if size > MAX_ROW_BYTES:
                raise RowError(f"no blank line in {MAX_ROW_BYTES:,} bytes; is this one text?")
            lines.append(text)
        except RowError as error:
            wrong = wrong or RowError(f"line {number}, {error}")
    if first:
        yield first, wrong or {"text": "\n".join(lines)}
