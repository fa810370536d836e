"""What to watch, while the run goes on; judging a long run takes a while, so it is not overdone."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sft.config import load_config
from sft.errors import SFTError
from sft.guards.history import History, history
from sft.guards.indicators import Indicator, indicators
from sft.runs.evaluations import evals_of
from sft.runs.files import identity, json_object, objects, section, stamp
from sft.runs.history import settings_of
from sft.runs.jsonl import each_record
from sft.runs.run_dir import RunDir
from sft.runs.series import Array, series_of
from sft.runs.state import run_state, summary_of

_LEAST_AGE = 2.0  # seconds; and at most a twentieth of the time goes into judging
_TIMES_COST = 20.0
_COLUMNS = ("step", "loss", "learning_rate", "epoch")  # all that indicators read of step records


class _Judged:
    """The indicators of a run, computed anew when its records changed and enough time passed."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._stamps: tuple[Any, ...] = ()
        self._ready = 0.0  # when it may be computed again
        self._indicators: list[dict[str, Any]] = []

    def now(self) -> list[dict[str, Any]]:
        run = self._run
        with self._lock:
            stamps = tuple(stamp(path) for path in (run.config, run.metrics, run.scores))
            if stamps != self._stamps and time.monotonic() >= self._ready:
                began = time.monotonic()
                self._indicators = [asdict(indicator) for indicator in _judge(run)]
                self._stamps = stamps
                ended = time.monotonic()
                self._ready = ended + max(_LEAST_AGE, _TIMES_COST * (ended - began))
            return self._indicators


@lru_cache(64)
def _judged(path: Path) -> _Judged:
    return _Judged(RunDir(path))


def indicators_of(run: RunDir) -> list[dict[str, Any]]:
    """`[{name, status, message, evidence}]`: of the summary once there is one; may be empty."""
    summary = summary_of(run)
    if isinstance(summary.get("indicators"), list):
        return objects(summary, "indicators")
    return _judged(run.path).now()


def _judge(run: RunDir) -> list[Indicator]:
    try:
        return indicators(live_history(run))
    except (SFTError, TypeError, ValueError, KeyError):  # records of another shape
        return []


def live_history(run: RunDir) -> History:
    """What `sft.runs.history.history_of` reads, from columns of numbers where there may be many.

    Raises:
        SFTError: the run has no config of this version, or its preflight is broken.
    """
    saved = identity(run)
    steps = run_state(run).num_steps or 1
    config = load_config(section(saved, "config"), {"optim.max_steps": steps})
    return history(
        settings_of(config),
        [*_step_records(run), *evals_of(run)],
        list(each_record(run.scores)),
        list(each_record(run.samples)),
        json_object(run.preflight),
    )


def _step_records(run: RunDir) -> list[Mapping[str, Any]]:
    series = series_of(run)
    with series.lock:
        columns = {name: series.steps.column(name) for name in _COLUMNS}
    lists = {name: _values(column) for name, column in columns.items()}
    names = [
        name for name, column in columns.items() if name == "loss" or np.isfinite(column).any()
    ]
    table = zip(*(lists[name] for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in table]


def _values(column: Array) -> list[float | None]:
    values: list[float | None] = column.tolist()
    if np.isfinite(column).all():
        return values
    return [None if value != value else value for value in values]
