"""Runs beside each other: their settings, and their losses on the rows that both scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sft.dashboard.page_data.query import choice
from sft.errors import SFTError
from sft.report.comparison_table import sentence
from sft.runs import compare as pairs
from sft.runs.files import Cache, plain
from sft.runs.index import RunRow, run_row
from sft.runs.run_dir import RunDir

_FIELDS = ("n", "difference", "verdict", "notes")
_PAIRS = Cache(256)


def compare(runs: Sequence[RunDir], query: Mapping[str, str]) -> dict[str, Any]:
    """The rows of `runs`, all their settings, and the first run against each other one.

    Raises:
        ConfigError: the query asks for a `probe` that there is not.
    """
    probe = choice(query, "probe", pairs.PROBES)
    rows = [run_row(run) for run in runs]
    values: dict[str, Any] = plain(
        {
            "runs": [row.record() for row in rows],
            "config": _settings(rows),
            "paired": [_paired(runs[0], other, probe) for other in runs[1:]],
        }
    )
    return values


def _settings(rows: Sequence[RunRow]) -> list[dict[str, Any]]:
    """Every setting of any run; null where a run does not have it."""
    settings = []
    for key in dict.fromkeys(key for row in rows for key in row.config):
        values = [row.config.get(key) for row in rows]
        same = all(key in row.config and row.config[key] == values[0] for row in rows)
        settings.append({"key": key, "values": values, "same": same})
    return settings


def _paired(a: RunDir, b: RunDir, probe: str) -> dict[str, Any]:
    files = [path for run in (a, b) for path in (run.summary, run.scores, run.config)]
    return _PAIRS.get((a.path, b.path, probe), files, lambda: _tested(a, b, probe))


def _tested(a: RunDir, b: RunDir, probe: str) -> dict[str, Any]:
    names = {"a": a.path.resolve().name, "b": b.path.resolve().name, "probe": probe}
    try:
        result = pairs.compare(a.path, b.path, probe)
    except SFTError as error:
        return {**names, "error": str(error)}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return {**names, "error": f"records that are not as a run writes them ({error!r:.80})"}
    record = result.record()
    low, high = record["interval"] or (None, None)
    return {
        **names,
        **{name: record[name] for name in _FIELDS},
        "low": low,
        "high": high,
        "p": min(result.p_better, result.p_worse),
        "sentence": sentence(result),
    }
