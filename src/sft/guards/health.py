"""Health of the optimization: finite numbers, spikes, divergence, and whether anything is learned.

Plain training faults that would otherwise pass for one of the four pitfalls.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.stats import median_abs_deviation

from sft.guards import thresholds
from sft.guards.base import Finding
from sft.guards.evaluations import UNIT, Signal, alarm_level, grade, interval_of
from sft.guards.history import Array, History
from sft.guards.statistics import paired, theil_sen
from sft.texts.numbers import counted, figure, interval_text, signed

_MIN_STEPS = 20  # records that spikes and trends are read from
_MIN_UPDATES = 5  # records before "never" is said
_SIDE = 4  # records on either side that a spike is compared with
_LOCAL = 10  # records on either side that give the local noise
_SPIKE_SHARE = 0.2  # a spike exceeds its neighbours by a fifth at least
_DIVERGED = 0.5  # nats per token above the start
HARDLY = 0.25  # of the margin: a fall this small is as good as none

_MORE = "Raise optim.learning_rate, or optim.epochs"
FINITE = Signal("health", "finite", "", 0.0, primary=True)
UPDATES = Signal("health", "updates", primary=True)
LEARNING = Signal("health", "learning", UNIT, remedy=_MORE, primary=True)
DIVERGENCE = Signal("health", "divergence", UNIT, _DIVERGED, primary=True)
SPIKES = Signal("health", "spikes", "robust sd", thresholds.SPIKE_Z, primary=True)


def health(history: History) -> list[Finding]:
    """The findings of this guard after the newest evaluation; all are primary.

    Reads `loss`, `grad_norm` and `learning_rate` of the training records, and `train_probe`.
    """
    return [signal(history) for signal in (_finite, _updates, _learning, _divergence, _spikes)]


def _too_short(signal: Signal, history: History, count: int, needed: int) -> Finding:
    """`insufficient`, or `not_measured` when there is no record at all."""
    message = f"{counted(count, 'training record')}; {needed} are needed to judge"
    return signal(history, "insufficient" if count else "not_measured", message, n=count)


def known_series(history: History, name: str) -> tuple[Array, Array]:
    """Steps and values of `name`, without those that were not finite."""
    steps, values = history.series(name)
    finite = np.isfinite(values)
    return steps[finite], values[finite]


def _lower_rate(history: History) -> str:
    rate = history.settings.learning_rate
    return f"--set optim.learning_rate={rate / 3:g}" if rate else "Lower optim.learning_rate"


def _finite(history: History) -> Finding:
    bad, count = [], len(history.losses()[0])
    for name in ("loss", "grad_norm"):
        steps, values = history.series(name)
        bad += [f"{name} at step {step:.0f}" for step in steps[~np.isfinite(values)]]
    for probe, table in sorted(history.tables.items()):
        scored = np.isfinite(table.column("tokens")[-1])
        lost = int((scored & ~np.isfinite(table.column("nll")[-1])).sum())
        bad += [f"{counted(lost, 'row')} of {probe} at step {table.steps[-1]}"] if lost else []
        count += int(scored.sum())
    if not count:
        return _too_short(FINITE, history, 0, 1)
    if not bad:
        message = "All losses and gradient norms are finite"
        return FINITE(history, "pass", message, statistic=0, n=count)
    message = f"Not a finite number: {', '.join(bad[:3])}{', ...' if len(bad) > 3 else ''}"
    remedy = _lower_rate(history) + ", or --set model.dtype=float32"
    return FINITE(history, "alarm", message, statistic=len(bad), n=count, remedy=remedy)


def _updates(history: History) -> Finding:
    """Whether the learning rate and the gradient ever differ from 0."""
    steps, rates = history.series("learning_rate")
    _, norms = history.series("grad_norm")
    late = bool(len(steps)) and steps[-1] > history.settings.warmup_steps
    what_is_trained = "Check what is trained (method.trainable) and that answers have tokens"
    for name, values, remedy in (
        ("learning rate", rates, "--set optim.learning_rate=auto"),
        ("gradient", norms, what_is_trained),
    ):
        n = len(values)
        if late and n >= _MIN_UPDATES and not np.nan_to_num(values, nan=1.0).any():
            message = f"The {name} was 0 in all {n} steps: nothing is trained"
            zero: dict[str, Any] = {"statistic": 0.0, "threshold": 0.0, "remedy": remedy}
            return UPDATES(history, "alarm", message, n=n, **zero)
    if np.nan_to_num(rates).any() or np.nan_to_num(norms).any():
        n = max(len(rates), len(norms))
        return UPDATES(history, "pass", "Learning rate and gradient are not 0", n=n)
    return _too_short(UPDATES, history, len(steps), _MIN_UPDATES)


def _learning(history: History) -> Finding:
    """Whether training rows got more likely: by `train_probe`, else by the trend of the loss."""
    table = history.table("train_probe")
    if table is None or len(table.steps) < 2:
        return _trend(history)
    fall = paired(table.loss[0] - table.loss[-1], 0.0, alarm_level(history))
    if fall.n < 2:
        return _too_short(LEARNING, history, fall.n, 2)
    tiny = HARDLY * history.settings.margin
    low, high = fall.interval
    half_done = table.steps[-1] >= history.settings.num_steps / 2
    verdict = grade(watch=high < tiny and half_done, blind=low <= 0)
    message = f"The loss of training rows fell by {figure(fall.mean)} {UNIT} ({interval_of(fall)})"
    if verdict == "watch":
        message = (
            f"Hardly anything is learned: after {table.steps[-1]} steps the loss of training rows "
            f"changed by {signed(-fall.mean)} {UNIT} "
            f"(95 % interval {interval_text((-high, -low))})"
        )
    elif verdict == "insufficient":
        message = (
            f"{counted(fall.n, 'training row does', 'training rows do')} not show yet whether "
            "anything is learned"
        )
    return LEARNING(history, verdict, message, fall, threshold=tiny)


def whole_trend(steps: Array, losses: Array) -> tuple[float, float, float]:
    """The change of loss over a run by its Theil-Sen line, and its 95 % interval."""
    change, low, high = (value * float(np.ptp(steps)) for value in theil_sen(steps, losses))
    return change, low, high


def _trend(history: History) -> Finding:
    """Theil-Sen line through the steps' losses, over the whole run so far."""
    steps, losses = known_series(history, "loss")
    if len(losses) < _MIN_STEPS:
        return _too_short(LEARNING, history, len(losses), _MIN_STEPS)
    margin = history.settings.margin
    change, low, high = whole_trend(steps, losses)
    flat = -margin < low and high < margin and steps[-1] >= history.settings.num_steps / 2
    verdict = grade(watch=flat, blind=low <= 0 <= high)
    seen = "Training loss changed by"
    if verdict == "watch":
        seen = "Training loss is flat from the start:"
    elif verdict == "insufficient":
        seen = "Training loss is too noisy to tell whether it falls:"
    by = f"{signed(change)} {UNIT} over the run (95 % interval {interval_text((low, high))})"
    figures: dict[str, Any] = {"statistic": change, "interval": (low, high), "n": len(losses)}
    return LEARNING(history, verdict, f"{seen} {by}", threshold=-margin, **figures)


def _divergence(history: History) -> Finding:
    """Whether the newest losses lie far above the first ones."""
    _, losses = known_series(history, "loss")
    n = len(losses)
    if n < _MIN_STEPS:
        return _too_short(DIVERGENCE, history, n, _MIN_STEPS)
    part = max(5, n // 10)
    start = np.median(losses[:part])
    rise = float(np.median(losses[-part:]) - start)
    if not (rise > _DIVERGED and losses[-part:].min() > start):
        return DIVERGENCE(history, "pass", "Training loss has not run away", statistic=rise, n=n)
    message = f"Training loss diverges: {rise:+.2f} {UNIT} above its start"
    figures: dict[str, Any] = {"statistic": rise, "n": n, "remedy": _lower_rate(history)}
    return DIVERGENCE(history, "alarm", message, **figures)


def _spikes(history: History) -> Finding:
    spikes: list[tuple[float, str]] = []
    n = 0
    for name in ("loss", "grad_norm"):
        steps, values = known_series(history, name)
        n = max(n, len(values))
        if len(values) >= _MIN_STEPS:
            z = _spike_z(values)
            spikes += [
                (float(z[i]), f"{name} {values[i]:.3g} at step {steps[i]:.0f}")
                for i in np.flatnonzero(z > thresholds.SPIKE_Z)
            ]
    if n < _MIN_STEPS:
        return _too_short(SPIKES, history, n, _MIN_STEPS)
    if not spikes:
        return SPIKES(history, "pass", "No spike in loss or gradient norm", n=n)
    spikes.sort(reverse=True)
    highest = "; ".join(text for _, text in spikes[:3])
    message = f"{counted(len(spikes), 'spike')}, the highest: {highest}"
    remedy = f"Look at the rows of these steps; {_lower_rate(history)}"
    return SPIKES(history, "watch", message, statistic=spikes[0][0], n=n, remedy=remedy)


def _spike_z(values: Array) -> Array:
    """How far each value `[n]` stands out above both its sides, in robust standard deviations.

    Each value is compared with the median of the four before and of the four after it, whichever
    is higher, so that a steep fall is no spike; the newest only with those before. The noise is
    the larger of that of the whole run and of the neighbourhood, since losses near 0 are quiet.
    """
    n = len(values)
    medians = np.median(sliding_window_view(values, _SIDE), axis=1)
    level = np.full(n, np.inf)
    level[_SIDE:] = medians[:-1]
    level[:-_SIDE] = np.maximum(level[:-_SIDE], medians[1:])
    noise = values - np.median(sliding_window_view(np.pad(values, 2, mode="edge"), 5), axis=1)
    around = sliding_window_view(np.pad(noise, _LOCAL, mode="reflect"), 2 * _LOCAL + 1)
    local, overall = (
        median_abs_deviation(part, axis=-1, scale="normal") for part in (around, noise)
    )
    scale = np.maximum(np.maximum(local, overall), 1e-12)
    above = values - level
    return np.where(above > _SPIKE_SHARE * np.abs(level), above / scale, 0.0)
