"""The paragraphs of a plain text file as rows with one column, `text`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from sft.data.rows.lines import MAX_ROW_BYTES, Numbered, decode_line, numbered_lines
from sft.data.rows.problems import RowError


def text_rows(file: BinaryIO) -> Iterator[Numbered]:
    """What stands between blank lines, each with its first line; its own line breaks are kept.

    A paragraph with a line that is not clean text is one unusable row.
    """
    first = size = 0
    lines: list[str] = []
    wrong: RowError | None = None
    for number, line in numbered_lines(file):
        if line is not None and not line.strip():
            if first:
                yield first, wrong or _row(lines)
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
        yield first, wrong or _row(lines)


def _row(lines: list[str]) -> dict[str, str]:
    return {"text": "\n".join(lines)}
