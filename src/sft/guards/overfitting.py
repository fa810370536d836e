"""Overfitting: held-out loss rises while training loss falls.

The verdict hangs on `paired_rise`; the other live signals are evidence. What was known about the
data before training is judged in `data_size.py`, and a leak between training and validation rows
decides too, because it blinds the curve. Methods and thresholds: docs/guards.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sft.guards import thresholds
from sft.guards.base import Finding, Verdict
from sft.guards.data_size import TYPICAL_SD, data_size, leaked_rows, leaks
from sft.guards.evaluations import UNIT, Signal, alarm_level, grade, interval_of, lasts
from sft.guards.history import Array, History, Table
from sft.guards.statistics import Paired, auc, examples_needed, paired, theil_sen, welch
from sft.guards.thresholds import LARGEST_USEFUL_MDE, MIN_EXAMPLES, WATCH_LEVEL
from sft.texts.numbers import figure, interval_text, signed

PLATEAU_EVALS = 3
_MIN_LOSSES = 6  # training steps that a trend is read from

_RESTORE = "Hand back the weights of the best evaluation, as `checkpoint.choose: best` does"
_EPOCHS = "; next time train less (fewer `optim.epochs`), or on more rows"
_CONFIDENCE = (
    "; if only ranking matters, later weights are as good: lower the confidence with "
    "--set optim.epochs=1 or --set optim.dropout=0.1, more data will not"
)
_NO_ROWS = (
    f"it takes two evaluations of at least {MIN_EXAMPLES} rows of train_probe and of val each"
)
RISE = Signal("overfitting", "paired_rise", UNIT, primary=True)
OVER_CONFIDENCE = Signal("overfitting", "over_confidence", "fraction of tokens", 0.0)
GAP = Signal("overfitting", "gap", UNIT)
MEMORISATION = Signal("overfitting", "memorisation", "AUC", thresholds.MEMORISATION_WATCH)
PLATEAU = Signal("overfitting", "plateau", UNIT)


def overfitting(history: History) -> list[Finding]:
    """The findings of this guard after the newest evaluation; `paired_rise` is the primary one.

    Needs `val`, better with `train_probe`; `preflight["rows"]` adds what the data look like.
    """
    rise = ValRise.of(history)
    if rise is None:
        why = "no validation row was scored, or all of them are in training too"
        remedy = "Hold rows back: --set data.val_fraction=0.1, or give data.val."
        return [RISE.not_measured(history, why, remedy), *data_size(history)]
    live = [_paired_rise(rise), _over_confidence(rise), _gap(rise), _memorisation(rise)]
    return [*live, _plateau(rise), *data_size(history)]


@dataclass(frozen=True, slots=True)
class ValRise:
    """The newest evaluation of val against the best earlier one.

    `now` and `best` are rows of `val`, from which leaked rows are left out.
    """

    history: History
    val: Table
    now: int
    best: int
    level: float

    @classmethod
    def of(cls, history: History) -> ValRise | None:
        """None when val was never scored, or all of it leaked."""
        val = history.table("val")
        if val is None or not np.isfinite(val.loss).any():
            return None
        leaked = leaked_rows(history)
        val = val.rows([i for i, name in enumerate(val.ids) if name not in leaked])
        if not val.ids:
            return None
        now = len(val.steps) - 1
        best = int(np.argmin(_means(val.loss)[:now])) if now else 0
        return cls(history, val, now, best, alarm_level(history))

    @property
    def margin(self) -> float:
        """The smallest rise that matters, in nats per token."""
        return self.history.settings.margin

    @property
    def best_step(self) -> int:
        """The step of the best earlier evaluation."""
        return self.val.steps[self.best]

    @property
    def judged(self) -> bool:
        """Whether there is an earlier evaluation, and the newest lies after warm-up."""
        return self.now > 0 and self.val.steps[self.now] > self.history.settings.warmup_steps

    def test(self, evaluation: int | None = None) -> Paired:
        """The rise at `evaluation` (the newest) above the best evaluation, against the margin."""
        loss = self.val.loss
        evaluation = self.now if evaluation is None else evaluation
        return paired(loss[evaluation] - loss[self.best], self.margin, self.level)

    def surely_rose(self) -> bool:
        """Sure and large enough, in two evaluations in a row or beyond doubt."""
        test, before = self.test(), self.now - 1
        rose = test.p < self.level and test.mean > self.margin
        after_warmup = self.val.steps[before] > self.history.settings.warmup_steps
        return lasts(rose, after_warmup and self.test(before).p < self.level, test.t)

    def maybe_rose(self) -> bool:
        """Above the margin at the uncorrected level."""
        return self.test().p < WATCH_LEVEL


def _means(loss: Array) -> Array:
    """Mean of each evaluation `[num_evals]`; infinite where no row is finite."""
    finite = np.isfinite(loss)
    sums = np.where(finite, loss, 0.0).sum(axis=1)
    return np.where(finite.any(axis=1), sums / np.maximum(finite.sum(axis=1), 1), np.inf)


# ------------------------------------------------------------------ the rise


def _paired_rise(rise: ValRise) -> Finding:
    history, test = rise.history, rise.test()
    if not rise.judged:
        warmup = history.settings.warmup_steps
        why = f"steps up to {warmup} are warm-up" if rise.now else "there is no earlier evaluation"
        message = f"Nothing to compare with yet: {why}."
        return RISE(history, "insufficient", message, threshold=rise.margin)
    verdict, message, remedy = _verdict(rise, test)
    if num_leaks := leaks(history):
        message = f"UNRELIABLE, {num_leaks} validation rows are in training too: {message}"
        verdict = "insufficient" if verdict == "pass" else verdict
    if test.n < 2:
        return RISE(history, verdict, message, threshold=rise.margin, n=test.n, remedy=remedy)
    return RISE(history, verdict, message, test, threshold=rise.margin, remedy=remedy)


def _verdict(rise: ValRise, test: Paired) -> tuple[Verdict, str, str]:
    """Verdict, message and remedy of `paired_rise`."""
    rose = (
        f"val_loss is {figure(test.mean)} {UNIT} above its best evaluation (step "
        f"{rise.best_step}; {interval_of(test)})"
    )
    if test.n < MIN_EXAMPLES or not rise.maybe_rose():
        return _no_rise(rise, test)
    if cause := _other_cause(rise):
        return "watch", f"{rose}, but this is not overfitting: {cause}", ""
    if not rise.surely_rose():
        return "watch", f"{rose}; not yet certain, or not yet twice in a row", _RESTORE
    if _accuracy(rise).mean >= 0:
        return (
            "alarm",
            f"Over-confidence: {rose} while training loss fell, yet the share of right tokens "
            "did not fall: the ranking is as good, the probabilities are too extreme",
            _RESTORE + _CONFIDENCE,
        )
    return "alarm", f"{rose} while training loss fell", _RESTORE + _EPOCHS


def _no_rise(rise: ValRise, test: Paired) -> tuple[Verdict, str, str]:
    blind = test.mde > LARGEST_USEFUL_MDE and test.interval[1] > rise.margin
    if test.n >= MIN_EXAMPLES and np.isfinite(test.mde) and not blind:
        message = (
            f"val_loss changed by {signed(test.mean)} {UNIT} since its best evaluation (step "
            f"{rise.best_step}; {interval_of(test)}); a rise of {figure(test.mde)} above the "
            "margin would be detected 4 times in 5"
        )
        return "pass", message, ""
    sd = test.sd if test.n >= MIN_EXAMPLES else max(test.sd, TYPICAL_SD)
    n = max(MIN_EXAMPLES, examples_needed(sd, LARGEST_USEFUL_MDE, rise.level))
    message = (
        f"{test.n} validation rows are too few to tell: about {n} are needed to detect a rise of "
        f"{LARGEST_USEFUL_MDE:g} {UNIT}"
    )
    return "insufficient", message, f"Hold {n} rows back (data.val_fraction or data.val)"


def _other_cause(rise: ValRise) -> str:
    """Why a rise of val is not overfitting; empty when it looks like overfitting."""
    fell = _train_fell(rise)
    if fell is None:
        return "training loss was not measured, so it cannot be told from other causes"
    if not fell:
        return (
            "training loss did not fall in the same time; forgetting, a changed format or a "
            "learning rate that is too high raise both"
        )
    if _only_first_token(rise):
        return "the rise is no larger than that of the answers' first token; see format_collapse"
    if _rows_still_new(rise):
        return (
            "no row has been trained on twice and the loss on new rows falls; validation rows "
            "seem to be of another kind than training rows"
        )
    return ""


def _train_fell(rise: ValRise) -> bool | None:
    """Whether training loss is lower now than at val's best evaluation; None when nothing tells.

    A loss already below half the base model's that stays within half the margin counts too:
    rows learned by heart have nowhere left to fall.
    """
    table = rise.history.table("train_probe")
    step = rise.best_step
    if table is None or step not in table.steps or table.steps[-1] <= step:
        return _new_loss_fell(rise)
    loss = table.loss
    test = paired(loss[table.steps.index(step)] - loss[-1])
    if test.mean > 0 and (test.mean >= rise.margin or test.p < WATCH_LEVEL):
        return True
    means = _means(loss)
    return bool(test.mean > -rise.margin / 2 and means[-1] < means[0] / 2)


def _new_loss_fell(rise: ValRise) -> bool | None:
    """Whether the loss of the steps since val's best evaluation falls (slope surely below 0)."""
    steps, losses = rise.history.losses()
    after = (steps > rise.best_step) & np.isfinite(losses)
    if after.sum() < _MIN_LOSSES:
        return None
    _, _, high = theil_sen(steps[after], losses[after])
    return high < 0


def _only_first_token(rise: ValRise) -> bool:
    """Whether openers have collapsed and account for the rise.

    KL(base||now) at the first answer token is what that token costs more, in nats, if references
    open as the base model would. Without it, a rise above the margin must remain.
    """
    mass, info = (rise.val.column(name) for name in ("first_mass", "first_info"))
    kl, tokens = rise.val.column("kl_first"), rise.val.column("tokens")[rise.now]
    if not np.isfinite(kl[[rise.best, rise.now]]).any(axis=1).all():
        return False
    remaining = (1 - thresholds.INFORMATION_LOST) * _means(info)[0]
    collapsed = (
        _means(mass)[rise.now] >= thresholds.FIRST_TOKEN_MASS
        and _means(info)[rise.now] <= remaining
    )
    loss = rise.val.loss
    without = loss[rise.now] - loss[rise.best] - (kl[rise.now] - kl[rise.best]) / tokens
    return bool(collapsed and paired(without, rise.margin).p >= rise.level)


def _rows_still_new(rise: ValRise) -> bool:
    """Whether no row was trained on twice and the loss on rows never seen before falls."""
    rows = rise.history.preflight.get("rows") or {}
    epochs = [float(r["epoch"]) for r in rise.history.metrics if r.get("epoch") is not None]
    share = rows.get("effective", 0) / max(rows.get("train", 0), 1)
    distinct = share >= thresholds.EFFECTIVE_SHARE_WATCH
    return bool(distinct and epochs and epochs[-1] <= 1 and _new_loss_fell(rise))


# ------------------------------------------------------------------ evidence


def _accuracy(rise: ValRise) -> Paired:
    """Change of each row's share of right tokens since the best evaluation; needs `correct`."""
    accuracy = rise.val.column("correct") / rise.val.column("tokens")
    change = paired(accuracy[rise.now] - accuracy[rise.best])
    return change if change.n else replace(change, mean=-np.inf)


def _over_confidence(rise: ValRise) -> Finding:
    change = _accuracy(rise)
    if not rise.judged or change.n < MIN_EXAMPLES:
        verdict: Verdict = "insufficient" if change.n else "not_measured"
        return OVER_CONFIDENCE(rise.history, verdict, "Too little was measured to tell.")
    text = f"share of right val tokens {signed(change.mean)} since step {rise.best_step}"
    verdict = grade(watch=rise.maybe_rose() and change.mean >= 0)
    seen = "val_loss rises but accuracy does not fall"
    message = f"{seen if verdict == 'watch' else 'No sign of mere over-confidence'}: {text}"
    return OVER_CONFIDENCE(rise.history, verdict, message, change)


def _drops(rise: ValRise) -> tuple[Array, Array] | None:
    """Fall of each row's loss since the first evaluation: training rows and val rows."""
    train = rise.history.table("train_probe")
    if train is None or len(train.steps) < 2 or rise.now == 0:
        return None
    seen, val = train.loss, rise.val.loss
    drops = seen[0] - seen[-1], val[0] - val[rise.now]
    enough = all(np.isfinite(drop).sum() >= MIN_EXAMPLES for drop in drops)
    return drops if enough else None


def _gap(rise: ValRise) -> Finding:
    """Difference in differences: less the first evaluation, as val may simply be harder."""
    drops = _drops(rise)
    if drops is None:
        return GAP.not_measured(rise.history, _NO_ROWS)
    gap, low, high = welch(*drops)
    verdict = grade(watch=low > rise.margin and rise.test().mean > 0 and rise.judged)
    seen = "The gap is open and val no longer improves" if verdict == "watch" else "No harmful gap"
    message = (
        f"{seen}: the loss of training rows fell by {figure(gap)} {UNIT} more than that of val "
        f"rows (95 % interval {interval_text((low, high))})"
    )
    figures: dict[str, Any] = {"statistic": gap, "interval": (low, high)}
    n = min(map(len, drops))
    return GAP(rise.history, verdict, message, threshold=rise.margin, n=n, **figures)


def _memorisation(rise: ValRise) -> Finding:
    drops = _drops(rise)
    if drops is None:
        return MEMORISATION.not_measured(rise.history, _NO_ROWS)
    area, p = auc(*drops)
    high = area > thresholds.MEMORISATION_ALARM and rise.judged
    verdict = grade(
        alarm=high and rise.surely_rose(),
        watch=area > thresholds.MEMORISATION_WATCH and p < WATCH_LEVEL,
    )
    message = (
        "How far the loss of a row fell tells training rows from val rows with AUC "
        f"{area:.2f} (0.5: not at all; 1: learned by heart)"
    )
    return MEMORISATION(rise.history, verdict, message, statistic=area, n=min(map(len, drops)))


def _plateau(rise: ValRise) -> Finding:
    """Whether the last three evaluations improved anything; never a fault, so always a pass."""
    first = rise.now - PLATEAU_EVALS + 1
    if first < 1 or rise.val.steps[first] <= rise.history.settings.warmup_steps:
        message = f"It takes {PLATEAU_EVALS} evaluations after warm-up, and one before them."
        return PLATEAU(rise.history, "insufficient", message)
    loss = rise.val.loss
    means = _means(loss)
    before, recent = int(np.argmin(means[:first])), first + int(np.argmin(means[first:]))
    gain = paired(loss[before] - loss[recent])
    last = f"over the last {PLATEAU_EVALS} evaluations"
    if gain.mean > rise.margin:
        message = f"val_loss is still falling: by {figure(gain.mean)} {UNIT} {last}"
    elif gain.mean < -rise.margin:
        message = f"val_loss rises: by {figure(-gain.mean)} {UNIT} {last}"
    else:
        message = f"val_loss is steady {last}: it changed by {signed(-gain.mean)} {UNIT}"
    return PLATEAU(rise.history, "pass", message, gain, threshold=rise.margin)
