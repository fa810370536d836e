"""What guards ask of the evaluations of a probe, and how they say it.

Is there a base, did something rise, does it last?
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sft.guards.base import Finding, Verdict
from sft.guards.history import Array, History, Table
from sft.guards.statistics import Paired, corrected_level, paired
from sft.guards.thresholds import (
    LARGEST_USEFUL_MDE,
    MIN_EXAMPLES,
    NUM_ALARMS,
    OVERWHELMING_T,
    WATCH_LEVEL,
)
from sft.texts.numbers import interval_text

UNIT = "nats per token"


def alarm_level(history: History) -> float:
    """The level of one test: the run's alpha, shared between evaluations and signals that can
    alarm.
    """
    evals = sum(step > 0 for step in history.eval_steps)
    settings = history.settings
    return corrected_level(settings.alpha, max(settings.num_evals, evals), NUM_ALARMS)


def newest(history: History) -> int:
    """The step that a verdict is about: of the newest evaluation, or of the newest record."""
    steps = history.eval_steps
    return steps[-1] if steps else history.step


def no_change_yet(table: Table | None, never: str) -> str | None:
    """Why the change from the base model is not known, else None; `never` if nothing was scored."""
    if table is None or not table.steps:
        return never
    if table.steps[0] != 0:
        return "the base model was not scored: there is no evaluation at step 0"
    if len(table.steps) < 2:
        return "only the base model has been scored so far"
    return None


def lasts(now: bool, before: bool, t: float) -> bool:
    """Two evaluations in a row must fail, unless the evidence of the newest one is overwhelming."""
    return now and (before or t > OVERWHELMING_T)


@dataclass(frozen=True, slots=True)
class Rise:
    """A rise from the base model, paired by example.

    `now` and `before` (the evaluation before; None if that was the base) are tested against the
    full margin, `early` is the newest evaluation against the smaller one that is worth watching.
    """

    now: Paired
    before: Paired | None
    early: Paired
    level: float

    @property
    def lasts(self) -> bool:
        """It is above the margin by chance with at most `level`, and not for the first time."""
        fails = [
            evaluation is not None and evaluation.p < self.level
            for evaluation in (self.now, self.before)
        ]
        return lasts(fails[0], fails[1], self.now.t)

    @property
    def verdict(self) -> Verdict:
        """`insufficient` where too little was seen to call it a pass."""
        if self.now.n < MIN_EXAMPLES:
            return "insufficient"
        if self.lasts:
            return "alarm"
        if self.early.p < WATCH_LEVEL:
            return "watch"
        return "insufficient" if self.now.mde > LARGEST_USEFUL_MDE else "pass"


def rise_from_base(values: Array, margin: float, early: float, level: float) -> Rise:
    """The rise of `values`, `[num_evals, num_examples]` with the base first; two evaluations or
    more.
    """
    change = values[1:] - values[0]
    before = paired(change[-2], margin, level) if len(change) > 1 else None
    return Rise(paired(change[-1], margin, level), before, paired(change[-1], early, level), level)


def figures(test: Paired) -> dict[str, Any]:
    """The fields of a `Finding` that a paired test fills."""
    return {
        "statistic": finite(test.mean),
        "interval": bounded(test.interval),
        "mde": finite(test.mde),
        "n": test.n,
    }


def not_measured(guard: str, signal: str, step: int, why: str, *, primary: bool = False) -> Finding:
    """The finding of a signal that nothing was recorded for; `why` says how to get it measured."""
    message = f"Not measured: {why}."
    return Finding(guard, signal, "not_measured", step, message, primary=primary)


def bounded(interval: tuple[float, float]) -> tuple[float, float] | None:
    """`interval`, or None where an end is infinite, which records cannot hold."""
    return interval if all(math.isfinite(end) for end in interval) else None


def finite(value: float) -> float | None:
    """`value`, or None where it is not finite, which records cannot hold."""
    return float(value) if math.isfinite(value) else None


def mean(values: Array) -> float:
    """Mean of the finite values; NaN when there is none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def interval_of(test: Paired) -> str:
    """`95 % interval +0.012 to +0.034`."""
    return f"95 % interval {interval_text(bounded(test.interval))}"
