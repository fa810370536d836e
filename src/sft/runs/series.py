"""The metrics of a run as columns of numbers, thinned out and smoothed for a chart.

A run of 100,000 steps is a file of 30 MB. It is read once, then only what is new; each value is
kept as eight bytes. What a chart shows is thinned so that no peak is lost: of each stretch of
points the first, the lowest, the highest and the last.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sft.runs.files import Record, number
from sft.runs.jsonl import Follower
from sft.runs.run_dir import RunDir

Array = NDArray[np.float64]
Axis = Literal["step", "tokens", "time"]
Table = Literal["steps", "evaluations"]

AXES: dict[str, str] = {"step": "step", "tokens": "num_tokens", "time": "seconds"}
MAX_SMOOTH = 0.999
MAX_WIDTH = 20_000
_MAX_COLUMNS = 512  # of records that are not ours


class Columns:
    """Rows of numbers by name; what a row does not have is NaN."""

    def __init__(self) -> None:
        self.columns: dict[str, array[float]] = {}
        self.num_rows = 0

    def add(self, record: Record) -> None:
        """One more row: the numbers of `record`, those of an object in it as `name.key`."""
        values = _numbers(record)
        for name in values:
            if name not in self.columns and len(self.columns) < _MAX_COLUMNS:
                self.columns[name] = array("d", [math.nan]) * self.num_rows
        for name, column in self.columns.items():
            column.append(values.get(name, math.nan))
        self.num_rows += 1

    def column(self, name: str) -> Array:
        """A copy of the column, `[num_rows]`; all NaN when nothing of this name was recorded."""
        if name not in self.columns:
            return np.full(self.num_rows, math.nan)
        return np.array(self.columns[name], dtype=np.float64)


@dataclass(slots=True)
class Points:
    """Points of a line in order of the records: where, what, and the step of each.

    `smooth_x` and `smooth_y` are the smoothed line, thinned by itself; empty without smoothing.
    """

    x: Array
    y: Array
    step: Array
    smooth_x: Array
    smooth_y: Array

    def record(self) -> dict[str, Any]:
        """As JSON; all values are finite."""
        return {
            "x": self.x.tolist(),
            "y": self.y.tolist(),
            "step": self.step.astype(np.int64).tolist(),
            "smooth": {"x": self.smooth_x.tolist(), "y": self.smooth_y.tolist()},
        }


class Series(Follower):
    """The columns of `metrics.jsonl`: those of `steps`, and those of `evaluations`."""

    def take(self, record: Record) -> None:
        """Keep the numbers of a record."""
        if number(record.get("step")) is not None:
            (self.steps if "loss" in record else self.evals).add(record)

    def clear(self) -> None:
        """Begin anew."""
        self.steps, self.evals = Columns(), Columns()

    @property
    def num_steps(self) -> int:
        """Records of steps so far."""
        return self.steps.num_rows

    def names(self, of: Table = "steps") -> list[str]:
        """The metrics that were recorded with at least one number."""
        with self.lock:
            return list((self.steps if of == "steps" else self.evals).columns)

    def points(
        self,
        name: str,
        x: Axis = "step",
        low: float | None = None,
        high: float | None = None,
        width: int = 1200,
        smooth: float = 0.0,
        of: Table = "steps",
    ) -> Points:
        """The metric `name` of steps or evaluations, over `x` from `low` to `high` (both included).

        At most `2 * width` points. `smooth` from 0 (none) to 0.999 is the weight of what came
        before in an exponential mean over all points, also those outside `low` to `high`, divided
        by the sum of its weights so that it does not begin at 0 (Kingma and Ba 2014, section 3).
        Tokens and time of an evaluation are those of the record of its step.
        """
        with self.lock:
            columns = self.steps if of == "steps" else self.evals
            step, y = columns.column("step"), columns.column(name)
            where = step if x == "step" else self.steps.column(AXES[x])
            if x != "step" and of == "evaluations":
                where = _at_steps(step, self.steps.column("step"), where)
        known = np.isfinite(where) & np.isfinite(y)
        where, y, step = where[known], y[known], step[known]
        inside = (where >= (-math.inf if low is None else low)) & (
            where <= (math.inf if high is None else high)
        )
        most = 2 * min(max(int(width), 2), MAX_WIDTH)
        line = smoothed(y, smooth)[inside] if smooth > 0 else np.empty(0)
        where, y, step = where[inside], y[inside], step[inside]
        few, few_smooth = thinned(y, most), thinned(line, most)
        return Points(where[few], y[few], step[few], where[few_smooth], line[few_smooth])


@lru_cache(8)
def _follower(path: Path) -> Series:
    return Series(path)


def series_of(run: RunDir) -> Series:
    """The series of a run, up to date. Those of the last 8 runs asked for stay in memory."""
    series = _follower(run.metrics.resolve())
    series.update()
    return series


def thinned(values: Array, most: int) -> NDArray[np.int64]:
    """Indices of at most `most` of `values`, in order: no peak of a stretch is left out."""
    n = len(values)
    if n <= most:
        return np.arange(n)
    stretches = max(1, most // 4)
    size = -(-n // stretches)
    # The last stretch is filled up with its last point, which is in it anyway.
    index = np.minimum(np.arange(stretches * size), n - 1).reshape(stretches, size)
    table = values[index]
    rows = np.arange(stretches)
    lowest, highest = index[rows, table.argmin(axis=1)], index[rows, table.argmax(axis=1)]
    return np.unique(np.concatenate([index[:, 0], lowest, highest, index[:, -1]]))


def smoothed(values: Array, weight: float) -> Array:
    """Exponential mean of `values` `[n]`, all finite, divided by the sum of its weights.

    s_t = sum_i (1 - w) w^(t - i) v_i / (1 - w^t), i = 1..t.
    """
    from scipy.signal import lfilter  # takes a while to load, and most charts are not smoothed

    weight = min(max(weight, 0.0), MAX_SMOOTH)
    if not len(values) or not weight:
        return values.copy()
    total = -np.expm1(np.arange(1, len(values) + 1) * math.log(weight))
    return np.asarray(lfilter([1 - weight], [1, -weight], values) / total, dtype=np.float64)


def _numbers(record: Record) -> dict[str, float]:
    """What can be drawn; nearly all values are floats, which are told apart without a call."""
    values: dict[str, float] = {}
    for name, value in record.items():
        if type(value) is float:
            if value - value == 0.0:  # neither NaN nor infinite
                values[name] = value
        elif isinstance(value, dict):
            values |= {f"{name}.{key}": part for key, part in _numbers(value).items()}
        elif (known := number(value)) is not None:
            values[name] = known
    return values


def _at_steps(step: Array, at: Array, axis: Array) -> Array:
    """The value of `axis` at each of `step`: 0 before the first step, NaN where unknown."""
    order = np.argsort(at, kind="stable")
    at, axis = at[order], axis[order]
    if not len(at):
        return np.where(step == 0, 0.0, math.nan)
    place = np.searchsorted(at, step, side="right") - 1  # the last record of a step
    recorded = np.where(at[place] == step, axis[place], math.nan)
    return np.asarray(np.where((step == 0) & (at[place] != 0), 0.0, recorded), dtype=np.float64)


def eval_names(series: Series) -> Sequence[str]:
    """Metrics of evaluations that can be drawn."""
    return [name for name in series.names("evaluations") if name not in ("step", "epoch")]
