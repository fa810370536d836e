"""Rows that a script holds in memory, kept in the run folder: ids in records lead to its files."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sft.data.rows.parquet_rows import arrow_row
from sft.data.rows.problems import RowError, describe
from sft.disk import TMP_PREFIX, disk_errors
from sft.errors import CheckpointError, ConfigError, DataError
from sft.runs.run_dir import RunDir

# A file, folder or hub data set id, or rows: a `datasets.Dataset`, or dictionaries.
Rows = str | Path | Iterable[Mapping[str, Any]]


def sources(name: str, rows: Rows | None, run: RunDir) -> list[str]:
    """What `data.<name>` of a config is for `rows`: nothing, a path, or that of a file of them.

    Raises:
        ConfigError, DataError: not rows, or a value in them that is not data.
        CheckpointError: the run folder already holds other rows of this name.
    """
    if rows is None:
        return []
    if isinstance(rows, str | Path):
        return [str(rows)]
    if isinstance(rows, Mapping):
        raise ConfigError(
            f"{name}: expected rows, found a dict; give one split of it: data['train']"
        )
    path = run.data / f"{name}.jsonl"
    fresh = path.with_name(f"{TMP_PREFIX}{path.name}")
    with disk_errors(path):
        run.data.mkdir(exist_ok=True)
        try:
            with open(fresh, "w", encoding="utf-8", newline="\n") as file:
                for number, row in enumerate(rows, start=1):
                    file.write(_line(name, number, row) + "\n")
            if path.exists() and not filecmp.cmp(fresh, path, shallow=False):
                raise CheckpointError(
                    f"{run.path}: this run was started with other rows of `{name}`; "
                    "choose another run folder, or delete it"
                )
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
    return [str(path)]


def _line(name: str, number: int, row: Any) -> str:
    if not isinstance(row, Mapping):
        raise ConfigError(f"{name}: expected rows (dictionaries), found {describe(row)} in them")
    values = dict(row)
    clean = arrow_row(values)
    # A row that is not clean text is written as it is: its reader says why it cannot be used.
    plain = values if isinstance(clean, RowError) else clean
    try:
        return json.dumps(plain)
    except (TypeError, ValueError):
        column, value = next((c, v) for c, v in plain.items() if not _is_json(v))
        raise DataError(
            f"{name}, row {number}: column {column!r} holds {describe(value)}, which is not JSON; "
            "leave that column out"
        ) from None


def _is_json(value: Any) -> bool:
    with suppress(TypeError, ValueError):
        json.dumps(value)
        return True
    return False
