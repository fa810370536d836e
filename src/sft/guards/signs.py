"""The signs of a good run, each tested and written as one line for the end of a run."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sft.guards.base import Finding
from sft.guards.history import History
from sft.guards.overfitting import overfitting
from sft.guards.statistics import paired, theil_sen

_MIN_STEPS = 12


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing to watch; `held` is None when it was not measured or cannot be told.

    `figure` is the evidence as text, with unit and interval.
    """

    name: str
    held: bool | None
    figure: str


def signs(history: History) -> list[Sign]:
    """What to watch, in the order in which a person would look."""
    evidence = {finding.signal: finding for finding in overfitting(history)}
    return [
        _steady(history),
        _plateau(evidence.get("plateau")),
        _perplexity(history),
        _close(evidence.get("gap")),
        _learning_rate(history),
        _epoch(history),
    ]


def _steady(history: History) -> Sign:
    """Theil-Sen slope of the training loss over the last third, interval below 0.

    The losses are not smoothed first: the slope is robust, and smoothing makes neighbours so
    alike that its interval comes out too narrow.
    """
    name = "training loss falls steadily"
    steps, losses = history.losses()
    keep = np.isfinite(losses)
    steps, losses = steps[keep], losses[keep]
    if len(losses) < _MIN_STEPS:
        return Sign(name, None, f"not measured: {len(losses)} steps, {_MIN_STEPS} are needed")
    third = -max(len(losses) // 3, _MIN_STEPS // 2)
    slope, low, high = theil_sen(steps[third:], losses[third:])
    figure = (
        f"{1000 * slope:+.2f} nats per token in 1,000 steps over the last third "
        f"({1000 * low:+.2f} to {1000 * high:+.2f})"
    )
    return Sign(name, high < 0, figure)


def _plateau(finding: Finding | None) -> Sign:
    name = "val loss is on a plateau"
    if finding is None or finding.statistic is None or finding.threshold is None:
        return Sign(name, None, finding.message if finding else "not measured: no val rows")
    return Sign(name, abs(finding.statistic) <= finding.threshold, finding.message)


def _perplexity(history: History) -> Sign:
    """Perplexity is exp(NLL): it drops where the paired change of NLL lies below 0."""
    name = "perplexity drops"
    val = history.table("val")
    if val is None or len(val.steps) < 2:
        return Sign(name, None, "not measured: needs two evaluations at val")
    change = paired(val.loss[-1] - val.loss[0])
    if change.n < 2:
        return Sign(name, None, f"not measured: {change.n} val rows")
    low, high = (float(np.expm1(end)) for end in change.interval)
    figure = (
        f"{np.expm1(change.mean):+.1%} on val since step {val.steps[0]} ({low:+.1%} to {high:+.1%},"
        f" {change.n} rows weighted equally)"
    )
    return Sign(name, high < 0, figure)


def _close(finding: Finding | None) -> Sign:
    """The gap of the overfitting guard: close while it is not surely wider than the margin."""
    name = "training and val loss stay close"
    if finding is None or finding.interval is None or finding.threshold is None:
        return Sign(name, None, "not measured: needs two evaluations at train_probe and val")
    return Sign(name, finding.interval[0] <= finding.threshold, finding.message)


def _values(history: History, name: str) -> list[float]:
    return [float(r[name]) for r in history.metrics if "loss" in r and r.get(name) is not None]


def _learning_rate(history: History) -> Sign:
    rates = _values(history, "learning_rate")
    if not rates:
        return Sign("learning rate", None, "not measured")
    figure = f"peak {max(rates):.2e}, now {rates[-1]:.2e}"
    return Sign("learning rate", max(rates) > 0, figure)


def _epoch(history: History) -> Sign:
    epochs = _values(history, "epoch")
    if not epochs:
        return Sign("epoch", None, "not measured")
    figure = f"{epochs[-1]:.2f} passes over the training rows"
    return Sign("epoch", all(a <= b for a, b in pairwise(epochs)), figure)
