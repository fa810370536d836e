"""The verdicts of the guards and what to watch, as the report shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sft.guards.base import SEVERITY, Finding, verdicts
from sft.guards.judge import GUARDS
from sft.runs.files import Record, objects, plain, whole
from sft.runs.history import history_of, newest
from sft.runs.run_records import RunRecords

# What each verdict is called, and the shape and colour that goes with it.
CALLED = {
    "pass": ("nothing seen", "good"),
    "watch": ("watch", "warning"),
    "alarm": ("alarm", "error"),
    "insufficient": ("too little data to tell", "info"),
    "not_measured": ("not measured", "info"),
}


def verdict_rows(records: RunRecords) -> list[dict[str, Any]]:
    """The verdict of every guard after the last evaluation, also of those that measured nothing."""
    findings, source = _usable(records.findings), "findings.jsonl"
    last, then = verdicts(newest(findings)), verdicts(_at(findings, records.chosen))
    if not findings:
        last, source = verdicts(_usable(objects(records.summary, "guards"))), "summary.json"
    names = dict.fromkeys([*GUARDS, *last])
    return [_row(records, name, last.get(name), then.get(name), source) for name in names]


def _row(
    records: RunRecords, guard: str, finding: Finding | None, then: Finding | None, source: str
) -> dict[str, Any]:
    """One guard; `at_chosen` is its verdict at the step of the model, where that is an earlier."""
    off = records.setting("guards.enabled") is False
    if finding is None:
        why = "Not measured: the guards were off." if off else "Not measured: it left no finding."
        finding = Finding(guard, "", "not_measured", 0, why)
    called, kind = CALLED[finding.verdict]
    earlier = then if then is not None and then.step != finding.step else None
    row = plain(finding.record())
    return {
        **row,
        "guard": guard.replace("_", " "),
        "called": called,
        "kind": kind,
        "action": records.setting(f"guards.{guard}"),
        "at_chosen": CALLED[earlier.verdict][0] if earlier else None,
        "chosen_step": earlier.step if earlier else None,
        "source": {
            "file": source,
            "where": f'guard "{guard}", signal "{finding.signal}", step {finding.step}',
        },
    }


def other_signals(records: RunRecords) -> list[dict[str, Any]]:
    """Signals of the last evaluation that are watched or alarm, but decide no verdict; worst
    first.
    """
    worrying = [
        finding
        for finding in newest(_usable(records.findings))
        if not finding.primary and finding.verdict in ("watch", "alarm")
    ]
    worrying.sort(key=lambda finding: -SEVERITY[finding.verdict])
    return [
        {**plain(f.record()), "called": CALLED[f.verdict][0], "kind": CALLED[f.verdict][1]}
        for f in worrying
    ]


def _at(findings: Sequence[Finding], step: int | None) -> list[Finding]:
    return [finding for finding in findings if finding.step == step]


def _usable(records: Sequence[Record]) -> list[Finding]:
    """Those that are findings: a file may hold anything."""
    usable = []
    for record in records:
        try:
            finding = Finding.from_record(record)
            known = finding.verdict in CALLED and whole(finding.step) is not None
            if known and all(isinstance(getattr(finding, name), str) for name in _TEXTS):
                usable.append(finding)
        except (TypeError, ValueError):
            continue
    return usable


_TEXTS = ("guard", "signal", "message", "unit", "remedy")


_STATUS = {
    "good": ("good", "good"),
    "neutral": ("neutral", "info"),
    "warning": ("watch", "warning"),
    "unknown": ("not known", "info"),
}


def indicator_rows(records: RunRecords) -> list[dict[str, Any]]:
    """What to watch: from the summary, else judged again from the records.

    Raises:
        SFTError, ValueError, KeyError: the records are not those of a run.
    """
    rows: list[Record] = objects(records.summary, "indicators")
    source = "summary.json"
    if not rows and records.evals:
        from sft.guards.indicators import indicators

        source = "metrics.jsonl and scores.jsonl"
        rows = [asdict(indicator) for indicator in indicators(history_of(records.run))]
    result = []
    for row in rows:
        status = str(row.get("status"))
        called, kind = _STATUS.get(status, _STATUS["unknown"])
        texts = {name: str(row.get(name) or "") for name in ("name", "message", "evidence")}
        where = {"file": source, "where": "indicators"}
        result.append({**texts, "status": status, "called": called, "kind": kind, "source": where})
    return result
