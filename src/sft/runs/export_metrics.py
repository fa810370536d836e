"""`sft export-metrics`: the records of a run as one table, for a spreadsheet or for pandas.

One row per record; what a record does not have is empty. Needs no torch.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft.disk import write_file
from sft.errors import ConfigError, did_you_mean
from sft.runs.evaluations import is_eval
from sft.runs.metrics import METRICS
from sft.runs.run_dir import RunDir
from sft.runs.store import read_records

ENDINGS = (".csv", ".parquet")
# What a spreadsheet takes for a formula when a cell begins with it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_LARGEST_INT = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Exported:
    """A table that was written."""

    out: Path
    num_rows: int
    columns: list[str]

    def account(self) -> str:
        """For the terminal."""
        return f"{self.num_rows:,} rows, {len(self.columns)} columns: {self.out}"


def export_metrics(
    run: str | Path, out: str | Path, *, scores: bool = False, force: bool = False
) -> Exported:
    """Write the records of `run` to `out`, a CSV or Parquet file that is whole or not there.

    Each row of metrics says in the column `record` whether it is of a `step`, a `evaluation` or the
    `end`. With `scores`, those of single examples instead.

    Raises:
        ConfigError: no such run, nothing recorded yet, or `out` cannot be used.
        DataError: a file of records is damaged.
        DiskError: `out` cannot be written.
    """
    folder, target = RunDir.find(run), _target(Path(out), force)
    source = folder.scores if scores else folder.metrics
    records = read_records(source)
    if not records:
        raise ConfigError(f"{source}: nothing was recorded yet, so there is nothing to export")
    rows = [flat(record) for record in records]
    if not scores:
        rows = [{"record": kind(record), **row} for record, row in zip(records, rows, strict=True)]
    columns = _columns(rows)
    data = {name: [row.get(name) for row in rows] for name in columns}
    content = _csv(data) if target.suffix.lower() == ".csv" else _parquet(data)
    write_file(target, content)
    return Exported(target, len(rows), columns)


def kind(record: Mapping[str, Any]) -> str:
    """`step`, `evaluation`, or `end` for what is scored when the run is over."""
    if "loss" in record:
        return "step"
    return "evaluation" if is_eval(record) else "end"


def flat(record: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """`{"val_loss_by_source": {"a": 1.0}}` as `{"val_loss_by_source/a": 1.0}`; lists as JSON."""
    row: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            row |= flat(value, f"{above}{name}/")
        else:
            row[above + name] = json.dumps(value) if isinstance(value, list) else value
    return row


def _target(out: Path, force: bool) -> Path:
    if out.suffix.lower() not in ENDINGS:
        near = did_you_mean(out.suffix.lower(), ENDINGS) or " Use one of these."
        raise ConfigError(f"--out {out}: expected a name that ends in .csv or .parquet.{near}")
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder; give the name of a file")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}")
    if out.exists() and not force:
        raise ConfigError(f"--out {out}: is there already; choose another name, or add --force")
    return out


def _columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """All names: known metrics in the order of their list, then others as they come."""
    seen = dict.fromkeys(name for row in rows for name in row)
    order = {name: place for place, name in enumerate(("record", *METRICS))}
    return sorted(seen, key=lambda name: order.get(name.partition("/")[0], len(order)))


def _csv(data: Mapping[str, Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_harmless(name) for name in data])
    for row in zip(*data.values(), strict=True):
        writer.writerow([_cell(value) for value in row])
    return text.getvalue().encode("utf-8", "backslashreplace")


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return _harmless(value) if isinstance(value, str) else value


def _harmless(text: str) -> str:
    """The text with a leading apostrophe where a spreadsheet would run it."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _parquet(data: Mapping[str, Sequence[Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table({name: pa.array(_alike(column)) for name, column in data.items()}), sink
    )
    return bytes(sink.getvalue())


def _alike(column: Sequence[Any]) -> list[Any]:
    """The column with values of one type: numbers, truth values, or else text."""
    there = [value for value in column if value is not None]
    if all(isinstance(value, bool) for value in there):
        return list(column)
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in there):
        whole = all(isinstance(value, int) and abs(value) <= _LARGEST_INT for value in there)
        return [value if whole or value is None else float(value) for value in column]
    return [None if value is None else _text(value) for value in column]


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "backslashreplace").decode()  # a lone surrogate is no UTF-8
