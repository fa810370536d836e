"""Health of the optimization: finite numbers, spikes, divergence, and whether anything is learned.

Plain training faults that would otherwise pass for one of the four pitfalls.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.stats import median_abs_deviation

from sft.guards import thresholds
from sft.guards.base import Finding, Verdict
from sft.guards.evaluations import UNIT, alarm_level, figures, interval_of, newest
from sft.guards.history import Array, History, Table
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
_finding = partial(Finding, "health")


def health(history: History) -> list[Finding]:
    """The findings of this guard after the newest evaluation; all are primary.

    Reads `loss`, `grad_norm` and `learning_rate` of the training records, and `train_probe`.
    """
    step = newest(history)
    return [
        signal(history, step) for signal in (_finite, _updates, _learning, _divergence, _spikes)
    ]


def _too_short(signal: str, step: int, count: int, needed: int) -> Finding:
    """`insufficient`, or `not_measured` when there is no record at all."""
    verdict: Verdict = "insufficient" if count else "not_measured"
    message = f"{counted(count, 'training record')}; {needed} are needed to judge"
    return _finding(signal, verdict, step, message, n=count)


def _series(history: History, name: str) -> tuple[Array, Array]:
    """Steps and values `[num_records]` of the records that have `name`; not finite is NaN."""
    records = [record for record in history.metrics if name in record and "loss" in record]
    values = [np.nan if record[name] is None else record[name] for record in records]
    return np.array([r["step"] for r in records], dtype=float), np.array(values, dtype=float)


def _finite_losses(history: History) -> tuple[Array, Array]:
    steps, losses = history.losses()
    finite = np.isfinite(losses)
    return steps[finite], losses[finite]


def _lower_rate(history: History) -> str:
    rate = history.settings.learning_rate
    return f"--set optim.learning_rate={rate / 3:g}" if rate else "Lower optim.learning_rate"


def _finite(history: History, step: int) -> Finding:
    bad = []
    for name in ("loss", "grad_norm"):
        steps, values = _series(history, name)
        bad += [f"{name} at step {where:.0f}" for where in steps[~np.isfinite(values)]]
    count = len(history.losses()[0])
    for probe, table in sorted(history.tables.items()):
        scored = np.isfinite(table.column("tokens")[-1])
        lost = int((scored & ~np.isfinite(table.column("nll")[-1])).sum())
        bad += [f"{counted(lost, 'row')} of {probe} at step {table.steps[-1]}"] if lost else []
        count += int(scored.sum())
    if not count:
        return _too_short("finite", step, 0, 1)
    return _finding(
        "finite",
        "alarm" if bad else "pass",
        step,
        f"Not a finite number: {', '.join(bad[:3])}{', ...' if len(bad) > 3 else ''}"
        if bad
        else "All losses and gradient norms are finite",
        statistic=float(len(bad)),
        threshold=0.0,
        n=count,
        remedy=_lower_rate(history) + ", or --set model.dtype=float32" if bad else "",
    )


def _updates(history: History, step: int) -> Finding:
    """Whether the learning rate and the gradient ever differ from 0."""
    steps, rates = _series(history, "learning_rate")
    _, norms = _series(history, "grad_norm")
    late = bool(len(steps)) and steps[-1] > history.settings.warmup_steps
    what_is_trained = "Check what is trained (method.trainable) and that answers have tokens"
    for name, values, remedy in (
        ("learning rate", rates, "--set optim.learning_rate=auto"),
        ("gradient", norms, what_is_trained),
    ):
        if late and len(values) >= _MIN_UPDATES and not np.nan_to_num(values, nan=1.0).any():
            return _finding(
                "updates",
                "alarm",
                step,
                f"The {name} was 0 in all {len(values)} steps: nothing is trained",
                statistic=0.0,
                threshold=0.0,
                n=len(values),
                remedy=remedy,
            )
    if np.nan_to_num(rates).any() or np.nan_to_num(norms).any():
        n = max(len(rates), len(norms))
        return _finding("updates", "pass", step, "Learning rate and gradient are not 0", n=n)
    return _too_short("updates", step, len(steps), _MIN_UPDATES)


def _learning(history: History, step: int) -> Finding:
    """Whether training rows got more likely: by `train_probe`, else by the trend of the loss."""
    table = history.table("train_probe")
    if table is None or len(table.steps) < 2:
        return _trend(history, step)
    return _probe_fell(history, table, step)


def _probe_fell(history: History, table: Table, step: int) -> Finding:
    fall = paired(table.loss[0] - table.loss[-1], 0.0, alarm_level(history))
    if fall.n < 2:
        return _too_short("learning", step, fall.n, 2)
    tiny = HARDLY * history.settings.margin
    low, high = fall.interval
    verdict: Verdict = "pass"
    by = f"by {figure(fall.mean)} {UNIT} ({interval_of(fall)})"
    message, remedy = f"The loss of training rows fell {by}", ""
    if high < tiny and table.steps[-1] >= history.settings.num_steps / 2:
        verdict, remedy = "watch", _MORE
        message = (
            f"Hardly anything is learned: after {table.steps[-1]} steps the loss of training rows "
            f"changed by {signed(-fall.mean)} {UNIT} "
            f"(95 % interval {interval_text((-high, -low))})"
        )
    elif low <= 0:
        verdict = "insufficient"
        message = (
            f"{counted(fall.n, 'training row does', 'training rows do')} not show yet whether "
            "anything is learned"
        )
    return _finding(
        "learning",
        verdict,
        step,
        message,
        threshold=tiny,
        unit=UNIT,
        remedy=remedy,
        **figures(fall),
    )


def _trend(history: History, step: int) -> Finding:
    """Theil-Sen line through the steps' losses, over the whole run so far."""
    steps, losses = _finite_losses(history)
    if len(losses) < _MIN_STEPS:
        return _too_short("learning", step, len(losses), _MIN_STEPS)
    margin = history.settings.margin
    change, low, high = (value * float(np.ptp(steps)) for value in theil_sen(steps, losses))
    by = f"{signed(change)} {UNIT} over the run (95 % interval {interval_text((low, high))})"
    verdict: Verdict = "pass"
    message, remedy = f"Training loss changed by {by}", ""
    if -margin < low and high < margin and steps[-1] >= history.settings.num_steps / 2:
        verdict, remedy = "watch", _MORE
        message = f"Training loss is flat from the start: {by}"
    elif low <= 0 <= high:
        verdict = "insufficient"
        message = f"Training loss is too noisy to tell whether it falls: {by}"
    return _finding(
        "learning",
        verdict,
        step,
        message,
        statistic=change,
        threshold=-margin,
        interval=(low, high),
        n=len(losses),
        unit=UNIT,
        remedy=remedy,
    )


def _divergence(history: History, step: int) -> Finding:
    """Whether the newest losses lie far above the first ones."""
    _, losses = _finite_losses(history)
    if len(losses) < _MIN_STEPS:
        return _too_short("divergence", step, len(losses), _MIN_STEPS)
    part = max(5, len(losses) // 10)
    start = np.median(losses[:part])
    rise = float(np.median(losses[-part:]) - start)
    diverged = rise > _DIVERGED and losses[-part:].min() > start
    return _finding(
        "divergence",
        "alarm" if diverged else "pass",
        step,
        f"Training loss diverges: {rise:+.2f} {UNIT} above its start"
        if diverged
        else "Training loss has not run away",
        statistic=rise,
        threshold=_DIVERGED,
        n=len(losses),
        unit=UNIT,
        remedy=_lower_rate(history) if diverged else "",
    )


def _spikes(history: History, step: int) -> Finding:
    spikes: list[tuple[float, str]] = []
    count = 0
    for name in ("loss", "grad_norm"):
        steps, values = _series(history, name)
        keep = np.isfinite(values)
        steps, values = steps[keep], values[keep]
        count = max(count, len(values))
        if len(values) >= _MIN_STEPS:
            z = _spike_z(values)
            spikes += [
                (float(z[i]), f"{name} {values[i]:.3g} at step {steps[i]:.0f}")
                for i in np.flatnonzero(z > thresholds.SPIKE_Z)
            ]
    if count < _MIN_STEPS:
        return _too_short("spikes", step, count, _MIN_STEPS)
    spikes.sort(reverse=True)
    highest = "; ".join(text for _, text in spikes[:3])
    return _finding(
        "spikes",
        "watch" if spikes else "pass",
        step,
        f"{counted(len(spikes), 'spike')}, the highest: {highest}"
        if spikes
        else "No spike in loss or gradient norm",
        statistic=spikes[0][0] if spikes else None,
        threshold=thresholds.SPIKE_Z,
        n=count,
        unit="robust sd",
        remedy=f"Look at the rows of these steps; {_lower_rate(history)}" if spikes else "",
    )


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
