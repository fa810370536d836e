"""What the guards say and said, and examples from the records that show what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sft.dashboard.page_data.evidence import evidence
from sft.runs.files import Cache, Record, identity, number, readable, section, whole
from sft.runs.index import last_findings, verdict_records
from sft.runs.jsonl import each_record
from sft.runs.run_dir import RunDir
from sft.runs.series import thinned

_ACTIONS = ("off", "warn", "stop", "restore_best")
_EVAL_SETTINGS = ("every", "early_stopping", "margin", "patience")
_MOST_POINTS = 400
_GUARDS = Cache(16)


def guards(run: RunDir, query: Mapping[str, str]) -> dict[str, Any]:
    """Verdicts, every signal over time, the findings of the last evaluation, evidence and
    settings.
    """
    sources = [run.findings, run.summary, run.config, run.scores, run.samples, run.preflight]
    return _GUARDS.get(run.path, [*sources, run.examples], lambda: _read(run))


def _read(run: RunDir) -> dict[str, Any]:
    config = section(readable(identity, run), "config")
    chosen, evals = section(config, "guards"), section(config, "eval")
    return {
        "verdicts": verdict_records(run),
        "signals": _signals(each_record(run.findings)),
        "findings": last_findings(run),
        "evidence": evidence(run),
        "settings": {name: value for name, value in chosen.items() if value not in _ACTIONS}
        | {f"eval.{name}": evals[name] for name in _EVAL_SETTINGS if name in evals},
        "actions": {
            name: value for name, value in chosen.items() if value in _ACTIONS and name != "blend"
        },
    }


def _signals(findings: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """By `guard.signal`, the finding of each evaluation as a point."""
    signals: dict[str, dict[str, Any]] = {}
    for record in findings:
        name = f"{record.get('guard')}.{record.get('signal')}"
        signal = signals.setdefault(
            name, {"unit": "", "primary": bool(record.get("primary", True)), "points": []}
        )
        signal["unit"] = signal["unit"] or str(record.get("unit") or "")
        signal["points"].append(_point(record))
    for signal in signals.values():  # those that a chart can show: no peak is lost
        points = signal["points"]
        values = np.array([point["statistic"] or 0.0 for point in points])
        signal["points"] = [points[i] for i in thinned(values, _MOST_POINTS).tolist()]
    return signals


def _point(record: Record) -> dict[str, Any]:
    ends = record.get("interval")
    low, high = ends if isinstance(ends, list) and len(ends) == 2 else (None, None)
    return {
        "step": whole(record.get("step")),
        "statistic": number(record.get("statistic")),
        "low": number(low),
        "high": number(high),
        "threshold": number(record.get("threshold")),
        "mde": number(record.get("mde")),
        "verdict": record.get("verdict"),
        "message": str(record.get("message") or ""),
    }
