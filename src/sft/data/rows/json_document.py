"""Rows of a JSON document, which is read in pieces and never is in memory as a whole.

A document is an array of objects, or an object that holds one list. The end of a value is found
by its brackets and quotes. Where a row is broken so that its end is a guess, the file is refused.
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
# Where these are wrong, the text that they are in still ends with its quote.
_WITHIN_TEXT = ("Invalid control character", "Invalid \\escape", "Invalid \\uXXXX escape")
_MARK = re.compile(r'\\.|["\[\]{}]', re.DOTALL)
_BARE = re.compile(r"[^\s,:\[\]{}\"]*")  # a number or a word such as `true`


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
        first = cursor.peek()
        key = _key_of_the_list(cursor) if first == "{" else None
    if not first:
        return
    with open_file() as file:
        cursor = _Cursor(file, name)
        for number, _ in enumerate(cursor.keys() if key is not None else ()):
            if number == key:
                break
            cursor.value()
        for _ in cursor.items("[", "]"):
            line = cursor.line
            yield line, cursor.row()
        if key is None:
            cursor.end()


def _is_json_lines(open_file: Open) -> bool:
    with open_file() as file:
        lines = (line for _, line in numbered_lines(file) if line is None or line.strip())
        first, second = next(lines, None) or b"", next(lines, None) or b""
    is_object = first.startswith(b"{") and first.rstrip().endswith(b"}")
    return is_object and second.lstrip().startswith(b"{")


def _key_of_the_list(cursor: _Cursor) -> int:
    """The number of the key, from 0, that has the one list within the top-level object."""
    lists: dict[int, str] = {}
    for index, key in enumerate(cursor.keys()):
        if cursor.peek() == "[":
            lists[index] = key
            for _ in cursor.items("[", "]"):
                cursor.value()
        else:
            cursor.value()
    cursor.end()
    if len(lists) != 1:
        names = f" ({listing(dict.fromkeys(lists.values()))})" if lists else ""
        raise DataError(
            f"{cursor.name}: expected an array of objects, or an object that holds one list; "
            f"found an object with {len(lists)} lists{names}"
        )
    return next(iter(lists))


class _Cursor:
    """A place in a JSON document, with its `line`; only the text around it is in memory."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self.line = self._column = 1
        self._file = file
        self._utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._decoder = Decoder()
        self._text = ""
        self._position = 0
        self._read()
        self._text = self._text.removeprefix("\ufeff")

    def keys(self) -> Iterator[str]:
        """The keys of the object that begins here; the value must be passed in between."""
        for _ in self.items("{", "}"):
            key = self.value()
            self._take(":")
            yield str(key)

    def items(self, opening: str, closing: str) -> Iterator[None]:
        """Once for each item of the list or object here, which must be passed in between."""
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
        while True:
            self._go(skip_space(self._text, self._position))
            if self._position < len(self._text) or not self._read():
                return self._text[self._position : self._position + 1]

    def end(self) -> None:
        """Raise `DataError` when there is more than the value that was read."""
        if self.peek():
            self._fail("expected the end of the file", self.line, self._column)

    def row(self) -> dict[str, Any] | RowError:
        """Go past the value that comes next, which must be an object."""
        value = self.value()
        try:
            return value if isinstance(value, RowError) else as_object(value)
        except RowError as error:
            return error

    def value(self) -> Any:
        """Go past the value that comes next; it, or a `RowError` in its place.

        Raises:
            DataError: it is broken so that its end is a guess.
        """
        self.peek()
        line, column = self.line, self._column
        text, is_whole = self._pass_value()
        if text is None:
            if not is_whole:
                self._fail("what begins here has no end", line, column)
            return RowError(f"longer than {MAX_ROW_BYTES:,} bytes")
        try:
            value, end = self._decoder.decode(text, 0)
        except RecursionError:
            self._fail(f"nested more than {MAX_DEPTH} levels deep", line, column)
        except json.JSONDecodeError as error:
            place = _after(line, column, text[: error.pos])
            if not (is_whole and error.msg.startswith(_WITHIN_TEXT)):
                self._fail(error.msg, *place)
            nul = text[error.pos : error.pos + 1] == "\0"
            problem = "NUL byte" if nul else f"not valid JSON ({error.msg})"
            return RowError(f"line {place[0]}, column {place[1]}: {problem}")
        if end < len(text):
            self._fail(f"expected ',', found {text[end]!r}", *_after(line, column, text[:end]))
        if not isinstance(value, RowError) and (wrong := _WRONG_BYTE.search(text)):
            line, column = _after(line, column, text[: wrong.start()])
            return RowError(f"line {line}, {not_utf8(column, ord(wrong[0]) - 0xDC00)}")
        return value

    def _pass_value(self) -> tuple[str | None, bool]:
        """Go past a value; its text, or None where that is too long, and whether it has an end."""
        if self._text[self._position : self._position + 1] not in tuple('"[{'):
            return self._pass_bare(), True
        depth, in_string, is_long = 0, False, False
        seen = self._position
        while True:
            for match in _MARK.finditer(self._text, seen):
                seen = match.end()
                if match[0] == '"':
                    in_string = not in_string
                elif not in_string and len(match[0]) == 1:
                    depth += 1 if match[0] in "[{" else -1
                if depth <= 0 and not in_string:
                    text = self._go(seen)
                    return (None if is_long or len(text) > MAX_ROW_BYTES else text), True
            # A backslash at the end of what is read belongs to the character after it.
            seen = len(self._text) - (self._text.endswith("\\") and seen < len(self._text))
            if seen - self._position > MAX_ROW_BYTES:
                is_long = True
                self._go(seen)
            seen -= self._position
            if not self._read():
                return (None if is_long else self._text), False

    def _pass_bare(self) -> str:
        while True:
            match = _BARE.match(self._text, self._position)
            end = match.end() if match else self._position
            if end < len(self._text) or end - self._position > _CHUNK_BYTES or not self._read():
                return self._go(end)

    def _take(self, mark: str) -> None:
        if self.peek() != mark:
            character = self.peek() or "the end of the file"
            self._fail(f"expected {mark!r}, found {character!r}", self.line, self._column)
        self._go(self._position + 1)

    def _go(self, position: int) -> str:
        """Move on to `position`, and return the text up to it."""
        passed = self._text[self._position : position]
        self.line, self._column = _after(self.line, self._column, passed)
        self._position = position
        return passed

    def _read(self) -> bool:
        """Read one piece more; False at the end of the file."""
        data = self._file.read(_CHUNK_BYTES)
        self._text = self._text[self._position :] + self._utf8.decode(data, final=not data)
        self._position = 0
        return bool(data)

    def _fail(self, problem: str, line: int, column: int) -> NoReturn:
        raise DataError(
            f"{self.name}:{line}:{column}: not valid JSON ({problem}), so the file cannot be read"
        )


def _after(line: int, column: int, text: str) -> tuple[int, int]:
    """Line and column behind a text that begins at `line` and `column`."""
    newline = text.rfind("\n")
    return line + text.count("\n"), len(text) - newline if newline >= 0 else column + len(text)
