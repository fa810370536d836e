"""What a run is doing, judged from its folder alone: no lock is taken, no process is asked.

A reader that took the lock, if only to try it, could make a run that is just starting fail.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from sft.runs.files import (
    Cache,
    Record,
    identity,
    json_object,
    number,
    parse_object,
    readable,
    section,
    stamp,
    whole,
)
from sft.runs.jsonl import last_records
from sft.runs.run_dir import RunDir
from sft.texts.numbers import span

State = Literal[
    "preparing",
    "training",
    "measuring",
    "saving",
    "finished",
    "stalled",
    "interrupted",
    "failed",
    "killed",
    "unknown",
]
RUNNING: tuple[State, ...] = ("preparing", "training", "measuring", "saving", "stalled")

LEAST_QUIET = 60.0  # seconds without a word before a run is called stalled
# Reading a large file, loading a large model and saving one write nothing for minutes.
LEAST_QUIET_ASIDE = 600.0
_TIMES_LONGEST = 5
_NUM_STEPS = 50
_SKEW = 5.0  # seconds by which two times of one machine may differ
_SET_CLOCK = 60.0  # the same where the clock may have been set since

_MEASURING = ("evaluating", "answering", "measuring", "scoring", "testing")
_SAVING = ("saving", "verifying", "blending", "checkpoint", "writing the report")
_ENDS: dict[str, State] = {
    "failed": "failed",
    "interrupted": "interrupted",
    "finished": "finished",
}
_TAILS = Cache(512)


@dataclass(frozen=True, slots=True)
class RunState:
    """`state` in one word and `detail` in one sentence (may be empty).

    `updated` is when anything was last written, in seconds since 1970; `step` of `num_steps`
    updates are recorded. `pid` and `host` are those of the process that holds the run.
    """

    state: State
    detail: str
    updated: float | None = None
    step: int | None = None
    num_steps: int | None = None
    pid: int | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the folder holds: the ends of its files, and when each was written."""

    run: RunDir
    metrics: Sequence[Record]
    events: Sequence[Record]
    updated: float | None
    metrics_at: float
    num_steps: int | None

    @property
    def step(self) -> int | None:
        return max(
            (s for s in (whole(r.get("step")) for r in self.metrics) if s is not None), default=None
        )


def run_state(run: RunDir, now: float | None = None) -> RunState:
    """What the run is doing at `now` (seconds since 1970; the time of the call when None)."""
    now = time.time() if now is None else now
    seen = _read(run)
    holder = _holder(run.lock)
    state, detail = _judge(seen, holder, now)
    return RunState(
        state=state,
        detail=detail,
        updated=seen.updated,
        step=seen.step,
        num_steps=seen.num_steps,
        pid=whole(holder.get("pid")),
        host=holder.get("host") if isinstance(holder.get("host"), str) else None,
    )


def ending_of(run: RunDir) -> tuple[str, Record | None]:
    """How the newest attempt ended, and `summary.json` of a finished run.

    `finished`, `failed`, `interrupted` (also of a process that was killed) or `running`.
    """
    state = run_state(run).state
    status = "running" if state in RUNNING else state if state in _ENDS else "interrupted"
    return status, (summary_of(run) or None) if status == "finished" else None


def tail(path: Path, most: int = 64) -> list[Record]:
    """`last_records`, read anew when the file changes."""
    return _TAILS.get((path, most), [path], lambda: last_records(path, most))


def seconds_of(event: Record) -> float | None:
    """The time of an event, in seconds since 1970; None when it says none."""
    try:
        return datetime.fromisoformat(str(event.get("time"))).timestamp()
    except (ValueError, OverflowError):
        return None


def step_seconds(records: Iterable[Record]) -> list[float]:
    """Seconds that each step took, from the `seconds` so far of neighbouring step records."""
    times = [
        (step, seconds)
        for record in records
        if (step := number(record.get("step"))) is not None
        and (seconds := number(record.get("seconds"))) is not None
    ]
    return [
        (b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(times) if b[0] > a[0] and b[1] >= a[1]
    ]


def _read(run: RunDir) -> _Seen:
    times = [status[1] / 1e9 for path in _written(run) if (status := stamp(path)) is not None]
    metrics = stamp(run.metrics)
    return _Seen(
        run=run,
        metrics=tail(run.metrics),
        events=tail(run.events),
        updated=max(times, default=None),
        metrics_at=metrics[1] / 1e9 if metrics else 0.0,
        num_steps=_num_steps(run),
    )


def _num_steps(run: RunDir) -> int | None:
    saved, summary = readable(identity, run), summary_of(run)
    ran = None if summary.get("stopped") else summary.get("steps")  # an old run
    planned = saved.get("num_steps") or section(saved, "config", "optim").get("max_steps")
    return whole(planned) or whole(ran)


def _written(run: RunDir) -> list[Path]:
    """Files and folders whose time of change tells that the run is alive."""
    paths = [run.probes, run.checkpoints, run.model]
    for folder in (run.path, run.checkpoints):
        try:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries]
        except OSError:
            continue
        paths += [folder / name for name in names if name not in _BY_READERS]
    return paths if any(map(stamp, paths)) else [run.path]


# Made after the run, by whoever looks at it.
_BY_READERS = ("report.html", "report.json", "trackers")


def _judge(seen: _Seen, holder: Record, now: float) -> tuple[State, str]:
    if stamp(seen.run.path) is None:
        return "unknown", "the folder is gone"
    if _summary_is_newest(seen):
        return "finished", _finished_detail(seen.run)
    if not holder:
        return _ended(seen)
    # The process that has just ended an attempt may live on, to write the report or to send it.
    if end := _end_since(seen, holder):
        return end
    if _alive(holder) is False:
        return (
            "killed",
            f"process {holder.get('pid')} ended without a word; the same command continues the run",
        )
    return _running(seen, holder, now)


def _summary_is_newest(seen: _Seen) -> bool:
    """A finished run may be held again by `sft blend` or `sft eval`: that does not unfinish it."""
    written = stamp(seen.run.summary)
    newest = written is not None and written[1] / 1e9 >= seen.metrics_at - _SKEW
    return newest and bool(summary_of(seen.run))


def _finished_detail(run: RunDir) -> str:
    text = summary_of(run).get("stopped")
    return f"ended early: {text}" if isinstance(text, str) and text else ""


def summary_of(run: RunDir) -> Record:
    """`summary.json`, read anew when it changes; empty when there is none, or it is odd."""
    return _TAILS.get(run.summary, [run.summary], lambda: readable(json_object, run.summary))


def _last_end(seen: _Seen) -> Record:
    """The event that ended the last attempt; empty where none did, or another one began since."""
    kinds = (*_ENDS, "started", "resumed")
    last = next((e for e in reversed(seen.events) if e.get("kind") in kinds), {})
    return last if last.get("kind") in _ENDS else {}


def _ended(seen: _Seen) -> tuple[State, str]:
    """The lock is not held: how the last attempt ended."""
    if end := _last_end(seen):
        return _ENDS[str(end["kind"])], str(end.get("text") or "")
    if not seen.metrics:
        known = stamp(seen.run.config) is not None
        return "unknown", "nothing was recorded" if known else "not a run folder: no config.yaml"
    last = seen.metrics[-1]
    complete = seen.num_steps is not None and (seen.step or 0) >= seen.num_steps
    if complete and "loss" not in last and stamp(seen.run.checkpoints) is None:
        return "finished", "watched in another trainer"  # GuardCallback saves no model
    return "interrupted", "it ended before it was finished; the same command continues it"


def _end_since(seen: _Seen, holder: Record) -> tuple[State, str] | None:
    """The end that was recorded since the holder of the lock began, if any."""
    end = _last_end(seen)
    began, at = seconds_of({"time": holder.get("started")}), seconds_of(end)
    if not end or at is None or began is None or at < began:
        return None
    return _ENDS[str(end["kind"])], str(end.get("text") or "")


def _running(seen: _Seen, holder: Record, now: float) -> tuple[State, str]:
    state, detail = _doing(seen, seconds_of({"time": holder.get("started")}))
    quiet = 0.0 if seen.updated is None else now - seen.updated
    if quiet <= _limit(seen, state):
        return state, detail
    text = f"nothing was written for {span(quiet)}; last: {detail or state}"
    if _alive(holder) is None:
        text += "; whether the process still runs cannot be told from this machine"
    return "stalled", text


def _limit(seen: _Seen, state: State) -> float:
    steps = [record for record in seen.metrics if "loss" in record][-_NUM_STEPS - 1 :]
    evals = [number(record.get("eval_seconds")) or 0.0 for record in seen.metrics]
    longest = max([*step_seconds(steps), *evals], default=0.0)
    least = LEAST_QUIET if state in ("training", "measuring") else LEAST_QUIET_ASIDE
    return max(least, _TIMES_LONGEST * longest)


def _doing(seen: _Seen, began: float | None) -> tuple[State, str]:
    """By the newest event, unless a record is newer: steps are records, not events."""
    last = next((e for e in reversed(seen.events) if e.get("kind") != "note"), {})
    at, text = seconds_of(last), str(last.get("text") or "")
    if began is not None and began > max(at or 0.0, seen.metrics_at) + _SKEW:
        return "preparing", ""  # an attempt that continues is quiet until it has accepted the run
    stepped = any("loss" in record for record in seen.metrics)
    newer = at is not None and at >= seen.metrics_at - 0.001  # events tell milliseconds
    if newer and last.get("kind") in ("phase", "started", "resumed"):
        return _phase(text, stepped), text
    return _by_records(seen, stepped)


def _by_records(seen: _Seen, stepped: bool) -> tuple[State, str]:
    step = seen.step or 0
    if not seen.metrics:
        return "preparing", ""
    evaluated = "loss" not in seen.metrics[-1]
    last = seen.num_steps is not None and step >= seen.num_steps
    if last and evaluated and stepped:
        return "saving", ""
    every = whole(section(readable(identity, seen.run), "config", "eval").get("every"))
    if not evaluated and (last or (every and step % every == 0)):
        return "measuring", f"the evaluation after step {step:,}"
    return "training", ""


def _phase(text: str, stepped: bool) -> State:
    if text.startswith(_SAVING):
        return "saving"
    if text.startswith(_MEASURING):
        return "measuring"
    return "training" if stepped and text.startswith("training") else "preparing"


# ------------------------------------------------------------------ the process


def _holder(lock: Path) -> Record:
    """Who holds the run, as the lock file says; empty when nobody does."""
    if stamp(lock) is None:
        return {}
    try:
        with open(lock, "rb") as file:
            return parse_object(file.read(4096)) or {}
    except OSError:
        return {}


def _alive(holder: Record) -> bool | None:
    """Does the process still run? None where it cannot be told: it runs on another machine."""
    pid = whole(holder.get("pid"))
    if holder.get("host") != socket.gethostname() or pid is None or pid <= 0:
        return None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    began, locked = _began(pid), seconds_of({"time": holder.get("started")})
    if began is None or locked is None:
        return True
    # A younger process has the number of a dead one: after a restart that is soon the case.
    return began <= locked + _SET_CLOCK


def _began(pid: int) -> float | None:
    """When a process began, in seconds since 1970; infinity for a zombie; None if not told."""
    try:
        fields: Any = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = next(
            line.split()[1]
            for line in Path("/proc/stat").read_text().splitlines()
            if line.startswith("btime")
        )
        if fields[0] in "ZX":
            return float("inf")
        return float(boot) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration):
        return None
