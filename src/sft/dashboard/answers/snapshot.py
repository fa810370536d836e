"""How a run stands now: the head of its page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sft.dashboard.answers.live_signs import signs_of
from sft.dashboard.cursor import Cursor, line_end
from sft.errors import SFTError
from sft.records.record import METRICS
from sft.report.files import Record, all_records, identity, number, section, stamp, whole
from sft.report.index import events_of, run_id, verdict_records
from sft.report.measured import best_of, looks_and_offset, objective_of
from sft.report.state import RunState, run_state, summary_of, tail
from sft.report.time_left import NUM_STEPS, time_left
from sft.run_dir import RunDir

MARKS = (
    "checkpoint",
    "resumed",
    "look",
    "watch",
    "alarm",
    "stopped",
    "failed",
    "interrupted",
    "finished",
)
_MOST_MARKS = 2000
_MOST_LOOKS = 1000  # the first one, which is of the base model, and the newest
_TABLE = {
    metric.name: {"unit": metric.unit, "meaning": metric.meaning, "watch": metric.watch}
    for metric in METRICS.values()
}


def snapshot(run: RunDir, query: Mapping[str, str]) -> dict[str, Any]:
    """Everything the page shows at first; from `cursor` on it follows the stream of records."""
    # The places first: what is written from here on comes with the stream.
    ends = line_end(run.findings), line_end(run.samples)
    looks, read = looks_and_offset(run)
    events = events_of(run)
    with events.lock:
        events.update()
        marks = _marks(events.records) if events.total else _found_marks(run, looks)
        attempts, told = len(events.starts) or None, events.offset
    state = run_state(run)
    steps = [record for record in tail(run.metrics) if "loss" in record]
    last = steps[-1] if steps else {}
    return {
        "id": run_id(run.path),
        "name": run.path.resolve().name,
        "path": str(run.path),
        "state": asdict(state),
        "num_steps": state.num_steps,
        "step": state.step,
        "epoch": number((last or (looks[-1] if looks else {})).get("epoch")),
        **_time_left(run, state, steps, looks),
        "elapsed_seconds": _elapsed(last, looks),
        "tokens_per_second": _speed(steps),
        "attempts": attempts,
        "latest": {**_numbers(looks[-1] if looks else {}), **_numbers(last)},
        "looks": looks if len(looks) <= _MOST_LOOKS else [looks[0], *looks[1 - _MOST_LOOKS :]],
        "marks": marks,
        "metrics": _TABLE,
        "signs": signs_of(run),
        "verdicts": verdict_records(run),
        "best_step": best_of(run, looks)[0],
        "objective": objective_of(looks),
        "has_report": stamp(run.report) is not None,
        "cursor": str(Cursor(read, told, *ends)),
    }


def _time_left(
    run: RunDir, state: RunState, steps: Sequence[Record], looks: Sequence[Record]
) -> dict[str, float | None]:
    found = None
    if state.state in ("training", "measuring"):
        try:
            every = whole(section(identity(run), "config", "looks").get("every"))
        except SFTError:
            every = None
        found = time_left(steps, looks, state.num_steps, every)
    return {
        "eta_seconds": None if found is None else found.seconds,
        "eta_low": None if found is None else found.low,
        "eta_high": None if found is None else found.high,
    }


def _elapsed(last: Record, looks: Sequence[Record]) -> float | None:
    """Time in steps and looks; None where it was not recorded, as in another trainer."""
    if last and number(last.get("seconds")) is None:
        return None
    times = [number(last.get("seconds")), *(number(look.get("look_seconds")) for look in looks)]
    known = [time for time in times if time is not None]
    return sum(known) if known else None


def _speed(steps: Sequence[Record]) -> float | None:
    """Median of the last steps."""
    speeds = [number(step.get("tokens_per_second")) for step in steps[-NUM_STEPS:]]
    known = [speed for speed in speeds if speed is not None]
    return statistics.median(known) if known else None


def _numbers(record: Record) -> dict[str, float | None]:
    """The metrics of a record; those by source as `name.source`."""
    found: dict[str, float | None] = {}
    for name, value in record.items():
        parts = (
            {f"{name}.{key}": part for key, part in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
        for key, part in parts.items():
            if part is None or number(part) is not None:
                found[key] = part
    return found


# ------------------------------------------------------------------ marks on the time axis


def _marks(events: Sequence[Record]) -> list[dict[str, Any]]:
    kept = [event for event in events if event.get("kind") in MARKS]
    names = ("kind", "step", "text", "level", "time")
    return [{name: event.get(name) for name in names} for event in kept[-_MOST_MARKS:]]


def _found_marks(run: RunDir, looks: Sequence[Record]) -> list[dict[str, Any]]:
    """Of a run without events: what else its folder tells."""
    marks = [_mark("look", whole(look.get("step")), "") for look in looks]
    told: set[tuple[str, str, str]] = set()
    for record in all_records(run.findings):
        key = tuple(str(record.get(name)) for name in ("guard", "signal", "verdict"))
        if key not in told and key[2] in ("watch", "alarm") and record.get("primary", True):
            told.add((key[0], key[1], key[2]))
            text = f"{key[0]}: {record.get('message')}"
            level = "error" if key[2] == "alarm" else "warning"
            marks.append(_mark(key[2], whole(record.get("step")), text, level))
    summary = summary_of(run)
    if summary:
        end = whole(summary.get("steps"))
        if summary.get("stopped"):
            marks.append(_mark("stopped", end, str(summary["stopped"]), "warning"))
        marks.append(_mark("finished", end, str(summary.get("verified") or "")))
    return sorted(marks[-_MOST_MARKS:], key=lambda mark: (mark["step"] is None, mark["step"] or 0))


def _mark(kind: str, step: int | None, text: str, level: str = "info") -> dict[str, Any]:
    return {"kind": kind, "step": step, "text": text, "level": level, "time": None}
