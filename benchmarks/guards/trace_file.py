"""A trace: what a run recorded, small enough to be kept, and enough to judge it again.

Numbers have six significant digits, and no text of the data is kept (see veil.py). A trace is
only written where judging it again gives what the guards said in the run.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import veil

from sft.guards.base import Finding, GuardSettings
from sft.guards.history import History, Table
from sft.guards.judge import judge

Trace = dict[str, Any]

SUFFIX = ".json.gz"
_DIGITS = 6
_KEPT_METRICS = ("step", "epoch", "loss", "accuracy", "learning_rate", "grad_norm")


def from_history(records: History, findings: Iterable[Finding]) -> Trace:
    """The part of a trace that the records of a run make up, and what its guards said."""
    hide = veil.make_veil(veil.texts_of(records.samples, records.preflight))
    tables = {probe: _table(table) for probe, table in records.tables.items()}
    veil.token_columns(tables)
    return {
        "settings": asdict(records.settings),
        "metrics": [_metrics(record) for record in records.metrics],
        "tables": tables,
        "samples": veil.samples(records.samples, hide),
        "preflight": rounded(veil.preflight(records.preflight, hide)),
        "verdicts": said(findings),
    }


def said(findings: Iterable[Finding]) -> list[list[Any]]:
    """The verdicts of findings as a trace keeps them."""
    return [[f.step, f.guard, f.signal, f.verdict] for f in findings]


def replayed(trace: Trace) -> list[list[Any]]:
    """The verdicts that the records of a trace give, after every evaluation."""
    records = to_history(trace)
    return said(f for step in records.eval_steps for f in judge(records.at(step)))


def to_history(trace: Trace) -> History:
    """The records as the guards see them."""
    known = {field.name for field in fields(GuardSettings)}
    tables = {
        probe: Table(
            tuple(table["steps"]),
            tuple(table["ids"]),
            {
                name: np.array(rows, dtype=float)  # None becomes NaN
                for name, rows in table["columns"].items()
            },
        )
        for probe, table in trace["tables"].items()
    }
    return History(
        GuardSettings(**{k: v for k, v in trace["settings"].items() if k in known}),
        trace["metrics"],
        tables,
        trace["samples"],
        trace["preflight"],
    )


class Differs(Exception):
    """A trace does not give the verdicts of its run."""


def write(path: Path, trace: Trace) -> None:
    """Write it whole or not at all; equal traces are equal files.

    Raises:
        Differs: judged again it says something else; it is kept as `NAME.differs`.
    """
    again = replayed(trace)
    if again != trace["verdicts"]:
        kept = path.with_name(f"{path.name.removesuffix(SUFFIX)}.differs")
        _write(kept, trace)
        changed = [new for new in again if new not in trace["verdicts"]]
        raise Differs(f"{kept}: judged again the trace says {changed}")
    _write(path, trace)


def _write(path: Path, trace: Trace) -> None:
    data = json.dumps(trace, separators=(",", ":"), allow_nan=False).encode()
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.write_bytes(gzip.compress(data, 9, mtime=0))
    temporary.replace(path)


def read(path: Path) -> Trace:
    """The trace in a file."""
    trace: Trace = json.loads(gzip.decompress(path.read_bytes()))
    return trace


def read_all(folder: Path) -> list[Trace]:
    """All traces of a folder, by name."""
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    return [read(path) for path in paths if not path.name.startswith(".")]


def rounded(value: Any) -> Any:
    """The same tree with six significant digits; NaN and infinite numbers become None."""
    match value:
        case bool() | int() | str() | None:
            return value
        case float():
            return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
        case Mapping():
            return {str(key): rounded(each) for key, each in value.items()}
        case _:
            return [rounded(each) for each in value]


def _metrics(record: Mapping[str, Any]) -> dict[str, Any]:
    """Without clocks and counters, which no guard reads."""
    kept = {
        name: value
        for name, value in record.items()
        if name in _KEPT_METRICS
        or name.startswith(("val_", "usage_", "retain_", "train_probe_"))
        or name.endswith("_nonfinite")
    }
    return dict(rounded(kept))


def _table(table: Table) -> dict[str, Any]:
    columns = {
        name: [[int(v) if float(v).is_integer() else v for v in row] for row in rounded_rows(rows)]
        if np.isfinite(rows).all()
        else rounded_rows(rows)
        for name, rows in table.columns.items()
    }
    return {
        "steps": list(table.steps),
        "ids": [veil.short(i) for i in table.ids],
        "columns": columns,
    }


def rounded_rows(rows: np.ndarray) -> list[list[float | None]]:
    """`[num_evals, num_examples]` as lists, NaN as None."""
    result: list[list[float | None]] = rounded(rows.tolist())
    return result
