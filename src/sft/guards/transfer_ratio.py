"""Does what is learned from the training data help where the model will be used?

The transfer ratio is the change of loss on `usage` over that on `val`, each from the base model
and paired by example: 1 where usage profits like data of the training kind, 0 where it does not
profit at all. Differences are compared, because usage may be harder or easier by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from sft.guards.evaluations import alarm_level, compared, lasts
from sft.guards.history import History, Table
from sft.guards.statistics import Paired, paired, ratio_interval
from sft.guards.thresholds import MIN_EXAMPLES, TRANSFER_RATIO

# not judgeable: usage has no reference answers. pending: validation has not improved enough yet.
Outcome = Literal["not judgeable", "pending", "profits", "fails", "undecided"]


@dataclass(frozen=True, slots=True)
class TransferRatio:
    """The ratio after one evaluation. `bound` is its upper end at the corrected level of an alarm.

    `t` is how many standard errors usage lies behind the smallest profit that is accepted.
    """

    val: Paired
    usage: Paired
    ratio: float
    interval: tuple[float, float]
    bound: float
    t: float
    improved: bool

    @property
    def mde(self) -> float:
        """How far below the smallest accepted ratio a true one must lie to alarm 4 times in 5."""
        error = (self.interval[1] - self.interval[0]) / (2 * stats.norm.ppf(0.975))
        return float(self.bound - self.ratio + stats.norm.ppf(0.8) * error)

    @property
    def fails(self) -> bool:
        """Usage surely gets less than its least share of what validation gained."""
        return self.improved and self.bound < TRANSFER_RATIO

    @property
    def lags(self) -> bool:
        """The same at the uncorrected level: enough to confirm what uncovered prompts suggest."""
        return self.improved and self.interval[1] < TRANSFER_RATIO


@dataclass(frozen=True, slots=True)
class Judgement:
    """The newest evaluation together with the one before."""

    outcome: Outcome
    now: TransferRatio | None = None
    alarm: bool = False
    why: str = ""


def judge_transfer(history: History) -> Judgement:
    """Judge the ratio at the newest evaluation that scored both probes."""
    if history.table("usage") is None:
        why = "usage prompts with reference answers were not scored"
        return Judgement("not judgeable", why=why)
    usage = compared(history.table("usage"), "`usage` was not scored")
    val = compared(history.table("val"), "there is no `val`")
    if isinstance(usage, str) or isinstance(val, str):
        return Judgement("pending", why=usage if isinstance(usage, str) else str(val))
    steps = [step for step in usage.steps if step in set(val.steps) and step > 0]
    if not steps:
        return Judgement("pending", why="`val` and `usage` were not scored at the same evaluation")
    now = ratio_at(val, usage, steps[-1], history)
    before = ratio_at(val, usage, steps[-2], history) if len(steps) > 1 else None
    if min(now.val.n, now.usage.n) < MIN_EXAMPLES:
        why = f"{now.val.n} rows of `val` and {now.usage.n} of `usage` are too few to judge"
        return Judgement("pending", now, why=why)
    if not now.improved:
        why = "loss on `val` has not improved enough to compare with"
        return Judgement("pending", now, why=why)
    alarm = lasts(now.fails, before is not None and before.fails, now.t)
    if now.interval[0] > TRANSFER_RATIO:
        return Judgement("profits", now, alarm)
    lags_on = now.lags and before is not None and before.lags
    return Judgement("fails" if alarm or lags_on else "undecided", now, alarm)


def ratio_at(val: Table, usage: Table, step: int, history: History) -> TransferRatio:
    """The transfer ratio after the evaluation at `step`, which both tables hold."""
    on_val = val.loss[val.steps.index(step)] - val.loss[0]
    on_usage = usage.loss[usage.steps.index(step)] - usage.loss[0]
    v, u = paired(on_val), paired(on_usage)
    ratio, low, high = ratio_interval(on_usage, on_val)
    bound = ratio_interval(on_usage, on_val, 1 - 2 * alarm_level(history))[2]
    behind = u.mean - TRANSFER_RATIO * v.mean
    error = math.hypot(u.se, TRANSFER_RATIO * v.se)
    return TransferRatio(
        val=v,
        usage=u,
        ratio=ratio,
        interval=(low, high),
        bound=bound,
        t=behind / error if error > 0 else 0.0,
        improved=v.interval[1] < 0 and v.mean < -history.settings.margin,
    )
