"""What the guards say and said, and examples from the records that show what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sft.dashboard.page_data.evidence import evidence
from sft.errors import SFTError
from sft.runs.files import Cache, Record, identity, number, section, whole
from sft.runs.index import last_findings, verdict_records
from sft.runs.jsonl import each_record
from sft.runs.run_dir import RunDir
from sft.runs.series import thinned

_ACTIONS = ("off", "warn", "stop", "restore_best")
_EVAL_SETTINGS = ("every", "early_stopping", "margin", "patience")
_MOST_POINTS = 400
_HELD = Cache(16)


def guards(run: RunDir, query: Mapping[str, str]) -> dict[str, Any]:
    """Verdicts, every signal over time, the findings of the last evaluation, evidence and
    settings.
    """
    sources = [run.findings, run.summary, run.config, run.scores, run.samples, run.preflight]
    sources.append(run.examples)
    found: dict[str, Any] = _HELD.get(run.path, sources, lambda: _read(run))
    return found


def _read(run: RunDir) -> dict[str, Any]:
    try:
        config = section(identity(run), "config")
    except SFTError:
        config = {}
    chosen, evals = section(config, "guards"), section(config, "eval")
    return {
        "verdicts": verdict_records(run),
        "signals": _signals(each_record(run.findings)),
        "findings": last_findings(run),
        "evidence": evidence(run),
        "settings": {name: value for name, value in chosen.items() if value not in _ACTIONS}
        | {f"eval.{name}": evals[name] for name in _EVAL_SETTINGS if name in evals},
        "actions": {name: value for name, value in chosen.items() if _is_action(name, value)},
    }


def _is_action(name: str, value: Any) -> bool:
    return value in _ACTIONS and name != "blend"


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
    for signal in signals.values():
        signal["points"] = _fewer(signal["points"])
    return signals


def _fewer(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that a chart can show: no peak is lost."""
    values = [point["statistic"] or 0.0 for point in points]
    return [points[i] for i in thinned(np.array(values), _MOST_POINTS).tolist()]


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
