"""How far a tracker has come with a run: `trackers/<label>.json` in the run folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, Field

from sft.disk import write_json
from sft.runs.jsonl import Tail, each_record
from sft.runs.run_dir import RunDir
from sft.runs.state import seconds_of
from sft.trackers.base import numbers

BATCH = 500  # records handed over at once, so that memory is bounded


class _Metrics(BaseModel):
    last: dict[str, int] = {}  # kind of record -> the last step that was sent


class _Events(BaseModel):
    offset: int = Field(default=0, ge=0)


class _Saved(BaseModel):
    """The file of a position."""

    metrics: _Metrics = _Metrics()
    events: _Events = _Events()
    state: dict[str, Any] = {}
    ended: str | None = None


class Position:
    """A position in `metrics.jsonl` and `events.jsonl`, and what the tracker keeps for itself.

    A resumed run cuts `metrics.jsonl` back and writes it anew. So its position is the last step of
    each kind of record that was sent, and what comes up to it is read and left out.
    """

    def __init__(self, run: RunDir, label: str) -> None:
        self._run = run
        self._path = run.trackers / f"{label}.json"
        self._saved = _Saved()
        # It may hold anything: it only says where to go on, and all begins anew where it does not.
        with suppress(OSError, ValueError, RecursionError):
            self._saved = _Saved.model_validate_json(self._path.read_bytes())
        self.state, self.ended = self._saved.state, self._saved.ended
        self._last = dict(self._saved.metrics.last)
        self._events = Tail(run.events, self._saved.events.offset)
        self._first_moment = _first_moment(run)
        self._from_the_start()

    def _from_the_start(self) -> None:
        self._metrics = Tail(self._run.metrics)
        self._trained = self._evaluated = 0.0  # seconds up to the newest record

    def new_records(self) -> list[dict[str, Any]]:
        """At most `BATCH` records that were not sent: numbers by name, `step` and `time`."""
        while True:
            records = self._metrics.read(BATCH)
            if self._metrics.was_cut:
                self._from_the_start()
                continue
            timed = [self._timed(record) for record in records]
            new = [record for record in timed if record is not None]
            if new or not records:
                return new

    def new_events(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Batches of events that were not sent, with the offset at which each batch begins."""
        while True:
            start = self._events.offset
            events = self._events.read(BATCH)
            if not events:
                return
            yield start, events

    def back_to(self, start: int, count: int) -> None:
        """As if only `count` events after the offset `start` had been read."""
        self._events = Tail(self._run.events, start)
        self._events.read(count)

    def save(self, *, records: bool = True, ended: str | None = None) -> None:
        """All events read so far were sent, and all `records`; at the end, how the run `ended`."""
        if records:
            self._saved.ended, self._saved.metrics = ended, _Metrics(last=dict(self._last))
        self._saved.events, self._saved.state = _Events(offset=self._events.offset), self.state
        self._path.parent.mkdir(exist_ok=True)
        write_json(self._path, self._saved.model_dump())

    def _timed(self, record: Mapping[str, Any]) -> dict[str, Any] | None:
        """The numbers of a record with its time: the run's first moment, and what it ran since.

        So a record that is sent twice has the same time, and a pause leaves no gap. None for one
        that was sent.
        """
        values = numbers(record)
        self._trained = max(self._trained, _seconds(values, "seconds"))
        self._evaluated += _seconds(values, "eval_seconds")
        kind = "evaluation" if "eval_seconds" in record else "step" if "loss" in record else "other"
        step = record.get("step")
        if not isinstance(step, int) or step <= self._last.get(kind, -1):
            return None
        self._last[kind] = step
        if "loss" not in record and self._last.get("step", -1) >= step:
            values.pop("epoch", None)  # the record of the step has told it already
        moment = self._first_moment + self._trained + self._evaluated
        return {**values, "step": step, "time": moment}


def _first_moment(run: RunDir) -> float:
    """When the first attempt began; of an old run, when its config was written."""
    for event in each_record(run.events):
        if (moment := seconds_of(event)) is not None:
            return moment
    for path in (run.config, run.metrics):
        with suppress(OSError):
            return path.stat().st_mtime
    return time.time()


def _seconds(values: Mapping[str, float], name: str) -> float:
    """A duration; 0 where it is none that can be."""
    seconds = values.get(name, 0.0)
    return seconds if 0.0 <= seconds < 1e10 else 0.0
