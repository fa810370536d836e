"""What to watch in any run, each with its evidence; and whether the run learned anything at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sft.guards.base import Finding
from sft.guards.evaluations import UNIT, interval_of
from sft.guards.health import HARDLY, known_series, whole_trend
from sft.guards.history import History
from sft.guards.overfitting import overfitting
from sft.guards.statistics import paired, theil_sen
from sft.guards.thresholds import MIN_EXAMPLES
from sft.texts.numbers import counted, interval_text, share, signed

Status = Literal["good", "neutral", "warning", "unknown"]
_MIN_STEPS = 12


@dataclass(frozen=True, slots=True)
class Indicator:
    """One thing to watch: `message` is what is seen, `evidence` its number and interval.

    `neutral` is neither good nor bad, `unknown` was not measured or cannot be told.
    """

    name: str
    status: Status
    message: str
    evidence: str = ""


def indicators(history: History) -> list[Indicator]:
    """What to watch, in the order in which a person would look."""
    evidence = {finding.signal: finding for finding in overfitting(history)}
    return [
        _training_loss(history),
        _val_loss(evidence.get("plateau")),
        _perplexity(history),
        _gap(evidence.get("gap")),
        _learning_rate(history),
        _epoch(history),
    ]


def learned_nothing(history: History) -> str:
    """A sentence where the loss is within its noise of the start in training and held-out rows.

    Empty where one of them moved, where one was not measured, and in the first half of a run.
    """
    training = _unchanged(history, "train_probe") or _unchanged_steps(history)
    held_out = _unchanged(history, "val") or _unchanged(history, "usage")
    steps = history.eval_steps
    if not training or not held_out or steps[-1] < history.settings.num_steps / 2:
        return ""
    return (
        "The run learned nothing: the loss is within its noise of the start, on training rows "
        f"({training}) and on held-out rows ({held_out})"
    )


def _unchanged(history: History, probe: str) -> str:
    """The change of loss of `probe` where it is as good as none; else empty.

    It cannot be told from 0 and is small, or is surely tiny: a learning rate that is far too low
    moves every row by the same next to nothing.
    """
    table = history.table(probe)
    if table is None or len(table.steps) < 2:
        return ""
    change = paired(table.loss[-1] - table.loss[0])
    low, high = change.interval
    margin = history.settings.margin
    no_change = low <= 0 <= high and abs(change.mean) <= margin
    tiny = max(-low, high) <= HARDLY * margin
    if change.n < MIN_EXAMPLES or not (no_change or tiny):
        return ""
    return f"{signed(change.mean)} {UNIT}, {interval_of(change)}"


def _unchanged_steps(history: History) -> str:
    """The same of the steps' own losses, where no training rows were scored."""
    steps, losses = known_series(history, "loss")
    if history.table("train_probe") is not None or len(losses) < _MIN_STEPS:
        return ""
    change, low, high = whole_trend(steps, losses)
    if not low <= 0 <= high or abs(change) > history.settings.margin:
        return ""
    return f"{signed(change)} {UNIT}, 95 % interval {interval_text((low, high))}"


def _training_loss(history: History) -> Indicator:
    """Theil-Sen slope of the training loss over the last third, and over the whole run.

    The losses are not smoothed first: the slope is robust, and smoothing makes neighbours so
    alike that its interval comes out too narrow.
    """
    name = "training loss"
    steps, losses = known_series(history, "loss")
    if len(losses) < _MIN_STEPS:
        why = f"not measured: {counted(len(losses), 'step')}; {_MIN_STEPS} are needed"
        return Indicator(name, "unknown", f"Training loss was {why}")
    third = -max(len(losses) // 3, _MIN_STEPS // 2)
    slope, low, high = (1000 * value for value in theil_sen(steps[third:], losses[third:]))
    evidence = (
        f"{signed(slope)} {UNIT} in 1,000 steps over the last third "
        f"(95 % interval {interval_text((low, high))})"
    )
    if high < 0:
        return Indicator(name, "good", "Training loss falls steadily", evidence)
    if low > 0:
        return Indicator(name, "warning", "Training loss rises", evidence)
    if theil_sen(steps, losses)[2] < 0:
        return Indicator(name, "neutral", "Training loss has levelled off", evidence)
    return Indicator(name, "warning", "Training loss has not fallen since the start", evidence)


def _val_loss(plateau: Finding | None) -> Indicator:
    name = "val_loss"
    if plateau is None or plateau.statistic is None or plateau.interval is None:
        why = plateau.message if plateau else "no validation rows"
        return Indicator(name, "unknown", "Whether val_loss still falls cannot be told", why)
    margin, gain = plateau.threshold or 0.0, plateau.statistic
    status: Status = "good" if gain > margin else "warning" if gain < -margin else "neutral"
    evidence = f"margin {margin:g} {UNIT}, {plateau.n} rows"
    return Indicator(name, status, plateau.message, evidence)


def _perplexity(history: History) -> Indicator:
    """Perplexity is exp(NLL): it drops where the paired change of NLL lies below 0."""
    name, val = "val_perplexity", history.table("val")
    change = paired([] if val is None or len(val.steps) < 2 else val.loss[-1] - val.loss[0])
    if val is None or change.n < 2:
        why = "it takes two evaluations of two validation rows or more"
        return Indicator(name, "unknown", "val_perplexity was not measured", why)
    low, high = (float(np.expm1(end)) for end in change.interval)
    evidence = (
        f"{share(float(np.expm1(change.mean)))} since step {val.steps[0]} (95 % interval "
        f"{interval_text((low, high), share)}; {change.n} rows, weighted equally)"
    )
    if high < 0:
        return Indicator(name, "good", "val_perplexity has dropped", evidence)
    if low > 0:
        return Indicator(name, "warning", "val_perplexity has risen", evidence)
    return Indicator(name, "warning", "val_perplexity is unchanged within its noise", evidence)


def _gap(gap: Finding | None) -> Indicator:
    """The gap of the overfitting guard: close while it is not surely wider than the margin."""
    name = "gap"
    if gap is None or gap.interval is None or gap.threshold is None:
        why = "it takes two evaluations of train_probe and val"
        return Indicator(name, "unknown", "The gap to training loss was not measured", why)
    evidence = gap.message.partition(": ")[2]
    if gap.interval[0] <= gap.threshold:
        return Indicator(name, "good", "Training and validation loss stay close", evidence)
    return Indicator(name, "warning", "Training loss has fallen further than val_loss", evidence)


def _learning_rate(history: History) -> Indicator:
    name, rates = "learning rate", known_series(history, "learning_rate")[1]
    if not len(rates):
        return Indicator(name, "unknown", "The learning rate was not recorded")
    if not rates.max():
        return Indicator(name, "warning", "The learning rate was 0 at every step")
    message = f"The learning rate peaked at {rates.max():.2e}"
    return Indicator(name, "neutral", message, f"now {rates[-1]:.2e}")


def _epoch(history: History) -> Indicator:
    epochs = known_series(history, "epoch")[1]
    if not len(epochs):
        return Indicator("epoch", "unknown", "The epoch was not recorded")
    return Indicator("epoch", "neutral", f"{epochs[-1]:.2f} passes over the training rows")
