"""Runs beside each other: their settings, and their losses on the rows that both scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sft.dashboard.page_data.query import choice
from sft.errors import SFTError
from sft.report.comparison_table import sentence
from sft.runs.compare import PROBES, Comparison, compare
from sft.runs.files import Cache
from sft.runs.index import RunRow, run_row
from sft.runs.run_dir import RunDir

_HELD = Cache(256)


def comparison(runs: Sequence[RunDir], query: Mapping[str, str]) -> dict[str, Any]:
    """The rows of `runs`, all their settings, and the first run against each other one.

    Raises:
        ConfigError: `probe` is none.
    """
    probe = choice(query, "probe", PROBES)
    rows = [run_row(run) for run in runs]
    return {
        "runs": [row.record() for row in rows],
        "config": _settings(rows),
        "paired": [_paired(runs[0], other, probe) for other in runs[1:]],
    }


def _settings(rows: Sequence[RunRow]) -> list[dict[str, Any]]:
    """Every setting of any run; null where a run does not have it."""
    keys = dict.fromkeys(key for row in rows for key in row.config)
    found = []
    for key in keys:
        values = [row.config.get(key) for row in rows]
        same = all(key in row.config and row.config[key] == values[0] for row in rows)
        found.append({"key": key, "values": values, "same": same})
    return found


def _paired(a: RunDir, b: RunDir, probe: str) -> dict[str, Any]:
    files = [path for run in (a, b) for path in (run.summary, run.scores, run.config)]
    found: dict[str, Any] = _HELD.get((a.path, b.path, probe), files, lambda: _tested(a, b, probe))
    return found


def _tested(a: RunDir, b: RunDir, probe: str) -> dict[str, Any]:
    names = {"a": a.path.resolve().name, "b": b.path.resolve().name, "probe": probe}
    try:
        found = compare(a.path, b.path, probe)
    except SFTError as error:
        return {**names, "error": str(error)}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return {**names, "error": f"records that are not as a run writes them ({error!r:.80})"}
    return {**names, **_fields(found)}


def _fields(found: Comparison) -> dict[str, Any]:
    low, high = found.interval
    bounded = math.isfinite(low) and math.isfinite(high)
    p = min(found.p_better, found.p_worse)
    return {
        "n": found.n,
        "difference": found.difference,
        "low": low if bounded else None,
        "high": high if bounded else None,
        "p": p,
        "verdict": found.verdict,
        "sentence": sentence(found),
        "notes": found.notes,
    }
