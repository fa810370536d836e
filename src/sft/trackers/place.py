"""How far a tracker has come with a run: `trackers/<name>.json` in the run folder."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from sft.disk import write_json
from sft.errors import ConfigError
from sft.runs.run_dir import RunDir
from sft.runs.tail import Tail
from sft.trackers.base import numbers

BATCH = 500  # records handed over at once, so that memory is bounded


class Place:
    """A place in `metrics.jsonl` and `events.jsonl`, and what the tracker keeps for itself.

    A resumed run cuts `metrics.jsonl` back and writes it anew. So the place also holds the last
    step of each kind of record that was sent, and what comes up to it is left out.
    """

    def __init__(self, run: RunDir, name: str) -> None:
        self._path = run.trackers / f"{name}.json"
        self._kept = _read(self._path)
        metrics, events = _part(self._kept, "metrics"), _part(self._kept, "events")
        self.state = _part(self._kept, "state")
        self.ended = self._kept.get("ended")
        self._last = {k: v for k, v in _part(metrics, "last").items() if isinstance(v, int)}
        self._clock = _Clock.kept(metrics.get("clock"))
        self._run = run
        offset = _whole(metrics.get("offset"))
        if metrics.get("mark") != _mark(run.metrics, offset):
            offset = 0  # cut back and grown again; what was sent is told by the steps
        self._metrics = Tail(run.metrics, offset)
        self._events = Tail(run.events, _whole(events.get("offset")))

    def new_records(self) -> list[dict[str, Any]]:
        """At most `BATCH` records that were not sent: numbers by name, `step` and `time`."""
        while True:
            records = self._metrics.read(BATCH)
            if self._metrics.was_cut:
                self._metrics = Tail(self._run.metrics)
                continue
            new = [self._timed(record) for record in records if self._is_new(record)]
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

    def confirm(self, ended: str | None = None) -> None:
        """Keep: everything read so far was sent, at the end with how the run `ended`."""
        offset = self._metrics.offset
        self._kept["ended"] = ended
        self._kept["metrics"] = {
            "offset": offset,
            "mark": _mark(self._run.metrics, offset),
            "last": dict(self._last),
            "clock": self._clock and self._clock.values,
        }
        self.confirm_events()

    def confirm_events(self) -> None:
        """Keep: the events read so far were sent, and what the tracker wants to remember."""
        self._kept |= {"events": {"offset": self._events.offset}, "state": self.state}
        self._path.parent.mkdir(exist_ok=True)
        write_json(self._path, self._kept)

    def _is_new(self, record: Mapping[str, Any]) -> bool:
        kind = "evaluation" if "eval_seconds" in record else "step" if "loss" in record else "other"
        step = record.get("step")
        if not isinstance(step, int) or step <= self._last.get(kind, -1):
            return False
        self._last[kind] = step
        return True

    def _timed(self, record: Mapping[str, Any]) -> dict[str, Any]:
        if self._clock is None:
            self._clock = _Clock(_began(self._run))
        found = numbers(record)
        if "loss" not in record and self._last.get("step", -1) >= record["step"]:
            found.pop("epoch", None)  # the step that is looked at has told it already
        return {**found, "step": record["step"], "time": self._clock.time(found)}


class _Clock:
    """The time of a record, which has none: the run's first moment and the time it trained since.

    So a record that is sent twice has the same time, and a pause leaves no gap.
    """

    def __init__(self, began: float, seconds: float = 0.0, evals: float = 0.0) -> None:
        self._began, self._seconds, self._evals = began, seconds, evals

    @classmethod
    def kept(cls, values: Any) -> _Clock | None:
        """From what `values` gave."""
        whole = isinstance(values, list) and len(values) == 3
        return cls(*values) if whole and all(isinstance(v, int | float) for v in values) else None

    @property
    def values(self) -> list[float]:
        return [self._began, self._seconds, self._evals]

    def time(self, record: Mapping[str, float]) -> float:
        """Seconds since 1970."""
        self._evals += _finite(record.get("eval_seconds", 0.0))
        self._seconds = max(self._seconds, _finite(record.get("seconds", 0.0)))
        return self._began + self._seconds + self._evals


def _finite(value: float) -> float:
    return value if 0.0 <= value < 1e10 else 0.0


class Hold:
    """Only one process at a time sends a run to a service: a lock on `trackers/<name>.lock`."""

    def __init__(self, run: RunDir, name: str) -> None:
        """Raises `ConfigError` where another one is sending."""
        run.trackers.mkdir(exist_ok=True)
        path = run.trackers / f"{name}.lock"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise ConfigError(f"{run.path}: is being sent to {name} by another process") from None
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Let others send. May be called twice."""
        file, self._file = self._file, -1
        with suppress(OSError):
            os.close(file)


def everything(path: Path) -> Iterator[dict[str, Any]]:
    """All whole records of a file that may be missing, or torn at its end."""
    tail = Tail(path)
    while records := tail.read(BATCH):
        yield from records


def _began(run: RunDir) -> float:
    """When the first attempt began; of an old run, when its config was written."""
    for event in everything(run.events):
        with suppress(KeyError, TypeError, ValueError):
            return datetime.fromisoformat(event["time"]).timestamp()
    for path in (run.config, run.metrics):
        with suppress(OSError):
            return path.stat().st_mtime
    return time.time()


def _mark(path: Path, offset: int) -> str:
    """A digest of what stands before `offset`: equal only where that is still the same."""
    try:
        with open(path, "rb") as file:
            start = max(0, offset - 256)
            file.seek(start)
            return hashlib.sha256(file.read(offset - start)).hexdigest()[:16]
    except OSError:
        return ""


def _read(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _part(kept: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = kept.get(name)
    return dict(part) if isinstance(part, dict) else {}


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
