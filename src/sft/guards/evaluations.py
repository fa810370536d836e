"""What guards ask of the evaluations of a probe, and how they say it.

Is there a base, did something rise, does it last; and from that the verdict and the finding.
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


def grade(
    n: int | None = None, *, alarm: bool = False, watch: bool, blind: bool = False
) -> Verdict:
    """The one rule of all verdicts: what too few examples say, or could not have seen, is no pass.

    `n` are the examples, None where their number does not matter; `blind` is a signal that an
    effect worth acting on could have escaped.
    """
    if n is not None and n < MIN_EXAMPLES:
        return "insufficient"
    return "alarm" if alarm else "watch" if watch else "insufficient" if blind else "pass"


@dataclass(frozen=True, slots=True)
class Signal:
    """What all findings of one signal have in common; called, it makes one.

    `remedy` is told with a watch or an alarm.
    """

    guard: str
    name: str
    unit: str = ""
    threshold: float | None = None
    remedy: str = ""
    primary: bool = False

    def __call__(
        self,
        history: History,
        verdict: Verdict,
        message: str,
        test: Paired | None = None,
        **values: Any,
    ) -> Finding:
        """A finding about the newest evaluation, with the figures of `test`, and `values` besides.

        What is not finite is left out, since records cannot hold it.
        """
        known: dict[str, Any] = {
            "unit": self.unit,
            "threshold": self.threshold,
            "remedy": self.remedy if verdict in ("watch", "alarm") else "",
            "primary": self.primary,
        }
        if test is not None:
            known |= {"statistic": test.mean, "interval": test.interval, "mde": test.mde}
            known["n"] = test.n
        known |= values
        known |= {name: finite(known.get(name)) for name in ("statistic", "mde")}
        known["interval"] = bounded(known.get("interval"))
        return Finding(self.guard, self.name, verdict, history.newest, message, **known)

    def not_measured(self, history: History, why: str, remedy: str = "") -> Finding:
        """Nothing was recorded for it; `why` says how to get it measured."""
        return Finding(
            self.guard,
            self.name,
            "not_measured",
            history.newest,
            f"Not measured: {why}.",
            remedy=remedy,
            primary=self.primary,
        )


def alarm_level(history: History) -> float:
    """The level of one test: the run's alpha, shared between evaluations and signals that can
    alarm.
    """
    evals = sum(step > 0 for step in history.eval_steps)
    settings = history.settings
    return corrected_level(settings.alpha, max(settings.num_evals, evals), NUM_ALARMS)


def compared(table: Table | None, never: str) -> Table | str:
    """A table of the base model and an evaluation after it; else why there is none.

    `never` is told if nothing was scored.
    """
    if table is None or not table.steps:
        return never
    if table.steps[0] != 0:
        return "the base model was not scored: there is no evaluation at step 0"
    if len(table.steps) < 2:
        return "only the base model has been scored so far"
    return table


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
    def verdict(self) -> Verdict:
        """An alarm where it is above the margin by chance with at most `level`, and lasts."""
        before = self.before is not None and self.before.p < self.level
        alarm = lasts(self.now.p < self.level, before, self.now.t)
        watch, blind = self.early.p < WATCH_LEVEL, self.now.mde > LARGEST_USEFUL_MDE
        return grade(self.now.n, alarm=alarm, watch=watch, blind=blind)


def rise_from_base(values: Array, margin: float, early: float, level: float) -> Rise:
    """The rise of `values`, `[num_evals, num_examples]` with the base first; two evaluations or
    more.
    """
    change = values[1:] - values[0]
    before = paired(change[-2], margin, level) if len(change) > 1 else None
    return Rise(paired(change[-1], margin, level), before, paired(change[-1], early, level), level)


def bounded(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    """`interval`, or None where an end is infinite, which records cannot hold."""
    return interval if interval and all(math.isfinite(end) for end in interval) else None


def finite(value: float | None) -> float | None:
    """`value`, or None where it is not finite, which records cannot hold."""
    return float(value) if value is not None and math.isfinite(value) else None


def mean(values: Array) -> float:
    """Mean of the finite values; NaN when there is none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def interval_of(test: Paired) -> str:
    """`95 % interval +0.012 to +0.034`."""
    return f"95 % interval {interval_text(bounded(test.interval))}"
