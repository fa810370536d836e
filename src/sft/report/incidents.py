"""What happened on the way: attempts, interruptions, warnings and failures, with their times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sft.runs.files import Record, number, whole
from sft.runs.run_records import RunRecords
from sft.runs.state import seconds_of
from sft.texts.numbers import span

MOST = 200
_TOLD = ("started", "resumed", "watch", "alarm", "stopped", "interrupted", "failed", "finished")
_KINDS = {"error": "error", "warning": "warning"}


def incidents(records: RunRecords) -> dict[str, Any]:
    """Events that a reader of the result should know of, oldest first; the newest 200 of them."""
    events = records.events
    told = [event for event in events if _is_told(event)]
    rows = [_row(event) for event in told[-MOST:]]
    counts = Counter(str(event.get("kind")) for event in events)
    return {
        "recorded": bool(events),
        "rows": rows,
        "left_out": len(told) - len(rows),
        "attempts": counts["started"],
        "resumes": counts["resumed"],
        "interruptions": counts["interrupted"],
        "failures": counts["failed"],
        "began": _time(events[0]) if events else "",
        "ended": _time(events[-1]) if events else "",
        "elapsed": span(_elapsed(events)) if events else "",
        "source": {"file": "events.jsonl", "where": f"kinds {', '.join(_TOLD)}, and warnings"},
    }


def _is_told(event: Record) -> bool:
    return event.get("kind") in _TOLD or event.get("level") in _KINDS


def _row(event: Record) -> dict[str, Any]:
    kind = str(event.get("kind", ""))
    mark = _KINDS.get(str(event.get("level")), "info")
    mark = {"alarm": "error", "watch": "warning", "finished": "good"}.get(kind, mark)
    return {
        "time": _time(event),
        "kind": kind,
        "mark": mark,
        "step": whole(event.get("step")),
        "text": str(event.get("text") or ""),
    }


def _time(event: Record) -> str:
    """`2026-03-01 12:00:05 UTC`; what it says where that is no time."""
    text = str(event.get("time") or "")
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return text[:40]


def _elapsed(events: Sequence[Record]) -> float | None:
    """Seconds from the first event to the last, pauses between attempts included."""
    ends = [seconds_of(event) for event in (events[0], events[-1])]
    if ends[0] is None or ends[1] is None or ends[1] < ends[0]:
        return None
    return ends[1] - ends[0]


def training_seconds(records: RunRecords) -> float | None:
    """Seconds spent in steps, as the last step record says."""
    return number(records.last.get("seconds"))
