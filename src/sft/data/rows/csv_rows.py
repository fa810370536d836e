"""Rows of CSV and TSV files, each with the line it begins on.

A quote that is not closed swallows what follows it. Where the swallowed lines are rows by
themselves, only the row with the quote is lost; otherwise all of it is one unusable row.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any, BinaryIO

from sft.data.rows.lines import MAX_ROW_BYTES, Numbered, decode_line, numbered_lines
from sft.data.rows.problems import RowError
from sft.errors import DataError

_MAX_ROW_LINES = 100_000
# Of the lines that a quote swallowed, so many are looked at, and this share must be rows.
_EVALUATED_AT = 1_000
_SHARE_OF_ROWS = 0.9
# What may be read a second time after quotes that were not closed, besides twice what was read
# so far; a line counts as some bytes more than it has.
_MAX_READ_AGAIN = 10 * MAX_ROW_BYTES
_LINE_BYTES = 200
_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}


def csv_rows(file: BinaryIO, name: str, delimiter: str) -> Iterator[Numbered]:
    """The rows of a table with a header; blank lines are passed over.

    Raises:
        DataError: the header cannot be used, or what follows a quote cannot be told apart.
    """
    # The limit is the process's, and its default of 128 KB is less than one long document.
    csv.field_size_limit(MAX_ROW_BYTES)
    yield from _Table(file, name, delimiter).rows()


class _TooLong(Exception):
    """One row takes up more than is allowed; raised through the csv reader."""


class _Table:
    """One file: its lines, and the rows that begin on them."""

    def __init__(self, file: BinaryIO, name: str, delimiter: str) -> None:
        self._name = name
        self._delimiter = delimiter
        self._lines = numbered_lines(file)
        self._again: deque[tuple[int, bytes | None]] = deque()
        self._num_again = self._num_read = 0
        # Of the row that is being read: its lines, their bytes, and why it cannot be used.
        self._taken: list[tuple[int, bytes | None]] = []
        self._num_taken = 0
        self._wrong: RowError | None = None
        self._after_quote = 0
        self._header: list[str] = []
        mark = re.escape(delimiter)
        cell = rf'(?:"[^"]*(?:""[^"]*)*"|[^"{mark}\r\n]*)'
        # No quote in a cell that is not quoted, although csv reads one.
        self._clean = re.compile(rf"{cell}(?:{mark}{cell})*[\r\n]*")

    def rows(self) -> Iterator[Numbered]:
        """The rows below the header."""
        reader = csv.reader(_Feed(self), delimiter=self._delimiter, strict=True)
        while (cells := self._next(reader)) is not None:
            line = self._taken[0][0] if self._taken else 0
            if not self._header:
                if cells:
                    self._header = self._checked_header(cells, line)
            elif isinstance(cells, RowError):
                yield line, cells
            elif cells:
                yield line, self._row(cells, line)

    def take_line(self) -> str:
        """The next line, as text; one that is not clean is noted, with its quotes intact."""
        if self._again:
            number, line = self._again.popleft()
        else:
            number, line = next(self._lines)
            self._num_read += _LINE_BYTES + len(line or b"")
        self._taken.append((number, line))
        self._num_taken += len(line or b"")
        if len(self._taken) > 1 and (
            self._num_taken > MAX_ROW_BYTES or len(self._taken) > _MAX_ROW_LINES
        ):
            raise _TooLong
        try:
            return decode_line(line)
        except RowError as error:
            self._wrong = self._wrong or RowError(f"line {number}, {error}")
            return line.decode(errors="replace").replace("\0", "?") if line else "-\n"

    def _next(self, reader: Iterator[list[str]]) -> list[str] | RowError | None:
        """The next row's cells; none of them for a blank line, and None at the end."""
        self._taken, self._num_taken, self._wrong = [], 0, None
        try:
            cells = next(reader, None)
        except csv.Error as error:
            return self._broken(f"not valid CSV ({error})")
        except _TooLong:
            return self._too_long()
        return self._wrong or cells

    def _broken(self, problem: str) -> RowError:
        """What to make of a row whose quotes are wrong."""
        first, last = self._taken[0][0], self._taken[-1][0]
        self._after_quote = first
        if first == last:
            return self._wrong or RowError(problem)
        if self._header and self._are_rows(self._taken[1:]):
            return self._read_again()
        return RowError(f"line {first} to line {last}: {problem}; a quote in it is not closed")

    def _too_long(self) -> RowError:
        first = self._taken[0][0]
        if self._header and self._are_rows(self._taken[1:]):
            return self._read_again()
        odd = sum((line or b"").count(b'"') for _, line in self._taken) % 2
        while odd:
            _, line = self._again.popleft() if self._again else next(self._lines, (0, b""))
            if line == b"":
                raise DataError(
                    f"{self._name}:{first}: a quote that is opened here is never closed, so the "
                    "file cannot be read from here on"
                )
            odd ^= (line or b"").count(b'"') % 2
        return RowError(
            f"the row that begins here is longer than {MAX_ROW_BYTES:,} bytes or "
            f"{_MAX_ROW_LINES:,} lines"
        )

    def _read_again(self) -> RowError:
        """Give back all lines but the first."""
        self._num_again += self._num_taken + _LINE_BYTES * len(self._taken)
        first = self._taken[0][0]
        if self._num_again > _MAX_READ_AGAIN + 2 * self._num_read:
            raise DataError(
                f"{self._name}:{first}: too many quotes are not closed, this one among them; the "
                "file cannot be read as CSV"
            )
        self._again.extendleft(reversed(self._taken[1:]))
        return RowError("a quote that is opened in this row is not closed")

    def _are_rows(self, lines: list[tuple[int, bytes | None]]) -> bool:
        """Whether nearly all of `lines` are rows by themselves."""
        if len(self._header) == 1:  # then every line of a long cell would be one
            return False
        evaluated_at = [line for _, line in lines[:_EVALUATED_AT] if line and line.strip()]
        good = sum(self._is_row(line.decode(errors="replace")) for line in evaluated_at)
        return 0 < len(evaluated_at) * _SHARE_OF_ROWS <= good

    def _is_row(self, line: str) -> bool:
        try:
            cells = next(csv.reader([line], delimiter=self._delimiter, strict=True))
        except csv.Error:
            return False
        return len(cells) == len(self._header) and self._is_clean(line)

    def _is_clean(self, text: str) -> bool:
        return bool(self._clean.fullmatch(text))

    def _row(self, cells: list[str], line: int) -> dict[str, Any] | RowError:
        if len(cells) != len(self._header):
            return RowError(
                f"expected {len(self._header)} cells, as in the header, found {len(cells)}"
            )
        if self._after_quote:
            # The end of a quoted cell that went wrong can look like a row.
            text = b"".join(text or b"" for _, text in self._taken).decode(errors="replace")
            if not self._is_clean(text):
                return RowError(
                    f"follows a row with a wrong quote (line {self._after_quote}), and has one "
                    "itself, so it may be the rest of that row"
                )
            self._after_quote = 0
        return dict(zip(self._header, cells, strict=True))

    def _checked_header(self, cells: list[str] | RowError, line: int) -> list[str]:
        place = f"{self._name}:{line}"
        if isinstance(cells, RowError):
            raise DataError(f"{place}: the header cannot be read: {cells}")
        twice = [cell for cell, count in Counter(cells).items() if count > 1]
        if twice:
            raise DataError(f"{place}: column {min(twice)!r:.60} is given twice in the header")
        if len(cells) == 1:
            self._refuse_other_delimiter(cells[0], place)
        return cells

    def _refuse_other_delimiter(self, cell: str, place: str) -> None:
        for mark, called in _OTHER_DELIMITERS.items():
            if mark in cell and mark != self._delimiter:
                wanted = _OTHER_DELIMITERS[self._delimiter]
                raise DataError(
                    f"{place}: the header is one column, {cell!r:.80}. The cells seem to be "
                    f"separated by {called}, and this kind of file needs {wanted}"
                )


class _Feed:
    """The lines of a table for the csv reader; unlike a generator it survives an exception."""

    def __init__(self, table: _Table) -> None:
        self._table = table

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        return self._table.take_line()
