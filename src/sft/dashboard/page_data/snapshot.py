"""How a run stands now: the head of its page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sft.dashboard.cursor import Cursor, line_end
from sft.dashboard.page_data.live_indicators import indicators_of
from sft.runs.best_step import best_step
from sft.runs.evaluations import evals_and_offset, objective_of
from sft.runs.files import Record, identity, number, readable, section, stamp, whole
from sft.runs.index import events_of, run_id, verdict_records
from sft.runs.jsonl import each_record
from sft.runs.metrics import METRICS
from sft.runs.run_dir import RunDir
from sft.runs.state import RunState, run_state, step_seconds, summary_of, tail

MARKS = (
    "checkpoint",
    "resumed",
    "evaluation",
    "watch",
    "alarm",
    "stopped",
    "failed",
    "interrupted",
    "finished",
)
_MOST_MARKS = 2000
_NUM_STEPS, _FEWEST_STEPS = 20, 3  # that tell how fast a run is
_MOST_EVALS = 1000  # the first one, which is of the base model, and the newest
_SHOWN = ("unit", "meaning", "watch", "of", "format", "panel", "axis", "smooth", "better")


def metric_table() -> dict[str, dict[str, Any]]:
    """What the page needs to know of each metric to show it."""
    return {
        name: {field: getattr(metric, field) for field in _SHOWN}
        for name, metric in METRICS.items()
    }


def snapshot(run: RunDir, query: Mapping[str, str]) -> dict[str, Any]:
    """Everything the page shows at first; from `cursor` on it follows the stream of records."""
    # The places first: what is written from here on comes with the stream.
    ends = line_end(run.findings), line_end(run.samples)
    evals, read = evals_and_offset(run)
    events = events_of(run)
    with events.lock:
        marks = _marks(events.records) if events.total else _marks_without_events(run, evals)
        attempts, events_end = len(events.starts) or None, events.offset
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
        "epoch": number((last or (evals[-1] if evals else {})).get("epoch")),
        **_time_left(run, state, steps, evals),
        "elapsed_seconds": _elapsed(last, evals),
        "tokens_per_second": _speed(steps),
        "attempts": attempts,
        "latest": {**_numbers(evals[-1] if evals else {}), **_numbers(last)},
        "evaluations": evals
        if len(evals) <= _MOST_EVALS
        else [evals[0], *evals[1 - _MOST_EVALS :]],
        "marks": marks,
        "metrics": metric_table(),
        "indicators": indicators_of(run),
        "verdicts": verdict_records(run),
        "best_step": best_step(run, evals).step,
        "objective": objective_of(evals),
        "has_report": stamp(run.report) is not None,
        "cursor": str(Cursor(read, events_end, *ends)),
    }


def _time_left(
    run: RunDir, state: RunState, steps: Sequence[Record], evals: Sequence[Record]
) -> dict[str, float | None]:
    """Seconds until the last evaluation, and what it would be if all steps were fast, or slow.

    The median of the last 20 steps, and their 10 % and 90 % quantiles, times the steps left; and
    the mean time of an evaluation times those left. None before three steps, or where no step says
    how long it took.
    """
    names = ("eta_seconds", "eta_low", "eta_high")
    recent = step_seconds(steps[-_NUM_STEPS - 1 :])
    step, total = whole(steps[-1].get("step")) if steps else None, state.num_steps
    known = len(steps) >= _FEWEST_STEPS and bool(recent) and step is not None and total is not None
    if state.state not in ("training", "measuring") or not known:
        return dict.fromkeys(names)
    assert step is not None and total is not None
    every = whole(section(readable(identity, run), "config", "eval").get("every"))
    evaluated = step in {whole(evaluation.get("step")) for evaluation in evals}
    times = [t for evaluation in evals if (t := number(evaluation.get("eval_seconds"))) is not None]
    left = _evals_left(step, total, every or total, evaluated)
    aside = left * statistics.fmean(times) if times else 0.0
    ends = statistics.quantiles(recent, n=10, method="inclusive") if len(recent) > 1 else recent
    paces = (statistics.median(recent), ends[0], ends[-1])
    return {
        name: max(0, total - step) * pace + aside for name, pace in zip(names, paces, strict=True)
    }


def _evals_left(step: int, num_steps: int, every: int, evaluated: bool) -> int:
    """Evaluations to come after `step`; that of the step itself counts until it was `evaluated`."""
    first = step + 1 if evaluated or step == 0 else step
    due = num_steps // every - (first - 1) // every
    return max(0, due) + (num_steps % every != 0 and first <= num_steps)


def _elapsed(last: Record, evals: Sequence[Record]) -> float | None:
    """Time in steps and evaluations; None where it was not recorded, as in another trainer."""
    if last and number(last.get("seconds")) is None:
        return None
    times = [last.get("seconds"), *(evaluation.get("eval_seconds") for evaluation in evals)]
    known = [seconds for time in times if (seconds := number(time)) is not None]
    return sum(known) if known else None


def _speed(steps: Sequence[Record]) -> float | None:
    """Median of the last steps."""
    speeds = [number(step.get("tokens_per_second")) for step in steps[-_NUM_STEPS:]]
    known = [speed for speed in speeds if speed is not None]
    return statistics.median(known) if known else None


def _numbers(record: Record) -> dict[str, float | None]:
    """The metrics of a record; those by source as `name.source`."""
    numbers: dict[str, float | None] = {}
    for name, value in record.items():
        parts = (
            {f"{name}.{key}": part for key, part in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
        for key, part in parts.items():
            if part is None or number(part) is not None:
                numbers[key] = part
    return numbers


# ------------------------------------------------------------------ marks on the time axis


def _marks(events: Sequence[Record]) -> list[dict[str, Any]]:
    marks = [event for event in events if event.get("kind") in MARKS]
    names = ("kind", "step", "text", "level", "time")
    return [{name: event.get(name) for name in names} for event in marks[-_MOST_MARKS:]]


def _marks_without_events(run: RunDir, evals: Sequence[Record]) -> list[dict[str, Any]]:
    """Of a run without events: what else its folder tells."""
    marks = [_mark("evaluation", whole(evaluation.get("step")), "") for evaluation in evals]
    first: dict[tuple[str, ...], Record] = {}
    for record in each_record(run.findings):
        key = tuple(str(record.get(name)) for name in ("guard", "signal", "verdict"))
        if key[2] in ("watch", "alarm") and record.get("primary", True):
            first.setdefault(key, record)
    for (guard, _, verdict), record in first.items():
        level = "error" if verdict == "alarm" else "warning"
        text = f"{guard}: {record.get('message')}"
        marks.append(_mark(verdict, whole(record.get("step")), text, level))
    summary = summary_of(run)
    if summary:
        end = whole(summary.get("steps"))
        if summary.get("stopped"):
            marks.append(_mark("stopped", end, str(summary["stopped"]), "warning"))
        marks.append(_mark("finished", end, str(summary.get("verified") or "")))
    return sorted(marks[-_MOST_MARKS:], key=lambda mark: (mark["step"] is None, mark["step"] or 0))


def _mark(kind: str, step: int | None, text: str, level: str = "info") -> dict[str, Any]:
    return {"kind": kind, "step": step, "text": text, "level": level, "time": None}
