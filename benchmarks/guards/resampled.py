"""How often chance alone makes a guard alarm: clean runs judged again on rows drawn anew.

This is the false-alarm rate of the rows that one happened to hold out. It says nothing of other
training runs: for that there are the seeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cases import BY_ID
from outcome import first_alarms
from scipy import stats
from trace_file import Trace, to_history

import sft.guards
from sft.guards.history import History, Table
from sft.guards.judge import judge
from sft.guards.statistics import paired
from sft.guards.thresholds import MIN_EXAMPLES

PER_BATCH = 25  # replicates between two savings
P_VALUES = 50  # of each probe of each trace
_PROBES = ("val", "usage", "retain")


def guards_digest() -> str:
    """What the verdicts depend on: a digest of the guards' code and thresholds."""
    digest = hashlib.sha256()
    for path in sorted(Path(sft.guards.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def digest_of(trace: Trace) -> str:
    """What a trace's replicates are drawn from; its clocks and machine do not matter."""
    parts = (trace[name] for name in ("settings", "metrics", "tables", "samples", "preflight"))
    return hashlib.sha256(repr(list(parts)).encode()).hexdigest()[:16]


def replicate(records: History, number: int) -> History:
    """The history with the rows of each probe drawn anew; the same for the same number."""
    rng = np.random.default_rng([20260101, number])
    rows = {
        probe: rng.integers(0, len(table.ids), len(table.ids))
        for probe, table in sorted(records.tables.items())
    }
    tables = {probe: _drawn(records.tables[probe], index) for probe, index in rows.items()}
    preflight = dict(records.preflight)
    if preflight.get("usage") and "usage" in rows:
        preflight["usage"] = _usage(preflight["usage"], records.tables["usage"], rows["usage"])
    return replace(records, tables=tables, preflight=preflight)


def _drawn(table: Table, index: Any) -> Table:
    """With ids of their own, so that no row counts for its copies."""
    drawn = table.rows(index)
    return replace(drawn, ids=tuple(f"{name}#{i}" for i, name in enumerate(drawn.ids)))


def _usage(usage: Mapping[str, Any], table: Table, index: Any) -> dict[str, Any]:
    """Coverage and slices of the prompts that were drawn."""
    names = [(f"{table.ids[j]}#{i}", table.ids[j]) for i, j in enumerate(index)]
    return {
        **usage,
        **{
            part: {new: usage[part][old] for new, old in names if old in usage[part]}
            for part in ("p_values", "slices")
        },
    }


def alarms_of(trace: Trace, first: int, number: int) -> dict[str, list[str]]:
    """The replicates `first` to `first + number` that alarm, with the guards that should not.

    Every evaluation is judged, except that of the base model, after which nothing can alarm.
    """
    case, records = BY_ID[trace["case"]], to_history(trace)
    fine = {name.partition(".")[0] for name in (*case.expected, *case.allowed)}
    found = {}
    for i in range(first, first + number):
        drawn = replicate(records, i)
        evals = {step: judge(drawn.at(step)) for step in drawn.eval_steps if step > 0}
        if false := [guard for guard in first_alarms(evals) if guard not in fine]:
            found[str(i)] = false
    return found


def uniform(traces: list[Trace]) -> dict[str, Any]:
    """Are p values uniform where there is no effect? Changes on clean runs, centred, resampled.

    Kolmogorov and Smirnov's test; `below` are shares of p values below a level.
    """
    rng = np.random.default_rng(20260102)
    found = []
    for trace in traces:
        records = to_history(trace)
        for table in (records.table(name) for name in _PROBES):
            if table is not None and len(table.ids) >= MIN_EXAMPLES:
                change = table.loss[-1] - table.loss[0]
                change = change[np.isfinite(change)]
                centred = change - change.mean()
                drawn = centred[rng.integers(0, len(centred), (P_VALUES, len(centred)))]
                found += [paired(row).p for row in drawn]
    if not found:
        return {"n": 0}
    values = np.array(found)
    test = stats.kstest(values, "uniform")
    below = {str(level): float((values < level).mean()) for level in (0.05, 0.01, 0.001)}
    return {"n": len(found), "ks": float(test.statistic), "p": float(test.pvalue), "below": below}
