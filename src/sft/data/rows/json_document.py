"""Rows of a JSON document, which is read in pieces and never is in memory as a whole.

A document is an array of objects, or an object that holds one list. Where a row is broken so
that its end is a guess, the file is refused.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, NoReturn

from sft.data.rows.json_rows import MAX_DEPTH, Decoder, as_object, json_lines, skip_space
from sft.data.rows.lines import MAX_ROW_BYTES, Numbered, not_utf8, numbered_lines
from sft.data.rows.problems import RowError, listing
from sft.errors import DataError

Open = Callable[[], AbstractContextManager[BinaryIO]]

_CHUNK_BYTES = 1 << 20
# Bytes that are not UTF-8, as `surrogateescape` decodes them.
_WRONG_BYTE = re.compile("[\udc80-\udcff]")
# Closer to the end of what is read, an error may only mean that more must be read.
_NEAR_THE_END = 100
# Where these are wrong, the text that they are in still ends with its quote.
_WITHIN_TEXT = ("Invalid control character", "Invalid \\escape", "Invalid \\uXXXX escape")
_MARK = re.compile(r'\\.|["\[\]{}]', re.DOTALL)


def json_document(open_file: Open, name: str) -> Iterator[Numbered]:
    """The rows of the document that `open_file` opens, as often as it is called.

    JSON lines under the name of a document are common, and read as such.
    """
    if _is_json_lines(open_file):
        with open_file() as file:
            yield from json_lines(file)
        return
    with open_file() as file:
        cursor = _Cursor(file, name)
        mark = cursor.peek()
        index = _only_list(cursor) if mark == "{" else None
    if not mark:
        return
    with open_file() as file:
        cursor = _Cursor(file, name)
        if index is not None:
            cursor.enter_list(index)
        yield from cursor.elements()
        if index is None and cursor.peek():
            cursor.fail("expected the end of the file")


def _is_json_lines(open_file: Open) -> bool:
    with open_file() as file:
        lines = (line for _, line in numbered_lines(file) if line is None or line.strip())
        first, second = next(lines, None) or b"", next(lines, None) or b""
    is_object = first.startswith(b"{") and first.rstrip().endswith(b"}")
    return is_object and second.lstrip().startswith(b"{")


def _only_list(cursor: _Cursor) -> int:
    """The number of the key, from 0, that has the one list within the top-level object."""
    lists: dict[int, str] = {}
    for index, key in enumerate(cursor.keys()):
        if cursor.peek() == "[":
            lists[index] = key
        cursor.pass_value()
    if cursor.peek():
        cursor.fail("expected the end of the file")
    if len(lists) != 1:
        names = dict.fromkeys(lists.values())
        found = f"{len(lists)} lists" + (f" ({listing(names)})" if lists else "")
        raise DataError(
            f"{cursor.name}: expected an array of objects, or an object that holds one list; "
            f"found an object with {found}"
        )
    return next(iter(lists))


class _Cursor:
    """A place in a JSON document that knows its line; `text` is the piece around it."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self._file = file
        self._utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._decoder = Decoder()
        self._text = ""
        self._position = 0
        self._ended = False
        # Up to `_counted` in the text: the line, and how much of it is no longer in the text.
        self._line = 1
        self._counted = 0
        self._gone = 0
        self._start = 0  # of the last value
        self._fill(4)
        self._text = self._text.removeprefix("\ufeff")

    def elements(self) -> Iterator[Numbered]:
        """The elements of the list that begins here."""
        for _ in self._items("[", "]"):
            line = self._count_lines()
            yield line, self._row()

    def keys(self) -> Iterator[str]:
        """The keys of the object that begins here; the value must be passed in between."""
        for _ in self._items("{", "}"):
            key = self._value()
            self._take(":")
            yield str(key)

    def enter_list(self, index: int) -> None:
        """Go to the value of key number `index` of the object that begins here."""
        for number, _ in enumerate(self.keys()):
            if number == index:
                return
            self.pass_value()

    def _items(self, opening: str, closing: str) -> Iterator[None]:
        mark = opening
        while mark != closing:
            self._take(mark)
            if self.peek() == closing and mark == opening:
                break
            yield
            mark = closing if self.peek() == closing else ","
        self._take(closing)

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        self._position = skip_space(self._text, self._position)
        while self._position == len(self._text) and self._fill(_CHUNK_BYTES):
            self._position = skip_space(self._text, self._position)
        return self._text[self._position : self._position + 1]

    def pass_value(self) -> None:
        """Go past the value that comes next, a list by its elements."""
        if self.peek() == "[":
            for _ in self._items("[", "]"):
                self.pass_value()
        else:
            self._value()

    def fail(self, problem: str) -> NoReturn:
        """Raise `DataError`: where a broken row ends is a guess, so the file is refused."""
        column = self._column(self._position)
        place = f"{self.name}:{self._count_lines()}:{column}"
        raise DataError(f"{place}: not valid JSON ({problem}), so the file cannot be read")

    def _take(self, mark: str) -> None:
        if self.peek() != mark:
            self.fail(f"expected {mark!r}, found {self.peek() or 'the end of the file'!r}")
        self._position += 1

    def _value(self) -> Any:
        """Go past the value that comes next; it, or a `RowError` in its place."""
        self.peek()
        while True:
            start, size = self._position, len(self._text) - self._position
            try:
                value, end = self._decoder.decode(self._text, start)
            except RecursionError:
                self.fail(f"nested more than {MAX_DEPTH} levels deep")
            except json.JSONDecodeError as error:
                if self._ended or self._is_certain(error):
                    if error.msg.startswith(_WITHIN_TEXT):
                        return self._pass_by_marks(self._wrong_character(error))
                    self._position = error.pos
                    self.fail(error.msg)
            else:
                if end < len(self._text) or self._ended:
                    self._start, self._position = start, end
                    return _too_long() if end - start > MAX_ROW_BYTES else value
            if size > MAX_ROW_BYTES:
                return self._pass_by_marks(_too_long())
            self._fill(MAX_ROW_BYTES + _CHUNK_BYTES)

    def _is_certain(self, error: json.JSONDecodeError) -> bool:
        """Whether more text would not help."""
        if error.msg.startswith("Unterminated"):
            return False
        return error.pos + _NEAR_THE_END < len(self._text)

    def _wrong_character(self, error: json.JSONDecodeError) -> RowError:
        line = self._line + self._text.count("\n", self._counted, error.pos)
        nul = self._text[error.pos : error.pos + 1] == "\0"
        problem = "NUL byte" if nul else f"not valid JSON ({error.msg})"
        return RowError(f"line {line}, column {self._column(error.pos)}: {problem}")

    def _pass_by_marks(self, reason: RowError) -> RowError:
        """Go past a value that cannot be decoded, by its brackets and quotes."""
        place = f"{self.name}:{self._count_lines()}:{self._column(self._position)}"
        depth, in_string, begun = 0, False, False
        while True:
            seen = self._position
            for match in _MARK.finditer(self._text, self._position):
                seen = match.end()
                if match[0] == '"':
                    in_string = not in_string
                elif not in_string and len(match[0]) == 1:
                    depth += 1 if match[0] in "[{" else -1
                begun = True
                if depth <= 0 and not in_string:
                    self._start = self._position = seen
                    return reason
            cut = self._text.endswith("\\") and seen < len(self._text)
            self._position = len(self._text) - cut
            if not begun or not self._fill(_CHUNK_BYTES):
                raise DataError(
                    f"{place}: not valid JSON (what begins here has no end), so the file cannot "
                    "be read"
                )

    def _row(self) -> dict[str, Any] | RowError:
        value = self._value()
        wrong = _WRONG_BYTE.search(self._text, self._start, self._position)
        try:
            if isinstance(value, RowError):
                raise value
            if wrong:
                line = self._line + self._text.count("\n", self._counted, wrong.start())
                byte = ord(wrong[0]) - 0xDC00
                raise RowError(f"line {line}, {not_utf8(self._column(wrong.start()), byte)}")
            return as_object(value)
        except RowError as error:
            return error

    def _fill(self, wanted: int) -> bool:
        """Read on until `wanted` characters follow the position; False at the end."""
        self._count_lines()
        cut = self._position
        newline = self._text.rfind("\n", 0, cut)
        self._gone = cut - newline - 1 if newline >= 0 else self._gone + cut
        pieces = [self._text[cut:]]
        size = len(pieces[0])
        while size < wanted and not self._ended:
            data = self._file.read(_CHUNK_BYTES)
            pieces.append(self._utf8.decode(data, final=not data))
            size += len(pieces[-1])
            self._ended = not data
        self._text, self._position, self._counted = "".join(pieces), 0, 0
        return len(self._text) > len(pieces[0])

    def _count_lines(self) -> int:
        self._line += self._text.count("\n", self._counted, self._position)
        self._counted = self._position
        return self._line

    def _column(self, position: int) -> int:
        newline = self._text.rfind("\n", 0, position)
        return position - newline if newline >= 0 else position + self._gone + 1


def _too_long() -> RowError:
    return RowError(f"longer than {MAX_ROW_BYTES:,} bytes")
