"""Rows of JSON lines and JSON documents, each with its line, read strictly.

Values are taken as they are in the file: nothing is filled in or re-encoded. What Python's
`json` lets pass although it has no clear meaning (a key given twice, NaN, half of a surrogate
pair) makes a row unusable.
"""

from __future__ import annotations

import codecs
import io
import json
import math
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn

from sft.data.lines import decode_line, not_utf8, numbered_lines
from sft.data.problems import RowError, describe, listing
from sft.errors import DataError

MAX_DEPTH = 100

# A line number from 1, and the row's values or the reason why it cannot be used.
Numbered = tuple[int, dict[str, Any] | RowError]

_WHITESPACE = re.compile(r"[ \t\r\n]*")
_FORBIDDEN = re.compile("[\x00\ud800-\udfff]")
_FORBIDDEN_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
# Bytes that are not UTF-8, as `surrogateescape` decodes them.
_WRONG_BYTE = re.compile("[\udc80-\udcff]")


class _Decoder:
    """Decodes one value, and notes what `json` would let pass.

    A note, not an exception: the end of the value is needed to find the next one.
    """

    def __init__(self) -> None:
        self._problem = ""
        self._json = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_constant=self._constant,
            parse_int=self._int,
            parse_float=self._float,
        )

    def decode(self, text: str, start: int) -> tuple[Any, int]:
        """The value that begins at `start`, or a `RowError` in its place, and its end.

        Raises `JSONDecodeError` or `RecursionError` when the end cannot be known.
        """
        self._problem = ""
        value, end = self._json.raw_decode(text, start)
        if self._problem:
            return RowError(self._problem), end
        brackets = text.count("{", start, end) + text.count("[", start, end)
        if brackets > MAX_DEPTH or _FORBIDDEN_ESCAPE.search(text, start, end):
            try:
                check_text(value)
            except RowError as error:
                return error, end
        return value, end

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            self._problem = f"key {twice!r:.40} is given twice in one object"
        return values

    def _constant(self, name: str) -> None:
        self._problem = f"{name} is not a JSON number"

    def _int(self, digits: str) -> int:
        try:
            return int(digits)
        except ValueError:  # more digits than Python converts
            self._problem = f"a number of {len(digits):,} digits is too large"
            return 0

    def _float(self, digits: str) -> float:
        number = float(digits)
        if math.isinf(number):
            self._problem = f"the number {digits:.40} is too large"
        return number


def check_text(value: Any, field: str = "", depth: int = 0) -> None:
    """Raise `RowError` for NUL, half a surrogate pair or too deep nesting within `value`."""
    if depth > MAX_DEPTH:
        raise RowError(f"nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, str):
        found = _FORBIDDEN.search(value)
        if found:
            what = "a NUL character" if found[0] == "\0" else f"half a surrogate pair {found[0]!r}"
            raise RowError(f"{field or 'a key'}: holds {what}, which is not text")
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key, "", depth)
            check_text(item, f"{field}.{key:.40}" if field else f"{key:.40}", depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check_text(item, f"{field}[{index}]", depth + 1)


def loads(text: str) -> Any:
    """Decode JSON text that is inside a row, such as its `tools`; raises `RowError`."""
    start = _skip(text, 0)
    try:
        value, end = _Decoder().decode(text, start)
    except json.JSONDecodeError as error:
        raise RowError(f"column {error.pos + 1}: not valid JSON ({error.msg})") from None
    except RecursionError:
        raise RowError(f"nested more than {MAX_DEPTH} levels deep") from None
    if isinstance(value, RowError):
        raise value
    if _skip(text, end) != len(text):
        raise RowError(f"column {end + 1}: more than one JSON value")
    return value


def json_lines(file: BinaryIO) -> Iterator[Numbered]:
    """The rows of a file with one JSON object per line; blank lines are passed over."""
    for number, line in numbered_lines(file):
        if line is None or line.strip():
            try:
                yield number, _object(loads(decode_line(line).rstrip("\r\n")))
            except RowError as error:
                yield number, _torn(line) or error


def _torn(line: bytes | None) -> RowError | None:
    """The better reason when writing the file stopped inside this, its last, line."""
    if line is None or line.endswith(b"\n") or not line.lstrip().startswith(b"{"):
        return None
    if line.rstrip().endswith(b"}"):
        return None
    return RowError("torn last line: the file ends before the closing brace of this row")


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RowError(f"expected an object, found {describe(value)}")
    return value


def json_document(data: bytes, name: str) -> Iterator[Numbered]:
    """The rows of an array of objects, or of an object that holds one list.

    JSON lines under the name of a document are common, and read as such.
    """
    data = data.removeprefix(codecs.BOM_UTF8)
    if not data.strip():
        return
    first, _, rest = data.strip().partition(b"\n")
    is_object = first.startswith(b"{") and first.rstrip().endswith(b"}")
    if is_object and rest.lstrip().startswith(b"{"):
        yield from json_lines(io.BytesIO(data))
        return
    cursor = _Cursor(data.decode(errors="surrogateescape"), name)
    if cursor.peek() == "{":
        yield from _Cursor(cursor.text, name, _only_list(cursor)).elements()
        return
    yield from cursor.elements()
    if cursor.peek():
        cursor.fail("expected the end of the file")


def _only_list(cursor: _Cursor) -> int:
    """Where the one list within the top-level object begins."""
    starts: dict[str, int] = {}
    mark = "{"
    while mark != "}":
        cursor.take(mark)
        if cursor.peek() == "}":
            break
        key = cursor.value()
        cursor.take(":")
        if cursor.peek() == "[":
            starts[str(key)] = cursor.position
        cursor.value()
        mark = cursor.peek() or ","
    cursor.take("}")
    if cursor.peek():
        cursor.fail("expected the end of the file")
    if len(starts) != 1:
        found = f"{len(starts)} lists" + (f" ({listing(starts)})" if starts else "")
        raise DataError(
            f"{cursor.name}: expected an array of objects, or an object that holds one list; "
            f"found an object with {found}"
        )
    return next(iter(starts.values()))


class _Cursor:
    """A place in a JSON document that knows its line."""

    def __init__(self, text: str, name: str, position: int = 0) -> None:
        self.text = text
        self.name = name
        self.position = position
        self._line = 1
        self._counted = 0
        self._decoder = _Decoder()

    def elements(self) -> Iterator[Numbered]:
        """The elements of the list that begins here."""
        mark = "["
        while mark != "]":
            self.take(mark)
            if self.peek() == "]" and mark == "[":
                break
            line = self._count_lines()
            yield line, self._row()
            mark = "]" if self.peek() == "]" else ","
        self.take("]")

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        self.position = _skip(self.text, self.position)
        return self.text[self.position : self.position + 1]

    def take(self, mark: str) -> None:
        """Go past `mark`, which must come next."""
        if self.peek() != mark:
            self.fail(f"expected {mark!r}, found {self.peek() or 'the end of the file'!r}")
        self.position += 1

    def value(self) -> Any:
        """Go past the value that comes next; it, or a `RowError` in its place."""
        self.peek()
        try:
            value, self.position = self._decoder.decode(self.text, self.position)
        except json.JSONDecodeError as error:
            self.position = error.pos
            self.fail(error.msg)
        except RecursionError:
            self.fail(f"nested more than {MAX_DEPTH} levels deep")
        return value

    def fail(self, problem: str) -> NoReturn:
        """Raise `DataError`: where a broken row ends is a guess, so the file is refused."""
        place = f"{self.name}:{self._count_lines()}:{self._column(self.position)}"
        raise DataError(f"{place}: not valid JSON ({problem}), so the file cannot be read")

    def _row(self) -> dict[str, Any] | RowError:
        start = self.position
        value = self.value()
        wrong = _WRONG_BYTE.search(self.text, start, self.position)
        try:
            if wrong:
                line = self._line + self.text.count("\n", start, wrong.start())
                byte = ord(wrong[0]) - 0xDC00
                reason = not_utf8(self._column(wrong.start()), byte)
                raise RowError(f"line {line}, {reason}")
            if isinstance(value, RowError):
                raise value
            return _object(value)
        except RowError as error:
            return error

    def _count_lines(self) -> int:
        self._line += self.text.count("\n", self._counted, self.position)
        self._counted = self.position
        return self._line

    def _column(self, position: int) -> int:
        return position - self.text.rfind("\n", 0, position)


def _skip(text: str, position: int) -> int:
    space = _WHITESPACE.match(text, position)
    return space.end() if space else position
