"""What a Parquet file decodes to, by the headers of its pages, without decoding a page.

The footer of a file may claim anything. The header of a page must be right, because decoding
fails when it is not: it says how many bytes the page has uncompressed, and how many values.
Headers are structs in Thrift's compact protocol; see `parquet.thrift` of apache/parquet-format.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

MAX_COLUMNS = 1_000
# A header holds statistics, which can be two long values.
_MAX_HEADER_BYTES = 1_000_000
_USUAL_HEADER_BYTES = 512
_MAX_NESTING = 16
_MAX_PAGES = 1_000_000
# Encodings that store lengths, or what differs from the value before, on their own.
_DELTA_LENGTH, _DELTA_BYTE_ARRAY = 6, 7
# In `PageHeader`: uncompressed and compressed size, and the headers of the kinds of page.
_UNCOMPRESSED, _COMPRESSED, _DATA, _DICTIONARY, _DATA_2 = 2, 3, 5, 7, 8


@dataclass(slots=True)
class Column:
    """One leaf column, over all row groups.

    `num_bytes` is what its pages decode to at least, in bytes, and `max_page_bytes` the
    largest of them; `fixed_bytes` is the size of a value, where all have the same.
    """

    path: str
    is_bytes: bool
    is_nested: bool
    fixed_bytes: int = 0
    has_dictionary: bool = False
    encodings: set[int] = field(default_factory=set)
    num_bytes: int = 0
    max_page_bytes: int = 0
    _pages: int = field(default=0, repr=False)

    @property
    def is_dictionary(self) -> bool:
        """Whether Arrow can keep the column in its dictionary form."""
        return self.is_bytes and not self.encodings & {_DELTA_LENGTH, _DELTA_BYTE_ARRAY}

    @property
    def can_repeat(self) -> bool:
        """Whether a value can be long although nothing but its page is."""
        return not self.is_dictionary and (
            self.has_dictionary or _DELTA_BYTE_ARRAY in self.encodings
        )

    def add(self, header: dict[int, Any]) -> None:
        """Count one page. Raises `OSError` when its header is not one."""
        self._pages += 1
        kinds = [header[kind] for kind in (_DATA, _DICTIONARY, _DATA_2) if kind in header]
        num_values = sum(_number(kind, 1) for kind in kinds if isinstance(kind, dict))
        # Each value has a level or an index besides, of four bytes when decoded.
        size = max(_number(header, _UNCOMPRESSED), num_values * max(4, self.fixed_bytes))
        self.num_bytes += size
        self.max_page_bytes = max(self.max_page_bytes, size)
        self.has_dictionary = self.has_dictionary or _DICTIONARY in header
        for kind, place in ((_DATA, 2), (_DATA_2, 4)):
            if isinstance(header.get(kind), dict):
                self.encodings.add(_number(header[kind], place))
        if self._pages > _MAX_PAGES:
            raise OSError(f"column {self.path}: more than {_MAX_PAGES:,} pages")


def read_columns(file: BinaryIO, metadata: Any, size: int) -> list[Column]:
    """The leaf columns of a file of `size` bytes, as all of its page headers describe them.

    Raises:
        OSError: a page or its header is not where, or not what, it must be.
    """
    if metadata.num_columns > MAX_COLUMNS:
        raise OSError(f"it has {metadata.num_columns:,} columns, more than {MAX_COLUMNS:,}")
    columns = [_column(metadata.schema.column(index)) for index in range(metadata.num_columns)]
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index, column in enumerate(columns):
            for header in _headers(file, row_group.column(index), size):
                column.add(header)
    return columns


def _column(schema: Any) -> Column:
    is_fixed = schema.physical_type == "FIXED_LEN_BYTE_ARRAY"
    return Column(
        path=schema.path,
        is_bytes=schema.physical_type == "BYTE_ARRAY",
        is_nested=schema.max_repetition_level > 0,
        fixed_bytes=schema.length if is_fixed else 0,
    )


def _headers(file: BinaryIO, chunk: Any, size: int) -> Iterator[dict[int, Any]]:
    """The header of each page of a column in a row group."""
    if chunk.num_values == 0:  # then there need not be a page
        return
    position = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < (chunk.dictionary_page_offset or 0) < position:
        position = chunk.dictionary_page_offset
    end = position + chunk.total_compressed_size
    if position < 0 or end > size or end < position:
        raise OSError(f"column {chunk.path_in_schema}: its place is outside of the file")
    while position < end:
        header, length = _header(file, position)
        compressed = _number(header, _COMPRESSED)
        if position + length + compressed > end:
            raise OSError(f"column {chunk.path_in_schema}: a page is longer than its column")
        yield header
        position += length + compressed


def _header(file: BinaryIO, position: int) -> tuple[dict[int, Any], int]:
    """The struct at `position`, and its length in bytes."""
    for most in (_USUAL_HEADER_BYTES, _MAX_HEADER_BYTES):
        file.seek(position)
        stream = io.BytesIO(file.read(most))
        try:
            return _struct(stream, 0), stream.tell()
        except EOFError:
            continue
    raise OSError("a page header does not end")


def _number(struct: dict[int, Any], name: int) -> int:
    value = struct.get(name, 0)
    if not isinstance(value, int) or value < 0:
        raise OSError("a page header holds a size that is not one")
    return value


def _struct(stream: BinaryIO, depth: int) -> dict[int, Any]:
    """Values by field number; of texts and lists only that they are there."""
    if depth > _MAX_NESTING:
        raise OSError("a page header is nested too deeply")
    fields: dict[int, Any] = {}
    number = 0
    while (head := _byte(stream)) != 0:
        delta, kind = head >> 4, head & 15
        number = number + delta if delta else _signed(stream)
        fields[number] = _value(stream, kind, depth)
    return fields


def _value(stream: BinaryIO, kind: int, depth: int) -> Any:
    if kind in (1, 2):  # true and false are in the type itself
        return kind == 1
    if kind == 3:
        return _byte(stream)
    if kind in (4, 5, 6):
        return _signed(stream)
    if kind == 7:
        return _skip(stream, 8)
    if kind == 8:
        return _skip(stream, _varint(stream))
    if kind == 12:
        return _struct(stream, depth + 1)
    raise OSError(f"a page header holds a value of type {kind}")


def _skip(stream: BinaryIO, length: int) -> None:
    if length > _MAX_HEADER_BYTES:
        raise OSError("a page header holds a value that is too long")
    if len(stream.read(length)) < length:
        raise EOFError


def _byte(stream: BinaryIO) -> int:
    data = stream.read(1)
    if not data:
        raise EOFError
    return data[0]


def _varint(stream: BinaryIO) -> int:
    """An unsigned number, seven bits a byte, the lowest first."""
    value = 0
    for shift in range(0, 70, 7):
        byte = _byte(stream)
        value |= (byte & 127) << shift
        if byte < 128:
            return value
    raise OSError("a page header holds a number that does not end")


def _signed(stream: BinaryIO) -> int:
    """A number in zigzag: 0, -1, 1, -2, ... are 0, 1, 2, 3, ..."""
    value = _varint(stream)
    return (value >> 1) ^ -(value & 1)
