"""Rows of CSV and TSV files, each with the line it begins on.

Where a quote is opened and not closed, nobody can tell where the rows after it begin. So nothing
is guessed: that row names the line of the quote, and every line after it is an unusable row.
"""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from sft.data.rows.lines import MAX_ROW_BYTES, Numbered, decode_line, numbered_lines
from sft.data.rows.problems import RowError
from sft.errors import DataError

_MAX_ROW_LINES = 100_000
_DELIMITERS = ",;\t|"


def csv_rows(file: BinaryIO, name: str, delimiter: str) -> Iterator[Numbered]:
    """The rows of a table with a header; blank lines are passed over.

    `delimiter` is what the name of the file asks for. A header that is separated by another one,
    as in the CSV files of European spreadsheets, decides for the whole file.

    Raises:
        DataError: the header cannot be used.
    """
    # The limit is the process's, and its default of 128 KB is less than one long document.
    csv.field_size_limit(MAX_ROW_BYTES)
    table = _Table(file, name, delimiter)
    header: list[str] = []
    while (cells := table.next_row()) is not None:
        if cells and not header:
            header = _checked_header(cells, f"{name}:{table.first_line}")
        elif isinstance(cells, RowError):
            yield table.first_line, cells
        elif cells:
            yield table.first_line, _row(header, cells)
        if table.open_quote:
            yield from table.rest()


def _checked_header(cells: list[str] | RowError, place: str) -> list[str]:
    if isinstance(cells, RowError):
        raise DataError(f"{place}: the header cannot be read: {cells}")
    twice = [cell for cell, count in Counter(cells).items() if count > 1]
    if twice:
        raise DataError(f"{place}: column {min(twice)!r:.60} is given twice in the header")
    return cells


def _row(header: list[str], cells: list[str]) -> dict[str, Any] | RowError:
    if len(cells) != len(header):
        return RowError(f"expected {len(header)} cells, as in the header, found {len(cells)}")
    return dict(zip(header, cells, strict=True))


class _TooLong(Exception):
    """One row takes up more than is allowed; raised through the csv reader."""


class _Table:
    """The lines of a file, and the row that is being read from them."""

    def __init__(self, file: BinaryIO, name: str, delimiter: str) -> None:
        self._lines: Iterator[tuple[int, bytes | None]] = numbered_lines(file)
        self._name = name
        self._delimiter = self._sniffed(delimiter)
        self.first_line = 0
        self.open_quote = 0  # the line of a quote that is not closed; 0: there is none
        # Of the row: its last line, its bytes, its quotes, and why it cannot be used.
        self._last_line = self._num_bytes = self._num_quotes = 0
        self._wrong: RowError | None = None

    def _sniffed(self, delimiter: str) -> str:
        """What separates the cells of the header: `delimiter`, if it is there."""
        header = next((pair for pair in self._lines if pair[1] is None or pair[1].strip()), None)
        if header is None:
            return delimiter
        self._lines = itertools.chain([header], self._lines)
        text = (header[1] or b"").decode(errors="replace")
        if delimiter in text:
            return delimiter
        try:
            return csv.Sniffer().sniff(text, _DELIMITERS).delimiter
        except csv.Error:  # one column
            return delimiter

    def next_row(self) -> list[str] | RowError | None:
        """The cells of the next row; none of them for a blank line, and None at the end."""
        self.first_line = self._num_bytes = self._num_quotes = 0
        self._wrong = None
        try:
            lines = iter(self._line, None)
            cells = next(csv.reader(lines, delimiter=self._delimiter, strict=True), None)
        except csv.Error as error:
            return self._broken(f"not valid CSV ({error})")
        except _TooLong:
            return self._too_long()
        return self._wrong or cells

    def rest(self) -> Iterator[Numbered]:
        """The lines after a quote that is not closed, none of which is known to be a row."""
        reason = f"follows a quote that is opened at {self._name}:{self.open_quote} and not closed"
        for number in range(self.first_line + 1, self._last_line + 1):
            yield number, RowError(reason)
        for number, line in self._lines:
            if line is None or line.strip():
                yield number, RowError(reason)

    def _line(self) -> str | None:
        """The next line, as text; one that is not clean is noted, with its quotes intact."""
        line = self._take()
        if line == b"":
            return None
        if self._last_line > self.first_line and (
            self._num_bytes > MAX_ROW_BYTES or self._last_line - self.first_line >= _MAX_ROW_LINES
        ):
            raise _TooLong
        try:
            return decode_line(line)
        except RowError as error:
            self._wrong = self._wrong or RowError(f"line {self._last_line}, {error}")
            return line.decode(errors="replace").replace("\0", "?") if line else "-\n"

    def _take(self) -> bytes | None:
        """The bytes of the next line; empty at the end, and None for a line that is too long."""
        number, line = next(self._lines, (0, b""))
        if number:
            self.first_line = self.first_line or number
            self._last_line = number
            self._num_bytes += len(line or b"")
            self._num_quotes += (line or b"").count(b'"')
        return line

    def _broken(self, problem: str) -> RowError:
        """What to make of a row whose quotes are wrong."""
        if self.first_line == self._last_line and self._num_quotes % 2 == 0:
            return self._wrong or RowError(problem)  # all that it opens is closed on its line
        return self._opened(problem)

    def _too_long(self) -> RowError:
        while self._num_quotes % 2:
            if self._take() == b"":
                return self._opened("not valid CSV")
        return RowError(
            f"the row that begins here is longer than {MAX_ROW_BYTES:,} bytes or "
            f"{_MAX_ROW_LINES:,} lines"
        )

    def _opened(self, problem: str) -> RowError:
        self.open_quote = self.first_line
        return RowError(
            f"{problem}: a quote that is opened in this row is not closed, or not followed by the "
            "next cell; the file cannot be read from here on"
        )
