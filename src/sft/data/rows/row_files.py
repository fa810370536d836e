"""Rows written to a JSONL, JSON, CSV or Parquet file, whole or not at all.

Rows come as a file of JSON lines, so that memory stays small and all columns are known before
the first row is written. Where a file has no place for lists, they are written as JSON text.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from sft.disk import TMP_PREFIX, sync_path

_BATCH_ROWS = 1_000
_TURNS = ("messages", "conversations")  # columns that are lists of objects with the same keys


def write_rows(lines: Path, out: Path) -> None:
    """Write the rows of `lines`, a file of JSON lines, to `out`, which is replaced if it is there.

    The ending of `out` is one of `WRITTEN`.
    """
    fresh = out.with_name(f"{TMP_PREFIX}{os.getpid()}-{out.name}")
    try:
        WRITTEN[out.suffix.lower()](lines, fresh)
        with open(fresh, "rb") as file:
            os.fsync(file.fileno())
        os.replace(fresh, out)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_path(out.parent)


def _rows(lines: Path) -> Iterator[dict[str, Any]]:
    with open(lines, encoding="utf-8", newline="\n") as file:
        for line in file:
            yield json.loads(line)


def _columns(lines: Path) -> list[str]:
    """All columns of the rows, in the order in which they first appear."""
    return list(dict.fromkeys(column for row in _rows(lines) for column in row))


def _write_jsonl(lines: Path, out: Path) -> None:
    shutil.copyfile(lines, out)


def _write_json(lines: Path, out: Path) -> None:
    with (
        open(lines, encoding="utf-8", newline="\n") as source,
        open(out, "w", encoding="utf-8", newline="\n") as file,
    ):
        for number, line in enumerate(source):
            file.write((",\n" if number else "[\n") + line.rstrip("\n"))
        file.write("\n]\n")


def _write_csv(lines: Path, out: Path) -> None:
    columns = _columns(lines)
    with open(out, "w", encoding="utf-8", newline="") as file:
        # All cells are quoted: a lone carriage return in one would else end its row.
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(columns)
        for row in _rows(lines):
            writer.writerow([_cell(row.get(column)) for column in columns])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _write_parquet(lines: Path, out: Path) -> None:
    """Lists of messages become lists of structs; what has other keys in each row, JSON text."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([(name, _arrow_type(lines, name)) for name in _columns(lines)])
    rows = _rows(lines)
    with pyarrow.parquet.ParquetWriter(out, schema) as writer:
        while batch := list(islice(rows, _BATCH_ROWS)):
            flat = [{name: _flat(name, value) for name, value in row.items()} for row in batch]
            writer.write_table(pyarrow.Table.from_pylist(flat, schema=schema))


def _arrow_type(lines: Path, column: str) -> Any:
    import pyarrow

    if column not in _TURNS:
        return pyarrow.string()
    turns = (turn for row in _rows(lines) for turn in row.get(column, ()))
    keys = dict.fromkeys(key for turn in turns for key in turn)
    weight = {"weight": pyarrow.float64()}
    return pyarrow.list_(pyarrow.struct([(k, weight.get(k, pyarrow.string())) for k in keys]))


def _flat(column: str, value: Any) -> Any:
    """A value without anything that a column of one type cannot hold."""
    if column not in _TURNS:
        return _cell(value)
    return [
        {key: item if key == "weight" else _cell(item) for key, item in turn.items()}
        for turn in value
    ]


WRITTEN: dict[str, Callable[[Path, Path], None]] = {
    ".jsonl": _write_jsonl,
    ".json": _write_json,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
