"""Rows of JSON lines, each with its line, read strictly.

Values are taken as they are in the file: nothing is filled in or re-encoded. What Python's
`json` lets pass although it has no clear meaning (a key given twice, NaN, half of a surrogate
pair) makes a row unusable.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from sft.data.rows.lines import Numbered, decode_line, numbered_lines
from sft.data.rows.problems import RowError, describe

MAX_DEPTH = 100

_WHITESPACE = re.compile(r"[ \t\r\n]*")
_FORBIDDEN = re.compile("[\x00\ud800-\udfff]")
_FORBIDDEN_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


class Decoder:
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
            counts = Counter(key for key, _ in pairs)
            twice = next(key for key, count in counts.items() if count > 1)
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
        clean = value.isascii() and "\0" not in value  # a hundred times faster than the search
        if not clean and (match := _FORBIDDEN.search(value)):
            what = "a NUL character" if match[0] == "\0" else f"half a surrogate pair {match[0]!r}"
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
    start = skip_space(text, 0)
    try:
        value, end = Decoder().decode(text, start)
    except json.JSONDecodeError as error:
        raise RowError(f"column {error.pos + 1}: not valid JSON ({error.msg})") from None
    except RecursionError:
        raise RowError(f"nested more than {MAX_DEPTH} levels deep") from None
    if isinstance(value, RowError):
        raise value
    if skip_space(text, end) != len(text):
        raise RowError(f"column {end + 1}: more than one JSON value")
    return value


def json_lines(file: BinaryIO) -> Iterator[Numbered]:
    """The rows of a file with one JSON object per line; blank lines are passed over."""
    for number, line in numbered_lines(file):
        if line is None or line.strip():
            try:
                yield number, as_object(loads(decode_line(line).rstrip("\r\n")))
            except RowError as error:
                yield number, _torn(line) or error


def _torn(line: bytes | None) -> RowError | None:
    """The better reason when writing the file stopped inside this, its last, line."""
    if line is None or line.endswith(b"\n") or not line.lstrip().startswith(b"{"):
        return None
    if line.rstrip().endswith(b"}"):
        return None
    return RowError("torn last line: the file ends before the closing brace of this row")


def as_object(value: Any) -> dict[str, Any]:
    """`value`, which must be an object: only that is a row."""
    if not isinstance(value, dict):
        raise RowError(f"expected an object, found {describe(value)}")
    return value


def skip_space(text: str, position: int) -> int:
    """Where the white space at `position` ends."""
    space = _WHITESPACE.match(text, position)
    return space.end() if space else position
