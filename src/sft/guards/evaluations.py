"""What guards ask of the evaluations of a probe, and how they say it.

Is there a base, did something rise, does it last; and from that the verdict and the finding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sft.guards import thresholds
from sft.guards.base import Finding, Verdict
from sft.guards.history import Array, History, Table
from sft.guards.statistics import Paired, corrected_level, paired
from sft.texts.numbers import interval_text

UNIT = "nats per token"


def grade(
    n: int | None = None, *, alarm: bool = False, watch: bool, blind: bool = False
) -> Verdict:
    """The one rule of all verdicts: what too few examples say, or could not have seen, is no pass.

    `n` are the examples, None where their number does not matter; `blind` is a signal that an
    effect worth acting on could have escaped.
    """
    if n is not None and n < thresholds.MIN_EXAMPLES:
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
    return corrected_level(settings.alpha, max(settings.num_evals, evals), thresholds.NUM_ALARMS)


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
    return now and (before or t > thresholds.OVERWHELMING_T)


def rise_from_base(
    values: Array, margin: float, early: float, level: float
) -> tuple[Verdict, Paired]:
    """Did `values`, `[num_evals, num_examples]` with the base first, rise above `margin`, and last?

    Paired by example; two evaluations or more. A rise above `early`, the smaller margin, is worth
    watching. The test is of the newest evaluation against the full margin.
    """
    change = values[1:] - values[0]
    now = paired(change[-1], margin, level)
    before = len(change) > 1 and paired(change[-2], margin, level).p < level
    verdict = grade(
        now.n,
        alarm=lasts(now.p < level, before, now.t),
        watch=paired(change[-1], early, level).p < thresholds.WATCH_LEVEL,
        blind=now.mde > thresholds.LARGEST_USEFUL_MDE,
    )
    return verdict, now


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
