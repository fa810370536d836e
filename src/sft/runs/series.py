"""The metrics of a run as columns of numbers, thinned out and smoothed for a chart.

A run of 100,000 steps is a file of 30 MB. It is read once, then only what is new; each value is
kept as eight bytes. What a chart shows is thinned so that no peak is lost: of each stretch of
points the first, the lowest, the highest and the last.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sft.runs.files import Kept, Record, number
from sft.runs.jsonl import Follower
from sft.runs.run_dir import RunDir

Array = NDArray[np.float64]
Axis = Literal["step", "tokens", "time"]

AXES: dict[str, str] = {"step": "step", "tokens": "num_tokens", "time": "seconds"}
MAX_SMOOTH = 0.999
MAX_WIDTH = 20_000
_MAX_COLUMNS = 512  # of records that are not ours
_BLOCK = 64


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
        held = self.columns.get(name)
        if held is None:
            return np.full(self.num_rows, math.nan)
        return np.array(held, dtype=np.float64)

    def clear(self) -> None:
        """Without rows and names."""
        self.columns.clear()
        self.num_rows = 0


@dataclass(slots=True)
class Points:
    """Points of a line in order of the records: where, what, and the step of each.

    `smooth_x` and `smooth_y` are the smoothed line, thinned by itself; empty without smoothing.
    """

    x: Array
    y: Array
    step: Array
    smooth_x: Array = field(default_factory=lambda: np.empty(0))
    smooth_y: Array = field(default_factory=lambda: np.empty(0))

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

    def __init__(self, run: RunDir) -> None:
        super().__init__(run.metrics)
        self.steps, self.evals = Columns(), Columns()

    def take(self, record: Record) -> None:
        """Keep the numbers of a record."""
        if number(record.get("step")) is not None:
            (self.steps if "loss" in record else self.evals).add(record)

    def clear(self) -> None:
        """Begin anew."""
        self.steps.clear()
        self.evals.clear()

    @property
    def num_steps(self) -> int:
        """Records of steps so far."""
        return self.steps.num_rows

    def names(self, of: Literal["steps", "evaluations"] = "steps") -> list[str]:
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
    ) -> Points:
        """The metric `name` of steps, over `x` from `low` to `high` (both included).

        At most `2 * width` points. `smooth` from 0 (none) to 0.999 is the weight of what came
        before in an exponential mean over all points, also those outside `low` to `high`, divided
        by the sum of its weights so that it does not begin at 0 (Kingma and Ba 2014, section 3).
        """
        with self.lock:
            step, values = self.steps.column("step"), self.steps.column(name)
            where = step if x == "step" else self.steps.column(AXES[x])
        return _line(where, values, step, (low, high), width, smooth)

    def eval_points(
        self,
        name: str,
        x: Axis = "step",
        low: float | None = None,
        high: float | None = None,
        width: int = 1200,
    ) -> Points:
        """The metric `name` of evaluations; tokens and time are those of the record of its step."""
        with self.lock:
            step, values = self.evals.column("step"), self.evals.column(name)
            at = self.steps.column("step")
            axis = None if x == "step" else self.steps.column(AXES[x])
        where = step if axis is None else _at_steps(step, at, axis)
        return _line(where, values, step, (low, high), width, 0.0)


_HELD = Kept(8)


def series_of(run: RunDir) -> Series:
    """The series of a run, up to date. Those of the last 8 runs asked for are held."""
    found = _HELD.get(run.path.resolve(), lambda: Series(run))
    found.update()
    return found


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

    s_t = sum_i (1 - w) w^(t - i) v_i / (1 - w^t), i = 1..t. Computed in blocks of 64, of which
    each carries its last sum to the next: as exact as the loop, and quick.
    """
    n = len(values)
    weight = min(max(weight, 0.0), MAX_SMOOTH)
    if not n or not weight:
        return values.copy()
    num_blocks = -(-n // _BLOCK)
    padded = np.zeros(num_blocks * _BLOCK)
    padded[:n] = values
    powers = weight ** np.arange(_BLOCK + 1)
    away = np.subtract.outer(np.arange(_BLOCK), np.arange(_BLOCK))
    within = padded.reshape(num_blocks, _BLOCK) @ np.where(away >= 0, weight ** np.abs(away), 0.0).T
    carried, carry = np.empty(num_blocks), 0.0
    for block, last in enumerate(within[:, -1].tolist()):
        carried[block] = carry
        carry = carry * powers[-1] + last
    sums = (within + carried[:, None] * powers[1:]).ravel()[:n]
    total = -np.expm1(np.arange(1, n + 1) * math.log(weight)) / (1 - weight)
    return np.asarray(sums / total, dtype=np.float64)


def _numbers(record: Record) -> dict[str, float]:
    """What can be drawn; nearly all values are floats, which are told apart without a call."""
    found: dict[str, float] = {}
    for name, value in record.items():
        if type(value) is float:
            if value - value == 0.0:  # neither NaN nor infinite
                found[name] = value
        elif isinstance(value, dict):
            found |= {f"{name}.{key}": part for key, part in _numbers(value).items()}
        elif (known := number(value)) is not None:
            found[name] = known
    return found


def _line(
    where: Array,
    values: Array,
    step: Array,
    limits: tuple[float | None, float | None],
    width: int,
    smooth: float,
) -> Points:
    known = np.isfinite(where) & np.isfinite(values)
    where, values, step = where[known], values[known], step[known]
    low, high = limits
    inside = np.ones(len(where), dtype=bool)
    if low is not None:
        inside &= where >= low
    if high is not None:
        inside &= where <= high
    most = 2 * min(max(int(width), 2), MAX_WIDTH)
    shown = _shown(where[inside], values[inside], step[inside], most)
    if smooth > 0:
        line = smoothed(values, smooth)[inside]
        kept = thinned(line, most)
        shown.smooth_x, shown.smooth_y = where[inside][kept], line[kept]
    return shown


def _shown(where: Array, values: Array, step: Array, most: int) -> Points:
    kept = thinned(values, most)
    return Points(where[kept], values[kept], step[kept])


def _at_steps(step: Array, at: Array, axis: Array) -> Array:
    """The value of `axis` at each of `step`: 0 before the first step, NaN where unknown."""
    order = np.argsort(at, kind="stable")
    at, axis = at[order], axis[order]
    if not len(at):
        return np.where(step == 0, 0.0, math.nan)
    place = np.searchsorted(at, step, side="right") - 1  # the last record of a step
    found = np.where(at[place] == step, axis[place], math.nan)
    return np.asarray(np.where((step == 0) & (at[place] != 0), 0.0, found), dtype=np.float64)


def eval_names(series: Series) -> Sequence[str]:
    """Metrics of evaluations that can be drawn."""
    return [name for name in series.names("evaluations") if name not in ("step", "epoch")]
