"""A trace: what a run recorded, small enough to be kept, and enough to judge it again.

Numbers have six significant digits. Words are replaced by made-up ones of the same length,
equal words by equal ones: openings and repetition stay what they were, and nobody's data is kept.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sft.guards.base import Finding, GuardSettings
from sft.guards.history import History, Table

Trace = dict[str, Any]

SUFFIX = ".json.gz"
_DIGITS = 6
_KEPT_METRICS = ("step", "epoch", "loss", "accuracy", "learning_rate", "grad_norm")
_TEXTS = ("prompt", "answer", "reference", "text", "label", "opener", "words")


def from_history(records: History, findings: Iterable[Finding]) -> Trace:
    """The part of a trace that the records of a run make up, and what its guards said."""
    return {
        "settings": asdict(records.settings),
        "metrics": [_metrics(record) for record in records.metrics],
        "tables": {probe: _table(table) for probe, table in records.tables.items()},
        "samples": [_veiled(dict(sample)) for sample in records.samples],
        "preflight": _veiled(dict(records.preflight)),
        "verdicts": [[f.step, f.guard, f.signal, f.verdict] for f in findings],
    }


def to_history(trace: Trace) -> History:
    """The records as the guards see them."""
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
        GuardSettings(**trace["settings"]),
        trace["metrics"],
        tables,
        trace["samples"],
        trace["preflight"],
    )


def write(path: Path, trace: Trace) -> None:
    """Write it whole or not at all; equal traces are equal files."""
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
    return [read(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]


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
    return {"steps": list(table.steps), "ids": [short(i) for i in table.ids], "columns": columns}


def rounded_rows(rows: np.ndarray) -> list[list[float | None]]:
    """`[num_looks, num_examples]` as lists, NaN as None."""
    result: list[list[float | None]] = rounded(rows.tolist())
    return result


def short(name: str) -> str:
    """An example's id without the folder its file lay in."""
    return name.rpartition("/")[2]


def _veiled(value: Any, name: str = "") -> Any:
    """The same tree with all texts veiled, ids shortened and numbers rounded."""
    match value:
        case Mapping():
            return {_key(key, name): _veiled(each, str(key)) for key, each in value.items()}
        case list() | tuple():
            return [_veiled(each, name) for each in value]
        case str():
            return veil(value) if name in _TEXTS or name == "slices" else short(value)
        case _:
            return rounded(value)


def _key(key: Any, name: str) -> str:
    return short(str(key)) if name in ("p_values", "slices") else str(key)


def veil(text: str) -> str:
    """`text` with made-up words for words; digits, punctuation and capitals stay."""
    return re.sub(r"[^\W\d_]+", lambda found: _made_up(found.group()), text)


def _made_up(word: str) -> str:
    digest = hashlib.sha256(word.lower().encode()).digest()
    letters = "".join(chr(ord("a") + byte % 26) for byte in digest)
    made = (letters * (len(word) // len(letters) + 1))[: len(word)]
    return made.capitalize() if word[0].isupper() else made
