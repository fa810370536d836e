"""What happened on the way: attempts, interruptions, warnings and failures, with their times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sft.runs.files import Record, whole
from sft.runs.run_records import RunRecords
from sft.runs.state import seconds_of
from sft.texts.numbers import span

MOST = 200
_LISTED = ("started", "resumed", "watch", "alarm", "stopped", "interrupted", "failed", "finished")
_KINDS = {"error": "error", "warning": "warning"}


def incidents(records: RunRecords) -> dict[str, Any]:
    """Events that a reader of the result should know of, oldest first; the newest 200 of them."""
    events = records.events
    listed = [e for e in events if e.get("kind") in _LISTED or e.get("level") in _KINDS]
    rows = [_row(event) for event in listed[-MOST:]]
    counts = Counter(str(event.get("kind")) for event in events)
    return {
        "recorded": bool(events),
        "rows": rows,
        "left_out": len(listed) - len(rows),
        "attempts": counts["started"],
        "resumes": counts["resumed"],
        "interruptions": counts["interrupted"],
        "failures": counts["failed"],
        "began": _time(events[0]) if events else "",
        "ended": _time(events[-1]) if events else "",
        "elapsed": span(_elapsed(events)) if events else "",
        "source": {"file": "events.jsonl", "where": f"kinds {', '.join(_LISTED)}, and warnings"},
    }


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
