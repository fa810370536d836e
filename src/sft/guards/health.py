"""Health of the optimization: finite numbers, spikes, divergence, and whether anything is learned.

Plain training faults that would otherwise pass for one of the four pitfalls.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sft.guards import thresholds
from sft.guards.base import Finding, Verdict
from sft.guards.history import Array, History
from sft.guards.statistics import corrected_level, paired, theil_sen

_MIN_STEPS = 20  # records that spikes and trends are read from
_MIN_UPDATES = 5  # records before "never" is said
_SIDE = 4  # records on either side that a spike is compared with
_LOCAL = 10  # records on either side that give the local noise
_SPIKE_SHARE = 0.2  # a spike exceeds its neighbours by a fifth at least
_DIVERGED = 0.5  # nats per token above the start
_HARDLY = 0.25  # of the margin: a fall this small is as good as none

_LOWER = "--set optim.learning_rate={:g}"


def health(history: History) -> list[Finding]:
    """The findings of this guard after the newest evaluation; all are primary.

    Reads `loss`, `grad_norm` and `learning_rate` of the training records, and `train_probe`.
    """
    return [
        _finite(history),
        _updates(history),
        _learning(history),
        _divergence(history),
        _spikes(history),
    ]


def _finding(history: History, signal: str, verdict: Verdict, message: str) -> Finding:
    step = history.eval_steps[-1] if history.eval_steps else history.step
    return Finding("health", signal, verdict, step, message)


def _too_short(history: History, signal: str, found: int, needed: int) -> Finding:
    """`insufficient`, or `not_measured` when there is no record at all."""
    verdict: Verdict = "insufficient" if found else "not_measured"
    message = f"{found} training records; {needed} are needed to judge"
    return replace(_finding(history, signal, verdict, message), n=found)


def _series(history: History, name: str) -> tuple[Array, Array]:
    """Steps and values `[num_records]` of the records that have `name`; not finite is NaN."""
    records = [record for record in history.metrics if name in record and "loss" in record]
    values = [np.nan if record[name] is None else record[name] for record in records]
    return np.array([r["step"] for r in records], dtype=float), np.array(values, dtype=float)


def _lower_rate(history: History) -> str:
    rate = history.settings.learning_rate
    return _LOWER.format(rate / 3) if rate else "Lower optim.learning_rate"


def _finite(history: History) -> Finding:
    bad = []
    for name in ("loss", "grad_norm"):
        steps, values = _series(history, name)
        bad += [f"{name} at step {step:.0f}" for step in steps[~np.isfinite(values)]]
    count = len(history.losses()[0])
    for probe, table in sorted(history.tables.items()):
        scored = np.isfinite(table.column("tokens")[-1])
        lost = int((scored & ~np.isfinite(table.column("nll")[-1])).sum())
        bad += [f"{lost} rows of {probe} at step {table.steps[-1]}"] if lost else []
        count += int(scored.sum())
    if not count:
        return _too_short(history, "finite", 0, 1)
    if bad:
        message = f"Not a finite number: {', '.join(bad[:3])}{', ...' if len(bad) > 3 else ''}"
        finding = _finding(history, "finite", "alarm", message)
        remedy = _lower_rate(history) + ", or --set model.dtype=float32"
        return replace(finding, statistic=float(len(bad)), threshold=0.0, n=count, remedy=remedy)
    finding = _finding(history, "finite", "pass", "All losses and gradient norms are finite")
    return replace(finding, statistic=0.0, threshold=0.0, n=count)


def _updates(history: History) -> Finding:
    """Whether the learning rate and the gradient ever differ from 0."""
    steps, rates = _series(history, "learning_rate")
    _, norms = _series(history, "grad_norm")
    late = bool(len(steps)) and steps[-1] > history.settings.warmup_steps
    for name, values, remedy in (
        ("learning rate", rates, "--set optim.learning_rate=auto"),
        (
            "gradient",
            norms,
            "Check what is trained (method.trainable) and that answers have tokens",
        ),
    ):
        if late and len(values) >= _MIN_UPDATES and not np.nan_to_num(values, nan=1.0).any():
            message = f"The {name} was 0 in all {len(values)} steps: nothing is trained"
            finding = _finding(history, "updates", "alarm", message)
            return replace(finding, statistic=0.0, threshold=0.0, n=len(values), remedy=remedy)
    if np.nan_to_num(rates).any() or np.nan_to_num(norms).any():
        message = "Learning rate and gradient are not 0"
        return replace(_finding(history, "updates", "pass", message), n=max(len(rates), len(norms)))
    return _too_short(history, "updates", len(steps), _MIN_UPDATES)


def _learning(history: History) -> Finding:
    """Whether training rows got more likely: by `train_probe`, else by the trend of the loss."""
    table = history.table("train_probe")
    if table is None or len(table.steps) < 2:
        return _trend(history)
    settings, loss = history.settings, table.loss
    evals = max(settings.num_evals, len(table.steps) - 1)
    level = corrected_level(settings.alpha, evals, thresholds.NUM_ALARMS)
    fall = paired(loss[0] - loss[-1], 0.0, level)
    if fall.n < 2:
        return _too_short(history, "learning", fall.n, 2)
    tiny = _HARDLY * settings.margin
    low, high = fall.interval
    late = table.steps[-1] >= settings.num_steps / 2
    verdict: Verdict = "pass"
    message = f"Training rows improved by {fall.mean:.3f} nats per token ({low:.3f} to {high:.3f})"
    remedy = ""
    if high < tiny and late:
        verdict, remedy = "watch", "Raise optim.learning_rate, or optim.epochs"
        message = (
            f"Hardly anything is learned: after {table.steps[-1]} steps the loss of training rows "
            f"fell by {fall.mean:.4f} nats per token ({low:.4f} to {high:.4f})"
        )
    elif low <= 0:
        verdict = "insufficient"
        message = f"{fall.n} training rows do not show yet whether anything is learned"
    return replace(
        _finding(history, "learning", verdict, message),
        statistic=fall.mean,
        threshold=tiny,
        interval=fall.interval,
        mde=fall.mde if np.isfinite(fall.mde) else None,
        n=fall.n,
        unit="nats per token",
        remedy=remedy,
    )


def _trend(history: History) -> Finding:
    """Theil-Sen line through the steps' losses, over the whole run so far."""
    steps, losses = history.losses()
    keep = np.isfinite(losses)
    steps, losses = steps[keep], losses[keep]
    if len(losses) < _MIN_STEPS:
        return _too_short(history, "learning", len(losses), _MIN_STEPS)
    settings = history.settings
    change, low, high = (value * float(np.ptp(steps)) for value in theil_sen(steps, losses))
    text = f"{change:+.3f} nats per token over the run ({low:+.3f} to {high:+.3f})"
    late = steps[-1] >= settings.num_steps / 2
    verdict: Verdict = "pass"
    message, remedy = f"Training loss moves: {text}", ""
    if -settings.margin < low and high < settings.margin and late:
        verdict, remedy = "watch", "Raise optim.learning_rate, or optim.epochs"
        message = f"Training loss is flat from the start: {text}"
    elif low <= 0 <= high:
        verdict = "insufficient"
        message = f"Training loss is too noisy to tell whether it falls: {text}"
    return replace(
        _finding(history, "learning", verdict, message),
        statistic=change,
        threshold=-settings.margin,
        interval=(low, high),
        n=len(losses),
        unit="nats per token",
        remedy=remedy,
    )


def _divergence(history: History) -> Finding:
    """Whether the newest losses lie far above the first ones."""
    _, losses = history.losses()
    losses = losses[np.isfinite(losses)]
    if len(losses) < _MIN_STEPS:
        return _too_short(history, "divergence", len(losses), _MIN_STEPS)
    part = max(5, len(losses) // 10)
    rise = float(np.median(losses[-part:]) - np.median(losses[:part]))
    finding = _finding(history, "divergence", "pass", "Training loss has not run away")
    finding = replace(finding, statistic=rise, threshold=_DIVERGED, n=len(losses))
    if rise > _DIVERGED and losses[-part:].min() > np.median(losses[:part]):
        message = f"Training loss diverges: {rise:+.2f} nats per token above its start"
        finding = replace(finding, verdict="alarm", message=message, remedy=_lower_rate(history))
    return replace(finding, unit="nats per token")


def _spikes(history: History) -> Finding:
    found: list[tuple[float, str]] = []
    count = 0
    for name in ("loss", "grad_norm"):
        steps, values = _series(history, name)
        keep = np.isfinite(values)
        steps, values = steps[keep], values[keep]
        count = max(count, len(values))
        if len(values) >= _MIN_STEPS:
            z = _spike_z(values)
            found += [
                (float(z[i]), f"{name} {values[i]:.3g} at step {steps[i]:.0f}")
                for i in np.flatnonzero(z > thresholds.SPIKE_Z)
            ]
    if count < _MIN_STEPS:
        return _too_short(history, "spikes", count, _MIN_STEPS)
    if not found:
        finding = _finding(history, "spikes", "pass", "No spike in loss or gradient norm")
        return replace(finding, threshold=thresholds.SPIKE_Z, n=count, unit="robust sd")
    found.sort(reverse=True)
    message = f"{len(found)} spikes, the highest: {'; '.join(text for _, text in found[:3])}"
    return replace(
        _finding(history, "spikes", "watch", message),
        statistic=found[0][0],
        threshold=thresholds.SPIKE_Z,
        n=count,
        unit="robust sd",
        remedy=f"Evaluation at the rows of these steps; {_lower_rate(history)}",
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
    scale = np.maximum(np.maximum(_scale(around), _scale(noise)), 1e-12)
    above = values - level
    return np.where(above > _SPIKE_SHARE * np.abs(level), above / scale, 0.0)


def _scale(noise: Array) -> Array:
    """Robust standard deviation over the last axis: 1.4826 times the MAD."""
    away = np.abs(noise - np.median(noise, axis=-1, keepdims=True))
    return np.asarray(1.4826 * np.median(away, axis=-1))
