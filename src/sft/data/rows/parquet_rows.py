"""Rows of a Parquet file, decoded a few at a time whatever the file claims about itself.

What the footer says a file decodes to is checked first, and what it does decode to is counted
batch by batch. A text that is stored once and used by a million rows is decoded once: texts stay
in Arrow's dictionary form until a row is made, and what they add up to is counted before.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft.data.rows.files import MAX_RATIO, decoded_limit, open_regular
from sft.data.rows.json_rows import check_text
from sft.data.rows.lines import MAX_ROW_BYTES, Numbered
from sft.data.rows.problems import RowError
from sft.errors import DataError

_BATCH_ROWS = 256
_BATCH_BYTES = 64_000_000
# What Python needs for a row in any case: a dictionary, and a few objects in it.
_ROW_BYTES = 200
_MAX_COLUMNS = 1_000
_MAX_FIXED_BYTES = 4_096
# Encodings that Arrow cannot keep in dictionary form: they store lengths, or what differs from
# the value before, on their own.
_DELTAS = {"DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"}
_SHARED = {"DELTA_BYTE_ARRAY", "PLAIN_DICTIONARY", "RLE_DICTIONARY"}


@dataclass(frozen=True, slots=True)
class _Column:
    """One leaf column over all row groups, by what the footer says of it.

    Arrow can keep one that `is_dictionary` in its dictionary form. The values of one that `repeats`
    can add up to more than is stored, outside of a dictionary. `num_bytes` is what it decodes to at
    least, and `longest` what one value can have at most. `fixed_bytes` is the size of a value,
    where all have the same.
    """

    path: str
    is_dictionary: bool
    repeats: bool
    is_nested: bool
    fixed_bytes: int
    num_bytes: int
    longest: int

    @classmethod
    def of(cls, metadata: Any, index: int) -> _Column:
        """Column number `index` of the file that `metadata` is the footer of."""
        groups = range(metadata.num_row_groups)
        chunks = [metadata.row_group(group).column(index) for group in groups]
        schema = metadata.schema.column(index)
        is_bytes = schema.physical_type == "BYTE_ARRAY"
        encodings = {name for chunk in chunks for name in chunk.encodings}
        fixed = schema.length if schema.physical_type == "FIXED_LEN_BYTE_ARRAY" else 0
        # Each value has a level or an index besides, of four bytes when decoded.
        sizes = [max(c.total_uncompressed_size, c.num_values * max(4, fixed)) for c in chunks]
        return cls(
            path=schema.path,
            is_dictionary=is_bytes and not encodings & _DELTAS,
            repeats=is_bytes and bool(encodings & _DELTAS) and bool(encodings & _SHARED),
            is_nested=schema.max_repetition_level > 0,
            fixed_bytes=fixed,
            num_bytes=sum(sizes),
            longest=max(sizes, default=0),
        )


def parquet_rows(path: Path) -> Iterator[Numbered]:
    """Rows of a Parquet file; a row's line is its number.

    Raises:
        DataError: the file is damaged, or decodes to far more than its size.
    """
    import pyarrow

    with open_regular(path) as file:
        size = file.seek(0, 2)
        try:
            yield from _rows(file, path, size)
        # Arrow's own, and what making Python values of them can raise.
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError, MemoryError) as error:
            raise DataError(f"{path}: not a readable Parquet file ({first_line(error)})") from None


def _rows(file: Any, path: Path, size: int) -> Iterator[Numbered]:
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_metadata(file)
    if metadata.num_columns > _MAX_COLUMNS:
        raise OSError(f"it has {metadata.num_columns:,} columns, more than {_MAX_COLUMNS:,}")
    columns = [_Column.of(metadata, index) for index in range(metadata.num_columns)]
    _refuse_bombs(columns, path, size)
    texts = [column.path for column in columns if column.is_dictionary]
    numbers = itertools.count(1)
    decoded = 0
    with pyarrow.parquet.ParquetFile(
        file, metadata=metadata, read_dictionary=texts, buffer_size=1 << 20
    ) as table:
        names = table.schema_arrow.names
        if twice := {name for name in names if names.count(name) > 1}:
            raise DataError(f"{path}: column {min(twice)!r:.60} is given twice")
        for batch in table.iter_batches(_batch_rows(columns, metadata), use_threads=False):
            batch_bytes = sum(map(decoded_bytes, batch.columns))
            for index in range(batch.num_rows):
                row = batch.slice(index, 1) if batch.num_rows > 1 else batch
                row_bytes = 0
                if batch_bytes > MAX_ROW_BYTES:
                    row_bytes = sum(map(decoded_bytes, row.columns))
                decoded += max(row_bytes, batch_bytes // batch.num_rows) + _ROW_BYTES
                number = next(numbers)
                if decoded > decoded_limit(size):
                    raise DataError(_bomb(path, size, f"up to row {number:,}"))
                if row_bytes > MAX_ROW_BYTES:
                    yield number, RowError(f"longer than {MAX_ROW_BYTES:,} bytes")
                else:
                    yield number, _parquet_row(row)


def _refuse_bombs(columns: list[_Column], path: Path, size: int) -> None:
    """Before anything is decoded: what the footer itself says that the file decodes to."""
    for column in columns:
        if column.fixed_bytes > _MAX_FIXED_BYTES:
            raise DataError(
                f"{path}: column {column.path}: holds values of {column.fixed_bytes:,} bytes "
                f"each, and no text; leave the column out"
            )
        if column.is_nested and column.repeats:
            raise DataError(
                f"{path}: column {column.path}: texts within lists are encoded as differences "
                "(DELTA_BYTE_ARRAY), whose size cannot be told; write the file again without it"
            )
    if sum(column.num_bytes for column in columns) > decoded_limit(size):
        raise DataError(_bomb(path, size, "by its own metadata"))


def _bomb(path: Path, size: int, where: str) -> str:
    return (
        f"{path}: {size:,} bytes that decode to more than {decoded_limit(size) // 1_000_000:,} MB "
        f"({where}); text is not compressed more than {MAX_RATIO} times, so this is taken for a "
        "decompression bomb. If the file is right, write it as JSON lines"
    )


def _batch_rows(columns: list[_Column], metadata: Any) -> int:
    """Rows to decode at a time, so that they need about `_BATCH_BYTES` at most."""
    average = sum(column.num_bytes for column in columns) // max(metadata.num_rows, 1)
    longest = sum(column.longest if column.repeats else column.fixed_bytes for column in columns)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(int(average), longest, 1)))


def decoded_bytes(array: Any) -> int:
    """About how many bytes `array` has when every value in it is written out."""
    import pyarrow.compute
    import pyarrow.types as types

    kind = array.type
    if types.is_dictionary(kind):
        lengths = _lengths(array.dictionary)
        return int(pyarrow.compute.sum(lengths.take(array.indices)).as_py() or 0) + 4 * len(array)
    if types.is_struct(kind):
        return sum(decoded_bytes(part) for part in array.flatten())
    if types.is_map(kind):
        first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return sum(decoded_bytes(p.slice(first, last - first)) for p in (array.keys, array.items))
    if types.is_list(kind) or types.is_large_list(kind):
        return decoded_bytes(array.flatten()) + 4 * len(array)
    return int(array.nbytes)


def _lengths(values: Any) -> Any:
    """The bytes of each value in the dictionary of a column."""
    import pyarrow
    import pyarrow.compute
    import pyarrow.types as types

    sized = (types.is_string, types.is_binary, types.is_large_string, types.is_large_binary)
    if any(test(values.type) for test in sized):
        return pyarrow.compute.binary_length(values).cast("int64")
    return pyarrow.array([int(values.nbytes)] * len(values), "int64")


def _parquet_row(row: Any) -> dict[str, Any] | RowError:
    try:
        values = row.to_pylist()[0]
    except UnicodeDecodeError as error:
        return RowError(f"byte 0x{error.object[error.start]:02X} is not UTF-8")
    except (ValueError, OverflowError) as error:  # a date in the year 290,000, say
        return RowError(f"holds a value that cannot be read ({first_line(error)})")
    return arrow_row(values)


def arrow_row(values: dict[str, Any]) -> dict[str, Any] | RowError:
    """A row from Arrow without the keys that Arrow added.

    All structs of a column have the same keys there, so a key that one tool call has is null
    in every other. A column that is null stays: it says that the column exists.
    """
    try:
        check_text(values)
    except RowError as error:
        return error
    return {key: _without_nulls(value) for key, value in values.items()}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def first_line(error: Exception) -> str:
    """The type and the first line of an error of another package."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]:.300}" if lines else type(error).__name__
